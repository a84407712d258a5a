/**
 * The sending half of a connection: queueing, data in flight, loss detection and retransmission (RFC 6675, RFC 6582 without SACK). Independent of
 * the state machine and the wire. @hot
 */

import { ByteRing } from './byte-ring.ts'
import { Congestion } from './congestion.ts'
import { DUPLICATE_THRESHOLD } from './facts.ts'
import { Ranges } from './ranges.ts'
import { RoundTrip } from './round-trip.ts'
import type { Segment } from './segment.ts'
import { advance, earlier, isAtMost, isBefore, later, span } from './sequence.ts'

export class Sender {
  /** SND.UNA, SND.NXT, and the highest SND.NXT so far. */
  unacknowledged = 0
  next = 0
  highest = 0
  /** SND.WND, the largest it ever was, and the segment that set it. */
  window = 0
  largestWindow = 0
  windowSequence = 0
  windowAcknowledgement = 0
  mss = 536
  /** Bits that the peer's windows are shifted by. */
  scale = 0
  /** The peer sends SACK blocks. */
  sack = false
  /** Most payload of what goes to the wire at once: a multiple of `mss` where the card cuts it. */
  most = 536
  /** Data from SND.UNA on. */
  readonly queue = new ByteRing()
  /** No more data will come: a FIN follows the last of it. */
  finQueued = false
  /** What the peer has of what is under way. */
  readonly sacked = new Ranges()
  readonly congestion = new Congestion()
  readonly roundTrip = new RoundTrip()
  /** What `choose` chose. */
  chosen = 0
  chosenLength = 0
  /** The first segment under way is lost: it goes again whatever the windows say. */
  holeFound = false
  #duplicates = 0
  #recovering = false
  #recoveryPoint = 0
  /** Highest sequence number retransmitted in this recovery: HighRxt. */
  #retransmitted = 0
  #rescued = false
  /** After a time-out: sending again from SND.UNA. */
  #lossPoint = 0

  /** Handshake done: data begins at SND.UNA. */
  start(most: number): void {
    this.most = Math.max(this.mss, most - (most % this.mss))
    this.congestion.start(this.mss)
    this.#lossPoint = this.unacknowledged
  }

  /** Sequence number behind the last byte queued: of the FIN, if there is one. */
  get end(): number {
    return advance(this.unacknowledged, this.queue.length)
  }

  get flight(): number {
    return span(this.unacknowledged, this.highest)
  }

  get finSent(): boolean {
    return this.finQueued && isBefore(this.end, this.highest)
  }

  get idle(): boolean {
    return this.unacknowledged === this.highest
  }

  get recovering(): boolean {
    return this.#recovering
  }

  /** The window shuts us out with data to send and nothing under way: only a probe tells when it opens. */
  get stalled(): boolean {
    return this.idle && (this.queue.length > 0 || this.finQueued) && this.window === 0
  }

  // What to send

  /** Choose what to send next: `chosen` and `chosenLength` (0 where only a FIN is left). False: nothing now. */
  choose(): boolean {
    if (this.#recovering && this.sack) return this.#chooseInRecovery()
    return this.#chooseNew(this.congestion.window - span(this.unacknowledged, this.next))
  }

  /** Data that was never sent, or after a time-out is sent again. */
  #chooseNew(room: number): boolean {
    // What the peer has need not go again.
    const held = this.sacked.count > 0 ? this.sacked.find(this.next) : -1
    if (held >= 0) this.next = this.sacked.end(held)
    const { next, end } = this
    const left = span(next, end)
    if (left < 0 || (left === 0 && !this.finQueued)) return false
    const windowed = span(next, advance(this.unacknowledged, this.window))
    let length = Math.min(left, windowed, this.most)
    if (left > 0) {
      // At least one segment whatever the congestion window's fraction; whole segments, but for the last.
      if (room < this.mss && next !== this.unacknowledged) return false
      length = Math.min(length, Math.max(room, this.mss))
      if (length < left && length > this.mss) length -= length % this.mss
      if (length <= 0) return false
      // "the sender's SWS avoidance algorithm"
      if (length < left && length < this.mss && length < this.largestWindow / 2 && !this.idle) return false
    }
    this.chosen = next
    this.chosenLength = length < 0 ? 0 : length
    return true
  }

