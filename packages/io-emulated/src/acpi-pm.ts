/** ACPI fixed hardware: PM1 events and control, PM timer, general-purpose events (of which none happens), SMI enable. Writes no tables. (ACPI 6.5, "Fixed Hardware") @hot */

import type {
  Clock,
  Device,
  DeviceContext,
  InterruptLine,
  IoHandler,
  IoRegion,
  IoSize,
  Log,
  PlatformDescription,
  PowerControl,
  Snapshot,
} from '@nonroot/contracts'
import { Alarm, NEVER, SHORTEST_PERIOD_NS } from './alarm.ts'
import { Gsi, Place } from './pc-addresses.ts'
import { RESET_VALUE } from './reset-control.ts'
import { assignState, restoreState, saveState } from './state.ts'

/** Registers from the block's base, as in the ICH9. (ICH9 datasheet, "Power Management I/O Registers") */
export const AcpiRegister = {
  pm1Status: 0x00,
  pm1Enable: 0x02,
  pm1Control: 0x04,
  pmTimer: 0x08,
  gpe0Status: 0x20,
  gpe0Enable: 0x28,
  smiEnable: 0x30,
} as const
export const ACPI_BLOCK_LENGTH = 0x80
export const GPE0_LENGTH = 16

const Pm1 = {
  timer: 0x0001,
  global: 0x0020,
  powerButton: 0x0100,
  sleepButton: 0x0200,
  rtc: 0x0400,
  wake: 0x8000,
} as const
const PM1_STATUS_BITS = 0x8731
const PM1_ENABLE_BITS = 0x0721
const Control = { sciEnable: 0x0001, sleepType: 0x1c00, sleepTypeShift: 10, sleepEnable: 0x2000 } as const
/** SLP_TYP of soft-off. */
export const SLEEP_TYPE_S5 = 5
/** There is no system-management mode: firmware that finds this bit set takes it for done and leaves SMM alone. */
const SMI_APMC_ENABLED = 0x20

const PM_TIMER_HZ = 3_579_545
/** The timer's 24 bits: its top bit toggles, and TMR_STS is set, every 2^23 ticks. */
const HALF_TURN = 2 ** 23

const powerOn = () => ({
  status: 0,
  enable: 0,
  // No SMI command port: the hardware is in ACPI mode from the start. (ACPI, "FADT", SMI_CMD)
  control: Control.sciEnable as number,
  gpeEnable: new Uint8Array(GPE0_LENGTH / 2),
  smiEnable: SMI_APMC_ENABLED as number,
  /** Half turns of the timer that TMR_STS was set for. */
  seenHalfTurns: 0,
})

const TYPE = 'acpi-pm'

export class AcpiPm implements Device, IoHandler {
  /** The block's ports. The chipset may move them. */
  readonly region: IoRegion
  readonly #state = powerOn()
  readonly #clock: Clock
  readonly #power: PowerControl
  readonly #log: Log
  readonly #sci: InterruptLine
  readonly #alarm: Alarm
  readonly #detach: () => void

