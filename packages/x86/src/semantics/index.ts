/** Every instruction's semantics by the key that rows name. */
import type { Semantics } from './builder.ts'
import { bit } from './bit.ts'
import { bmi } from './bmi.ts'
import { control } from './control.ts'
import { crypto } from './crypto.ts'
import { decimal } from './decimal.ts'
import { far } from './far-transfers.ts'
import { integer } from './integer.ts'
import { mmx } from './mmx.ts'
import { packed } from './packed.ts'
import { randomNumbers } from './random.ts'
import { sseArithmetic } from './sse-arithmetic.ts'
import { sseConvert } from './sse-convert.ts'
import { sse } from './sse.ts'
import { sse4 } from './sse4.ts'
import { string } from './string.ts'
import { system } from './system.ts'
import { text } from './string-compare.ts'
import { x87Environment } from './x87-environment.ts'
import { x87 } from './x87.ts'

/** One table a family of the manual; a key may stand in one only. */
const families: readonly Record<string, Semantics>[] = [
  integer, bit, string, control, x87, x87Environment, mmx, packed, sse, sseArithmetic, sseConvert, sse4, text, crypto, bmi, randomNumbers, decimal, system, far,
]

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
