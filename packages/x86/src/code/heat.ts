/** How often blocks run: their entries count down to 0, where a block is hot. Instruction counts of interpreted code are derived from the same counters. */
import type { Core } from '../state/core.ts'
import { RECORD } from '../state/record.ts'
import type { Block } from './block.ts'
import { CROWD, HOT, NEVER_HOT } from './record.ts'

/** Fraction of its initial heat below which a block counts as busy: it is hot soon. */
const BUSY = 3 / 4

export class Heat {
  readonly #core: Core
  /** Runs after which a block is reported hot; 0: never. */
  hotness = HOT
  /** Instructions of runs that no block's counter includes any more. */
  #settled = 0

  constructor(core: Core) {
    this.#core = core
  }

  /** Sets the runs that a block has left. */
  start(first: number, heat: number): void {
    const { i32 } = this.#core
    i32[(first + RECORD.heat) >>> 2] = i32[(first + RECORD.heatAtStart) >>> 2] = heat
  }

  /** Adds the runs so far of a block whose counter is about to be set anew or lost. */
  settle(first: number): void {
    this.#settled += this.#ran(first)
  }

  /** Instructions of runs of all blocks so far; `live`: those that have a counter. */
  instructions(live: Iterable<Block>): number {
    let sum = this.#settled
    for (const { first } of live) sum += this.#ran(first)
    return sum
  }

  /** Runs before a new block is worth compiling: the more regions there are, the less they remain in the processor's caches. */
  initial(regions: number): number {
    return this.hotness ? this.hotness * (1 + Math.floor(regions / CROWD)) : NEVER_HOT
  }

  isBusy({ first }: Block): boolean {
    const { i32 } = this.#core
    return i32[(first + RECORD.heat) >>> 2]! < i32[(first + RECORD.heatAtStart) >>> 2]! * BUSY
  }

  /** Instructions of a block's runs since its heat was set. The run in which it was found hot has not begun. */
  #ran(first: number): number {
    const { i32 } = this.#core
    const heat = i32[(first + RECORD.heat) >>> 2]!
    const runs = i32[(first + RECORD.heatAtStart) >>> 2]! - heat - (heat === 0 ? 1 : 0)
    return runs * i32[(first + RECORD.immediate) >>> 2]!
  }
}
