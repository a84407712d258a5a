/** Rings that the guest shares with back ends: who notifies when, and what is no ring. (Xen, "public/io/ring.h") */

import type { Gpa } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { FrontRing } from './backends.test.support.ts'
import { BackRing, ringEntries } from './ring.ts'

function rings(bytes = 112, pageCount = 1) {
  const memory = createTestGuestMemory({ hostMemory: createTestHostMemory(32), ram: 20 * 4096 })
  // Not one after the other in memory.
  const pages = Array.from({ length: pageCount }, (_, n) => ({ address: (2 * n + 1) * 4096 }))
  const front = new FrontRing({ memory }, pages, bytes)
  const back = new BackRing(
    memory,
    pages.map(({ address }) => address as Gpa),
    bytes,
  )
  const into = new Uint8Array(bytes)
  const take = (): number[] => {
    const taken: number[] = []
    while (back.take(into)) taken.push(into[0]!)
    return taken
  }
  const of = (value: number): Uint8Array => new Uint8Array(bytes).fill(value)
  return { front, back, take, of, into, memory }
}

describe('a ring', () => {
  it.each([
    { pages: 1, bytes: 112, entries: 32 },
    { pages: 2, bytes: 112, entries: 64 },
    { pages: 16, bytes: 112, entries: 512 },
    { pages: 1, bytes: 12, entries: 256 },
    { pages: 1, bytes: 8, entries: 256 },
  ])('of $pages pages has $entries entries of $bytes bytes', ({ pages, bytes, entries }) => {
    expect(ringEntries(pages, bytes)).toBe(entries)
  })

  it.each([1, 2])('of %i pages goes round, each entry whole', (pageCount) => {
    const { front, back, take, of, into } = rings(112, pageCount)
    for (let n = 0; n < 3 * front.entries; n++) {
      front.add(of(n & 0xff))
      expect(take()).toEqual([n & 0xff])
      expect(into).toEqual(of(n & 0xff))
      back.respond(of((n + 1) & 0xff))
      back.push()
      expect(new Uint8Array(front.take()[0]!.buffer)).toEqual(of((n + 1) & 0xff))
    }
  })

  it.each([
    { more: 0, broken: false },
    { more: 1, broken: true },
  ])('that says it holds $more more than it can: broken is $broken', ({ more, broken }) => {
    const { front, back, take } = rings()
    front.say(front.entries + more)
    expect(take()).toHaveLength(broken ? 0 : front.entries)
    expect(back.broken).toBe(broken)
  })

  it('has no room for a request whose place is still to be answered', () => {
    const { front, back, take, of } = rings()
    front.say(front.entries)
    take()
    back.respond(of(0))
    front.say(front.entries + 2)
    expect([take(), back.broken]).toEqual([[], true])
  })

  it.each([
    { wanted: 1, responses: 1, notify: true },
    { wanted: 2, responses: 1, notify: false },
    { wanted: 2, responses: 2, notify: true },
    { wanted: 2, responses: 3, notify: true },
  ])('notifies of $responses responses where $wanted are wanted: $notify', ({ wanted, responses, notify }) => {
    const { front, back, take, of } = rings()
    front.add(of(1), of(2), of(3))
    take()
    front.listen(wanted)
    for (let n = 0; n < responses; n++) back.respond(of(n))
    expect(back.push()).toBe(notify)
    expect(back.push()).toBe(false)
  })

  it('wants to be notified of the next request, and sees one that came before it said so', () => {
    const { front, back, take, of } = rings()
    front.add(of(1))
    take()
    expect([back.wait(), front.wanted]).toEqual([false, 2])
    front.add(of(2))
    expect(back.wait()).toBe(true)
    expect([back.wait(2), front.wanted]).toEqual([false, 3])
  })

  it('continues where the guest had come to', () => {
    const { front, back, take, of, memory } = rings()
    front.add(of(1))
    take()
    back.respond(of(1))
    back.push()
    front.add(of(2))
    const next = new BackRing(memory, [4096 as Gpa], 112)
    const into = new Uint8Array(112)
    expect([next.take(into), into[0]]).toEqual([true, 2])
  })
})
