/** A lock between threads in one word of shared memory: spins briefly, then sleeps if the thread may. @hot */

import { NonrootError } from '@nonroot/contracts'

const FREE = 0
const HELD = 1
/** Held, and at least one thread sleeps: the release must wake one. */
const AWAITED = 2

/** Far longer than any holder needs, to allow for the host's scheduler. */
const SPINS = 200
const NAP_MS = 100
/** Longer than any holder needs: its thread must have been terminated while it held the lock. */
const PATIENCE_MS = 10_000

export class PoolLock {
  readonly #words: Int32Array
  readonly #at: number
  readonly #patienceMs: number

  constructor(words: Int32Array, at: number, patienceMs = PATIENCE_MS) {
    this.#words = words
    this.#at = at
    this.#patienceMs = patienceMs
  }

  /** Throws `host.memory` if the holding thread seems to have ended. */
  acquire(): void {
    for (let spin = 0; spin < SPINS; spin++) {
      if (Atomics.compareExchange(this.#words, this.#at, FREE, HELD) === FREE) return
    }
    this.#wait()
  }

  release(): void {
    if (Atomics.exchange(this.#words, this.#at, FREE) === AWAITED) Atomics.notify(this.#words, this.#at, 1)
  }

  #wait(): void {
    const end = performance.now() + this.#patienceMs
    while (Atomics.exchange(this.#words, this.#at, AWAITED) !== FREE) {
      if (performance.now() > end) {
        throw new NonrootError({
          code: 'host.memory',
          message: `the pool of host memory has been locked for ${this.#patienceMs / 1000} s: a thread was ended while it took frames`,
          thing: 'host.memory',
          remedy: 'start the host anew; let threads end by themselves',
        })
      }
      try {
        Atomics.wait(this.#words, this.#at, AWAITED, Math.min(NAP_MS, this.#patienceMs))
      } catch {
        // A thread that may not sleep (a browser's main thread) keeps polling.
      }
    }
  }
}
