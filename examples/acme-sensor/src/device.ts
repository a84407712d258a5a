/** acme-sensor: a counter behind three registers. Independent of the bus. */

import type { Clock, Counter, Device, DeviceContext, InterruptLine, IoSize, Snapshot, Timer } from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'
import type { Options } from './options.ts'

/** Registers: 32 bits each, by offset from the device's base. */
export const REGISTERS = {
  /** Read-only: how often it has counted. */
  count: 0x0,
  /** Bit 0: run. */
  control: 0x4,
  /** Read: bit 0 is set once it has counted. Writing 1 clears it, and with it the interrupt. */
  status: 0x8,
} as const

export class AcmeSensor implements Device {
  readonly #clock: Clock
  readonly #line: InterruptLine
  readonly #counted: Counter
  readonly #periodNs: number
  #count = 0
  #running = false
  #pending = false
  #timer: Timer | undefined

  constructor({ rate }: Options, { clock, interrupt, mmio, metrics }: DeviceContext) {
    this.#clock = clock
    this.#line = interrupt('ready')
    this.#counted = metrics.counter('counted', 'how often the device has counted')
    this.#periodNs = Math.round(1e9 / rate)
    mmio(0x1000, {
      read: (offset, size) => this.#read(offset, size),
      write: (offset, _size, value) => this.#write(offset, value),
    })
  }

  reset(): void {
    this.#count = 0
    this.#run(false)
    this.#setPending(false)
  }

  save(): Snapshot {
    const data = { count: this.#count, running: this.#running, pending: this.#pending }
    return { type: 'acme-sensor', version: 1, data }
  }

  restore({ version, data }: Snapshot): void {
    if (version !== 1) {
      throw new NonrootError({ code: 'snapshot.mismatch', message: `acme-sensor cannot restore version ${version}` })
    }
    this.#count = Number(data['count'])
    this.#setPending(data['pending'] === true)
    this.#run(data['running'] === true)
  }

  #read(offset: number, size: IoSize): number {
    if (size !== 4) return 0
    if (offset === REGISTERS.count) return this.#count
    if (offset === REGISTERS.control) return this.#running ? 1 : 0
    return offset === REGISTERS.status && this.#pending ? 1 : 0
  }

  #write(offset: number, value: number): void {
    if (offset === REGISTERS.status && value & 1) this.#setPending(false)
    if (offset === REGISTERS.control) this.#run((value & 1) === 1)
  }

  #run(running: boolean): void {
    if (running && !this.#running) this.#schedule()
    if (!running && this.#timer) this.#clock.cancel(this.#timer)
    this.#running = running
  }

  #schedule(): void {
    this.#timer = this.#clock.setTimer(this.#clock.nowNs() + this.#periodNs, () => {
      this.#count = (this.#count + 1) >>> 0
      this.#counted.value++
      this.#setPending(true)
      this.#schedule()
    })
  }

  #setPending(pending: boolean): void {
    this.#pending = pending
    if (pending) this.#line.raise()
    else this.#line.lower()
  }
}
