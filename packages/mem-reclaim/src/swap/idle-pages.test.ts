import { expect, it } from 'vitest'
import type { Member } from '../member.ts'
import { IdlePages } from './idle-pages.ts'

/** Four pages, of which some are in use at each look. */
function bench() {
  const used = new Set<number>()
  const member = {
    pages: { count: 4, addressOf: (page: number) => page },
    frames: { peek: () => 1 },
    subject: { takeAccessed: (page: number) => used.has(page) },
  } as unknown as Member
  const idle = new IdlePages(member)
  const first = (count: number): number[] => {
    const found: number[] = []
    for (const page of idle.victims()) if (found.push(page) === count) break
    return found
  }
  return { idle, used, first }
}

it('offers pages that were idle at three looks, one in use not', () => {
  const { idle, used, first } = bench()
  used.add(2)
  idle.advance(12)
  expect(first(3)).toEqual([0, 1, 3])
})

it('offers a page that has just come back after all others', () => {
  const { idle, first } = bench()
  idle.advance(12)
  idle.touched(1)
  expect(first(3)).toEqual([0, 2, 3])
})
