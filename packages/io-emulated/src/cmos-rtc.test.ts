import { createDeviceBench, createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { gpa } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { CmosRtc } from './cmos-rtc.ts'

const MIB = 1 << 20

function start() {
  const guestMemory = createTestGuestMemory({
    hostMemory: createTestHostMemory(1),
    ram: [
      { start: gpa(0), length: 3072 * MIB, kind: 'ram' },
      { start: gpa(2 ** 32), length: 1024 * MIB, kind: 'ram' },
    ],
  })
  const bench = createDeviceBench({ guestMemory })
  const line = bench.line(8)
  const rtc = new CmosRtc(bench.context, line, { memoryMap: guestMemory, vcpuCount: 2 })
  const read = (index: number): number => {
    bench.writePort(0x70, index)
    return bench.readPort(0x71)
  }
  const write = (index: number, value: number): void => {
    bench.writePort(0x70, index)
    bench.writePort(0x71, value)
  }
  const time = (): number[] => [0x32, 9, 8, 7, 4, 2, 0].map(read)
  return { ...bench, rtc, line, read, write, time }
}

describe('time', () => {
  it.each([
    { b: 0x02, name: 'BCD, 24 hours', time: [0x20, 0x24, 1, 1, 0x13, 0x14, 0x15] },
    { b: 0x06, name: 'binary, 24 hours', time: [20, 24, 1, 1, 13, 14, 15] },
    { b: 0x00, name: 'BCD, 12 hours', time: [0x20, 0x24, 1, 1, 0x81, 0x14, 0x15] },
  ])('$name', ({ b, time: expected }) => {
    const { clock, time, write, read } = start()
    clock.advanceNs((13 * 3600 + 14 * 60 + 15) * 1e9)
    write(0x0b, b)
    expect(time()).toEqual(expected)
    expect(read(6)).toBe(2) // Monday
  })

  it('is set as Linux does: held by SET, even through dates that do not exist', () => {
    const { clock, time, write } = start()
    clock.advanceNs(30 * 86400e9) // January 31
    write(0x0b, 0x82)
    for (const [index, value] of [
      [9, 0x25],
      [8, 0x02],
      [7, 0x28],
      [4, 0x23],
      [2, 0x59],
      [0, 0x58],
    ] as const)
      write(index, value)
    clock.advanceNs(5e9)
    write(0x0b, 0x02)
    expect(time()).toEqual([0x20, 0x25, 0x02, 0x28, 0x23, 0x59, 0x58])
    clock.advanceNs(3e9)
    expect(time()).toEqual([0x20, 0x25, 0x03, 0x01, 0x00, 0x00, 0x01])
  })

  it('announces updates, for about two milliseconds a second', () => {
    const { clock, read } = start()
    let updating = 0
    for (let step = 0; step < 10000; step++) {
      clock.advanceNs(1e5)
      if (read(0x0a) & 0x80) updating++
    }
    expect(updating).toBeGreaterThan(10)
    expect(updating).toBeLessThan(30)
  })
})

describe('interrupts', () => {
  it.each([
    { name: 'update', b: 0x12, seconds: 3, edges: 3, flags: 0x90 },
    { name: 'periodic at 1024 Hz', b: 0x42, seconds: 1, edges: 1024, flags: 0xc0 },
    { name: 'none', b: 0x02, seconds: 3, edges: 0, flags: 0x00 },
  ])('$name', ({ b, seconds, edges, flags }) => {
    const { clock, line, read, write } = start()
    write(0x0b, b)
    let seen = 0
    for (let step = 0; step < seconds * 4096; step++) {
      clock.advanceNs(1e9 / 4096)
      if (!line.raised) continue
      seen |= read(0x0c) & (flags | 0x80)
    }
    expect(line.edges).toBeGreaterThanOrEqual(edges - 1)
    expect(line.edges).toBeLessThanOrEqual(edges)
    expect(seen).toBe(flags)
    expect(line.raised).toBe(false)
  })

  it('alarm, at a time and with wildcards', () => {
    const { clock, line, read, write } = start()
    write(1, 0x30)
    write(3, 0xff)
    write(5, 0xc0)
    write(0x0b, 0x22)
    clock.advanceNs(29e9)
    expect(line.raised).toBe(false)
    clock.advanceNs(2e9)
    expect(line.raised).toBe(true)
    expect(read(0x0c) & 0xa0).toBe(0xa0)
    clock.advanceNs(60e9)
    expect(line.edges).toBe(2)
  })

  it.each([
    { name: 'periodic', b: 0x42, flag: 0x40, alarm: false },
    { name: 'alarm', b: 0x22, flag: 0x20, alarm: true },
    { name: 'update', b: 0x12, flag: 0x10, alarm: false },
    { name: 'none of them', b: 0x02, flag: 0, alarm: true },
  ])(
    'polled, a flag never comes without IRQF if its enable is set, nor with it if not: $name',
    ({ b, flag, alarm }) => {
      const { clock, read, write } = start()
      for (const index of [1, 3, 5]) write(index, alarm ? 0xff : 0x99)
      write(0x0b, b)
      read(0x0c)
      let seen = 0
      // A clock that moves without its timers being called, as in the middle of a guest's slice.
      for (let step = 0; step < 40_000; step++) {
        clock.advanceInstructions(100_003)
        const c = read(0x0c)
        expect([c, (c & 0x80) !== 0]).toEqual([c, (c & flag) !== 0])
        seen |= c
      }
      expect(seen & flag).toBe(flag)
    },
  )

  it('flags are set without interrupts, too', () => {
    const { clock, read } = start()
    read(0x0c)
    clock.advanceNs(2e9)
    expect(read(0x0c)).toBe(0x50)
    expect(read(0x0c)).toBe(0)
    expect(read(0x0d)).toBe(0x80)
  })
})

describe('memory', () => {
  it('tells firmware its size', () => {
    const { read } = start()
    const word = (index: number): number => read(index) | (read(index + 1) << 8)
    expect(word(0x15)).toBe(640)
    expect(word(0x30)).toBe(0xffff)
    expect(word(0x34) * 65536 + 16 * MIB).toBe(3072 * MIB)
    expect((word(0x5b) + read(0x5d) * 65536) * 65536).toBe(1024 * MIB)
    expect(read(0x5f)).toBe(1)
  })

  it('keeps what is written, over a reset, and restores it', () => {
    const { rtc, read, write } = start()
    write(0x0b, 0x72)
    write(0x50, 0x5a)
    rtc.reset()
    expect([read(0x50), read(0x0b)]).toEqual([0x5a, 0x02])
    const other = start()
    other.rtc.restore(structuredClone(rtc.save()))
    expect(other.read(0x50)).toBe(0x5a)
  })

  it('a reset takes the interrupts away, and lets time, its form and the alarm be', () => {
    const { rtc, line, clock, read, write, time, readPort, writePort } = start()
    const ALARM = [0x05, 0x04, 0x03] as const
    ALARM.forEach((value, n) => write(2 * n + 1, value))
    // Binary, 12 hours; periodic, alarm and update interrupts; a square wave.
    write(0x0b, 0x7c)
    write(0x08, 7)
    clock.advanceNs(2e9)
    expect(line.raised).toBe(true)
    const before = time()
    writePort(0x70, 0x0b)
    rtc.reset()
    expect(line.raised).toBe(false)
    // Register 0 is selected.
    expect(readPort(0x71)).toBe(read(0))
    expect([read(0x0b), read(0x0c), read(0x0a)]).toEqual([0x04, 0, 0x26])
    expect([time(), [1, 3, 5].map(read)]).toEqual([before, [...ALARM]])
    const { edges } = line
    clock.advanceNs(86400e9)
    expect([line.raised, line.edges]).toEqual([false, edges])
    // What happened since is told to whoever asks, as before.
    expect(read(0x0c) & 0x70).toBe(0x70)
  })

  it('a reset ends SET: time goes on from what was set', () => {
    const { rtc, clock, write, read } = start()
    write(0x0b, 0x82)
    rtc.reset()
    expect(read(0x0b)).toBe(0x02)
    const second = read(0)
    clock.advanceNs(3e9)
    expect(read(0)).toBe(second + 3)
  })
})
