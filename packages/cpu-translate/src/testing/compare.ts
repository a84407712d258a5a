/** What two outcomes of a program differ in, in words. */

import { isDeepStrictEqual } from 'node:util'
import { COMPARED, type Outcome } from './machines.ts'

const text = (value: unknown): string =>
  value instanceof Map
    ? text([...value])
    : (JSON.stringify(value, (_, part: unknown) => (typeof part === 'bigint' ? `0x${part.toString(16)}` : part)) ?? 'undefined')

/** One line for each difference; none if they are equal, or if the expected one did not end: where it is then depends on how instructions are counted. */
export function differences(expected: Outcome, actual: Outcome): string[] {
  if (expected.reason === 'budget') return []
  const lines: string[] = []
  const compare = (what: string, a: unknown, b: unknown): void => {
    if (!isDeepStrictEqual(a, b)) lines.push(`${what}: ${text(b)}, not ${text(a)}`)
  }
  compare('reason', expected.reason, actual.reason)
  for (const name of Object.keys(expected.state) as (keyof Outcome['state'])[])
    compare(name, expected.state[name], actual.state[name])
  if (Buffer.compare(expected.memory, actual.memory) !== 0)
    expected.memory.forEach((byte, at) => compare(`memory ${(at + COMPARED.from).toString(16)}`, byte, actual.memory[at]))
  return lines
}
