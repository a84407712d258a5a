/** The console's ring, whatever a guest writes into it. */

import { describe, expect, it } from 'vitest'
import { consoleBench, PENDING } from './io-xen.test.support.ts'

const [OUT, OUT_CONSUMER, OUT_PRODUCER] = [4096 + 1024, 4096 + 3080, 4096 + 3084]
const [IN, IN_CONSUMER, IN_PRODUCER] = [4096, 4096 + 3072, 4096 + 3076]

describe('what the guest prints', () => {
  it.each([
    { what: 'from the start', from: 0, text: 'hello' },
    { what: 'across the end of the ring', from: 2046, text: 'hello' },
    { what: 'as indices overflow', from: 0xffff_fffe, text: 'hello' },
    { what: 'a ring full', from: 5, text: 'x'.repeat(2048) },
  ])('$what is shown whole, and the room given back', ({ from, text }) => {
    const { memory, events, ring, console, bit } = consoleBench()
    memory.writeU32(OUT_CONSUMER, from)
    ;[...text].forEach((character, n) => memory.writeU8(OUT + ((from + n) & 2047), character.charCodeAt(0)))
    memory.writeU32(OUT_PRODUCER, (from + text.length) >>> 0)
    events.send(ring.port)
    expect(console.output).toBe(text)
    expect(memory.readU32(OUT_CONSUMER)).toBe((from + text.length) >>> 0)
    expect(bit(PENDING, ring.port)).toBe(1)
  })

  it('is nothing where the indices say that there is more than a ring holds', () => {
    const { memory, events, ring, console } = consoleBench()
    memory.writeU32(OUT_PRODUCER, 2049)
    events.send(ring.port)
    expect([console.output, memory.readU32(OUT_CONSUMER)]).toEqual(['', 0])
  })
})

describe('what is typed', () => {
  it('waits for room, in order', () => {
    const { memory, events, ring, console } = consoleBench()
    console.type('a'.repeat(1000))
    console.type('b'.repeat(100))
    expect(memory.readU32(IN_PRODUCER)).toBe(1024)
    memory.writeU32(IN_CONSUMER, 1024)
    events.send(ring.port)
    expect(memory.readU32(IN_PRODUCER)).toBe(1100)
    expect([memory.readU8(IN + 999), memory.readU8(IN + 1000), memory.readU8(IN + 75)]).toEqual([97, 98, 98])
  })
})
