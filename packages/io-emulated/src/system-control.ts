/** System control ports A (0x92) and B (0x61). Independent of timer and processor. */

import type { Clock, Device, DeviceContext, IoHandler, PowerControl, Snapshot } from '@nonroot/contracts'
import type { Pit8254 } from './pit8254.ts'
import { assignState, restoreState, saveState } from './state.ts'

const PortB = { gate: 0x01, speaker: 0x02, checks: 0x0c, refresh: 0x10, timerOutput: 0x20, writable: 0x0f } as const
const PortA = { fastReset: 0x01, a20: 0x02 } as const
/** The refresh bit toggles with counter 1 of the original PC: 18 ticks of the timer. */
const REFRESH_NS = 15_085

const powerOn = () => ({ portA: PortA.a20 as number, portB: 0 })
const TYPE = 'system-control'

/** A20 is always on: nothing here wraps at 1 MiB, the bit is only remembered. */
export class SystemControl implements Device {
  readonly #state = powerOn()
  readonly #clock: Clock
  readonly #power: PowerControl
  readonly #pit: Pit8254

  constructor(context: DeviceContext, pit: Pit8254) {
    this.#clock = context.clock
    this.#power = context.power
    this.#pit = pit
    const portB: IoHandler = { read: () => this.#readB(), write: (_offset, _size, value) => this.#writeB(value) }
    const portA: IoHandler = { read: () => this.#state.portA, write: (_offset, _size, value) => this.#writeA(value) }
    context.portIo(0x61, 1, portB)
    context.portIo(0x92, 1, portA)
  }

  #readB(): number {
    const refresh = Math.floor(this.#clock.nowNs() / REFRESH_NS) & 1 ? PortB.refresh : 0
    return this.#state.portB | refresh | (this.#pit.speakerOutput() ? PortB.timerOutput : 0)
  }

  #writeB(value: number): void {
    this.#state.portB = value & PortB.writable
    this.#pit.setSpeakerGate((value & PortB.gate) !== 0)
  }

  #writeA(value: number): void {
    const rising = value & ~this.#state.portA & PortA.fastReset
    this.#state.portA = value & 0xff & (PortA.fastReset | PortA.a20)
    if (rising) this.#power.reset()
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.#pit.setSpeakerGate(false)
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
  }
}
