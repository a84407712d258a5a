/** The list of leaves of each guest frame against a plain map of sets. */
import { describe, expect, it } from 'vitest'
import { NONE, ReverseMap } from './reverse-map.ts'

const entriesOf = (map: ReverseMap, frame: number): number[] => {
  const entries: number[] = []
  for (let node = map.first(frame); node !== NONE; node = map.next(node)) entries.push(map.entry(node))
  return entries
}

describe('the reverse map', () => {
  it.each([
    { name: 'the newest', remove: 30, left: [20, 10] },
    { name: 'one in the middle', remove: 20, left: [30, 10] },
    { name: 'the oldest', remove: 10, left: [30, 20] },
    { name: 'one that is not there', remove: 40, left: [30, 20, 10] },
  ])('removes $name', ({ remove, left }) => {
    const map = new ReverseMap(2)
    for (const entry of [10, 20, 30]) map.add(1, entry)
    map.add(0, 10)
    map.remove(1, remove)
    expect(entriesOf(map, 1)).toEqual(left)
    expect(entriesOf(map, 0)).toEqual([10])
  })

  it('is what was added and not removed, over any number of changes', () => {
    const FRAMES = 7
    const map = new ReverseMap(FRAMES)
    const model = Array.from({ length: FRAMES }, () => new Set<number>())
    let state = 14
    const random = (below: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0
      return Math.floor((state / 2 ** 32) * below)
    }
    for (let step = 0; step < 20_000; step++) {
      const frame = random(FRAMES)
      const entry = 1 + random(700)
      // Many at a time in between: it grows, and what was given up is used again.
      if (model[frame]!.has(entry)) {
        map.remove(frame, entry)
        model[frame]!.delete(entry)
      } else if (random(3) || step % 5000 < 3500) {
        map.add(frame, entry)
        model[frame]!.add(entry)
      }
      if (step % 500 === 0) for (let at = 0; at < FRAMES; at++) expect(entriesOf(map, at).toSorted()).toEqual([...model[at]!].toSorted())
    }
  })
})
