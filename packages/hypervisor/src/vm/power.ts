/** Power requests of devices, until the run loop handles them. */

import type { PowerControl, VmEnd } from '@nonroot/contracts'

export class PowerSwitch implements PowerControl {
  /** How the VM will end. The first request wins. */
  end: VmEnd | undefined
  resetRequested = false
  readonly #requested: () => void
  readonly #buttons = new Set<() => boolean>()

  constructor(requested: () => void) {
    this.#requested = requested
  }

  powerOff(): void {
    this.finish({ state: 'poweredOff' })
  }

  reset(): void {
    this.resetRequested = true
    this.#requested()
  }

  exit(status: number): void {
    this.finish({ state: 'exited', status })
  }

  crashed(reason: string): void {
    this.finish({ state: 'crashed', reason })
  }

  finish(end: VmEnd): void {
    this.end ??= end
    this.#requested()
  }

  onPowerButton(listener: () => boolean): () => void {
    this.#buttons.add(listener)
    return () => this.#buttons.delete(listener)
  }

  /** False: the guest is not notified. */
  pressButton(): boolean {
    return [...this.#buttons].map((listener) => listener()).includes(true)
  }
}
