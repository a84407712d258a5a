/** What suites are written with: no test runner is imported, so that they run under any. */

import { NonrootError } from '@nonroot/contracts'
import type { ErrorCode } from '@nonroot/contracts'

/** `it` of vitest, `test` of node:test, or anything that takes a name and a function. */
export type TestRegistrar = (name: string, run: () => void | Promise<void>) => unknown

export function check(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(message)
}

/** Equal as JSON, with bigints and bytes distinguished. */
export function same(left: unknown, right: unknown): boolean {
  if (left === right) return true
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, item: unknown) =>
      typeof item === 'bigint' ? `${item}n` : item instanceof Uint8Array ? [...item] : item,
    )
  return text(left) === text(right)
}

export function checkSame(found: unknown, wanted: unknown, what: string): void {
  // Suites compare after each step of long scripts: words are made for a difference alone.
  if (same(found, wanted)) return
  const text = (value: unknown): string =>
    JSON.stringify(value, (_, item: unknown) => (typeof item === 'bigint' ? `${item}n` : item)) ?? String(value)
  check(false, `${what}: found ${text(found)}, wanted ${text(wanted)}`)
}

/** `act` throws a NonrootError of this code, and nothing else. */
export function checkThrows(act: () => void, code: ErrorCode, what: string): void {
  let thrown: unknown
  try {
    act()
  } catch (error) {
    thrown = error
  }
  check(thrown instanceof NonrootError && thrown.code === code, `${what}: found ${String(thrown)}, wanted ${code}`)
}

/** A small generator with a fixed seed (xorshift32): a failure repeats. */
export function createRandom(seed = 0x2545f491): (below: number) => number {
  let state = seed | 0 || 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}
