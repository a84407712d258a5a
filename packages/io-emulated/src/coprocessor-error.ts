/**
 * The x87's errors as a PC has them: FERR# sets a latch that is IRQ 13; a write to port 0xF0 clears it and asserts IGNNE# until FERR# is
 * deasserted. (SDM Vol. 1, "MS-DOS Compatibility Sub-mode")
 */

import type { Device, DeviceContext, InterruptLine, IoHandler, NumericErrors, Snapshot } from '@nonroot/contracts'
import { assignState, restoreState, saveState } from './state.ts'

/** Clear the latch, and reset of the coprocessor, which a coprocessor on the chip ignores. */
const PORT = 0xf0
const PORTS = 2

const powerOn = () => ({ latched: false, ignored: false })
const TYPE = 'coprocessor-error'

export class CoprocessorError implements Device, NumericErrors, IoHandler {
  readonly #state = powerOn()
  readonly #line: InterruptLine

  constructor(context: Pick<DeviceContext, 'portIo'>, line: InterruptLine) {
    this.#line = line
    context.portIo(PORT, PORTS, this)
  }

  assertFerr(_vcpu: number, isNew: boolean): boolean {
    const state = this.#state
    if (isNew) state.ignored = false
    if (!state.ignored) this.#latch(true)
    return state.ignored
  }

  read(): number {
    return 0xff
  }

  write(offset: number): void {
    if (offset !== 0) return
    // IGNNE# is asserted only where FERR# is.
    if (this.#state.latched) this.#state.ignored = true
    this.#latch(false)
  }

  #latch(latched: boolean): void {
    this.#state.latched = latched
    if (latched) this.#line.raise()
    else this.#line.lower()
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.#latch(false)
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#latch(this.#state.latched)
  }
}
