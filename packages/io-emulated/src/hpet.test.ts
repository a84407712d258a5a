import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { GatedLine } from './gated-line.ts'
import { Hpet } from './hpet.ts'
import { startPc } from './pc-bench.test.ts'

const AT = 0xfed00000
const COUNTING = 1
const LEGACY = 2
const LEVEL = 0x02
const ENABLED = 0x04
const PERIODIC = 0x08
const SET = 0x40
const BITS32 = 0x100
const route = (gsi: number): number => gsi << 9

function start() {
  const bench = createDeviceBench()
  const pit = new GatedLine(bench.line(2))
  const rtc = new GatedLine(bench.line(8))
  const hpet = new Hpet(bench.context, AT, {
    line: (gsi) => bench.line(gsi),
    replaced: [pit, rtc],
    legacy: [bench.line(100), bench.line(108)],
  })
  const read = (register: number, size?: 1 | 2 | 4) => bench.readMmio(AT + register, size)
  const write = (register: number, value: number) => bench.writeMmio(AT + register, value)
  const timer = (number: number, configuration: number, comparator: number): void => {
    write(0x100 + 0x20 * number, configuration)
    write(0x108 + 0x20 * number, comparator)
  }
  return { ...bench, hpet, pit, rtc, read, write, timer }
}

describe('registers', () => {
  it.each([
    { what: 'capabilities: three timers of 64 bits, legacy replacement', at: 0x000, is: 0x8086a201 },
    { what: 'period: 10 ns in femtoseconds', at: 0x004, is: 10_000_000 },
    { what: 'nothing counts at first', at: 0x010, is: 0 },
    { what: 'a timer may be periodic and has 64 bits', at: 0x100, is: 0x30 },
    { what: 'it may be routed to the pins of PCI', at: 0x104, is: 0x00ff0000 },
    { what: 'its comparator is all ones', at: 0x108, is: 0xffffffff },
    { what: 'there is no fourth timer', at: 0x160, is: 0 },
  ])('$what', ({ at, is }) => expect(start().read(at)).toBe(is))

  it('can be read in parts, not written in parts', () => {
    const { read, writeMmio } = start()
    expect([read(2, 2), read(3, 1)]).toEqual([0x8086, 0x80])
    writeMmio(AT + 0x10, 1, 1)
    expect(read(0x10)).toBe(0)
  })
})

describe('counter', () => {
  it('counts while it is told to, over its halves, and both are read as one', () => {
    const { read, write, clock, hpet } = start()
    clock.advanceNs(1e6)
    expect(read(0xf0)).toBe(0)
    write(0xf0, 0xffff_fff0)
    write(0xf4, 7)
    write(0x10, COUNTING)
    clock.advanceNs(155)
    expect([read(0xf0), read(0xf4), hpet.read64(0xf0)]).toEqual([0xffff_ffff, 7, 0x7_ffff_ffffn])
    clock.advanceNs(10)
    expect([read(0xf0), read(0xf4), hpet.read64(0xf0)]).toEqual([0, 8, 0x8_0000_0000n])
    write(0x10, 0)
    clock.advanceNs(1e9)
    expect([read(0xf0), read(0xf4)]).toEqual([0, 8])
  })
})

