import { expect, it } from 'vitest'
import { Lookup } from './lookup.ts'

it('does not grow with what was deleted', () => {
  const lookup = new Lookup()
  const before = lookup.size
  for (let n = 0; n < 100_000; n++) {
    lookup.set(n, 0, n)
    if (n >= 1000) lookup.delete(n - 1000, 0)
  }
  expect(lookup.size).toBe(before)
  expect([lookup.find(98_999, 0), lookup.find(99_000, 0), lookup.find(99_999, 0)]).toEqual([-1, 99_000, 99_999])
  for (let n = 0; n < before; n++) lookup.set(n, 1, n)
  expect(lookup.size).toBeGreaterThan(before)
})

it('finds what was set last, and nothing that was deleted', () => {
  const lookup = new Lookup()
  const expected = new Map<number, number>()
  // More than it holds at first; addresses that differ in the upper half alone among them.
  for (let n = 0; n < 40_000; n++) {
    const key = Math.imul(n, 0x9e37_79b1) | 0
    lookup.set(key, n & 1, n)
    expected.set(key, n)
    if (n % 3 === 0) {
      lookup.delete(key, n & 1)
      expected.set(key, -1)
    }
    if (n % 5 === 0) {
      lookup.set(key, n & 1, n + 1)
      expected.set(key, n + 1)
    }
  }
  for (const [key, offset] of expected) {
    const n = Math.imul(key, 0x0e8b_2f51) >>> 0
    expect([key, lookup.find(key, n & 1)]).toEqual([key, offset])
    expect(lookup.find(key, (n & 1) ^ 1)).toBe(-1)
  }
  lookup.clear()
  expect(lookup.find(Math.imul(1, 0x9e37_79b1) | 0, 1)).toBe(-1)
})
