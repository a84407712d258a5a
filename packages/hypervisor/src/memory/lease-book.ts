/**
 * Delays freeing frames that may be lent to a transfer. A lease belongs to the era in which it began; a frame that is freed while there are leases
 * waits until every lease of its era and of the previous one has ended.
 */

type Era = 0 | 1

/** The host addresses lent to one transfer. */
export interface Lent {
  readonly starts: readonly number[]
  readonly ends: readonly number[]
  readonly era: Era
}

export class LeaseBook {
  readonly #free: (frame: number) => void
  readonly #lent = new Set<Lent>()
  #era: Era = 0
  readonly #leases: [number, number] = [0, 0]
  readonly #waiting: [number[], number[]] = [[], []]

  constructor(free: (frame: number) => void) {
    this.#free = free
  }

  begin(starts: readonly number[], ends: readonly number[]): Lent {
    this.#leases[this.#era]++
    const lent = { starts, ends, era: this.#era }
    this.#lent.add(lent)
    return lent
  }

  end(lent: Lent): void {
    if (!this.#lent.delete(lent)) return
    this.#leases[lent.era]--
    this.#settle()
  }

  /** Whether a transfer in progress has bytes of `[frame, frame + length)`. Cold: searches all of them. */
  isLent(frame: number, length: number): boolean {
    for (const { starts, ends } of this.#lent) {
      if (starts.some((start, index) => start < frame + length && ends[index]! > frame)) return true
    }
    return false
  }

  /** Frees a frame now, or when no lease that may contain it is left. */
  free(frame: number): void {
    if (this.#leases[0] + this.#leases[1] === 0) return this.#free(frame)
    this.#waiting[this.#era].push(frame)
    this.#settle()
  }

  /** If the older era has ended, frees what waited for it; the younger one becomes the older. */
  #settle(): void {
    for (let turn = 0; turn < 2; turn++) {
      const older: Era = this.#era === 0 ? 1 : 0
      if (this.#leases[older] > 0) return
      for (const frame of this.#waiting[older].splice(0)) this.#free(frame)
      if (this.#waiting[this.#era].length === 0) return
      this.#era = older
    }
  }
}
