/** 8254 programmable interval timer: three counters computed from the clock when they are read. Independent of the speaker. (82C54 data sheet) @hot */

import type { Clock, Device, DeviceContext, InterruptLine, Snapshot } from '@nonroot/contracts'
import { Alarm, NEVER } from './alarm.ts'
import { BytePorts } from './byte-ports.ts'
import type { ByteRegisters } from './byte-ports.ts'
import { assignState, restoreState, saveState } from './state.ts'

/** Hz: a twelfth of the PC's 14.31818 MHz. */
export const PIT_HZ = 1_193_182
const NS_PER_TICK = 1e9 / PIT_HZ
/** Part of a tick: what was rounded up to a whole nanosecond is the tick itself when it comes back. */
const ROUNDING = 0.004
/** Edges of counter 0 closer than this are merged (alarm.ts, `SHORTEST_PERIOD_NS`). */
const SHORTEST_PERIOD_TICKS = 60

const Access = { latch: 0, low: 1, high: 2, both: 3 } as const
const Mode = { terminalCount: 0, oneShot: 1, rate: 2, square: 3, softwareStrobe: 4, hardwareStrobe: 5 } as const
/** Read-back command bits, both active low. */
const ReadBack = { noCount: 0x20, noStatus: 0x10 } as const

const toBcd = (value: number): number =>
  (value % 10) |
  ((Math.floor(value / 10) % 10) << 4) |
  ((Math.floor(value / 100) % 10) << 8) |
  ((Math.floor(value / 1000) % 10) << 12)
const fromBcd = (value: number): number =>
  (value & 15) + ((value >> 4) & 15) * 10 + ((value >> 8) & 15) * 100 + ((value >> 12) & 15) * 1000

const counterPowerOn = () => ({
  mode: Mode.terminalCount as number,
  access: Access.both as number,
  bcd: false,
  gate: true,
  /** What it counts from: 1 to 65536. */
  count: 65536,
  /** In modes 2 and 3, the count from `nextAtNs` on: a new count waits for the period's end. 0: none. */
  nextCount: 0,
  nextAtNs: 0,
  /** Between load (or trigger) and mode's end. Stopped counters hold `heldTicks`. */
  running: false,
  /** A count was written since the control word. */
  loaded: false,
  startNs: 0,
  heldTicks: 0,
  writeLow: 0,
  writeHigh: false,
  readHigh: false,
  latchedCount: -1,
  latchedStatus: -1,
})

/** Whether the gate's level stops counting, or its rising edge starts it. */
const gatePauses = (mode: number): boolean => mode === Mode.terminalCount || mode === Mode.softwareStrobe
const gateTriggers = (mode: number): boolean => mode === Mode.oneShot || mode === Mode.hardwareStrobe
const isPeriodic = (mode: number): boolean => mode === Mode.rate || mode === Mode.square

class Counter {
  readonly state = counterPowerOn()
  readonly #clock: Clock
  readonly #changed: () => void

  constructor(clock: Clock, changed: () => void) {
    this.#clock = clock
    this.#changed = changed
  }

  /** Ticks since the count was loaded. */
  elapsed(): number {
    const state = this.state
    const now = this.#clock.nowNs()
    if (state.nextCount && now >= state.nextAtNs) {
      state.count = state.nextCount
      state.startNs = state.nextAtNs
      state.nextCount = 0
    }
    return state.heldTicks + (state.running ? Math.floor((now - state.startNs) / NS_PER_TICK + ROUNDING) : 0)
  }

  /** When `ticks` will have elapsed. */
  deadline(ticks: number): number {
    return Math.ceil(this.state.startNs + (ticks - this.state.heldTicks) * NS_PER_TICK)
  }

  /** The level of OUT. */
  output(): boolean {
    const state = this.state
    const elapsed = this.elapsed()
    switch (state.mode) {
      case Mode.terminalCount:
        return state.loaded && elapsed >= state.count
      case Mode.oneShot:
        return !state.running || elapsed >= state.count
      case Mode.rate:
        return !state.running || elapsed % state.count !== state.count - 1
      case Mode.square:
        return !state.running || elapsed % state.count < (state.count + 1) >> 1
      default:
        return !state.running || elapsed !== state.count
    }
  }

