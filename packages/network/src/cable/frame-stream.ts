/**
 * Frames over a stream of bytes: each with its length before it, four bytes, big-endian, as passt and QEMU's stream netdev have it. Bounded both ways.
 * Independent of protocols and sockets.
 */

import { LONGEST_FRAME, SHORTEST_FRAME } from '@nonroot/contracts'
import type { SocketStream } from '@nonroot/contracts'

const LENGTH = 4
/** Bytes that wait to be taken by the host: with more there is no room, until less than half waits. */
const MOST_WAITING = 1024 * 1024
const BATCH = 128 * 1024

export interface FrameStreamUser {
  /** Valid during the call only. False: no room; `resume` is called when there is. */
  frame(frame: Uint8Array): boolean
  /** No more frames for now. */
  flush(): void
  /** There is room for frames again. */
  ready(): void
  /** It is over. */
  closed(): void
}

export class FrameStream {
  readonly #stream: SocketStream
  readonly #user: FrameStreamUser
  // Out
  #batch = new Uint8Array(BATCH)
  #batched = 0
  #untaken = 0
  #refused = false
  // In
  #pending: Uint8Array = new Uint8Array(0)
  #paused = false
  #closed = false

  constructor(stream: SocketStream, user: FrameStreamUser) {
    this.#stream = stream
    this.#user = user
    stream.handle({
      data: (bytes) => this.#arrived(bytes),
      end: () => this.close(),
      close: () => this.#over(),
      taken: (bytes) => this.#taken(bytes),
    })
  }

  /** Is there room for a frame, however long, and all it is cut into? If not, `ready` follows. */
  room(): boolean {
    if (this.#untaken + this.#batched < MOST_WAITING) return true
    this.flush()
    this.#refused = true
    return false
  }

  send(frame: Uint8Array): void {
    const size = LENGTH + frame.length
    if (this.#batched + size > BATCH) this.flush()
    const at = this.#batched
    new DataView(this.#batch.buffer).setUint32(at, frame.length)
    this.#batch.set(frame, at + LENGTH)
    this.#batched += size
  }

  flush(): void {
    if (this.#batched === 0 || this.#closed) return
    this.#untaken += this.#batched
    this.#stream.write(this.#batch.subarray(0, this.#batched))
    this.#batched = 0
  }

  #taken(bytes: number): void {
    this.#untaken -= bytes
    if (!this.#refused || this.#untaken > MOST_WAITING / 2) return
    this.#refused = false
    this.#user.ready()
  }

  #arrived(bytes: Uint8Array): void {
    let all = bytes
    if (this.#pending.length > 0) {
      all = new Uint8Array(this.#pending.length + bytes.length)
      all.set(this.#pending)
      all.set(bytes, this.#pending.length)
    }
    this.#pending = this.#paused ? all : this.#parse(all).slice()
    // One part of a frame, or what came before a pause took effect.
    this.#user.flush()
  }

  /** Gives what is left: a part of a frame, or what there was no room for. */
  #parse(bytes: Uint8Array): Uint8Array {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    let at = 0
    while (!this.#closed && at + LENGTH <= bytes.length) {
      const length = view.getUint32(at)
      if (length > LONGEST_FRAME) {
        // No peer sends this: the stream is out of step, and stays so.
        this.close()
        break
      }
      if (at + LENGTH + length > bytes.length) break
      const frame = bytes.subarray(at + LENGTH, at + LENGTH + length)
      if (length >= SHORTEST_FRAME && !this.#user.frame(frame)) {
        this.#paused = true
        this.#stream.pause()
        break
      }
      at += LENGTH + length
    }
    return this.#closed ? new Uint8Array(0) : bytes.subarray(at)
  }

  /** The user has room again. */
  resume(): void {
    if (!this.#paused || this.#closed) return
    this.#paused = false
    this.#pending = this.#parse(this.#pending).slice()
    this.#user.flush()
    if (!this.#paused) this.#stream.resume()
  }

  close(): void {
    if (this.#closed) return
    this.#stream.destroy()
    this.#over()
  }

  #over(): void {
    if (this.#closed) return
    this.#closed = true
    this.#pending = new Uint8Array(0)
    this.#user.closed()
  }
}
