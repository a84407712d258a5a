/** Lines into the interrupt controller. Devices that request the same GSI share one. Independent of controllers. @hot */

import type { InterruptLine } from '@nonroot/contracts'

/** Asserted while any of its owners asserts it. */
export class GsiInput {
  owners = 0
  readonly #enders: (() => void)[] = []
  readonly gsi: number
  constructor(gsi: number) {
    this.gsi = gsi
  }

  onEnd(listener: () => void): void {
    this.#enders.push(listener)
  }
  end(): void {
    for (const ended of this.#enders) ended()
  }
}

export class GsiLine implements InterruptLine {
  readonly #input: GsiInput
  readonly #set: (gsi: number, asserted: boolean) => void
  #raised = false

  constructor(input: GsiInput, set: (gsi: number, asserted: boolean) => void) {
    this.#input = input
    this.#set = set
  }

  raise(): void {
    if (this.#raised) return
    this.#raised = true
    if (this.#input.owners++ === 0) this.#set(this.#input.gsi, true)
  }

  lower(): void {
    if (!this.#raised) return
    this.#raised = false
    if (--this.#input.owners === 0) this.#set(this.#input.gsi, false)
  }

  pulse(): void {
    this.raise()
    this.lower()
  }

  onEnd(listener: () => void): void {
    this.#input.onEnd(listener)
  }
}
