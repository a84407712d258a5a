/** I/O APIC: turns pins into messages. Sends through a callback and is notified of EOIs. (82093AA data sheet; ICH9 datasheet, "I/O APIC") @hot */

import type { DeviceContext, IoHandler, IoSize, Saveable, Snapshot } from '@nonroot/contracts'
import { assignState, restoreState, saveState } from '../state.ts'
import { DeliveryMode } from './registers.ts'

export const IO_APIC_PINS = 24
/** Version 0x20 has an EOI register. */
const VERSION = 0x20 | ((IO_APIC_PINS - 1) << 16)

const Window = { select: 0x00, data: 0x10, endOfInterrupt: 0x40 } as const
const Register = { id: 0, version: 1, arbitration: 2, redirection: 0x10 } as const
/** Low word of a redirection entry. */
const Entry = {
  vector: 0xff,
  deliveryMode: 0x700,
  logical: 0x800,
  remoteIrr: 0x4000,
  level: 0x8000,
  masked: 0x10000,
  writable: 0x1afff & ~0x5000,
} as const

/** `destination` in 8 bits. */
export type SendMessage = (
  destination: number,
  logical: boolean,
  deliveryMode: number,
  vector: number,
  level: boolean,
) => void

const powerOn = () => ({
  select: 0,
  id: 0,
  low: new Uint32Array(IO_APIC_PINS).fill(Entry.masked),
  high: new Uint32Array(IO_APIC_PINS),
  /** Levels of the pins, one bit each. */
  pins: 0,
})

const TYPE = 'io-apic'

export class IoApic implements IoHandler, Saveable {
  readonly #state = powerOn()
  readonly #send: SendMessage
  readonly #ended: (pin: number) => void

  /** `ended`: a level-triggered interrupt of a pin has. It may change the pin's level. */
  constructor(
    context: Pick<DeviceContext, 'mmio'>,
    address: number,
    send: SendMessage,
    ended: (pin: number) => void = () => {},
  ) {
    this.#send = send
    this.#ended = ended
    context.mmio({ at: address, length: 0x1000 }, this)
  }

  setPin(pin: number, asserted: boolean): void {
    const state = this.#state
    const bit = 1 << pin
    if (((state.pins & bit) !== 0) === asserted) return
    state.pins ^= bit
    if (asserted) this.#service(pin)
  }

  /** The pin was asserted, or its entry changed. An edge while masked is lost; a level waits. */
  #service(pin: number): void {
    const state = this.#state
    const entry = state.low[pin]!
    if (entry & (Entry.masked | Entry.remoteIrr)) return
    const level = (entry & Entry.level) !== 0
    const deliveryMode = (entry & Entry.deliveryMode) >> 8
    if (level && deliveryMode <= DeliveryMode.lowestPriority) state.low[pin] = entry | Entry.remoteIrr
    this.#send(state.high[pin]! >>> 24, (entry & Entry.logical) !== 0, deliveryMode, entry & Entry.vector, level)
  }

  /** Level-triggered entries of this vector may interrupt again, and do if their pin is still asserted. */
  endOfInterrupt(vector: number): void {
    const state = this.#state
    for (let pin = 0; pin < IO_APIC_PINS; pin++) {
      const entry = state.low[pin]!
      if ((entry & Entry.vector) !== vector || !(entry & Entry.remoteIrr)) continue
      this.#ended(pin)
      state.low[pin] = entry & ~Entry.remoteIrr
      if (state.pins & (1 << pin)) this.#service(pin)
    }
  }

  read(offset: number, size: IoSize): number {
    const word = offset & ~3
    const value = word === Window.select ? this.#state.select : word === Window.data ? this.#readRegister() : 0
    return size === 4 ? value : ((value >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff)) >>> 0
  }

  write(offset: number, _size: IoSize, value: number): void {
    if (offset === Window.select) this.#state.select = value & 0xff
    else if (offset === Window.data) this.#writeRegister(value)
    else if (offset === Window.endOfInterrupt) this.endOfInterrupt(value & 0xff)
  }

  #readRegister(): number {
    const { select, id, low, high } = this.#state
    if (select === Register.id || select === Register.arbitration) return id
    if (select === Register.version) return VERSION
    const pin = (select - Register.redirection) >> 1
    if (pin < 0 || pin >= IO_APIC_PINS) return 0
    return (select & 1 ? high : low)[pin]!
  }

  #writeRegister(value: number): void {
    const state = this.#state
    if (state.select === Register.id) state.id = value & 0x0f00_0000
    const pin = (state.select - Register.redirection) >> 1
    if (pin < 0 || pin >= IO_APIC_PINS) return
    if (state.select & 1) {
      state.high[pin] = value & 0xff00_0000
      return
    }
    const before = state.low[pin]!
    let entry = value & Entry.writable
    // Remote IRR is the hardware's. Making an entry edge-triggered clears it: how kernels end an interrupt on parts without an EOI register.
    if (entry & Entry.level) entry |= before & Entry.remoteIrr
    state.low[pin] = entry
    if (entry & Entry.level && state.pins & (1 << pin)) this.#service(pin)
  }

  reset(): void {
    assignState(this.#state, { ...powerOn(), pins: this.#state.pins })
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
  }
}
