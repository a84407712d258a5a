/** Real-time clock with CMOS memory. Its time is the clock's plus an offset that the guest sets. (MC146818A data sheet) */

import type { Clock, Device, DeviceContext, InterruptLine, MemoryMap, Snapshot } from '@nonroot/contracts'
import { Alarm, NEVER, SHORTEST_PERIOD_NS } from './alarm.ts'
import { BytePorts } from './byte-ports.ts'
import type { ByteRegisters } from './byte-ports.ts'
import { restoreState, saveState } from './state.ts'

const Register = {
  seconds: 0,
  secondsAlarm: 1,
  minutes: 2,
  minutesAlarm: 3,
  hours: 4,
  hoursAlarm: 5,
  weekday: 6,
  day: 7,
  month: 8,
  year: 9,
  a: 10,
  b: 11,
  c: 12,
  d: 13,
  century: 0x32,
} as const
const A = { updateInProgress: 0x80, divider: 0x70, running: 0x20, rate: 0x0f } as const
const B = {
  set: 0x80,
  periodic: 0x40,
  alarm: 0x20,
  update: 0x10,
  squareWave: 0x08,
  binary: 0x04,
  hours24: 0x02,
} as const
const C = { interrupt: 0x80, periodic: 0x40, alarm: 0x20, update: 0x10, flags: 0x70 } as const
const D_VALID = 0x80
/** An alarm byte with both high bits set matches anything. */
const ANY = 0xc0
const PM = 0x80
const UPDATE_MS = 2 // an update takes 1984 µs and announces itself 244 µs before
const SECONDS_PER_DAY = 86400

const isTime = (index: number): boolean =>
  index <= Register.year ? index % 2 === 0 || index >= Register.day : index === Register.century

export interface CmosOptions {
  /** RAM below 4 GiB ends here; the rest starts at 4 GiB. */
  readonly memoryMap: Pick<MemoryMap, 'regions'>
  readonly vcpuCount: number
}

const powerOn = () => ({
  index: 0,
  cmos: new Uint8Array(128),
  /** Whole seconds that the guest's idea of time is ahead of the clock's. */
  offsetSeconds: 0,
  /** Up to where flags were looked for: seconds of guest time, periods since the clock's start. */
  seenSecond: 0,
  seenPeriod: 0,
})

const TYPE = 'cmos-rtc'

export class CmosRtc implements Device, ByteRegisters {
  readonly #state = powerOn()
  readonly #clock: Clock
  readonly #line: InterruptLine
  readonly #alarm: Alarm

