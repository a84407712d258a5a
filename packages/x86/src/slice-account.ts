/** Counts the instructions of a run: how many are retired, and what is left of the slice (state/slice.ts). */
import type { Core } from './state/core.ts'
import { S } from './state/layout.ts'
import { isKicked, sliceLeft, startSlice } from './state/slice.ts'

export class SliceAccount {
  readonly #core: Core
  /** Instructions retired before the current slice. */
  #retired = 0
  #slice = 0
  /** Part of the slice that is reserved while an instruction is single-stepped. */
  #aside = 0

  constructor(core: Core) {
    this.#core = core
  }

  /** Instructions retired since power-up, exact even in the middle of a system routine. */
  get retired(): number {
    return this.#retired + this.#slice - sliceLeft(this.#core)
  }

  start(budget: number): void {
    this.#retired = this.retired
    this.#slice = budget
    startSlice(this.#core, budget)
  }

  /** Discards the reserve that a kick has left, and tells which of the two ended the slice. */
  end(): 'kick' | 'budget' {
    const left = this.#core.get32(S.reserve)
    if (left <= 0) return isKicked(this.#core) ? 'kick' : 'budget'
    this.#slice -= left
    this.#core.set32(S.reserve, 0)
    return 'kick'
  }

  /** Discards what is left. Compiled code has the budget in a register, so that it runs to the end of its chunk. */
  cut(): void {
    const core = this.#core
    if (!core.compiled) this.#aside = Math.min(this.#aside, 0)
    const left = core.compiled ? core.get32(S.reserve) : sliceLeft(core)
    if (left <= 0) return
    this.#slice -= left
    core.set32(S.reserve, 0)
    if (!core.compiled) core.set32(S.budget, 0)
  }

  /** Reserves the slice but for one instruction, of which `budget` is what its entry subtracts. */
  setAside(budget: 0 | 1): void {
    this.#aside = sliceLeft(this.#core) - 1
    this.#slice -= this.#aside
    startSlice(this.#core, budget)
  }
  putBack(): void {
    this.#slice += this.#aside
    startSlice(this.#core, sliceLeft(this.#core) + this.#aside)
  }
}
