/**
 * One stream between host and guest, with its credit. Independent of queues.
 *
 *   by the guest:  connecting -> open    by the host:  requested -> open
 *   open -> ending (the host's side is closed, the guest is notified) -> gone
 */

import type { SocketStream } from '@nonroot/contracts'
import { ByteQueue } from '../byte-queue.ts'

/** What a guest may send before we took anything on. */
export const BUFFER_SIZE = 256 * 1024
/** Bytes for the guest beyond which the host's side has to wait. What is on its way may still come. */
const ENOUGH = 256 * 1024
const MOST = 4 * ENOUGH

export class Connection {
  readonly guestPort: number
  readonly hostPort: number
  state: 'connecting' | 'requested' | 'open' | 'ending' = 'connecting'
  stream: SocketStream | undefined
  /** For the guest. */
  readonly outgoing = new ByteQueue(MOST)
  /** Free-running, 32 bits: payload that we sent, that we took, and took when the guest was last notified. */
  sent = 0
  forwarded = 0
  told = 0
  /** Payload received, of which `forwarded` was taken on by the host. */
  received = 0
  /** As the guest says. */
  peerSize = 0
  peerForwarded = 0
  /** The host's side sends no more, and the guest was notified. */
  hostEnded = false
  shutdownSent = 0
  /** The guest sends, or wants, no more. */
  guestShutdown = 0
  #paused = false

  constructor(guestPort: number, hostPort: number) {
    this.guestPort = guestPort
    this.hostPort = hostPort
  }

  /** Bytes that the guest has room for. */
  get credit(): number {
    const flying = (this.sent - this.peerForwarded) >>> 0
    return Math.max(0, this.peerSize - flying)
  }

  /** Bytes that the guest may still send. */
  get room(): number {
    return BUFFER_SIZE - ((this.received - this.forwarded) >>> 0)
  }

  /** False: more than we asked for came; the stream cannot go on. */
  addOutgoing(bytes: Uint8Array): boolean {
    if (this.outgoing.add(bytes) < bytes.length) return false
    if (this.outgoing.length >= ENOUGH && !this.#paused) {
      this.#paused = true
      this.stream?.pause()
    }
    return true
  }

  takeOutgoing(into: Uint8Array): void {
    this.outgoing.take(into)
    this.sent = (this.sent + into.length) >>> 0
    if (this.#paused && this.outgoing.length < ENOUGH / 2) {
      this.#paused = false
      this.stream?.resume()
    }
  }
}
