/**
 * How any thread ends the `run` of a vCPU: two words of shared memory, in the vCPU's block. The first is the request, the second the era, which the
 * vCPU's thread raises when it enters guest code and when it leaves it: odd inside, even outside.
 */

/** Where the two words of a vCPU lie. Plain data: `postMessage` takes it to another thread. */
export interface KickAddress {
  readonly buffer: ArrayBufferLike
  /** Byte offset of the request word, a multiple of 4. */
  readonly offset: number
}

/** Bytes of the two words. */
export const KICK_BYTES = 8

/** Words of a vCPU that has no block in host memory: tests and processors of other kinds. */
export const createKickAddress = (): KickAddress => ({ buffer: new SharedArrayBuffer(KICK_BYTES), offset: 0 })

const wordsOf = ({ buffer, offset }: KickAddress): Int32Array => new Int32Array(buffer, offset, 2)
const REQUEST = 0
const ERA = 1
/** What a request writes: more than any number of instructions that is left, so that code may compare the two. */
const REQUESTED = 0x7fff_ffff

/** The side of any thread that has the address. */
export class VcpuKick {
  readonly #words: Int32Array

  constructor(address: KickAddress) {
    this.#words = wordsOf(address)
  }

  /** Requests that `run` returns. Wakes a vCPU that sleeps. Gives a ticket for `isAnswered` and `wait`. */
  post(): number {
    // Read first: once the request is there the vCPU may take it, leave and enter again. Where it is outside, the era that it may enter unaware.
    const ticket = Atomics.load(this.#words, ERA) | 1
    Atomics.store(this.#words, REQUEST, REQUESTED)
    Atomics.notify(this.#words, REQUEST)
    return ticket
  }

  /** Whether the vCPU is outside guest code, or has been since the request was posted. It looks at the request before it enters again. */
  isAnswered(ticket: number): boolean {
    const era = Atomics.load(this.#words, ERA)
    return (era & 1) === 0 || ((era - ticket) | 0) > 0
  }

  /** Blocks the calling thread, never the vCPU's own, until `isAnswered`. False: `timeoutMs` milliseconds passed before. */
  wait(ticket: number, timeoutMs = Infinity): boolean {
    return this.isAnswered(ticket) || Atomics.wait(this.#words, ERA, ticket, timeoutMs) !== 'timed-out'
  }
}

/** The side of the thread that runs the vCPU. @hot */
export class KickInbox {
  readonly address: KickAddress
  readonly #words: Int32Array

  constructor(address: KickAddress) {
    this.address = address
    this.#words = wordsOf(address)
  }

  /** The same as `VcpuKick.post`, by the vCPU's own thread. */
  request(): void {
    Atomics.store(this.#words, REQUEST, REQUESTED)
  }

  get isRequested(): boolean {
    return Atomics.load(this.#words, REQUEST) !== 0
  }

  /** Whether there was a request; it is taken. */
  take(): boolean {
    return Atomics.exchange(this.#words, REQUEST, 0) !== 0
  }

  /** Guest code may run from here on. Look at `isRequested` after this, not before. */
  enter(): void {
    Atomics.add(this.#words, ERA, 1)
  }

  /** No guest code runs any more. */
  leave(): void {
    Atomics.add(this.#words, ERA, 1)
    Atomics.notify(this.#words, ERA)
  }
}
