/** An interrupt line with a gate: while the gate is closed, the device's level has no effect. Independent of devices. */

import type { InterruptLine } from '@nonroot/contracts'

export class GatedLine implements InterruptLine {
  readonly #line: InterruptLine
  #raised = false
  #isOpen = true

  constructor(line: InterruptLine) {
    this.#line = line
  }

  raise(): void {
    this.#raised = true
    this.#drive()
  }

  lower(): void {
    this.#raised = false
    this.#drive()
  }

  pulse(): void {
    this.raise()
    this.lower()
  }

  open(isOpen: boolean): void {
    this.#isOpen = isOpen
    this.#drive()
  }

  #drive(): void {
    if (this.#raised && this.#isOpen) this.#line.raise()
    else this.#line.lower()
  }
}