  constructor(context: DeviceContext, port: number, sci: InterruptLine) {
    this.#clock = context.clock
    this.#power = context.power
    this.#log = context.log
    this.#sci = sci
    this.#alarm = new Alarm(context.clock, () => this.#update())
    this.#detach = context.power.onPowerButton(() => {
      this.#state.status |= Pm1.powerButton
      this.#update()
      return (this.#state.enable & Pm1.powerButton) !== 0
    })
    this.region = context.portIo(port, ACPI_BLOCK_LENGTH, this)
  }

  /** As it is now: firmware moves the block. */
  describe(): NonNullable<PlatformDescription['acpi']> {
    const { base } = this.region
    return {
      pm1Event: base + AcpiRegister.pm1Status,
      pm1Control: base + AcpiRegister.pm1Control,
      pmTimer: base + AcpiRegister.pmTimer,
      gpe0: { base: base + AcpiRegister.gpe0Status, length: GPE0_LENGTH },
      sciGsi: Gsi.sci,
      sleepTypeS5: SLEEP_TYPE_S5,
      reset: { port: Place.resetControl, value: RESET_VALUE },
    }
  }

  read(offset: number, size: IoSize): number {
    if (offset === AcpiRegister.pmTimer && size === 4) return this.#timer()
    let value = 0
    for (let byte = 0; byte < size; byte++) value |= this.#readByte(offset + byte) << (8 * byte)
    return value >>> 0
  }

  write(offset: number, size: IoSize, value: number): void {
    for (let byte = 0; byte < size; byte++) this.#writeByte(offset + byte, (value >>> (8 * byte)) & 0xff)
    this.#update()
  }

  #timer(): number {
    return this.#ticks() % (2 * HALF_TURN)
  }

  #ticks(): number {
    const now = this.#clock.nowNs()
    const seconds = Math.floor(now / 1e9)
    return seconds * PM_TIMER_HZ + Math.floor(((now - seconds * 1e9) * PM_TIMER_HZ) / 1e9)
  }

  #readByte(offset: number): number {
    const state = this.#state
    const shift = 8 * (offset & 1)
    switch (offset & ~1) {
      case AcpiRegister.pm1Status:
        this.#settleTimer()
        return (state.status >> shift) & 0xff
      case AcpiRegister.pm1Enable:
        return (state.enable >> shift) & 0xff
      case AcpiRegister.pm1Control:
        return (state.control >> shift) & 0xff
      case AcpiRegister.pmTimer:
      case AcpiRegister.pmTimer + 2:
        return (this.#timer() >> (8 * (offset & 3))) & 0xff
      case AcpiRegister.smiEnable:
        return (state.smiEnable >> shift) & 0xff
    }
    if (offset >= AcpiRegister.gpe0Enable && offset < AcpiRegister.gpe0Status + GPE0_LENGTH)
      return state.gpeEnable[offset & 7]!
    return 0
  }

  #writeByte(offset: number, value: number): void {
    const state = this.#state
    const shift = 8 * (offset & 1)
    const replaced = (old: number): number => (old & ~(0xff << shift)) | (value << shift)
    switch (offset & ~1) {
      case AcpiRegister.pm1Status:
        this.#settleTimer()
        state.status &= ~(value << shift) & PM1_STATUS_BITS
        return
      case AcpiRegister.pm1Enable:
        state.enable = replaced(state.enable) & PM1_ENABLE_BITS
        return
      case AcpiRegister.pm1Control:
        this.#control(replaced(state.control))
        return
      case AcpiRegister.smiEnable:
        state.smiEnable = replaced(state.smiEnable) | SMI_APMC_ENABLED
        return
    }
    if (offset >= AcpiRegister.gpe0Enable && offset < AcpiRegister.gpe0Status + GPE0_LENGTH)
      state.gpeEnable[offset & 7] = value
  }

  #control(value: number): void {
    const state = this.#state
    state.control = (value & Control.sleepType) | Control.sciEnable
    if (!(value & Control.sleepEnable)) return
    const type = (value & Control.sleepType) >> Control.sleepTypeShift
    if (type === SLEEP_TYPE_S5) this.#power.powerOff()
    else {
      // A sleep that no table offers: wake at once, as hardware does from what it does not have.
      this.#log.warn(`the guest asked for sleep type ${type}; only soft-off (${SLEEP_TYPE_S5}) is there`)
      state.status |= Pm1.wake
    }
  }

  #settleTimer(): void {
    const halfTurns = Math.floor(this.#ticks() / HALF_TURN)
    if (halfTurns > this.#state.seenHalfTurns) this.#state.status |= Pm1.timer
    this.#state.seenHalfTurns = halfTurns
  }

  #update(): void {
    const state = this.#state
    this.#settleTimer()
    if (state.status & state.enable) this.#sci.raise()
    else this.#sci.lower()
    if (!(state.enable & Pm1.timer)) return this.#alarm.set(NEVER)
    // Never in the past: rounding must not let it go off twice for one half turn.
    const next = Math.ceil(((state.seenHalfTurns + 1) * HALF_TURN * 1e9) / PM_TIMER_HZ)
    this.#alarm.set(Math.max(next, this.#clock.nowNs() + SHORTEST_PERIOD_NS))
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.#state.seenHalfTurns = Math.floor(this.#ticks() / HALF_TURN)
    this.#update()
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#update()
  }

  dispose(): void {
    this.#detach()
  }
}
