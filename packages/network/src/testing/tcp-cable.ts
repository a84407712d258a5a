/** Two of our own TCP connections, and the cable between them, which loses, duplicates, delays, reorders and refuses. In simulated time. Not part of the package. */

import { TcpConnection } from '../tcp/connection.ts'
import type { TcpUser } from '../tcp/connection.ts'
import { Flag, MS } from '../tcp/facts.ts'
import { Segment } from '../tcp/segment.ts'

type Random = (below: number) => number

interface Flying {
  readonly due: number
  readonly to: 0 | 1
  readonly segment: Segment
}

export interface Bad {
  /** In a thousand. */
  readonly loss: number
  readonly duplicate: number
  readonly reorder: number
  readonly delayMs: number
  readonly sack: boolean
  /** Segments on their way to an end beyond which the cable refuses more. Absent: any number. */
  readonly room?: number
  /** Users stop taking what they get, for up to so long. Absent: they never do. */
  readonly napMs?: number
}

/** What an end was given, and what it said. */
export class End implements TcpUser {
  readonly received: number[] = []
  why = ''
  ended = false
  connection!: TcpConnection
  /** Takes what it gets late. */
  untaken = 0
  /** Takes nothing until then. */
  napsUntil = 0
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

export class Cable {
  now = 0
  readonly ends: [End, End] = [new End(), new End()]
  readonly flying: Flying[] = []
  readonly #refused: [boolean, boolean] = [false, false]
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
            const to = side === 0 ? 1 : 0
            if (this.#onTheWay(to) >= (bad.room ?? Infinity)) {
              this.#refused[side] = true
              return false
            }
            this.#fly(to, connection, flags, sequence, offset, length)
            return true
          },
        },
        end,
        { mss: 1000, most: side === 0 ? 1000 : 4000, window, initial: 0xffff_f000 + side },
      )
    }
  }

  #onTheWay(to: 0 | 1): number {
    let count = 0
    for (const each of this.flying) if (each.to === to) count++
    return count
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

  /** Until nothing is under way or waited for, or for so long, or until `done`. */
  run(seconds: number, done = (): boolean => false): void {
    const end = this.now + seconds * 1e9
    while (!done()) {
      this.flying.sort((left, right) => left.due - right.due)
      const next = Math.min(this.flying[0]?.due ?? Infinity, ...this.ends.map((each) => this.#nextOf(each)))
      if (next > end) return
      this.now = Math.max(this.now, next)
      while (this.flying.length > 0 && this.flying[0]!.due <= this.now) {
        const { to, segment } = this.flying.shift()!
        if (this.ends[to].connection.state !== 'closed') this.ends[to].connection.receive(segment)
      }
      this.ends.forEach((each, side) => this.#turn(each, side))
    }
  }

  #nextOf({ connection, untaken, napsUntil }: End): number {
    return Math.min(connection.deadline, untaken > 0 ? Math.max(napsUntil, this.now + MS) : Infinity)
  }

  #turn(each: End, side: number): void {
    const { connection } = each
    const { napMs = 0, room = Infinity } = this.#bad
    if (connection.deadline <= this.now) connection.expire()
    if (each.napsUntil <= this.now && (each.napsUntil > 0 || this.#random(3) === 0)) {
      const taken = each.untaken
      each.untaken = 0
      each.napsUntil = 0
      connection.taken(taken)
      if (napMs > 0 && this.#random(8) === 0) each.napsUntil = this.now + (1 + this.#random(napMs)) * MS
    }
    connection.settle()
    if (this.#refused[side] && this.#onTheWay(side === 0 ? 1 : 0) < room) {
      this.#refused[side] = false
      connection.resume()
    }
  }
}
