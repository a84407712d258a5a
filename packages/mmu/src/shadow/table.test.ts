/** The pool of shadow tables: which shadow a guest frame, and that one is as new when its object is used again. */
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { TablePool, type ShadowTable } from './table.ts'

const FRAME = 5
function bench(hostFrames = 64) {
  const hostMemory = createTestHostMemory(hostFrames)
  const guest = createTestGuestMemory({ hostMemory, ram: 16 * 4096 })
  const pool = new TablePool(hostMemory, guest)
  const list = () => {
    const found: ShadowTable[] = []
    for (let table = pool.shadowing(FRAME); table; table = table.next) found.push(table)
    return found
  }
  return { hostMemory, pool, list }
}

describe('the pool of shadow tables', () => {
  it.each([0, 1, 2])('takes one of three out of the list of their guest frame: number %d', (n) => {
    const { hostMemory, pool, list } = bench()
    const before = hostMemory.freeFrames
    const tables = [1, 2, 3].map((role) => pool.take(role, 1, true, 0, FRAME)!)
    pool.take(9, 1, true, 0, FRAME + 1)
    expect([pool.size, before - hostMemory.freeFrames]).toEqual([4, 4])
    expect(list()).toEqual(tables.toReversed())
    pool.give(tables[n]!)
    expect(list()).toEqual(tables.toReversed().filter((table) => table !== tables[n]))
    expect([pool.size, before - hostMemory.freeFrames]).toEqual([3, 3])
    expect(pool.shadowing(FRAME + 1)?.role).toBe(9)
  })

  it('gives one that was used as a new one', () => {
    const { pool, list } = bench()
    const used = pool.take(7, 1, true, 6, FRAME)!
    Object.assign(used, { base: 4096, unsynced: true, pins: 2, used: 3, writes: 4 })
    used.parents.push(8)
    pool.give(used)
    const again = pool.take(1, 2, false, 4, -1)!
    const fresh = { role: 1, level: 2, wide: false, access: 4, guestFrame: -1, base: 0, unsynced: false, pins: 0, used: 0, writes: 0, parents: [], next: undefined }
    expect(again).toMatchObject(fresh)
    expect(again.isDirect).toBe(true)
    expect(list()).toEqual([])
  })

  it.each([
    { wide: true, entries: 512, step: 2 },
    { wide: false, entries: 1024, step: 1 },
  ])('finds a table and its entry by a word: wide $wide', ({ wide, entries, step }) => {
    const { pool } = bench()
    const [table, other] = [pool.take(1, 1, wide, 0, FRAME)!, pool.take(1, 1, wide, 0, FRAME)!]
    expect(table.entries).toBe(entries)
    for (const index of [0, 1, entries - 1]) {
      expect(table.word(index)).toBe(table.frame / 4 + index * step)
      expect(table.indexOf(table.word(index))).toBe(index)
      expect(pool.ofWord(table.word(index))).toBe(table)
      expect(pool.ofWord(other.word(index))).toBe(other)
    }
    expect(pool.below(table.frame | 0xfff)).toBe(table)
  })

  it('has none where the host has no frame', () => {
    const { pool, hostMemory } = bench()
    while (hostMemory.allocateFrame() !== undefined);
    expect(pool.take(1, 1, true, 0, FRAME)).toBeUndefined()
    expect([pool.size, pool.shadowing(FRAME)]).toEqual([0, undefined])
  })
})
