/**
 * One TCP connection with the guest, as its peer. (RFC 9293, "Event Processing") Independent of addresses, frames and sockets.
 *
 *   guest asks:    synReceived -> established          we ask:  synSent -> established
 *   guest first:   closeWait -> lastAck -> closed      we first: finWait1 -> finWait2 -> timeWait -> closed, or finWait1 -> closing -> timeWait
 * @hot
 */

import {
  ACKNOWLEDGEMENT_DELAY,
  FIN_WAIT,
  Flag,
  KEEP_ALIVE,
  MOST_RETRIES,
  MOST_SYN_RETRIES,
  OWN_SCALE,
  TIME_WAIT,
} from './facts.ts'
import { Receiver } from './receiver.ts'
import type { Segment } from './segment.ts'
import { Sender } from './sender.ts'
import { advance, isAtMost, isBefore } from './sequence.ts'

export type TcpState =
  | 'synSent'
  | 'synReceived'
  | 'established'
  | 'finWait1'
  | 'finWait2'
  | 'closeWait'
  | 'closing'
  | 'lastAck'
  | 'timeWait'
  | 'closed'

/** Where segments go. */
export interface TcpWire {
  nowNs(): number
  /**
   * Send a segment: payload is `length` bytes of the send queue from `offset`; SYNs carry the connection's options, others SACK blocks. False: there is no
   * room on the cable; `resume` follows.
   */
  send(connection: TcpConnection, flags: number, sequence: number, offset: number, length: number): boolean
  /** `deadline` became earlier. */
  rearm(connection: TcpConnection): void
}

/** Who is behind the connection. */
export interface TcpUser {
  established(): void
  /** Valid during the call only. Say `taken` when it is done with. */
  data(bytes: Uint8Array): void
  /** The guest sends no more. */
  end(): void
  /** Bytes of the send queue were acknowledged. */
  drained(): void
  /** Once; nothing follows. `reset`: the guest gave the connection up; `timedOut`: it does not answer. */
  closed(why: 'done' | 'reset' | 'timedOut'): void
}

export interface TcpOptions {
  /** Most payload of a segment to the guest. */
  readonly mss: number
  /** Most payload that goes to the wire at once. */
  readonly most: number
  /** Bytes the guest may have on their way to the user. */
  readonly window: number
  /** Our first sequence number. */
  readonly initial: number
}

