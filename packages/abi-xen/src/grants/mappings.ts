/** Mappings that a domain made of grants, by handle. */

/** For a domain. */
export const MOST_MAPPINGS = 65_536

export interface Mapping {
  readonly reference: number
  readonly frame: number
  readonly isWritable: boolean
  /** The processor's mapping was named by the machine address of an entry, not by a linear one. */
  readonly isEntry: boolean
  /** Which of `MAP.device` and `MAP.host` (facts.ts) are left. */
  kinds: number
}

export class Mappings {
  readonly #byHandle: (Mapping | undefined)[] = []
  readonly #free: number[] = []
  #count = 0

  get count(): number {
    return this.#count
  }
  get isFull(): boolean {
    return this.#count >= MOST_MAPPINGS
  }

  add(mapping: Mapping): number {
    const handle = this.#free.pop() ?? this.#byHandle.length
    this.#byHandle[handle] = mapping
    this.#count++
    return handle
  }
  get all(): readonly Mapping[] {
    return this.#byHandle.filter((mapping) => mapping !== undefined)
  }
  at(handle: number): Mapping | undefined {
    return this.#byHandle[handle]
  }
  /** These kinds of it are gone. True: the last one, and the handle with it. */
  end(handle: number, kinds: number): boolean {
    const mapping = this.#byHandle[handle]!
    mapping.kinds &= ~kinds
    if (mapping.kinds !== 0) return false
    this.#byHandle[handle] = undefined
    this.#free.push(handle)
    this.#count--
    return true
  }

  reset(): void {
    this.#byHandle.length = this.#free.length = this.#count = 0
  }
}
