/** How many vCPUs a VM has, for the topology that CPUID shows. */

import type { GuestMemory } from '@nonroot/contracts'

export interface Siblings {
  count: number
}

/** One for each CPU mode of a host. A VM is known by its memory. */
export class Families {
  readonly #byMemory = new WeakMap<GuestMemory, Siblings>()

  /** The vCPUs of a VM, of which this is one. */
  of(memory: GuestMemory, index: number): Siblings {
    let siblings = this.#byMemory.get(memory)
    if (!siblings) this.#byMemory.set(memory, (siblings = { count: 0 }))
    siblings.count = Math.max(siblings.count, index + 1)
    return siblings
  }
}
