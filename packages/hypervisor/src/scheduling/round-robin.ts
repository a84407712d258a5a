/** Every vCPU that is awake in turn, for the same time. Weights and caps are not known here. @hot */

import type { Schedulable, Scheduler, Slice } from '@nonroot/contracts'

export interface RoundRobinOptions {
  /** Milliseconds. */
  readonly slice?: number | undefined
}

export class RoundRobin implements Scheduler {
  readonly #all: Schedulable[] = []
  readonly #awake = new Set<Schedulable>()
  /** Position in `#all` to look at first. */
  #next = 0
  readonly #slice: { who: Schedulable; readonly sliceNs: number }

  constructor({ slice = 1 }: RoundRobinOptions = {}) {
    this.#slice = { who: undefined as never, sliceNs: slice * 1e6 }
  }

  add(who: Schedulable): void {
    this.#all.push(who)
  }
  remove(who: Schedulable): void {
    const at = this.#all.indexOf(who)
    if (at < 0) return
    this.#all.splice(at, 1)
    if (at < this.#next) this.#next--
    this.#awake.delete(who)
  }
  wake(who: Schedulable): void {
    if (this.#all.includes(who)) this.#awake.add(who)
  }
  sleep(who: Schedulable): void {
    this.#awake.delete(who)
  }

  next(processor: number): Slice | undefined {
    const count = this.#all.length
    for (let step = 0; step < count; step++) {
      const index = this.#next < count ? this.#next : 0
      this.#next = index + 1
      const who = this.#all[index]!
      if (!this.#awake.has(who) || who.affinity?.has(processor) === false) continue
      this.#slice.who = who
      return this.#slice
    }
    return undefined
  }
  ran(): void {}
}
