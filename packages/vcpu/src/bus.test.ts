import { IO_DEFERRED, type X86VcpuPorts } from '@nonroot/contracts'
import { createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { ProcessorBus } from './bus.ts'

const AT = 0x1000

/** Devices answer nothing at once. */
function bench(count = 2) {
  const memory = createTestHostMemory(64)
  const asked: string[] = []
  const ask = <T>(what: string, answer: T) => (at: number): T => (asked.push(`${what} ${at.toString(16)}`), answer)
  const io = { readPort: ask('in', IO_DEFERRED), writePort: ask('out', false), readMmio: ask('read', IO_DEFERRED), writeMmio: ask('write', false) }
  const ports = { io, clock: { tscHz: 1e9 }, capability: () => undefined, abi: { cpuid: () => {} } } as unknown as X86VcpuPorts
  return { memory, asked, bus: new ProcessorBus(memory, ports, 1, { count }) }
}

describe('an access that its device defers', () => {
  const accesses = {
    read: (bus: ProcessorBus) => bus.readDevice(AT, 4),
    write: (bus: ProcessorBus) => bus.writeDevice(AT, 4, 7),
    in: (bus: ProcessorBus) => bus.readPort(AT, 4),
    out: (bus: ProcessorBus) => bus.writePort(AT, 4, 7),
  } as const
  const names = Object.keys(accesses) as (keyof typeof accesses)[]

  it.each(names)('%s: takes its answer once, and no other access does', (name) => {
    const { bus, asked } = bench()
    expect(() => accesses[name](bus)).toThrow()
    expect(bus.deferred).toMatchObject({ kind: name === 'read' || name === 'write' ? 'mmio' : 'portIo', write: name === 'write' || name === 'out', address: AT, size: 4 })
    bus.complete(bus.deferred!, 0x55)
    expect(bus.isCompleting).toBe(true)
    for (const other of names) if (other !== name) expect(() => accesses[other](bus), other).toThrow()
    expect(() => bus.readDevice(AT + 4, 4)).toThrow()
    expect(() => bus.readPort(AT + 4, 4)).toThrow()
    const before = asked.length
    expect(accesses[name](bus)).toBe(name === 'read' || name === 'in' ? 0x55 : undefined)
    expect([asked.length, bus.isCompleting]).toEqual([before, false])
    expect(() => accesses[name](bus)).toThrow()
  })
})

it('the host address of the last byte of host memory, and of none behind it', () => {
  const { bus, memory } = bench()
  const end = memory.bytes.length
  expect([bus.hostAddress(0), bus.hostAddress(end - 1), bus.hostAddress(end)]).toEqual([0, end - 1, -1])
})

it.each([
  { count: 1, flags: 0, logical: 1, bits: 0 },
  { count: 2, flags: 1 << 28, logical: 2, bits: 1 },
  { count: 4, flags: 1 << 28, logical: 4, bits: 2 },
  { count: 5, flags: 1 << 28, logical: 5, bits: 3 },
])('CPUID of one of $count', ({ count, flags, logical, bits }) => {
  const { bus } = bench(count)
  const ask = (leaf: number, subleaf = 0): number[] => {
    const result = new Uint32Array(4)
    bus.cpuid(leaf, subleaf, result)
    return [...result]
  }
  expect(ask(1)).toEqual([0, (1 << 24) | (logical << 16), 0, flags])
  expect([ask(0xb), ask(0xb, 1)]).toEqual([[0, 0, 0, 1], [bits, logical, 0, 1]])
})
