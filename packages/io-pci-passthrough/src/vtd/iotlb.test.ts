import { describe, expect, it } from 'vitest'
import { Iotlb } from './iotlb.ts'

/** Has pages of domain 1, and one page of domain 2; `entry` is what a page was entered with. */
const PAGES = [0, 1, 7, 8, 9, 15, 16, 17, 100, 5000, 2 ** 36 - 1]
const entry = (page: number): number => (page % 1024) * 4096 + 3

function filled(): Iotlb {
  const iotlb = new Iotlb()
  for (const page of PAGES) iotlb.enter(1, page, entry(page))
  iotlb.enter(2, 9, 3)
  return iotlb
}
const kept = (iotlb: Iotlb): number[] => PAGES.filter((page) => iotlb.find(1, page) === entry(page))

describe('forgets', () => {
  it.each<[string, [domain?: number, page?: number, count?: number], forgotten: number[], other: boolean]>([
    ['everything', [], PAGES, false],
    ['a domain', [1], PAGES, true],
    ['one page', [1, 8, 1], [8], true],
    ['the pages of a range, its last one included', [1, 8, 8], [8, 9, 15], true],
    ['a range that begins between pages that are there', [1, 10, 7], [15, 16], true],
    ['a range larger than the cache, its first page included', [1, 8, 2 ** 20], [8, 9, 15, 16, 17, 100, 5000], true],
    ['such a range up to its last page', [1, 1, 16384], PAGES.slice(1, -1), true],
    ['the highest page', [1, 2 ** 36 - 1, 1], [2 ** 36 - 1], true],
    ['nothing of a domain without pages', [3], [], true],
  ])('%s', (_what, range, forgotten, other) => {
    const iotlb = filled()
    iotlb.forget(...range)
    expect(kept(iotlb)).toEqual(PAGES.filter((page) => !forgotten.includes(page)))
    expect(iotlb.find(2, 9)).toBe(other ? 3 : -1)
  })

  it('and takes what is entered afterwards', () => {
    const iotlb = filled()
    iotlb.forget()
    iotlb.enter(1, 8, entry(8))
    expect(kept(iotlb)).toEqual([8])
  })
})

it('finds no page beyond the widest address, which would be the next domain’s', () => {
  const iotlb = new Iotlb()
  iotlb.enter(2, 0, 3)
  expect([iotlb.find(1, 2 ** 36), iotlb.find(2, 0)]).toEqual([-1, 3])
})
