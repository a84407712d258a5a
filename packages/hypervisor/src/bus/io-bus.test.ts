import { describe, expect, it } from 'vitest'
import { gpa } from '@nonroot/contracts'
import type { IoHandler } from '@nonroot/contracts'
import { createMetrics } from '../metrics/metrics.ts'
import { KernelIoBus } from './io-bus.ts'

/** Answers with its offset and size, remembers writes. */
function recorder() {
  const writes: [number, number, number][] = []
  const handler: IoHandler = {
    read: (offset, size) => (size === 1 ? offset : offset * 0x100 + size),
    write: (offset, size, value) => void writes.push([offset, size, value]),
  }
  return { handler, writes }
}

function bus() {
  const metrics = createMetrics()
  const made = new KernelIoBus(metrics)
  const count = metrics.counter('accesses', '')
  const ports = (name: string, base: number, length: number, handler: IoHandler) =>
    made.claimPorts(name, base, length, handler, count)
  const mmio = (name: string, base: number, length: number, handler: IoHandler) =>
    made.claimAddresses(name, base, length, handler, count)
  const value = (name: string): number => metrics.samples().find((sample) => sample.name === name)!.value
  return { made, ports, mmio, value }
}

describe('ports', () => {
  it('reach their device, and nobody gives ones', () => {
    const { made, ports, value } = bus()
    const { handler, writes } = recorder()
    ports('uart', 0x3f8, 8, handler)
    expect(made.readPort(0x3fd, 1)).toBe(5)
    expect(made.readPort(0x3f8, 2)).toBe(2)
    expect(made.writePort(0x3f9, 1, 7)).toBe(true)
    expect(writes).toEqual([[1, 1, 7]])
    expect([made.readPort(0x400, 1), made.readPort(0x400, 2), made.readPort(0x400, 4)]).toEqual([
      0xff, 0xffff, 0xffff_ffff,
    ])
    expect(made.writePort(0x80, 1, 1)).toBe(true)
    expect(value('unclaimed')).toBe(4)
    expect(value('accesses')).toBe(3)
  })

  it('split what hangs over a device', () => {
    const { made, ports } = bus()
    const first = recorder()
    const second = recorder()
    ports('first', 0x60, 1, first.handler)
    ports('second', 0x61, 2, second.handler)
    expect(made.readPort(0x60, 4)).toBe(0xff01_0000)
    made.writePort(0x5f, 4, 0x4433_2211)
    expect(first.writes).toEqual([[0, 1, 0x22]])
    expect(second.writes).toEqual([
      [0, 1, 0x33],
      [1, 1, 0x44],
    ])
    expect(made.readPort(0xffff, 4)).toBe(0xffff_ffff)
    expect(made.writePort(0xffff, 4, 1)).toBe(true)
  })

  it('refuse a collision and name both', () => {
    const { ports } = bus()
    ports('uart0', 0x3f8, 8, recorder().handler)
    expect(() => ports('mine', 0x3ff, 2, recorder().handler)).toThrow(
      'mine: ports 0x3ff..0x400 collide with uart0, which has 0x3f8..0x3ff',
    )
    expect(() => ports('mine', 0xffff, 2, recorder().handler)).toThrow('not within')
    expect(() => ports('mine', -1, 2, recorder().handler)).toThrow('not within')
  })

  it('move, and the earlier claim answers where a guest puts one over another', () => {
    const { made, ports } = bus()
    ports('first', 0x100, 4, { read: () => 1, write: () => {} })
    const second = ports('second', 0x200, 8, { read: () => 2, write: () => {} })
    second.move(0xfe)
    expect([0xfe, 0x100, 0x104, 0x105, 0x200].map((port) => made.readPort(port, 1))).toEqual([2, 1, 2, 2, 0xff])
    second.disable()
    expect(made.readPort(0x105, 1)).toBe(0xff)
    second.enable()
    expect(made.readPort(0x105, 1)).toBe(2)
    second.move(0x1_0000)
    expect(made.readPort(0x105, 1)).toBe(0xff)
  })

  it('pass on what is deferred', () => {
    const { made, ports } = bus()
    ports('slow', 0x100, 4, { read: () => -1, write: () => false })
    expect(made.readPort(0x100, 1)).toBe(-1)
    expect(made.readPort(0xff, 2)).toBe(-1)
    expect(made.writePort(0x100, 1, 0)).toBe(false)
    expect(made.currentOwner).toBe('slow')
  })
})

