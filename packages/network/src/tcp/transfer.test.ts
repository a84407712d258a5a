/** Two of our own ends over a cable that loses, duplicates, delays and reorders: what was sent arrives, once and in order, and both sides end. */

import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { TcpConnection } from './connection.ts'
import type { TcpUser } from './connection.ts'
import { Flag, MS } from './facts.ts'
import { Segment } from './segment.ts'

type Random = (below: number) => number

interface Flying {
  readonly due: number
  readonly to: 0 | 1
  readonly segment: Segment
}

interface Bad {
  /** In a thousand. */
  readonly loss: number
  readonly duplicate: number
  readonly reorder: number
  readonly delayMs: number
  readonly sack: boolean
}

/** What an end was given, and what it said. */
class End implements TcpUser {
  readonly received: number[] = []
  why = ''
  ended = false
  connection!: TcpConnection
  /** Takes what it gets late. */
  untaken = 0
  established(): void {}
  data(bytes: Uint8Array): void {
    for (const byte of bytes) this.received.push(byte)
    this.untaken += bytes.length
  }
  end(): void {
    this.ended = true
  }
  drained(): void {}
  closed(why: string): void {
    this.why = why
  }
}

class Cable {
  now = 0
  readonly ends: [End, End] = [new End(), new End()]
  readonly flying: Flying[] = []
  readonly #bad: Bad
  readonly #random: Random

  constructor(bad: Bad, random: Random, window: number) {
    this.#bad = bad
    this.#random = random
    for (const side of [0, 1] as const) {
      const end = this.ends[side]
      end.connection = new TcpConnection(
        {
          nowNs: () => this.now,
          rearm: () => {},
          send: (connection, flags, sequence, offset, length) => {
            this.#fly(side === 0 ? 1 : 0, connection, flags, sequence, offset, length)
            return true
          },
        },
        end,
        { mss: 1000, most: side === 0 ? 1000 : 4000, window, initial: 0xffff_f000 + side },
      )
    }
  }

  #fly(to: 0 | 1, connection: TcpConnection, flags: number, sequence: number, offset: number, length: number): void {
    const segment = new Segment()
    segment.flags = flags
    segment.sequence = sequence
    segment.acknowledgement = flags & Flag.ack ? connection.receiver.next : 0
    segment.window = connection.receiver.takeWindow(connection.scaled && !(flags & Flag.syn))
    segment.bytes = new Uint8Array(length)
    segment.length = length
    connection.sender.queue.copy(offset, length, segment.bytes, 0)
    const syn = (flags & Flag.syn) !== 0
    if (syn) segment.mss = 1000
    segment.windowScale = syn ? 3 : -1
    segment.sackPermitted = syn && this.#bad.sack
    const blocks = new Uint32Array(8)
    segment.sackBlocks = connection.sender.sack ? connection.receiver.sackBlocks(blocks, 4) : 0
    for (let index = 0; index < segment.sackBlocks; index++) {
      segment.sackStarts[index] = blocks[2 * index]!
      segment.sackEnds[index] = blocks[2 * index + 1]!
    }
    const { loss, duplicate, reorder, delayMs } = this.#bad
    if (this.#random(1000) < loss) return
    const copies = this.#random(1000) < duplicate ? 2 : 1
    for (let copy = 0; copy < copies; copy++) {
      const late = this.#random(1000) < reorder ? 3 * MS : 0
      this.flying.push({ due: this.now + delayMs * MS + late + copy, to, segment })
    }
  }

  /** Until nothing flies and nobody waits, or for so long. */
  run(seconds: number): void {
    const end = this.now + seconds * 1e9
    for (;;) {
      this.flying.sort((left, right) => left.due - right.due)
      const next = Math.min(this.flying[0]?.due ?? Infinity, ...this.ends.map(({ connection }) => connection.deadline))
      if (next > end) return
      this.now = Math.max(this.now, next)
      while (this.flying.length > 0 && this.flying[0]!.due <= this.now) {
        const { to, segment } = this.flying.shift()!
        if (this.ends[to].connection.state !== 'closed') this.ends[to].connection.receive(segment)
      }
      for (const each of this.ends) {
        if (each.connection.deadline <= this.now) each.connection.expire()
        if (this.#random(3) === 0) {
          each.connection.taken(each.untaken)
          each.untaken = 0
        }
        each.connection.settle()
      }
    }
  }
}

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

function retried(cable: Cable): Segment {
  while (cable.flying.length === 0) {
    cable.now = cable.ends[0].connection.deadline
    cable.ends[0].connection.expire()
  }
  return cable.flying.splice(0)[0]!.segment
}
