/** Arguments of commands: checks types and names, and refuses others with QEMU's error messages. */

import { QmpError } from './qmp-session.ts'
import type { QmpArguments } from './qmp-session.ts'

const TYPES = { integer: Number.isSafeInteger, boolean: isBoolean, string: isString } as const
interface Values {
  integer: number
  boolean: boolean
  string: string
}
type Shape = Readonly<Record<string, keyof Values>>

function isBoolean(value: unknown): boolean {
  return typeof value === 'boolean'
}
function isString(value: unknown): boolean {
  return typeof value === 'string'
}

/** All of them are required, and there are no others. */
export function checked<S extends Shape>(given: QmpArguments, shape: S): { [K in keyof S]: Values[S[K]] } {
  for (const [name, type] of Object.entries(shape)) {
    if (given[name] === undefined) throw new QmpError(`Parameter '${name}' is missing`)
    if (!TYPES[type](given[name])) throw new QmpError(`Invalid parameter type for '${name}', expected: ${type}`)
  }
  const unknown = Object.keys(given).find((name) => !Object.hasOwn(shape, name))
  if (unknown !== undefined) throw new QmpError(`Parameter '${unknown}' is unexpected`)
  return given as never
}
