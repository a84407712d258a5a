/** A TCP connection of the guest and a stream of the host, joined. Independent of frames. */

import type { SocketStream } from '@nonroot/contracts'
import { TcpConnection } from '../tcp/connection.ts'
import type { TcpOptions, TcpUser, TcpWire } from '../tcp/connection.ts'

/** Bytes for the guest beyond which the host's side has to wait, as a share of the window that the connection got. */
const LOW_SHARE = 0.5

export interface FlowKey {
  /** 4 or 16 bytes. */
  readonly guest: Uint8Array
  readonly guestPort: number
  /** As the guest names the other side. */
  readonly remote: Uint8Array
  readonly remotePort: number
}

export interface FlowOwner {
  nowNs(): number
  sendSegment(flow: TcpFlow, flags: number, sequence: number, offset: number, length: number): boolean
  rearm(deadline: number): void
  /** Something may wait for the end of the batch. */
  touched(flow: TcpFlow): void
  /** The host's side caused what was sent, outside any batch of the guest's: the card is to notify the guest now. */
  hostActed(flow: TcpFlow): void
  gone(flow: TcpFlow): void
}

export class TcpFlow implements TcpUser, TcpWire {
  readonly key: FlowKey
  readonly mac: Uint8Array
  readonly connection: TcpConnection
  /** Next with the same hash. */
  chained: TcpFlow | undefined
  /** In the list of those that wait for the end of the batch. */
  listed = false
  readonly #owner: FlowOwner
  readonly #most: number
  #stream: SocketStream | undefined
  #paused = false
  #hostEnded = false
  #guestEnded = false

  constructor(owner: FlowOwner, key: FlowKey, mac: Uint8Array, options: TcpOptions) {
    this.#owner = owner
    this.key = key
    this.mac = mac
    this.#most = options.window
    this.connection = new TcpConnection(this, this, options)
  }

  /** The host's side is there. */
  join(stream: SocketStream): void {
    this.#stream = stream
    stream.handle({
      data: (bytes) => {
        this.connection.write(bytes)
        if (!this.#paused && this.connection.queued >= this.#most) {
          this.#paused = true
          stream.pause()
        }
        this.#owner.hostActed(this)
      },
      end: () => {
        this.#hostEnded = true
        this.connection.end()
        this.#owner.hostActed(this)
      },
      close: () => {
        this.#stream = undefined
        // With both sides ended the guest still acknowledges what it was sent; anything else was cut off.
        if (!this.#hostEnded || !this.#guestEnded) this.connection.abort()
        this.#owner.hostActed(this)
      },
      taken: (bytes) => {
        this.connection.taken(bytes)
        this.#owner.hostActed(this)
      },
    })
  }

  // As the connection's user

  established(): void {}

  data(bytes: Uint8Array): void {
    if (this.#stream) this.#stream.write(bytes)
  }

  end(): void {
    this.#guestEnded = true
    this.#stream?.end()
  }

  drained(): void {
    if (!this.#paused || this.connection.queued >= this.#most * LOW_SHARE) return
    this.#paused = false
    this.#stream?.resume()
  }

  closed(): void {
    const stream = this.#stream
    this.#stream = undefined
    // Ended on both sides it closes by itself, once the host took what was written.
    if (stream && !(this.#hostEnded && this.#guestEnded)) stream.destroy()
    this.#owner.gone(this)
  }

  // As its wire

  nowNs(): number {
    return this.#owner.nowNs()
  }

  send(_connection: TcpConnection, flags: number, sequence: number, offset: number, length: number): boolean {
    return this.#owner.sendSegment(this, flags, sequence, offset, length)
  }

  rearm(connection: TcpConnection): void {
    this.#owner.rearm(connection.deadline)
  }
}
