/** How much of a VM's memory is in use, by a random sample of its pages. (Waldspurger 2002, 5.3) */

import type { Gpa } from '@nonroot/contracts'
import type { Member } from '../member.ts'

const SAMPLES = 100
const PERIOD_MS = 5000
/** Weights of the newest sample in the two averages; the higher average counts, so that use is seen at once and idleness after a while. */
const FAST = 0.6
const SLOW = 0.3

export class IdleSampler {
  readonly #member: Member
  #seed: number
  #sample: Gpa[] = []
  #ageMs = 0
  #fast = 1
  #slow = 1
  #returned = 0

  constructor(member: Member) {
    this.#member = member
    this.#seed = member.pages.count
  }

  /** Called often; samples once a period. */
  tick(sinceMs: number): void {
    this.#ageMs += sinceMs
    if (this.#ageMs < PERIOD_MS) return
    this.#ageMs = 0
    this.#evaluate()
    this.#choose()
  }

  #evaluate(): void {
    const { subject, frames } = this.#member
    let [seen, used] = [0, 0]
    for (const address of this.#sample) {
      if (frames.peek(address) === undefined) continue
      seen++
      if (subject.takeAccessed(address) === true) used++
    }
    if (seen < SAMPLES / 4) return
    // A VM that waits for swapped pages accesses few others meanwhile.
    const { returnedPages } = this.#member
    const part = Math.min(1, Math.max(used / seen, (returnedPages - this.#returned) / frames.residentFrames))
    this.#returned = returnedPages
    this.#fast += (part - this.#fast) * FAST
    this.#slow += (part - this.#slow) * SLOW
    this.#member.activePart = Math.max(part, this.#fast, this.#slow)
  }

  /** Clears the accessed marks of pages chosen at random. */
  #choose(): void {
    const { subject, frames, pages } = this.#member
    this.#sample = []
    for (let tries = 0; tries < 8 * SAMPLES && this.#sample.length < SAMPLES; tries++) {
      // xorshift32
      this.#seed ^= this.#seed << 13
      this.#seed ^= this.#seed >>> 17
      this.#seed ^= this.#seed << 5
      const address = pages.addressOf((this.#seed >>> 0) % pages.count)
      if (frames.peek(address) === undefined) continue
      subject.takeAccessed(address)
      this.#sample.push(address)
    }
  }
}
