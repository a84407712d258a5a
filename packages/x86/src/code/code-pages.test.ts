import { expect, it } from 'vitest'
import type { Block } from './block.ts'
import { CodePages } from './code-pages.ts'

const PAGE = 3
const block = (offset: number, nextPage = -1): Block => ({ host: PAGE * 0x1000 + offset, mode: 2, first: offset, end: offset, length: 16, nextPage })
const times = (count: number, pages: CodePages): boolean[] => [...new Set(Array.from({ length: count }, () => pages.hit(PAGE)))]

it('a page whose code is written over again and again, while none of it is decoded, is taken for data', () => {
  const pages = new CodePages(new Uint8Array(8), new Uint16Array(8))
  pages.add(block(0))
  expect(times(32, pages)).toEqual([false])
  // Code that changes itself is decoded again in between.
  pages.add(block(64))
  expect(times(32, pages)).toEqual([false])
  expect(times(1, pages)).toEqual([true])
})

it('the map of frames tells of pages that have code, or that code reaches into', () => {
  const map = new Uint8Array(8)
  const pages = new CodePages(map, new Uint16Array(8))
  const crossing = block(0xff8, (PAGE + 1) * 0x1000)
  pages.add(block(0))
  pages.add(crossing)
  expect([...map]).toEqual([0, 0, 0, 1, 1, 0, 0, 0])
  pages.remove(crossing)
  expect([...map]).toEqual([0, 0, 0, 1, 0, 0, 0, 0])
  pages.clear()
  expect([...map]).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
})

it('the count of holders tells of every processor that has code of a frame, once each', () => {
  const holders = new Uint16Array(8)
  const [one, other] = [new CodePages(new Uint8Array(8), holders), new CodePages(new Uint8Array(8), holders)]
  const blocks = [block(0), block(64), block(0xff8, (PAGE + 1) * 0x1000)]
  for (const pages of [one, other]) for (const added of blocks) pages.add(added)
  expect([...holders]).toEqual([0, 0, 0, 2, 2, 0, 0, 0])
  for (const added of blocks) one.remove(added)
  expect([...holders]).toEqual([0, 0, 0, 1, 1, 0, 0, 0])
  other.clear()
  expect([...holders]).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
})

it('a watched page has code until it is watched no more, with blocks or without', () => {
  const holders = new Uint16Array(8)
  const pages = new CodePages(new Uint8Array(8), holders)
  const host = PAGE * 0x1000
  pages.watch(host + 0x100, 16)
  pages.add(block(0))
  pages.remove(block(0))
  expect([pages.hasCode(host), pages.isCode(PAGE, 0x100, 0x101), pages.isCode(PAGE, 0x110, 0x118)]).toEqual([true, true, false])
  expect([pages.isWatched(PAGE), holders[PAGE]]).toEqual([true, 1])
  pages.unwatch(host)
  expect([pages.hasCode(host), pages.isWatched(PAGE), holders[PAGE]]).toEqual([false, false, 0])
})
