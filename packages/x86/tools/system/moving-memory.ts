/**
 * The guest's memory behind EPT tables, whose pages move: between two slices a page is taken away, its content goes to another frame, and what it left is
 * filled with INT3. The next access finds it again by a violation. A guest cannot tell; a translation or code that outlives the move can.
 */
import type { Core } from '../../src/state/core.ts'
import { EXIT, S } from '../../src/state/layout.ts'
import { PROCEED, SECOND_STAGE, type Hooks } from '../../src/state/hooks.ts'
import { forgetSecondStage, setSecondStage } from '../../src/paging/index.ts'
import type { Random } from '../float/operands.ts'

const PAGE = 4096
const RIGHTS = 7n
const WRITE_BACK = 6n << 3n
const INT3 = 0xcc

export class MovingMemory {
  readonly #core: Core
  readonly #tables: number
  /** HPA of each guest page; frames that hold none. */
  readonly #places: number[]
  readonly #spare: number[]
  readonly #content: Uint8Array

  constructor(core: Core, pages: number) {
    this.#core = core
    this.#tables = core.memory.allocateFrames(4, 1)!
    const frames = core.memory.allocateFrames(2 * pages, 1)!
    this.#places = Array.from({ length: pages }, (_, n) => frames + (2 * pages - 1 - n) * PAGE)
    this.#spare = Array.from({ length: pages }, (_, n) => frames + n * PAGE)
    this.#content = new Uint8Array(pages * PAGE)
  }

  /** Puts a guest's memory in place, all of it mapped. */
  enter(ram: Uint8Array): void {
    const { u8, view, memory } = this.#core
    u8.fill(0, this.#tables, this.#tables + 4 * PAGE)
    for (let level = 0; level < 3; level++) view.setBigUint64(this.#tables + level * PAGE, BigInt(this.#tables + (level + 1) * PAGE) | RIGHTS, true)
    for (const [page, place] of this.#places.entries()) {
      u8.set(ram.subarray(page * PAGE, (page + 1) * PAGE), place)
      memory.noteWrite(place as never, PAGE)
      this.#map(page)
    }
    this.#core.hooks = this.#hooks
    setSecondStage(this.#core, { root: this.#tables, accessedDirty: false })
  }
  leave(): void {
    this.#core.hooks = undefined
    setSecondStage(this.#core, undefined)
  }
  /** The guest's memory as it sees it, until the next call. */
  read(): Uint8Array {
    const ram = this.#content
    for (const [page, place] of this.#places.entries()) ram.set(this.#core.u8.subarray(place, place + PAGE), page * PAGE)
    return ram
  }

  /** Takes some pages away. Between two slices. */
  move(random: Random): void {
    const { u8, view, memory } = this.#core
    for (let count = 1 + random.below(3); count > 0; count--) {
      const page = random.below(this.#places.length)
      const from = this.#places[page]!
      const to = this.#spare.shift()!
      u8.copyWithin(to, from, from + PAGE)
      u8.fill(INT3, from, from + PAGE)
      for (const frame of [from, to]) memory.noteWrite(frame as never, PAGE)
      this.#places[page] = to
      this.#spare.push(from)
      view.setBigUint64(this.#entry(page), 0n, true)
    }
    forgetSecondStage(this.#core)
  }

  readonly #hooks: Hooks = {
    intercept: () => PROCEED,
    exception: () => false,
    secondStageViolation: (guest) => {
      const page = Math.floor(guest / PAGE)
      if (page >= this.#places.length) return SECOND_STAGE.device
      this.#map(page)
      return SECOND_STAGE.retry
    },
    secondStageMisconfiguration: () => {
      throw new Error('an EPT entry is malformed')
    },
    taskSwitch: () => {
      throw new Error('there are no tasks')
    },
    tripleFault: () => this.#core.set32(S.exit, EXIT.stop),
  }
  #map(page: number): void {
    this.#core.view.setBigUint64(this.#entry(page), BigInt(this.#places[page]!) | RIGHTS | WRITE_BACK, true)
  }
  #entry(page: number): number {
    return this.#tables + 3 * PAGE + 8 * page
  }
}