  #value(): number {
    const state = this.state
    const elapsed = this.elapsed()
    let value
    if (state.mode === Mode.rate) value = state.count - (elapsed % state.count)
    else if (state.mode === Mode.square) value = (state.count - ((2 * elapsed) % state.count)) & ~1
    else value = state.count - elapsed
    return state.bcd ? toBcd(((value % 10000) + 10000) % 10000) : value & 0xffff
  }

  setGate(level: boolean): void {
    const state = this.state
    if (state.gate === level) return
    const elapsed = this.elapsed()
    state.gate = level
    if (gatePauses(state.mode)) {
      if (!state.loaded) return
      state.heldTicks = elapsed
      state.running = level
      state.startNs = this.#clock.nowNs()
    } else if (isPeriodic(state.mode)) {
      if (level && state.loaded) this.#start()
      else state.running = false
    } else if (level && state.loaded) this.#start()
    this.#changed()
  }

  #start(): void {
    const state = this.state
    if (state.nextCount) state.count = state.nextCount
    state.nextCount = 0
    state.heldTicks = 0
    state.startNs = this.#clock.nowNs()
    state.running = true
  }

  control(value: number): void {
    const state = this.state
    const access = (value >> 4) & 3
    if (access === Access.latch) {
      this.latchCount()
      return
    }
    const { gate } = state
    assignState(state, { ...counterPowerOn(), gate, access, bcd: (value & 1) !== 0 })
    const mode = (value >> 1) & 7
    state.mode = mode > Mode.hardwareStrobe ? mode & 3 : mode // bit 2 is "don't care" in modes 2 and 3
    this.#changed()
  }

  latchCount(): void {
    if (this.state.latchedCount < 0) this.state.latchedCount = this.#value()
  }

  latchStatus(): void {
    const state = this.state
    if (state.latchedStatus >= 0) return
    const nullCount = !state.loaded || state.nextCount !== 0
    state.latchedStatus =
      (this.output() ? 0x80 : 0) |
      (nullCount ? 0x40 : 0) |
      (state.access << 4) |
      (state.mode << 1) |
      (state.bcd ? 1 : 0)
  }

  read(): number {
    const state = this.state
    if (state.latchedStatus >= 0) {
      const status = state.latchedStatus
      state.latchedStatus = -1
      return status
    }
    const value = state.latchedCount >= 0 ? state.latchedCount : this.#value()
    const high = state.access === Access.high || (state.access === Access.both && state.readHigh)
    if (state.access === Access.both) state.readHigh = !state.readHigh
    // Both bytes of a latched count are read before it is let go.
    if (state.access !== Access.both || high) state.latchedCount = -1
    return high ? value >> 8 : value & 0xff
  }

  write(value: number): void {
    const state = this.state
    if (state.access === Access.both) {
      state.writeHigh = !state.writeHigh
      if (state.writeHigh) {
        state.writeLow = value
        // The first byte stops mode 0.
        if (state.mode === Mode.terminalCount) {
          state.running = state.loaded = false
          this.#changed()
        }
        return
      }
      this.#load(state.writeLow | (value << 8))
    } else this.#load(state.access === Access.low ? value : value << 8)
    this.#changed()
  }

  #load(written: number): void {
    const state = this.state
    const count = written === 0 ? (state.bcd ? 10000 : 65536) : state.bcd ? fromBcd(written) : written
    if (isPeriodic(state.mode) && state.loaded && state.running) {
      const period = Math.floor(this.elapsed() / state.count) + 1
      state.nextAtNs = this.deadline(period * state.count)
      state.nextCount = count
      return
    }
    state.count = count
    state.loaded = true
    if (gateTriggers(state.mode)) return
    this.#start()
    if (!state.gate) state.running = false
  }
}

const TYPE = 'pit8254'
const CONTROL = 3

export class Pit8254 implements Device, ByteRegisters {
  readonly #counters: readonly [Counter, Counter, Counter]
  readonly #alarm: Alarm

  /** `line` gets counter 0's rising edges. */
  constructor(context: Pick<DeviceContext, 'portIo' | 'clock'>, line: InterruptLine) {
    const { clock } = context
    const nothing = (): void => {}
    this.#counters = [new Counter(clock, () => this.#arm()), new Counter(clock, nothing), new Counter(clock, nothing)]
    this.#alarm = new Alarm(clock, () => {
      line.pulse()
      this.#arm()
    })
    this.reset()
    context.portIo(0x40, 4, new BytePorts(this, 4))
  }

  /** Counter 2's gate: port 0x61, bit 0. */
  setSpeakerGate(level: boolean): void {
    this.#counters[2].setGate(level)
  }

  /** Counter 2's output: port 0x61, bit 5. */
  speakerOutput(): boolean {
    return this.#counters[2].output()
  }

  readByte(offset: number): number {
    return offset === CONTROL ? 0xff : this.#counters[offset as 0 | 1 | 2].read()
  }

  writeByte(offset: number, value: number): void {
    if (offset !== CONTROL) this.#counters[offset as 0 | 1 | 2].write(value)
    else if (value >> 6 === 3) this.#readBack(value)
    else this.#counters[(value >> 6) as 0 | 1 | 2].control(value)
  }

  #readBack(command: number): void {
    for (let index = 0; index < 3; index++) {
      if (!(command & (2 << index))) continue
      const counter = this.#counters[index as 0 | 1 | 2]
      if (!(command & ReadBack.noCount)) counter.latchCount()
      if (!(command & ReadBack.noStatus)) counter.latchStatus()
    }
  }

  /** Wait for counter 0's next rising edge. */
  #arm(): void {
    const counter = this.#counters[0]
    const { state } = counter
    if (!state.running) return this.#alarm.set(NEVER)
    const elapsed = counter.elapsed()
    let edge: number
    if (isPeriodic(state.mode)) {
      const wait = state.count < SHORTEST_PERIOD_TICKS ? SHORTEST_PERIOD_TICKS : 1
      edge = Math.ceil((elapsed + wait) / state.count) * state.count
    } else {
      edge = state.mode === Mode.softwareStrobe ? state.count + 1 : state.count
      if (elapsed >= edge) return this.#alarm.set(NEVER)
    }
    this.#alarm.set(counter.deadline(edge))
  }

  reset(): void {
    for (const { state } of this.#counters) assignState(state, counterPowerOn())
    this.#counters[2].state.gate = false
    this.#alarm.set(NEVER)
  }

  save(): Snapshot {
    const counters = this.#counters.map(({ state }) => saveState(TYPE, 1, state).data)
    return { type: TYPE, version: 1, data: { counters, deadlineNs: this.#alarm.deadlineNs } }
  }

  restore(snapshot: Snapshot): void {
    const counters = snapshot.data['counters'] as Snapshot['data'][]
    this.#counters.forEach(({ state }, index) =>
      restoreState({ ...snapshot, data: counters[index] ?? {} }, TYPE, 1, state),
    )
    this.#alarm.set(snapshot.data['deadlineNs'] as number)
  }
}
