/** The IOTLB: translations of pages by domain, direct-mapped. ("Caching Translation Information") @hot */

const ENTRIES = 16384
/** Pages of the widest address (48 bits). */
const PAGES = 2 ** 36
const EMPTY = 0

export class Iotlb {
  /** Domain and page, plus one; exact in a double. */
  readonly #tags = new Float64Array(ENTRIES)
  readonly #entries = new Float64Array(ENTRIES)
  #used = false

  /** The frame's address with rights in bits 1:0; -1: not cached. */
  find(domain: number, page: number): number {
    const slot = slotOf(domain, page)
    // A page beyond the widest address would have a tag of the next domain.
    return this.#tags[slot] === tagOf(domain, page) && page < PAGES ? this.#entries[slot]! : -1
  }

  enter(domain: number, page: number, entry: number): void {
    const slot = slotOf(domain, page)
    this.#tags[slot] = tagOf(domain, page)
    this.#entries[slot] = entry
    this.#used = true
  }

  /** Forgets everything, a domain, or `count` pages of it. */
  forget(domain?: number, page = 0, count = PAGES): void {
    if (!this.#used) return
    if (domain === undefined) {
      this.#tags.fill(EMPTY)
      this.#used = false
      return
    }
    const first = tagOf(domain, page)
    if (count < ENTRIES) {
      for (let index = 0; index < count; index++) {
        const slot = slotOf(domain, page + index)
        if (this.#tags[slot] === first + index) this.#tags[slot] = EMPTY
      }
      return
    }
    for (let slot = 0; slot < ENTRIES; slot++) {
      const tag = this.#tags[slot]!
      if (tag >= first && tag < first + count) this.#tags[slot] = EMPTY
    }
  }
}

const tagOf = (domain: number, page: number): number => domain * PAGES + page + 1
/** Neighbours in a domain never share an entry; the same pages of two domains rarely do. */
const slotOf = (domain: number, page: number): number => (page + domain * 4099) & (ENTRIES - 1)