  /** NextSeg(), by its rules in their order, for as long as "cwnd - pipe >= 1 SMSS". */
  #chooseInRecovery(): boolean {
    if (this.congestion.window - this.#pipe() < this.mss) return false
    const { sacked } = this
    const hole = this.#nextHole()
    const start = hole < 0 ? 0 : this.#holeStart(hole)
    // 1: the first hole that was not retransmitted, if it is lost.
    if (hole >= 0 && this.#isLost(hole)) return this.#chooseHole(start, sacked.start(hole))
    // 2: new data.
    if (this.#chooseNew(this.congestion.window - this.#pipe())) return true
    // 3: that hole, though it may not be lost.
    if (hole >= 0) return this.#chooseHole(start, sacked.start(hole))
    // 4: once, the end of what is under way.
    const dataEnd = earlier(this.end, this.highest)
    if (this.#rescued || sacked.count === 0 || !isBefore(sacked.end(sacked.count - 1), dataEnd)) return false
    this.#rescued = true
    return this.#chooseHole(later(sacked.end(sacked.count - 1), advance(dataEnd, -this.mss)), dataEnd)
  }

  /** Where the hole before range `index` begins, retransmitted parts left out. */
  #holeStart(index: number): number {
    const start = index === 0 ? this.unacknowledged : this.sacked.end(index - 1)
    return later(start, this.#retransmitted)
  }

  /** The first hole of which not all was retransmitted, by the range behind it, or -1. */
  #nextHole(): number {
    for (let index = 0; index < this.sacked.count; index++)
      if (isBefore(this.#holeStart(index), this.sacked.start(index))) return index
    return -1
  }

  #chooseHole(start: number, end: number): boolean {
    const length = Math.min(span(start, earlier(end, this.end)), this.mss)
    if (length <= 0) return false
    this.chosen = start
    this.chosenLength = length
    return true
  }

  /** IsLost() of the hole before range `index`: enough was received beyond it. */
  #isLost(index: number): boolean {
    if (this.sacked.count - index >= DUPLICATE_THRESHOLD) return true
    let bytes = 0
    for (let at = index; at < this.sacked.count; at++) bytes += span(this.sacked.start(at), this.sacked.end(at))
    return bytes > (DUPLICATE_THRESHOLD - 1) * this.mss
  }

  /** SetPipe(): an estimate of what is under way. */
  #pipe(): number {
    const { sacked } = this
    let pipe = 0
    let at = this.unacknowledged
    for (let index = 0; index <= sacked.count; index++) {
      const end = index < sacked.count ? sacked.start(index) : this.highest
      const length = Math.max(0, span(at, end))
      if (index === sacked.count || !this.#isLost(index)) pipe += length
      pipe += Math.min(length, Math.max(0, span(at, this.#retransmitted)))
      if (index < sacked.count) at = sacked.end(index)
    }
    return pipe
  }

  /** What was chosen went out, with a FIN behind it if `fin`. */
  sent(now: number, fin: boolean): void {
    const end = advance(this.chosen, this.chosenLength + (fin ? 1 : 0))
    if (isAtMost(this.chosen, this.next) && isBefore(this.next, end)) {
      this.next = end
      if (isBefore(this.highest, end)) {
        this.highest = end
        if (!isBefore(this.chosen, this.#lossPoint)) this.roundTrip.sent(end, now)
        return
      }
    }
    this.roundTrip.retransmitted()
    this.#retransmitted = later(this.#retransmitted, end)
  }

  // What comes back

  /** SND.UNA moves to `acknowledgement`, which is in SND.UNA < it =< highest. Gives how many bytes of data it acknowledges. */
  acknowledge(acknowledgement: number, now: number): number {
    const flight = this.flight
    const bytes = Math.min(span(this.unacknowledged, acknowledgement), this.queue.length)
    this.queue.drop(bytes)
    this.unacknowledged = acknowledgement
    if (isBefore(this.next, acknowledgement)) this.next = acknowledgement
    this.sacked.dropBefore(acknowledgement)
    this.roundTrip.acknowledged(acknowledgement, now)
    this.#duplicates = 0
    if (!this.#recovering) this.congestion.acknowledged(bytes, flight)
    else if (isAtMost(this.#recoveryPoint, acknowledgement)) {
      this.#recovering = false
      this.congestion.window = this.congestion.threshold
    } else if (!this.sack) {
      // A partial acknowledgement: the next hole begins there. (RFC 6582)
      this.holeFound = true
      this.congestion.window = Math.max(this.mss, this.congestion.window - bytes + this.mss)
    }
    return bytes
  }

  /** Blocks of a segment. Returns whether they reported anything new. */
  sackReceived(segment: Segment): boolean {
    if (!this.sack || segment.sackBlocks === 0) return false
    const before = this.sacked.bytes
    for (let index = 0; index < segment.sackBlocks; index++) {
      const start = segment.sackStarts[index]!
      const end = segment.sackEnds[index]!
      // Of what is under way only; a block at or before SND.UNA tells of a duplicate. (RFC 2883)
      if (isBefore(this.unacknowledged, start) && isBefore(start, end) && isAtMost(end, this.highest))
        this.sacked.add(start, end)
    }
    return this.sacked.bytes > before
  }

  /** An acknowledgement that acknowledges nothing new. */
  duplicate(): void {
    if (this.#recovering) {
      if (!this.sack) this.congestion.window += this.mss
      return
    }
    this.#duplicates++
    if (this.#duplicates < DUPLICATE_THRESHOLD && !(this.sacked.count > 0 && this.#isLost(0))) return
    // What was under way when a time-out came goes again already.
    if (isBefore(this.unacknowledged, this.#lossPoint)) return
    this.#enterRecovery()
  }

  #enterRecovery(): void {
    this.#recovering = true
    this.holeFound = true
    this.#rescued = false
    this.#recoveryPoint = this.highest
    this.#retransmitted = this.unacknowledged
    this.congestion.lost(this.flight)
    this.roundTrip.retransmitted()
    if (!this.sack) this.congestion.window += DUPLICATE_THRESHOLD * this.mss
  }

  /** The first segment of what is under way, for a retransmission that no window holds back. */
  chooseFirst(): void {
    this.chosen = this.unacknowledged
    const hole = this.sacked.count > 0 ? span(this.unacknowledged, this.sacked.start(0)) : this.mss
    this.chosenLength = Math.min(this.queue.length, this.mss, hole)
  }

  /** Nothing came back in time: all that is under way goes again. What the peer said it has it may have dropped. */
  timedOut(repeated: boolean): void {
    this.congestion.timedOut(this.flight, !repeated)
    this.roundTrip.backOff()
    this.roundTrip.retransmitted()
    this.sacked.clear()
    this.#recovering = this.holeFound = false
    this.#duplicates = 0
    this.#lossPoint = this.highest
    this.next = this.unacknowledged
  }

  /** The window opens again. What a time-out sent again meanwhile found it shut, so it goes again now, not when the next one comes: these are up to a minute apart. */
  reopened(): void {
    if (!isBefore(this.unacknowledged, this.#lossPoint)) return
    this.next = this.unacknowledged
    this.holeFound = true
  }

  clear(): void {
    this.queue.clear()
    this.sacked.clear()
  }
}
