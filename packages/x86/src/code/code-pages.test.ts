import { expect, it } from 'vitest'
import type { Block } from './block.ts'
import { CodePages } from './code-pages.ts'

const PAGE = 3
const block = (offset: number, nextPage = -1): Block => ({ host: PAGE * 0x1000 + offset, mode: 2, first: offset, end: offset, length: 16, nextPage })
const write = (pages: CodePages, from = 0): string => (pages.hasCode(PAGE * 0x1000) ? pages.written(PAGE, from, from + 4) : 'no code')
/** The different outcomes of so many writes. */
const times = (count: number, pages: CodePages, from = 0): string[] => [...new Set(Array.from({ length: count }, () => write(pages, from)))]

it('a page whose code is written over again and again, while none of it is decoded, is taken for data', () => {
  const pages = new CodePages(8, new Uint16Array(8))
  pages.add(block(0))
  expect(times(32, pages)).toEqual(['some'])
  // Code that changes itself is decoded again in between.
  pages.add(block(64))
  expect(times(32, pages)).toEqual(['some'])
  expect(write(pages)).toEqual('all')
})

it('a page whose only code is written is kept while it is decoded again, and forgotten after 33 writes without', () => {
  const holders = new Uint16Array(8)
  const pages = new CodePages(8, holders)
  for (let turn = 0; turn < 100; turn++) {
    pages.add(block(0))
    expect(write(pages)).toBe('some')
    pages.remove(block(0))
    expect([pages.hasCode(PAGE * 0x1000), pages.isCode(PAGE, 0, 0x1000), holders[PAGE]]).toEqual([true, false, 1])
  }
  expect(times(32, pages, 0x800)).toEqual(['none'])
  expect([write(pages), holders[PAGE]]).toEqual(['no code', 0])
})

it('a page that is taken for data is forgotten with its last block', () => {
  const pages = new CodePages(8, new Uint16Array(8))
  pages.add(block(0))
  expect(times(33, pages)).toEqual(['some', 'all'])
  pages.remove(block(0))
  expect(pages.hasCode(PAGE * 0x1000)).toBe(false)
})

it('a page that is written as a whole is forgotten, whether its code was overwritten before or not', () => {
  const holders = new Uint16Array(8)
  const pages = new CodePages(8, holders)
  const all = (): string => pages.written(PAGE, 0, 0x1000)
  pages.add(block(0))
  expect(all()).toBe('all')
  pages.remove(block(0))
  expect([pages.hasCode(PAGE * 0x1000), holders[PAGE]]).toEqual([false, 0])
  pages.add(block(0))
  write(pages)
  pages.remove(block(0))
  expect([all(), holders[PAGE]]).toEqual(['none', 0])
})

it('a block that reaches into its own frame, which two addresses have, is dropped once', () => {
  const holders = new Uint16Array(8)
  const pages = new CodePages(8, holders)
  const crossing = block(0xff8, PAGE * 0x1000)
  pages.add(crossing)
  expect([pages.blocksIn(PAGE, 0, 4), pages.blocksIn(PAGE, 0xff8, 0xffc), pages.blocksIn(PAGE, 8, 0xff8)]).toEqual([[crossing], [crossing], []])
  expect([pages.written(PAGE, 0, 0x1000), pages.blocksIn(PAGE, 0, 0x1000)]).toEqual(['all', [crossing]])
  pages.remove(crossing)
  expect([pages.size, pages.hasCode(PAGE * 0x1000), holders[PAGE]]).toEqual([0, false, 0])
})

it('a processor tells its own code from that of others', () => {
  const holders = new Uint16Array(8)
  const [one, other] = [new CodePages(8, holders), new CodePages(8, holders)]
  const seen = (pages: CodePages): boolean[] => [pages.hasCode(PAGE * 0x1000), pages.isHeld(PAGE * 0x1000), pages.isHeldElsewhere(PAGE * 0x1000)]
  one.add(block(0))
  expect([seen(one), seen(other)]).toEqual([[true, true, false], [false, true, true]])
  other.add(block(0))
  expect([seen(one), seen(other)]).toEqual([[true, true, true], [true, true, true]])
  one.clear()
  expect([seen(one), seen(other)]).toEqual([[false, true, true], [true, true, false]])
})

it('the map of frames tells of pages that have code, or that code reaches into', () => {
  const pages = new CodePages(8, new Uint16Array(8))
  const map = (): number[] => Array.from({ length: 8 }, (_, frame) => Number(pages.hasCode(frame * 0x1000)))
  const crossing = block(0xff8, (PAGE + 1) * 0x1000)
  pages.add(block(0))
  pages.add(crossing)
  expect(map()).toEqual([0, 0, 0, 1, 1, 0, 0, 0])
  pages.remove(crossing)
  expect(map()).toEqual([0, 0, 0, 1, 1, 0, 0, 0])
  for (let n = 0; n < 33; n++) pages.written(PAGE + 1, 0, 4)
  expect(map()).toEqual([0, 0, 0, 1, 0, 0, 0, 0])
  pages.clear()
  expect(map()).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
})

it('the count of holders tells of every processor that has code of a frame, once each', () => {
  const holders = new Uint16Array(8)
  const [one, other] = [new CodePages(8, holders), new CodePages(8, holders)]
  const blocks = [block(0), block(64), block(0xff8, (PAGE + 1) * 0x1000)]
  for (const pages of [one, other]) for (const added of blocks) pages.add(added)
  expect([...holders]).toEqual([0, 0, 0, 2, 2, 0, 0, 0])
  for (let n = 0; n < 33; n++) one.written(PAGE, 0, 4)
  for (const added of blocks) one.remove(added)
  expect([...holders]).toEqual([0, 0, 0, 1, 2, 0, 0, 0])
  one.clear()
  expect([...holders]).toEqual([0, 0, 0, 1, 1, 0, 0, 0])
  other.clear()
  expect([...holders]).toEqual([0, 0, 0, 0, 0, 0, 0, 0])
})

it('a watched page has code until it is watched no more, with blocks or without', () => {
  const holders = new Uint16Array(8)
  const pages = new CodePages(8, holders)
  const host = PAGE * 0x1000
  pages.watch(host + 0x100, 16)
  pages.add(block(0))
  pages.remove(block(0))
  expect([pages.hasCode(host), pages.isCode(PAGE, 0x100, 0x101), pages.isCode(PAGE, 0x110, 0x118)]).toEqual([true, true, false])
  expect([pages.isWatched(PAGE), holders[PAGE]]).toEqual([true, 1])
  pages.unwatch(host)
  expect([pages.hasCode(host), pages.isWatched(PAGE), holders[PAGE]]).toEqual([false, false, 0])
})