describe('memory-mapped registers', () => {
  it('reach their device above 4 GiB, too', () => {
    const { made, mmio } = bus()
    const { handler, writes } = recorder()
    mmio('high', 0x80_0000_0000, 0x1000, handler)
    mmio('low', 0xfec0_0000, 0x1000, handler)
    expect(made.readMmio(gpa(0x80_0000_0010), 4)).toBe(0x1004)
    expect(made.readMmio(gpa(0xfec0_0008), 1)).toBe(8)
    made.writeMmio(gpa(0x80_0000_0004), 4, 9)
    expect(writes).toEqual([[4, 4, 9]])
    expect(made.readMmio(gpa(0xfec0_1000), 4)).toBe(0xffff_ffff)
    expect(made.readMmio64(gpa(0))).toBe(0xffff_ffff_ffff_ffffn)
    expect(made.readMmio64(gpa(0xfec0_0010))).toBe((0x1404n << 32n) | 0x1004n)
    made.writeMmio64(gpa(0xfec0_0010), 0x2_0000_0001n)
    expect(writes.slice(1)).toEqual([
      [0x10, 4, 1],
      [0x14, 4, 2],
    ])
  })

  it('split what crosses a doubleword', () => {
    const { made, mmio } = bus()
    const { handler, writes } = recorder()
    mmio('device', 0x1000, 0x10, handler)
    expect(made.readMmio(gpa(0x1003), 2)).toBe(0x0403)
    expect(made.readMmio(gpa(0x100e), 4)).toBe(0xffff_0f0e)
    made.writeMmio(gpa(0x1002), 4, 0x4433_2211)
    expect(writes).toEqual([
      [2, 1, 0x11],
      [3, 1, 0x22],
      [4, 1, 0x33],
      [5, 1, 0x44],
    ])
  })

  it('take eight bytes where they can', () => {
    const { made, mmio } = bus()
    let written = 0n
    mmio('wide', 0x1000, 0x10, {
      read: () => 0,
      write: () => {},
      read64: () => 5n,
      write64: (_offset, value) => void (written = value),
    })
    expect(made.readMmio64(gpa(0x1008))).toBe(5n)
    made.writeMmio64(gpa(0x1000), 77n)
    expect(written).toBe(77n)
  })

  it('survive any move of a guest', () => {
    const { made, mmio } = bus()
    const regions = Array.from({ length: 6 }, (_, index) =>
      mmio(`d${index}`, 0x10_0000 * (index + 1), 0x1000 << index, { read: () => index, write: () => {} }),
    )
    let seed = 7
    const random = (below: number): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % below
    for (let round = 0; round < 500; round++) {
      const region = regions[random(6)]!
      const what = random(4)
      if (what === 0) region.disable()
      else if (what === 1) region.enable()
      else region.move(random(0x40) * 0x1000)
      const address = random(0x60) * 0x1000
      const expected = regions.findIndex(
        ({ base, length, enabled }) => enabled && address >= base && address < base + length,
      )
      expect(made.readMmio(gpa(address), 1)).toBe(expected < 0 ? 0xff : expected)
    }
  })

  it('find a free place', () => {
    const { made, mmio } = bus()
    expect(made.findFreeAddresses(0x1000, 0xf000_0000, 0xf000_3000)).toBe(0xf000_2000)
    mmio('a', 0xf000_2000, 0x1000, recorder().handler)
    expect(made.findFreeAddresses(0x1000, 0xf000_0000, 0xf000_3000)).toBe(0xf000_1000)
    expect(made.findFreeAddresses(0x4000, 0xf000_0000, 0xf000_3000)).toBeUndefined()
  })
})
