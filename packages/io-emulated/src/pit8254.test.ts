import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { PIT_HZ, Pit8254 } from './pit8254.ts'
import { SystemControl } from './system-control.ts'

function start() {
  const bench = createDeviceBench()
  const line = bench.line(2)
  const pit = new Pit8254(bench.context, line)
  new SystemControl(bench.context, pit)
  const { readPort: read, writePort: write, clock } = bench
  const read16 = (port: number): number => read(port) | (read(port) << 8)
  const ticks = (count: number): void => clock.advanceNs(Math.ceil((count * 1e9) / PIT_HZ))
  return { bench, pit, line, clock, read, write, read16, ticks }
}

describe('8254', () => {
  it('calibrates a TSC as Linux does: counter 2, mode 0, gate and output at port 0x61', () => {
    const { clock, read, write } = start()
    const latch = Math.floor(PIT_HZ / 100)
    write(0x61, (read(0x61) & ~2) | 1)
    write(0x43, 0xb0)
    write(0x42, latch & 0xff)
    write(0x42, latch >> 8)
    let polls = 0
    for (; (read(0x61) & 0x20) === 0; polls++) clock.advanceNs(1000)
    expect(polls).toBeGreaterThan(9990)
    expect(polls).toBeLessThan(10010)
  })

  it('counts down in mode 0 and stands still while the gate is low', () => {
    const { read16, ticks, write, read } = start()
    write(0x61, 1)
    write(0x43, 0xb0)
    write(0x42, 0xff)
    write(0x42, 0xff)
    ticks(100)
    write(0x43, 0x80)
    expect(read16(0x42)).toBe(0xffff - 100)
    write(0x61, 0)
    ticks(1000)
    write(0x43, 0x80)
    expect(read16(0x42)).toBe(0xffff - 100)
    write(0x61, 1)
    ticks(0x10000)
    expect(read(0x61) & 0x20).toBe(0x20)
  })

  it.each([
    { mode: 2, command: 0x34, edges: 100 },
    { mode: 3, command: 0x36, edges: 100 },
    { mode: 0, command: 0x30, edges: 1 },
    { mode: 4, command: 0x38, edges: 1 },
    { mode: 1, command: 0x32, edges: 0 },
  ])('interrupts in mode $mode: $edges times in a second at 100 Hz', ({ command, edges }) => {
    const { clock, line, write } = start()
    const count = Math.floor(PIT_HZ / 100)
    write(0x43, command)
    write(0x40, count & 0xff)
    write(0x40, count >> 8)
    clock.advanceNs(1e9)
    expect(line.edges).toBe(edges)
  })

  it('keeps a clock running on no more interrupts than it could handle', () => {
    const { clock, line, write } = start()
    write(0x43, 0x14)
    write(0x40, 2)
    clock.advanceNs(1e7)
    expect(line.edges).toBeGreaterThan(100)
    expect(line.edges).toBeLessThanOrEqual(200)
  })

  it('drifts by no tick in an hour', () => {
    const { clock, line, write } = start()
    write(0x43, 0x34)
    write(0x40, 0)
    write(0x40, 0)
    clock.advanceNs(3600e9)
    expect(line.edges).toBe(Math.floor((3600 * PIT_HZ) / 65536))
  })

  it('reads back status and count', () => {
    const { read, read16, ticks, write } = start()
    write(0x43, 0x34)
    write(0x43, 0xe2) // status of counter 0
    expect(read(0x40)).toBe(0xf4) // OUT high, no count yet
    write(0x40, 0x00)
    write(0x40, 0x10)
    ticks(16)
    write(0x43, 0xc2) // status and count
    ticks(100)
    expect(read(0x40)).toBe(0xb4)
    expect(read16(0x40)).toBe(0x1000 - 16)
  })

  it('reloads in mode 2 at the end of the period', () => {
    const { line, ticks, write } = start()
    write(0x43, 0x34)
    write(0x40, 0xe8)
    write(0x40, 0x03)
    ticks(500)
    write(0x40, 0xd0)
    write(0x40, 0x07)
    ticks(501)
    expect(line.edges).toBe(1)
    ticks(1990)
    expect(line.edges).toBe(1)
    ticks(12)
    expect(line.edges).toBe(2)
  })

  it('counts in BCD', () => {
    const { read16, ticks, write } = start()
    write(0x43, 0x31)
    write(0x40, 0x00)
    write(0x40, 0x10)
    ticks(1)
    expect(read16(0x40).toString(16)).toBe('999')
  })

  it('saves and restores', () => {
    const first = start()
    first.write(0x43, 0x34)
    first.write(0x40, 0)
    first.write(0x40, 0x10)
    const second = start()
    second.pit.restore(structuredClone(first.pit.save()))
    first.clock.advanceNs(1e8)
    second.clock.advanceNs(1e8)
    expect(second.line.edges).toBe(first.line.edges)
    expect(second.read16(0x40)).toBe(first.read16(0x40))
  })
})
