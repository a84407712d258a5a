/** I/O APIC: turns pins into messages. Sends through a callback and is notified of EOIs. (82093AA data sheet; ICH9 datasheet, "I/O APIC") @hot */

import type { DeviceContext, IoHandler, IoSize, Saveable, Snapshot } from '@nonroot/contracts'
import { assignState, restoreState, saveState } from '../state.ts'
import { DeliveryMode } from './registers.ts'

export const IO_APIC_PINS = 24
/** As which an IOMMU knows it: no function of a bus that there is, as on Intel's boards. */
export const IO_APIC_REQUESTER = 0xf0f8
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

/** High word: destination, and what extends it or, for an IOMMU that remaps interrupts, the rest of a handle. */
const HIGH_WRITABLE = 0xffff_0000
/** What its messages consist of. (ICH9 datasheet, "I/O APIC: PCI Express Message for Interrupts") */
const Message = { base: 0xfee0_0000, logical: 4, assert: 0x4000, level: 0x8000 } as const

export type SendMessage = (address: number, data: number) => void

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
    const high = state.high[pin]!
    const to = ((high >>> 24) << 12) | (((high >>> 16) & 0xff) << 4) | (entry & Entry.logical ? Message.logical : 0)
    const trigger = level ? Message.level | Message.assert : Message.assert
    this.#send(Message.base + to, (entry & (Entry.vector | Entry.deliveryMode)) | trigger)
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
      state.high[pin] = value & HIGH_WRITABLE
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
