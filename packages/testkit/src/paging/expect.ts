/** `expect` as test runners have it, as far as the paging suite needs: no runner is imported, so that the suite runs under any. */

import { check, checkSame } from '../check.ts'

export interface Expectation {
  toBe(wanted: unknown): void
  toEqual(wanted: unknown): void
  toBeGreaterThan(least: number): void
  toMatch(pattern: RegExp): void
  /** Each of these properties, whatever else there is. */
  toMatchObject(wanted: Readonly<Record<string, unknown>>): void
}

export const expect = (found: unknown, what = 'value'): Expectation => ({
  toBe: (wanted) => check(Object.is(found, wanted), `${what}: found ${String(found)}, wanted ${String(wanted)}`),
  toEqual: (wanted) => checkSame(found, wanted, what),
  toBeGreaterThan: (least) => check(Number(found) > least, `${what}: ${String(found)} is not above ${least}`),
  toMatch: (pattern) => check(pattern.test(String(found)), `${what}: ${String(found)} does not match ${pattern}`),
  toMatchObject(wanted) {
    const object = Object(found) as Readonly<Record<string, unknown>>
    for (const [key, value] of Object.entries(wanted)) checkSame(object[key], value, `${what}.${key}`)
  },
})
