import { describe, expect, it } from 'vitest'
import { createMachine, memoryAt, PLATFORM } from '../images.test.support.ts'
import { memoryMap } from '../memory-map.ts'
import { Placement } from '../placement.ts'
import { byteSum } from '../structure.ts'
import { mpTable } from './mp-table.ts'
import { placeFirmwareTables } from './placing.ts'

const placed = (platform = PLATFORM) => {
  const machine = createMachine(256, platform)
  const placement = new Placement(machine)
  placeFirmwareTables(placement, machine)
  return { machine, placement }
}

describe('BIOS data area', () => {
  it.each([
    { what: 'base memory in KiB', at: 0x413, is: 639 },
    { what: 'segment of the EBDA', at: 0x40e, is: 0x9fc0 },
    { what: 'COM1', at: 0x400, is: 0x3f8 },
    { what: 'COM2, which is not there', at: 0x402, is: 0 },
    { what: 'equipment: a coprocessor, one serial port', at: 0x410, is: 0x202 },
    { what: 'an empty keyboard buffer', at: 0x41a, is: 0x1e },
  ])('$what', ({ at, is }) => {
    expect(memoryAt(placed().machine, at, 2).getUint16(0, true)).toBe(is)
  })

  it('shows a text screen where there is one', () => {
    const { machine } = placed({ ...PLATFORM, vga: true })
    const view = memoryAt(machine, 0x400, 0x100)
    expect([view.getUint16(0x10, true), view.getUint8(0x49), view.getUint16(0x4a, true), view.getUint8(0x84)]).toEqual([
      0x222, 3, 80, 24,
    ])
  })

  it('the EBDA says its size, is reserved in the memory map, and nothing is placed in it', () => {
    const { machine, placement } = placed()
    expect(memoryAt(machine, 0x9fc00, 1).getUint8(0)).toBe(1)
    expect(placement.isFree(0x9f000, 0xc00)).toBe(true)
    expect(placement.isFree(0x9fc00, 1)).toBe(false)
    expect(memoryMap(machine).slice(0, 2)).toEqual([
      { start: 0, length: 0x9fc00, type: 1 },
      { start: 0x9fc00, length: 0x400, type: 2 },
    ])
  })

  it('leaves a kernel alone that is loaded there', () => {
    const machine = createMachine()
    const placement = new Placement(machine)
    placement.put('kernel', 0, new Uint8Array(0x1000).fill(0xcc))
    placeFirmwareTables(placement, machine)
    expect(memoryAt(machine, 0x413, 1).getUint8(0)).toBe(0xcc)
  })
})

/** Entries by type, each as its bytes. */
function entriesOf(table: Uint8Array): Map<number, number[][]> {
  const view = new DataView(table.buffer)
  const found = new Map<number, number[][]>()
  let at = 44
  for (let left = view.getUint16(34, true); left > 0; left--) {
    const length = table[at] === 0 ? 20 : 8
    found.set(table[at]!, [...(found.get(table[at]!) ?? []), [...table.subarray(at, at + length)]])
    at += length
  }
  expect([at, view.getUint16(4, true)]).toEqual([table.length, table.length])
  return found
}

describe('MP table', () => {
  it('is found by its pointer, and both add up to zero', () => {
    const { machine } = placed()
    const pointer = memoryAt(machine, 0xf0000, 16)
    expect(new TextDecoder().decode(pointer).slice(0, 4)).toBe('_MP_')
    expect(byteSum(new Uint8Array(pointer.buffer))).toBe(0)
    const at = pointer.getUint32(4, true)
    const table = memoryAt(machine, at, memoryAt(machine, at + 4, 2).getUint16(0, true))
    expect(byteSum(new Uint8Array(table.buffer))).toBe(0)
    expect([...new Uint8Array(table.buffer)]).toEqual([...mpTable(PLATFORM, 2)!])
  })

  it('has processors, buses, I/O APIC, and where interrupts go', () => {
    const entries = entriesOf(mpTable(PLATFORM, 3)!)
    expect(entries.get(0)!.map(([, id, , flags]) => [id, flags])).toEqual([
      [0, 3],
      [1, 1],
      [2, 1],
    ])
    expect(entries.get(1)!.map((bytes) => String.fromCharCode(...bytes.slice(2)))).toEqual(['PCI   ', 'ISA   '])
    expect(entries.get(2)).toEqual([[2, 0, 0x20, 1, 0, 0, 0xc0, 0xfe]])
    const inputs = entries.get(3)!.map(([, , flags, , bus, irq, , pin]) => ({ flags, bus, irq, pin }))
    const isa = inputs.filter(({ bus }) => bus === 1)
    expect(isa).toHaveLength(15)
    expect(isa.find(({ irq }) => irq === 0)!.pin).toBe(2)
    expect(isa.find(({ irq }) => irq === 9)).toEqual({ flags: 0b1101, bus: 1, irq: 9, pin: 9 })
    // Device 3's pin B.
    expect(inputs.find(({ bus, irq }) => bus === 0 && irq === ((3 << 2) | 1))!.pin).toBe(16)
    expect(entries.get(4)!.map(([, kind, , , , , apic, pin]) => [kind, apic, pin])).toEqual([
      [3, 0, 0],
      [1, 255, 1],
    ])
  })

  it('fits with 255 processors, and is not there without APICs', () => {
    expect(mpTable(PLATFORM, 300)!.length).toBeLessThan(0xfff0)
    const { localApic: _, ...without } = PLATFORM
    expect(mpTable(without, 1)).toBeUndefined()
  })

  it('is left out where systems would look for it and no memory is', () => {
    const machine = createMachine(256, PLATFORM)
    const { guestMemory } = machine
    placeFirmwareTables(new Placement({ guestMemory, platform: {} }), {
      ...machine,
      guestMemory: { ...guestMemory, writeRom: () => false },
    })
    expect(memoryAt(machine, 0xf0000, 4).getUint32(0)).toBe(0)
    expect(memoryAt(machine, 0x413, 2).getUint16(0, true)).toBe(639)
  })
})
