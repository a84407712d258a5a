/** Which rows the hooks' policy traps, by mode. */
import { rows } from '../rows/index.ts'
import type { Core } from '../state/core.ts'

const NONE: ReadonlySet<number> = new Set()

export class TrappedRows {
  readonly #core: Core
  readonly #known = new Map<number, ReadonlySet<number>>()

  constructor(core: Core) {
    this.#core = core
  }

  /** Ids of the rows. */
  of(mode: number): ReadonlySet<number> {
    const { hooks } = this.#core
    if (!hooks?.policy) return NONE
    let trapped = this.#known.get(mode)
    if (!trapped) {
      trapped = new Set(rows.filter((row) => hooks.policy!(row, mode) === 'trap').map(({ id }) => id))
      this.#known.set(mode, trapped)
    }
    return trapped
  }
  clear(): void {
    this.#known.clear()
  }
}