export class TcpConnection {
  state: TcpState = 'closed'
  readonly sender = new Sender()
  readonly receiver = new Receiver()
  /** Nanoseconds of guest time at which `expire` has something to do. */
  get deadline(): number {
    return Math.min(this.#timeout, this.#delayed)
  }
  /** Of the retransmission, or of whatever the state waits for; and of an acknowledgement that is kept back. */
  #timeout = Infinity
  #delayed = Infinity
  /** An acknowledgement is to go out at the end of the batch. */
  acknowledge = false
  /** The wire had no room. */
  blocked = false
  readonly #wire: TcpWire
  readonly #user: TcpUser
  readonly #options: TcpOptions
  #retries = 0
  #lastHeard: number
  /** The user has no more data. */
  #userEnded = false

  constructor(wire: TcpWire, user: TcpUser, options: TcpOptions) {
    this.#wire = wire
    this.#user = user
    this.#options = options
    this.#lastHeard = wire.nowNs()
    const { sender, receiver } = this
    sender.unacknowledged = sender.next = sender.highest = options.initial
    receiver.limit = options.window
    receiver.scale = OWN_SCALE
    receiver.mss = options.mss
  }

  get mss(): number {
    return this.#options.mss
  }

  /** The peer scales windows, and so do we. */
  get scaled(): boolean {
    return this.receiver.scale > 0
  }

  /** Bytes that wait in the send queue. */
  get queued(): number {
    return this.sender.queue.length
  }

  // Calls of the user

  /** The guest asked by `segment`, and shall have the connection. */
  accept(segment: Segment): void {
    this.#learn(segment)
    this.state = 'synReceived'
    this.#sendSyn()
  }

  /** Ask the guest. */
  open(): void {
    this.state = 'synSent'
    this.#sendSyn()
  }

  write(bytes: Uint8Array): void {
    if (this.#userEnded || this.state === 'closed') return
    this.sender.queue.append(bytes)
    this.output()
  }

  /** No more data: half-close. */
  end(): void {
    if (this.#userEnded || this.state === 'closed') return
    this.#userEnded = true
    this.sender.finQueued = true
    this.output()
  }

  /** Give it up. */
  abort(): void {
    if (this.state === 'closed') return
    if (this.state !== 'synSent' && this.state !== 'timeWait')
      this.#wire.send(this, Flag.rst | Flag.ack, this.sender.next, 0, 0)
    this.#close('done')
  }

  /** Of a connection in TIME-WAIT, whose place another one takes. */
  finish(): void {
    this.#close('done')
  }

  /** The user took bytes on. */
  taken(bytes: number): void {
    this.receiver.untaken = Math.max(0, this.receiver.untaken - bytes)
    if (this.#receiving && this.receiver.opens) this.#sendAcknowledgement()
  }

  get #receiving(): boolean {
    return this.state === 'established' || this.state === 'finWait1' || this.state === 'finWait2'
  }

  // Segments that arrive

  receive(segment: Segment): void {
    this.#lastHeard = this.#wire.nowNs()
    if (this.state === 'synSent') this.#answered(segment)
    else if (this.state !== 'closed') this.#arrived(segment)
  }

  /** In SYN-SENT. */
  #answered(segment: Segment): void {
    const { flags, acknowledgement } = segment
    const { sender } = this
    const acceptable = (flags & Flag.ack) !== 0 && acknowledgement === sender.highest
    if (flags & Flag.ack && !acceptable) {
      if (!(flags & Flag.rst)) this.#wire.send(this, Flag.rst, acknowledgement, 0, 0)
      return
    }
    if (flags & Flag.rst) {
      if (acceptable) this.#close('reset')
      return
    }
    if (!(flags & Flag.syn)) return
    this.#learn(segment)
    if (acceptable) {
      sender.unacknowledged = acknowledgement
      this.#establish(segment)
      this.#sendAcknowledgement()
      this.output()
    } else {
      // Both asked at the same time.
      this.state = 'synReceived'
      sender.next = sender.unacknowledged
      this.#sendSyn()
    }
  }

  /** What a SYN says of the guest. */
  #learn(segment: Segment): void {
    const { sender, receiver } = this
    receiver.next = receiver.edge = advance(segment.sequence, 1)
    sender.mss = Math.min(segment.mss, this.#options.mss)
    sender.sack = segment.sackPermitted
    sender.scale = Math.max(0, segment.windowScale)
    // "both sides MUST send Window Scale options in their <SYN> segments to enable window scaling"
    if (segment.windowScale < 0) receiver.scale = 0
    // The window of a SYN is never scaled.
    sender.window = sender.largestWindow = segment.window
    sender.windowSequence = segment.sequence
    sender.windowAcknowledgement = segment.acknowledgement
  }

  #establish(segment: Segment): void {
    this.state = 'established'
    this.#retries = 0
    this.sender.start(this.#options.most)
    this.#setWindow(segment, segment.flags & Flag.syn ? 0 : this.sender.scale)
    this.#user.established()
  }

  /** In all other states. */
  #arrived(segment: Segment): void {
    const { sequence, flags, length } = segment
    const { receiver, sender } = this
    const size = length + (flags & Flag.syn ? 1 : 0) + (flags & Flag.fin ? 1 : 0)
    if (this.state === 'synReceived' && flags & Flag.syn && advance(sequence, 1) === receiver.next) {
      // Our SYN was lost.
      this.#sendSyn()
      return
    }
    if (!receiver.accepts(sequence, size)) {
      if (!(flags & Flag.rst)) this.#unacceptable(segment)
      return
    }
    if (flags & Flag.rst) {
      // RFC 5961: only an exact one; anything else is asked about.
      if (sequence === receiver.next) this.#close('reset')
      else this.#sendAcknowledgement()
      return
    }
    if (flags & Flag.syn) return this.#sendAcknowledgement()
    if (!(flags & Flag.ack)) return
    if (this.state === 'synReceived') {
      if (!this.#acknowledgesSyn(segment)) return
      sender.unacknowledged = advance(this.#options.initial, 1)
      this.#establish(segment)
    }
    if (!this.#acknowledged(segment)) return
    if (length > 0 && this.#receiving) this.#payload(segment)
    // By what was delivered the user may have ended it: `state` is asked anew.
    if (flags & Flag.fin) this.#finished(segment)
    if (this.#alive) this.output()
  }

  get #alive(): boolean {
    return this.state !== 'closed' && this.state !== 'timeWait'
  }

  /** Outside the window: an acknowledgement says what is inside. One of a probe or of our keep-alive is just that. */
  #unacceptable(segment: Segment): void {
    if (this.state === 'timeWait') this.#setDeadline(this.#wire.nowNs() + TIME_WAIT)
    if (segment.flags & Flag.ack && this.#alive && this.state !== 'synReceived') {
      // A guest whose window we fill still acknowledges.
      if (this.#acknowledged(segment)) this.output()
    }
    if (this.state !== 'closed') this.#sendAcknowledgement()
  }

  #acknowledgesSyn({ acknowledgement }: Segment): boolean {
    const { sender } = this
    if (isBefore(this.#options.initial, acknowledgement) && isAtMost(acknowledgement, sender.highest)) return true
    this.#wire.send(this, Flag.rst, acknowledgement, 0, 0)
    return false
  }

  /** ACK processing. False: the segment is to be dropped, or the connection is over. */
  #acknowledged(segment: Segment): boolean {
    const { sender } = this
    const { acknowledgement } = segment
    if (isBefore(sender.highest, acknowledgement)) {
      this.#sendAcknowledgement()
      return false
    }
    const news = sender.sackReceived(segment)
    if (isBefore(sender.unacknowledged, acknowledgement)) {
      this.#retries = 0
      const bytes = sender.acknowledge(acknowledgement, this.#wire.nowNs())
      this.#armRetransmission()
      this.#setWindow(segment, sender.scale)
      if (bytes > 0) this.#user.drained()
      return this.#finAcknowledged()
    }
    if (acknowledgement === sender.unacknowledged) {
      const same = segment.window << sender.scale === sender.window
      const empty = segment.length === 0 && !(segment.flags & Flag.fin)
      // RFC 6675: one that tells something new by SACK; RFC 5681: one that tells nothing at all.
      if (!sender.idle && (news || (!sender.sack && empty && same))) sender.duplicate()
      this.#setWindow(segment, sender.scale)
    }
    return this.#alive || this.state === 'timeWait'
  }

  /** "SND.WND SHALL be updated": by segments that are not older than the last that did. */
  #setWindow({ sequence, acknowledgement, window }: Segment, scale: number): void {
    const { sender } = this
    const newer = isBefore(sender.windowSequence, sequence)
    if (!newer && (sequence !== sender.windowSequence || isBefore(acknowledgement, sender.windowAcknowledgement)))
      return
    if (sender.window === 0 && window > 0) sender.reopened()
    sender.window = window << scale
    sender.windowSequence = sequence
    sender.windowAcknowledgement = acknowledgement
    if (sender.window > sender.largestWindow) sender.largestWindow = sender.window
    if (sender.window > 0 && sender.idle) this.#retries = 0
  }

  /** Our FIN may have been acknowledged. False: the connection is over. */
  #finAcknowledged(): boolean {
    if (!this.#finGone || !this.sender.idle) return true
    if (this.state === 'finWait1') {
      this.state = 'finWait2'
      this.#setDeadline(this.#wire.nowNs() + FIN_WAIT)
    } else if (this.state === 'closing') this.#waitTime()
    else if (this.state === 'lastAck') {
      this.#close('done')
      return false
    }
    return true
  }

  /** The FIN went out at least once. */
  #finGone = false

  #payload(segment: Segment): void {
    this.acknowledge = true
    const { receiver } = this
    // A hole, or its end, is acknowledged at once. (RFC 5681)
    if (receiver.take(segment, this.#deliver) && this.#receiving) this.#sendAcknowledgement()
  }

  readonly #deliver = (bytes: Uint8Array): void => {
    if (!this.#receiving) return
    this.receiver.untaken += bytes.length
    this.#user.data(bytes)
  }

  #finished({ sequence, length }: Segment): void {
    const { receiver } = this
    // Data before it is missing: it comes again.
    if (advance(sequence, length) !== receiver.next || !(this.#receiving || this.state === 'timeWait')) return
    this.acknowledge = true
    if (this.state === 'timeWait') return
    receiver.next = advance(receiver.next, 1)
    receiver.clear()
    if (this.state === 'established') this.state = 'closeWait'
    else if (this.state === 'finWait1') this.state = 'closing'
    else this.#waitTime()
    this.#user.end()
  }

  #waitTime(): void {
    this.state = 'timeWait'
    this.sender.clear()
    this.receiver.clear()
    this.#setDeadline(this.#wire.nowNs() + TIME_WAIT)
  }

  // Segments that go out

  #sendSyn(): void {
    const { sender } = this
    const answer = this.state === 'synReceived' ? Flag.ack : 0
    sender.highest = sender.next = advance(this.#options.initial, 1)
    this.#wire.send(this, Flag.syn | answer, this.#options.initial, 0, 0)
    this.#setDeadline(this.#wire.nowNs() + sender.roundTrip.rto)
  }

  #sendAcknowledgement(): void {
    this.acknowledge = !this.#wire.send(this, Flag.ack, this.sender.next, 0, 0)
    if (!this.acknowledge) this.#delayed = Infinity
  }

  /** The wire has room again. */
  resume(): void {
    this.blocked = false
    this.output()
    this.settle()
  }

  /** The batch of frames is over: acknowledge it now, or soon. */
  settle(): void {
    if (!this.acknowledge || this.state === 'closed') return
    if (!this.#receiving || this.receiver.due) return this.#sendAcknowledgement()
    this.acknowledge = false
    if (this.#delayed < Infinity) return
    this.#delayed = this.#wire.nowNs() + ACKNOWLEDGEMENT_DELAY
    this.#wire.rearm(this)
  }

  /** Send what can be sent. */
  output(): void {
    if (!this.#mayOutput || this.blocked) return
    const { sender } = this
    if (sender.holeFound) {
      sender.holeFound = false
      sender.chooseFirst()
      if (!this.#sendChosen()) {
        sender.holeFound = true
        return
      }
    }
    while (sender.choose()) if (!this.#sendChosen()) return
    // An idle connection's time-out is its keep-alive, which is too late for a probe.
    if (sender.stalled && this.#timeout > this.#wire.nowNs() + sender.roundTrip.rto) this.#armRetransmission()
  }

  get #mayOutput(): boolean {
    return (
      this.state === 'established' ||
      this.state === 'closeWait' ||
      this.state === 'finWait1' ||
      this.state === 'closing' ||
      this.state === 'lastAck'
    )
  }

  #sendChosen(): boolean {
    const { sender } = this
    const { chosen, chosenLength } = sender
    const offset = chosen - sender.unacknowledged
    const last = advance(chosen, chosenLength) === sender.end
    const fin = last && sender.finQueued
    const flags = Flag.ack | (last && chosenLength > 0 ? Flag.psh : 0) | (fin ? Flag.fin : 0)
    if (!this.#wire.send(this, flags, chosen, offset >>> 0, chosenLength)) {
      this.blocked = true
      return false
    }
    this.acknowledge = false
    this.#delayed = Infinity
    const wasIdle = sender.idle
    sender.sent(this.#wire.nowNs(), fin)
    if (fin) this.#finSent()
    if (wasIdle || this.#timeout === Infinity) this.#armRetransmission()
    return true
  }

  #finSent(): void {
    this.#finGone = true
    if (this.state === 'established') this.state = 'finWait1'
    else if (this.state === 'closeWait') this.state = 'lastAck'
  }

  // Time

  #armRetransmission(): void {
    const { sender } = this
    if (!this.#mayOutput) return
    if (!sender.idle || sender.stalled) this.#setDeadline(this.#wire.nowNs() + sender.roundTrip.rto)
    else this.#setDeadline(this.#wire.nowNs() + KEEP_ALIVE)
  }

  #setDeadline(deadline: number): void {
    const earlier = deadline < this.deadline
    this.#timeout = deadline
    if (earlier) this.#wire.rearm(this)
  }

  /** `deadline` passed. */
  expire(): void {
    const now = this.#wire.nowNs()
    if (this.#delayed <= now) {
      this.#delayed = Infinity
      this.#sendAcknowledgement()
    }
    if (this.#timeout > now) return
    this.#timeout = Infinity
    switch (this.state) {
      case 'closed':
        return
      case 'timeWait':
        return this.#close('done')
      case 'finWait2':
        // The user is gone in both directions only if it said so; a half-closed connection is kept, and asked after.
        return this.#keepAlive(FIN_WAIT)
      case 'synSent':
      case 'synReceived':
        if (this.#retries++ >= MOST_SYN_RETRIES) return this.#close('timedOut')
        this.sender.roundTrip.backOff()
        return this.#sendSyn()
      default:
        this.#retransmit()
    }
  }

  #retransmit(): void {
    const { sender } = this
    if (sender.idle && !sender.stalled) return this.#keepAlive(KEEP_ALIVE)
    if (sender.stalled) {
      // "Probing zero windows": for as long as the guest answers at all, which resets the count below.
      if (this.#wire.nowNs() - this.#lastHeard > KEEP_ALIVE) return this.#close('timedOut')
      this.#probe()
      sender.roundTrip.backOff()
    } else {
      // A guest that answers, and has no room, is there.
      if (sender.window === 0 && this.#wire.nowNs() - this.#lastHeard <= sender.roundTrip.rto) this.#retries = 0
      if (this.#retries >= MOST_RETRIES) return this.#close('timedOut')
      sender.timedOut(this.#retries++ > 0)
      sender.holeFound = true
      this.blocked = false
      this.output()
    }
    if (this.#alive) this.#setDeadline(this.#wire.nowNs() + sender.roundTrip.rto)
  }

  /** A segment that the guest has to answer: it is before the window. */
  #probe(): void {
    this.#wire.send(this, Flag.ack, advance(this.sender.unacknowledged, -1), 0, 0)
  }

  #keepAlive(every: number): void {
    const now = this.#wire.nowNs()
    if (now - this.#lastHeard >= 3 * every) return this.#close('timedOut')
    if (now - this.#lastHeard >= every) this.#probe()
    this.#setDeadline(now + every)
  }

  #close(why: 'done' | 'reset' | 'timedOut'): void {
    if (this.state === 'closed') return
    this.state = 'closed'
    this.#timeout = this.#delayed = Infinity
    this.acknowledge = false
    this.sender.clear()
    this.receiver.clear()
    this.#user.closed(why)
  }
}