describe('timers', () => {
  it.each([
    { what: 'one-shot', configuration: ENABLED | route(20), edges: [1, 1, 1] },
    { what: 'not enabled', configuration: route(20), edges: [0, 0, 0] },
    { what: 'routed where it cannot be', configuration: ENABLED | route(5), edges: [0, 0, 0] },
    { what: 'periodic', configuration: ENABLED | PERIODIC | SET | BITS32 | route(20), edges: [1, 2, 3] },
    { what: 'periodic in 64 bits', configuration: ENABLED | PERIODIC | SET | route(20), edges: [1, 2, 3] },
  ])('$what', ({ configuration, edges }) => {
    const { timer, write, clock, line } = start()
    timer(0, configuration, 100_000)
    if (!(configuration & BITS32)) write(0x10c, 0)
    write(0x10, COUNTING)
    const seen = edges.map(() => (clock.advanceNs(1e6), line(20).edges))
    expect(seen).toEqual(edges)
  })

  it('the period may be set apart from the first match, as Linux does', () => {
    const { timer, write, clock, line } = start()
    write(0x10, COUNTING)
    timer(0, ENABLED | PERIODIC | SET | BITS32 | route(21), 500_000)
    write(0x108, 100_000)
    clock.advanceNs(4_999_990)
    expect(line(21).edges).toBe(0)
    clock.advanceNs(10)
    expect(line(21).edges).toBe(1)
    clock.advanceNs(3e6)
    expect(line(21).edges).toBe(4)
  })

  it('a comparator of 32 bits matches again after a whole turn, and not at the value where it was written', () => {
    const { timer, write, clock, line } = start()
    write(0x10, COUNTING)
    timer(1, ENABLED | BITS32 | route(22), 0)
    clock.advanceNs(2 ** 32 * 10 - 10)
    expect(line(22).edges).toBe(0)
    clock.advanceNs(10)
    expect(line(22).edges).toBe(1)
  })

  it('level: asserted until its status is cleared, which shows it however early it is read', () => {
    const { timer, write, read, clock, line } = start()
    timer(2, ENABLED | LEVEL | route(23), 1000)
    write(0x14c, 0)
    write(0x10, COUNTING)
    // Time passes in the middle of a guest's slice: nobody has called the clock's timers.
    clock.advanceInstructions(10_000)
    expect([read(0x20), line(23).raised]).toEqual([4, true])
    write(0x20, 3)
    expect(line(23).raised).toBe(true)
    write(0x20, 4)
    expect([read(0x20), line(23).raised]).toEqual([0, false])
  })

  it.each([
    { what: 'another route', configuration: ENABLED | LEVEL | route(21), raised: [false, true] },
    { what: 'edges', configuration: ENABLED | route(20), raised: [false, false] },
    { what: 'disabled', configuration: LEVEL | route(20), raised: [false, false] },
    { what: 'as before', configuration: ENABLED | LEVEL | route(20), raised: [true, false] },
  ])('level: a status that is set is on the line that the configuration names, here and where it is restored: $what', ({ configuration, raised }) => {
    const first = start()
    first.timer(0, ENABLED | LEVEL | BITS32 | route(20), 1000)
    first.write(0x10, COUNTING)
    first.clock.advanceNs(100_000)
    expect(first.line(20).raised).toBe(true)
    first.write(0x100, configuration | BITS32)
    const second = start()
    // A timer of its own, which has matched, too.
    second.timer(1, ENABLED | LEVEL | BITS32 | route(22), 500)
    second.write(0x10, COUNTING)
    second.clock.advanceNs(100_000)
    expect(second.line(22).raised).toBe(true)
    second.hpet.restore(structuredClone(first.hpet.save()))
    for (const { line, read } of [first, second]) expect([read(0x20), line(20).raised, line(21).raised, line(22).raised]).toEqual([1, ...raised, false])
    // Disabled and enabled again, it is still to be served.
    first.write(0x100, LEVEL | BITS32 | route(20))
    first.write(0x100, ENABLED | LEVEL | BITS32 | route(20))
    expect(first.line(20).raised).toBe(true)
    first.write(0x20, 1)
    expect(first.line(20).raised).toBe(false)
  })

  it('legacy replacement takes the place of timer and RTC', () => {
    const { timer, write, clock, line, pit, rtc } = start()
    pit.raise()
    rtc.pulse()
    expect([line(2).raised, line(8).edges]).toEqual([true, 1])
    write(0x10, COUNTING | LEGACY)
    expect(line(2).raised).toBe(false)
    rtc.pulse()
    timer(0, ENABLED | BITS32, 1000)
    timer(1, ENABLED | BITS32, 2000)
    clock.advanceNs(1e6)
    expect([line(100).edges, line(108).edges, line(8).edges]).toEqual([1, 1, 1])
    write(0x10, COUNTING)
    expect(line(2).raised).toBe(true)
  })

  it('a period too short for anybody is counted, and leaves a guest time to run', () => {
    const { timer, write, clock, line, read } = start()
    timer(0, ENABLED | PERIODIC | SET | BITS32 | route(20), 1)
    write(0x10, COUNTING)
    clock.advanceNs(1e6)
    expect(line(20).edges).toBeLessThanOrEqual(20)
    expect(read(0x108)).toBeGreaterThan(99_000)
  })

  it('saves, restores, resets', () => {
    const first = start()
    first.timer(0, ENABLED | LEVEL | PERIODIC | SET | BITS32 | route(20), 1000)
    first.write(0x10, COUNTING)
    first.clock.advanceNs(100_000)
    const second = start()
    second.clock.advanceNs(100_000)
    second.hpet.restore(structuredClone(first.hpet.save()))
    expect([second.line(20).raised, second.read(0xf0)]).toEqual([true, 10_000])
    second.hpet.reset()
    expect([second.line(20).raised, second.read(0x20), second.read(0xf0)]).toEqual([false, 0, 0])
  })
})

describe('in the PC', () => {
  /** As Linux sets up its tick: everything stopped and zeroed, accumulator, period, then the counter starts. */
  it.each([
    { what: 'the I/O APIC', pin: true },
    { what: 'the 8259', pin: false },
  ])('is the tick that legacy replacement brings, by $what', ({ pin }) => {
    const { pc, clock, writeMmio, readMmio, writePort } = startPc({ options: { hpet: true } })
    const { interruptController } = pc
    expect(pc.describe!().hpet).toEqual({ address: AT })
    interruptController.hasPending(0)
    writeMmio(0xfee000f0, 0x1ff)
    writePort(0x43, 0x34)
    for (const byte of [0x9c, 0x2e]) writePort(0x40, byte)
    if (pin) {
      writeMmio(0xfee00350, 0x10000)
      for (const [register, value] of [
        [0x15, 0],
        [0x14, 0x30],
      ] as const) {
        writeMmio(0xfec00000, register)
        writeMmio(0xfec00010, value)
      }
    } else {
      for (const [port, value] of [
        [0x20, 0x11],
        [0x21, 0x30],
        [0x21, 4],
        [0x21, 1],
        [0x21, 0xfe],
      ] as const)
        writePort(port, value)
    }
    const write = (register: number, value: number): void => writeMmio(AT + register, value)
    write(0x10, 0)
    write(0xf0, 0)
    write(0xf4, 0)
    write(0x10, LEGACY)
    const PERIOD = 400_000
    write(0x100, readMmio(AT + 0x100) | ENABLED | PERIODIC | SET | BITS32)
    write(0x108, PERIOD)
    write(0x108, PERIOD)
    write(0x10, LEGACY | COUNTING)
    const taken: number[] = []
    for (let ms = 0; ms < 40; ms++) {
      clock.advanceNs(1e6)
      if (!interruptController.hasPending(0)) continue
      taken.push(interruptController.acknowledge(0))
      if (pin) writeMmio(0xfee000b0, 0)
      else writePort(0x20, 0x20)
    }
    expect(taken).toEqual(Array.from({ length: 10 }, () => 0x30))
  })
})
