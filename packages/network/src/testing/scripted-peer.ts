/** A TCP connection and a peer whose every segment a test writes. Sequence numbers count from the first of each side. Not part of the package. */

import { TcpConnection } from '../tcp/connection.ts'
import type { TcpOptions } from '../tcp/connection.ts'
import { Flag, MS } from '../tcp/facts.ts'
import { Segment } from '../tcp/segment.ts'

const OURS = 0xffff_fff0 // so that every test goes over the end of the sequence space
const THEIRS = 0xffff_ff00
const LETTERS: Readonly<Record<string, number>> = { S: Flag.syn, A: Flag.ack, F: Flag.fin, R: Flag.rst, P: Flag.psh }

export interface PeerSegment {
  /** `S`, `SA`, `A`, `FA`, `R`, ... */
  readonly flags: string
  readonly seq?: number
  readonly ack?: number
  readonly window?: number
  readonly text?: string
  readonly sack?: readonly (readonly [number, number])[]
  readonly mss?: number
  readonly scale?: number
  readonly sackPermitted?: boolean
}

export class ScriptedPeer {
  /** What the connection sent since `take`: `SA seq 0 ack 1`, `AP seq 1 ack 1 "hello"`. */
  sent: string[] = []
  /** What the user heard: `established`, `data hello`, `end`, `closed done`. */
  heard: string[] = []
  /** Room for so many more segments. */
  room = Infinity
  /** Window of the last segment, as on the wire. */
  window = 0
  /** SACK blocks of the last segment. */
  sack: number[][] = []
  now = 0
  /** The user takes on what it gets at once. */
  takes = true
  readonly connection: TcpConnection

  constructor(options: Partial<TcpOptions> = {}) {
    this.connection = new TcpConnection(
      {
        nowNs: () => this.now,
        rearm: () => {},
        send: (connection, flags, sequence, offset, length) => {
          if (this.room <= 0) return false
          this.room--
          const bytes = new Uint8Array(length)
          connection.sender.queue.copy(offset, length, bytes, 0)
          const letters = Object.entries(LETTERS).filter(([, flag]) => flags & flag)
          const ack = flags & Flag.ack ? ` ack ${(connection.receiver.next - THEIRS) | 0}` : ''
          const text = length > 0 ? ` ${length > 12 ? `${length} bytes` : `"${new TextDecoder().decode(bytes)}"`}` : ''
          this.sent.push(`${letters.map(([letter]) => letter).join('')} seq ${(sequence - OURS) | 0}${ack}${text}`)
          this.window = connection.receiver.takeWindow(connection.scaled && !(flags & Flag.syn))
          const blocks = new Uint32Array(8)
          const count = connection.receiver.sackBlocks(blocks, 4)
          this.sack = Array.from({ length: count }, (_, index) => [
            (blocks[2 * index]! - THEIRS) | 0,
            (blocks[2 * index + 1]! - THEIRS) | 0,
          ])
          return true
        },
      },
      {
        established: () => this.heard.push('established'),
        data: (bytes) => {
          this.heard.push(`data ${bytes.length > 12 ? bytes.length : new TextDecoder().decode(bytes)}`)
          if (this.takes) this.connection.taken(bytes.length)
        },
        end: () => this.heard.push('end'),
        drained: () => {},
        closed: (why) => this.heard.push(`closed ${why}`),
      },
      { mss: 100, most: 100, window: 1000, initial: OURS, ...options },
    )
  }

  segment({
    flags,
    seq = 0,
    ack,
    window = 10_000,
    text = '',
    sack = [],
    mss,
    scale = -1,
    sackPermitted,
  }: PeerSegment): Segment {
    const segment = new Segment()
    segment.flags = [...flags].reduce((sum, letter) => sum | LETTERS[letter]!, 0)
    segment.sequence = (THEIRS + seq) >>> 0
    segment.acknowledgement = ack === undefined ? 0 : (OURS + ack) >>> 0
    segment.window = window
    segment.bytes = new TextEncoder().encode(text)
    segment.length = segment.bytes.length
    if (mss !== undefined) segment.mss = mss
    segment.windowScale = scale
    segment.sackPermitted = sackPermitted ?? flags.includes('S')
    sack.forEach(([start, end], index) => {
      segment.sackStarts[index] = (OURS + start) >>> 0
      segment.sackEnds[index] = (OURS + end) >>> 0
    })
    segment.sackBlocks = sack.length
    return segment
  }

  /** The peer sends; then its batch is over. Gives what came back. */
  send(flags: string, more: Omit<PeerSegment, 'flags'> = {}): string[] {
    this.connection.receive(this.segment({ flags, ...more }))
    this.connection.settle()
    return this.take()
  }

  take(): string[] {
    return this.sent.splice(0)
  }

  /** Time passes, and what expires does. */
  wait(ms: number): string[] {
    const end = this.now + ms * MS
    while (this.connection.deadline <= end) {
      this.now = Math.max(this.now, this.connection.deadline)
      this.connection.expire()
    }
    this.now = end
    return this.take()
  }

  /** The peer asked, and both are connected. Its next sequence number is 1, and so is ours. */
  connect(syn: Omit<PeerSegment, 'flags'> = {}): this {
    this.connection.accept(this.segment({ flags: 'S', mss: 100, scale: 0, ...syn }))
    this.send('A', { seq: 1, ack: 1, window: syn.window ?? 10_000 })
    this.take()
    this.heard.length = 0
    return this
  }

  write(bytes: number | string): string[] {
    this.connection.write(typeof bytes === 'string' ? new TextEncoder().encode(bytes) : new Uint8Array(bytes).fill(120))
    return this.take()
  }
}

/** `hundreds(1, 3)`: full segments of 100 bytes as `ScriptedPeer` shows them, from and to sequence numbers. */
export const segments = (from: number, to: number, ack = 1): string[] => {
  const list: string[] = []
  for (let at = from; at < to; at += 100) list.push(`A seq ${at} ack ${ack} 100 bytes`)
  return list
}
