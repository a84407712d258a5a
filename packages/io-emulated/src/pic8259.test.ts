import { createDeviceBench } from '@nonroot/testkit'
import { beforeEach, describe, expect, it } from 'vitest'
import { PicPair } from './pic8259.ts'

let bench = createDeviceBench()
let pic = new PicPair(bench.context)

/** As Linux: vectors 0x30 and 0x38, everything unmasked. */
function initialise(icw4 = 1) {
  bench = createDeviceBench()
  pic = new PicPair(bench.context)
  for (const [port, base, cascade] of [
    [0x20, 0x30, 4],
    [0xa0, 0x38, 2],
  ] as const) {
    bench.writePort(port, 0x11)
    bench.writePort(port + 1, base)
    bench.writePort(port + 1, cascade)
    bench.writePort(port + 1, icw4)
    bench.writePort(port + 1, 0)
  }
}
const eoi = (port: number): void => bench.writePort(port, 0x20)
const isr = (port: number): number => {
  bench.writePort(port, 0x0b)
  return bench.readPort(port)
}
const pulse = (irq: number): void => {
  pic.setLine(irq, true)
  pic.setLine(irq, false)
}

describe('8259 pair', () => {
  beforeEach(() => initialise())

  it('holds its mask, as Linux probes', () => {
    bench.writePort(0x21, 0xfb)
    expect(bench.readPort(0x21)).toBe(0xfb)
  })

  it.each([
    { irq: 0, vector: 0x30 },
    { irq: 4, vector: 0x34 },
    { irq: 8, vector: 0x38 },
    { irq: 15, vector: 0x3f },
  ])('IRQ $irq is vector $vector', ({ irq, vector }) => {
    pulse(irq)
    expect(pic.output).toBe(true)
    expect(pic.acknowledge()).toBe(vector)
    expect(pic.output).toBe(false)
    if (irq >= 8) eoi(0xa0)
    eoi(0x20)
    expect([isr(0x20), isr(0xa0)]).toEqual([0, 0])
  })

  it('nests by priority', () => {
    pulse(4)
    expect(pic.acknowledge()).toBe(0x34)
    pulse(5)
    expect(pic.output).toBe(false)
    pulse(1)
    expect(pic.acknowledge()).toBe(0x31)
    eoi(0x20)
    expect(isr(0x20)).toBe(0x10)
    eoi(0x20)
    expect(pic.acknowledge()).toBe(0x35)
  })

  it('gives the spurious vector when nothing waits', () => {
    expect(pic.acknowledge()).toBe(0x37)
    expect(isr(0x20)).toBe(0)
  })

  it('masks', () => {
    bench.writePort(0x21, 0x10)
    pulse(4)
    expect(pic.output).toBe(false)
    bench.writePort(0x21, 0)
    expect(pic.output).toBe(true)
  })

  it('repeats a level until it is lowered', () => {
    bench.writePort(0x4d0, 0xff)
    bench.writePort(0x4d1, 0xff)
    expect([bench.readPort(0x4d0), bench.readPort(0x4d1)]).toEqual([0xf8, 0xde])
    pic.setLine(9, true)
    expect(pic.acknowledge()).toBe(0x39)
    eoi(0xa0)
    eoi(0x20)
    expect(pic.output).toBe(true)
    pic.setLine(9, false)
    expect(pic.output).toBe(false)
  })

  it('ends by itself in automatic EOI mode', () => {
    initialise(3)
    pulse(3)
    expect(pic.acknowledge()).toBe(0x33)
    expect(isr(0x20)).toBe(0)
  })

  it('rotates, ends specifically, polls', () => {
    pulse(3)
    pic.acknowledge()
    bench.writePort(0x20, 0xe3) // rotate on specific EOI of 3: 4 is highest now
    pulse(3)
    pulse(4)
    expect(pic.acknowledge()).toBe(0x34)
    bench.writePort(0x20, 0x64)
    bench.writePort(0x20, 0x0c)
    expect(bench.readPort(0x20)).toBe(0x83)
    expect(pic.output).toBe(false)
  })

  it('lets lower requests through in special mask mode', () => {
    pulse(2 + 1)
    pic.acknowledge()
    bench.writePort(0x21, 1 << 3)
    bench.writePort(0x20, 0x68)
    pulse(6)
    expect(pic.acknowledge()).toBe(0x36)
  })

  it('saves and restores', () => {
    pulse(10)
    const saved = structuredClone(pic.save())
    initialise()
    pic.restore(saved)
    expect(pic.output).toBe(true)
    expect(pic.acknowledge()).toBe(0x3a)
  })
})