  constructor(context: Pick<DeviceContext, 'portIo' | 'clock'>, line: InterruptLine, options: CmosOptions) {
    this.#clock = context.clock
    this.#line = line
    this.#alarm = new Alarm(context.clock, () => {
      this.#settle()
      this.#update()
    })
    const { cmos } = this.#state
    cmos[Register.a] = A.running | 6
    cmos[Register.b] = B.hours24
    describeMachine(cmos, options)
    this.#state.seenSecond = this.#second()
    context.portIo(0x70, 2, new BytePorts(this, 2))
  }

  readByte(offset: number): number {
    if (offset === 0) return 0xff // the index is write-only
    const { index, cmos } = this.#state
    switch (index) {
      case Register.a: {
        const updating = this.#counting() && this.#clock.wallClockMs() % 1000 >= 1000 - UPDATE_MS
        return cmos[Register.a]! | (updating ? A.updateInProgress : 0)
      }
      case Register.c: {
        this.#settle()
        this.#summarise()
        const flags = cmos[Register.c]!
        cmos[Register.c] = 0
        this.#update()
        return flags
      }
      case Register.d:
        return D_VALID
      default:
        if (isTime(index) && !(cmos[Register.b]! & B.set)) this.#latchTime()
        return cmos[index]!
    }
  }

  writeByte(offset: number, value: number): void {
    const state = this.#state
    const { cmos } = state
    if (offset === 0) {
      state.index = value & 0x7f // bit 7 masks NMI, of which there is none
      return
    }
    this.#settle()
    const frozen = (cmos[Register.b]! & B.set) !== 0
    switch (state.index) {
      case Register.a:
        cmos[Register.a] = value & 0x7f
        state.seenPeriod = this.#period()
        break
      case Register.b:
        if (value & ~cmos[Register.b]! & B.set) this.#latchTime()
        if (!(value & B.set) && frozen) {
          cmos[Register.b] = value
          this.#setTime()
        }
        // Setting SET takes the update interrupt's enable away.
        cmos[Register.b] = value & B.set ? value & ~B.update : value
        break
      case Register.c:
      case Register.d:
        break
      default:
        if (isTime(state.index) && !frozen) this.#latchTime()
        cmos[state.index] = value
        if (isTime(state.index) && !frozen) this.#setTime()
    }
    this.#update()
  }

  /** The divider chain runs and SET does not hold the time. */
  #counting(): boolean {
    const { cmos } = this.#state
    return (cmos[Register.a]! & A.divider) === A.running && !(cmos[Register.b]! & B.set)
  }

  /** Guest seconds since 1970. */
  #second(): number {
    return Math.floor(this.#clock.wallClockMs() / 1000) + this.#state.offsetSeconds
  }

  /** Length of a periodic interrupt's period, or 0. */
  #periodNs(): number {
    const a = this.#state.cmos[Register.a]!
    const rate = a & A.rate
    if (rate === 0 || (a & A.divider) !== A.running) return 0
    return (2 ** ((rate < 3 ? rate + 7 : rate) - 1) / 32768) * 1e9
  }

  #period(): number {
    const periodNs = this.#periodNs()
    return periodNs ? Math.floor(this.#clock.nowNs() / periodNs) : 0
  }

  /** Set the flags for what happened since the last look. */
  #settle(): void {
    const state = this.#state
    const { cmos } = state
    const period = this.#period()
    if (period > state.seenPeriod) cmos[Register.c]! |= C.periodic
    state.seenPeriod = period
    const second = this.#second()
    if (second > state.seenSecond && this.#counting()) {
      cmos[Register.c]! |= C.update
      for (let at = Math.max(state.seenSecond + 1, second - SECONDS_PER_DAY); at <= second; at++) {
        if (!this.#alarmMatches(at)) continue
        cmos[Register.c]! |= C.alarm
        break
      }
    }
    state.seenSecond = second
  }

  #alarmMatches(second: number): boolean {
    const { cmos } = this.#state
    const ofDay = ((second % SECONDS_PER_DAY) + SECONDS_PER_DAY) % SECONDS_PER_DAY
    const matches = (index: number, value: number): boolean => cmos[index] === value || (cmos[index]! & ANY) === ANY
    return (
      matches(Register.secondsAlarm, this.#encode(ofDay % 60)) &&
      matches(Register.minutesAlarm, this.#encode(Math.floor(ofDay / 60) % 60)) &&
      matches(Register.hoursAlarm, this.#encodeHour(Math.floor(ofDay / 3600)))
    )
  }

  /** IRQF is set while a flag and its enable are, whenever that came about. Gives whether it is. */
  #summarise(): boolean {
    const { cmos } = this.#state
    const interrupts = (cmos[Register.c]! & cmos[Register.b]! & C.flags) !== 0
    if (interrupts) cmos[Register.c]! |= C.interrupt
    else cmos[Register.c]! &= ~C.interrupt
    return interrupts
  }

  /** Drive the line and wait for what could raise it. */
  #update(): void {
    const b = this.#state.cmos[Register.b]!
    if (this.#summarise()) this.#line.raise()
    else this.#line.lower()
    const now = this.#clock.nowNs()
    let deadline = Infinity
    const periodNs = this.#periodNs()
    if (b & B.periodic && periodNs) {
      deadline = Math.max(Math.ceil((Math.floor(now / periodNs) + 1) * periodNs), now + SHORTEST_PERIOD_NS)
    }
    if (b & (B.update | B.alarm) && this.#counting()) {
      deadline = Math.min(deadline, now + Math.ceil((1000 - (this.#clock.wallClockMs() % 1000)) * 1e6))
    }
    this.#alarm.set(deadline === Infinity ? NEVER : deadline)
  }

  #encode(value: number): number {
    return this.#state.cmos[Register.b]! & B.binary ? value : (Math.floor(value / 10) << 4) | (value % 10)
  }

  #decode(value: number): number {
    return this.#state.cmos[Register.b]! & B.binary ? value : (value >> 4) * 10 + (value & 15)
  }

  #encodeHour(hour: number): number {
    if (this.#state.cmos[Register.b]! & B.hours24) return this.#encode(hour)
    return this.#encode(hour % 12 || 12) | (hour >= 12 ? PM : 0)
  }

  #decodeHour(value: number): number {
    if (this.#state.cmos[Register.b]! & B.hours24) return this.#decode(value)
    return (this.#decode(value & ~PM) % 12) + (value & PM ? 12 : 0)
  }

  /** The time as the registers show it. */
  #latchTime(): void {
    const { cmos } = this.#state
    const date = new Date(this.#second() * 1000)
    const year = date.getUTCFullYear()
    cmos[Register.seconds] = this.#encode(date.getUTCSeconds())
    cmos[Register.minutes] = this.#encode(date.getUTCMinutes())
    cmos[Register.hours] = this.#encodeHour(date.getUTCHours())
    cmos[Register.weekday] = this.#encode(date.getUTCDay() + 1)
    cmos[Register.day] = this.#encode(date.getUTCDate())
    cmos[Register.month] = this.#encode(date.getUTCMonth() + 1)
    cmos[Register.year] = this.#encode(year % 100)
    cmos[Register.century] = this.#encode(Math.floor(year / 100) % 100)
  }

  /** The guest's time is what the registers say from now on. */
  #setTime(): void {
    const { cmos } = this.#state
    const seconds =
      Date.UTC(
        this.#decode(cmos[Register.century]!) * 100 + this.#decode(cmos[Register.year]!),
        this.#decode(cmos[Register.month]!) - 1,
        this.#decode(cmos[Register.day]!),
        this.#decodeHour(cmos[Register.hours]!),
        this.#decode(cmos[Register.minutes]!),
        this.#decode(cmos[Register.seconds]!),
      ) / 1000
    // Nonsense in the registers: the time goes on as it was.
    if (Number.isFinite(seconds)) this.#state.offsetSeconds += seconds - this.#second()
    this.#state.seenSecond = this.#second()
  }

  /** The battery keeps time and memory; only the interrupts' enables and flags go. */
  reset(): void {
    const { cmos } = this.#state
    this.#state.index = 0
    cmos[Register.b]! &= ~(B.set | B.periodic | B.alarm | B.update | B.squareWave)
    cmos[Register.c] = 0
    this.#state.seenSecond = this.#second()
    this.#update()
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#update()
  }
}

const MIB = 1 << 20
const GIB4 = 2 ** 32

/** What firmware reads about the machine. (SeaBIOS, "rtc.h"; IBM PC AT technical reference, "CMOS RAM") */
function describeMachine(cmos: Uint8Array, { memoryMap, vcpuCount }: CmosOptions): void {
  let below4G = 0
  let above4G = 0
  for (const { start, length, kind } of memoryMap.regions) {
    if (kind !== 'ram') continue
    if (start < GIB4) below4G = Math.max(below4G, Math.min(start + length, GIB4))
    above4G += Math.max(0, start + length - Math.max(start, GIB4))
  }
  const put16 = (index: number, value: number): void => {
    cmos[index] = value & 0xff
    cmos[index + 1] = (value >> 8) & 0xff
  }
  const baseKib = Math.min(640, below4G / 1024)
  const extendedKib = Math.min(0xffff, Math.max(0, (below4G - MIB) / 1024))
  put16(0x15, baseKib)
  put16(0x17, extendedKib)
  put16(0x30, extendedKib)
  put16(0x34, Math.min(0xffff, Math.max(0, (below4G - 16 * MIB) / 65536)))
  const above64Kib = above4G / 65536
  put16(0x5b, above64Kib & 0xffff)
  cmos[0x5d] = (above64Kib / 65536) & 0xff
  cmos[0x5f] = vcpuCount - 1
  cmos[0x14] = 0x06 // equipment: coprocessor, PS/2 pointer
  cmos[0x3d] = 0x21 // boot order: first fixed disk, then floppy; SeaBIOS prefers the `bootorder` file
  let sum = 0
  for (let index = 0x10; index <= 0x2d; index++) sum += cmos[index]!
  cmos[0x2e] = sum >> 8
  cmos[0x2f] = sum & 0xff
}
