/** Every instruction's semantics by the key that rows name. */
import type { Semantics } from './builder.ts'
import { bit } from './bit.ts'
import { control } from './control.ts'
import { integer } from './integer.ts'
import { string } from './string.ts'

/** One table a family of the manual; a key may stand in one only. */
const families: readonly Record<string, Semantics>[] = [integer, bit, string, control]

function merge(): Record<string, Semantics> {
  const all: Record<string, Semantics> = {}
  for (const family of families)
    for (const [key, semantics] of Object.entries(family)) {
      if (all[key]) throw new Error(`semantics of ${key} are defined twice`)
      all[key] = semantics
    }
  return all
}

export const semantics: Readonly<Record<string, Semantics>> = merge()
