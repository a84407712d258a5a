/** Which pages of a VM have not been used for long: a clock hand goes over them and reads their accessed marks. */

import type { Gpa } from '@nonroot/contracts'
import type { Member } from '../member.ts'

/** A page that is found idle so often in a row counts as idle. */
const OLD = 3

export class IdlePages {
  readonly #member: Member
  /** For each page, how often in a row it was found idle. */
  readonly #ages: Uint8Array
  #hand = 0
  /** Where the search for victims goes on, and how old they must be there. */
  #victim = 0
  #wantedAge = OLD

  constructor(member: Member) {
    this.#member = member
    this.#ages = new Uint8Array(member.pages.count)
  }

  get bytes(): number {
    return this.#ages.byteLength
  }

  /** Reads the marks of so many resident pages. */
  advance(pages: number): void {
    const { frames, subject, pages: all } = this.#member
    for (let [left, steps] = [pages, all.count]; left > 0 && steps > 0; steps--) {
      const page = this.#next()
      const address = all.addressOf(page)
      if (frames.peek(address) === undefined) continue
      left--
      if (subject.takeAccessed(address) === true) this.#ages[page] = 0
      else if (this.#ages[page]! < 255) this.#ages[page]!++
    }
  }
  #next(): number {
    const page = this.#hand++
    if (this.#hand === this.#ages.length) this.#hand = 0
    return page
  }

  /** It has just come back: it is in use. */
  touched(page: number): void {
    this.#ages[page] = 0
  }

  /** Resident pages, the most idle ones first as far as the marks tell. Ends when all were offered. */
  *victims(): Iterable<Gpa> {
    const { frames, pages } = this.#member
    let steps = 0
    for (;;) {
      if (this.#victim >= this.#ages.length) this.#victim = 0
      const page = this.#victim++
      if (this.#ages[page]! >= this.#wantedAge && frames.peek(pages.addressOf(page)) !== undefined)
        yield pages.addressOf(page)
      if (++steps < this.#ages.length) continue
      // All around: younger ones must do.
      steps = 0
      if (this.#wantedAge === 0) return void (this.#wantedAge = OLD)
      this.#wantedAge--
    }
  }

  /** The marks have had time to change: old pages are looked for again. */
  restart(): void {
    this.#wantedAge = OLD
  }
}
