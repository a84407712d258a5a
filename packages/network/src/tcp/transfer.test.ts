/** Two of our own ends over a cable that loses, duplicates, delays and reorders: what was sent arrives, once and in order, and both sides end. */

import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { Cable } from '../testing/tcp-cable.ts'
import type { Segment } from './segment.ts'

const CABLES = [
  { what: 'good', loss: 0, duplicate: 0, reorder: 0, delayMs: 0 },
  { what: 'losing', loss: 50, duplicate: 0, reorder: 0, delayMs: 1 },
  { what: 'losing a third', loss: 330, duplicate: 0, reorder: 0, delayMs: 1 },
  { what: 'duplicating', loss: 0, duplicate: 200, reorder: 0, delayMs: 1 },
  { what: 'reordering', loss: 0, duplicate: 0, reorder: 200, delayMs: 1 },
  { what: 'slow', loss: 0, duplicate: 0, reorder: 0, delayMs: 150 },
  { what: 'bad in all', loss: 30, duplicate: 30, reorder: 100, delayMs: 5 },
]

describe.each([true, false])('SACK: %s', (sack) => {
  it.each(CABLES)('transfers over a cable that is $what', ({ loss, duplicate, reorder, delayMs }) => {
    for (let seed = 1; seed <= 5; seed++) {
      const random = createRandom(seed * 7919)
      const cable = new Cable({ loss, duplicate, reorder, delayMs, sack }, random, seed % 2 ? 256 * 1024 : 16 * 1024)
      const [one, other] = cable.ends
      const data = [0, 1].map(() => Uint8Array.from({ length: 20_000 + random(60_000) }, () => random(256)))
      one.connection.open()
      const [syn] = cable.flying.splice(0)
      // Its SYN may be lost: then it comes again.
      other.connection.accept(syn?.segment ?? retried(cable))
      cable.ends.forEach((end, side) => {
        for (let at = 0; at < data[side]!.length; at += 7000) end.connection.write(data[side]!.subarray(at, at + 7000))
        end.connection.end()
      })
      cable.run(3600)
      expect(Buffer.from(other.received).equals(data[0]!), `seed ${seed}`).toBe(true)
      expect(Buffer.from(one.received).equals(data[1]!), `seed ${seed}`).toBe(true)
      // The last acknowledgement may be lost for longer than TIME-WAIT lasts; nobody is there then to say so.
      expect([one.why, other.why], `seed ${seed}`).toContain('done')
      expect([one.ended, other.ended], `seed ${seed}`).toEqual([true, true])
    }
  })
})

/**
 * Users that stop taking for seconds, and a cable without room, stop a transfer for as long as they do, and not longer: not until a keep-alive, nor until a
 * time-out that grew meanwhile. For longer: NONROOT_FUZZ_SECONDS=1800, and NONROOT_FUZZ_SEED repeats.
 */
const SECONDS = Number(process.env['NONROOT_FUZZ_SECONDS'] ?? 1)
const SEED = Number(process.env['NONROOT_FUZZ_SEED'] ?? 1)
it(`no transfer stands still (seed ${SEED})`, { timeout: SECONDS * 1000 + 60_000 }, () => {
  const until = Date.now() + SECONDS * 1000
  let seed = SEED
  do {
    const random = createRandom(seed)
    const lossy = random(2) === 1
    const bad = {
      loss: lossy ? random(30) : 0,
      duplicate: random(30),
      reorder: lossy ? random(100) : 0,
      delayMs: random(3),
      sack: random(4) > 0,
      room: 1 + random(30),
      napMs: random(3000),
    }
    const cable = new Cable(bad, random, (16 * 1024) << random(5))
    const { ends } = cable
    ends[0].connection.open()
    ends[1].connection.accept(cable.flying.splice(0)[0]?.segment ?? retried(cable))
    const data = ends.map(() => new Uint8Array(random(400_000)).map((_, index) => index * 7))
    const written = [0, 0]
    let progress = 0
    let moved = 0
    const done = (): boolean => {
      ends.forEach((end, side) => {
        const { connection } = end
        // As a flow does: the host is held up while a window's worth waits.
        while (written[side]! < data[side]!.length && connection.queued < 64 * 1024) {
          const piece = data[side]!.subarray(written[side], written[side]! + 1 + random(20_000))
          written[side]! += piece.length
          connection.write(piece)
          if (written[side] === data[side]!.length) connection.end()
        }
      })
      const sum = ends[0].received.length + ends[1].received.length
      if (sum > moved || ends.some((end) => end.napsUntil > cable.now && end.untaken > 0)) progress = cable.now
      moved = sum
      // Time-outs of several losses in a row double.
      const most = lossy ? 60e9 : 3e9
      if (cable.now - progress > most)
        throw new Error(`nothing moved for ${most / 1e9} s: seed ${seed}, ${JSON.stringify(bad)}`)
      return ends.every((end) => end.ended)
    }
    if (data.every(({ length }) => length > 0)) {
      cable.run(36_000, done)
      expect(
        ends.map(({ received }, side) => Buffer.from(received).equals(data[1 - side]!)),
        `seed ${seed}`,
      ).toEqual([true, true])
    }
    seed++
  } while (Date.now() < until)
})

function retried(cable: Cable): Segment {
  while (cable.flying.length === 0) {
    cable.now = cable.ends[0].connection.deadline
    cable.ends[0].connection.expire()
  }
  return cable.flying.splice(0)[0]!.segment
}
