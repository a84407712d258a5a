import { describe, expect, it } from 'vitest'
import { Global, Register } from './facts.ts'
import { benchVtd, Place, R, W } from '../testing/vtd.ts'

const DEVICE = 0x0108
const OTHER = 0x0208
const PAGE = 0x8000
const HERE = 0x40_0000

function started() {
  const made = benchVtd()
  const root = made.table()
  made.context(DEVICE, root)
  made.map(root, HERE, PAGE)
  made.start()
  return { ...made, root, dma: made.device(DEVICE) }
}
const context = (granularity: number, domain = 0, requester = 0) =>
  [1 | (granularity << 4) | (domain << 16), requester] as const
const pages = (granularity: number, domain = 0, address = 0, order = 0) =>
  [2 | (granularity << 4) | (domain << 16), 0, (address % 2 ** 32) | order, Math.floor(address / 2 ** 32)] as const

describe('registers', () => {
  it('say what software relies on', () => {
    const { read } = benchVtd()
    const [low, high] = [read(Register.capability), read(Register.capability + 4)]
    expect(read(Register.version)).toBe(0x10)
    expect([low & 7, (low >>> 8) & 0x1f, (low >>> 16) & 0x3f]).toEqual([6, 0b110, 47])
    // Where fault records are, how many; page-selective invalidation; posted interrupts.
    expect([(low >>> 24) | ((high & 3) << 8), (high >>> 8) & 0xff, (high >>> 7) & 1, (high >>> 27) & 1]).toEqual([
      0x20, 7, 1, 1,
    ])
    const extended = read(Register.extendedCapability)
    // Queued invalidation, interrupt remapping, pass-through; where the IOTLB registers are.
    expect([extended & 2, extended & 8, extended & 0x40, (extended >>> 8) & 0x3ff]).toEqual([2, 8, 0x40, 0x10])
  })

  it('the command register sets what the status register shows', () => {
    const { enable, disable, read } = benchVtd()
    enable(Global.rootTable)
    expect(read(Register.status)).toBe(Global.rootTable)
    enable(Global.translation)
    expect(read(Register.status)).toBe(Global.rootTable + Global.translation)
    disable(Global.translation)
    expect(read(Register.status)).toBe(Global.rootTable)
  })
})

describe('DMA remapping', () => {
  it('off: addresses are physical', () => {
    const { device, memory } = benchVtd()
    expect(device(DEVICE).writeU32(0x7000, 5)).toBe(true)
    expect(memory.readU32(0x7000)).toBe(5)
  })

  it.each([
    ['4 KiB, 4 levels', 4, 1, HERE],
    ['4 KiB, 3 levels', 3, 1, HERE],
    ['2 MiB', 4, 2, 0x60_0000],
    ['1 GiB', 4, 3, 0x8000_0000],
    ['at the end of 48 bits', 4, 1, 2 ** 48 - 4096],
  ])('%s', (_, levels, level, address) => {
    const { context: enter, map, start, device, memory, table, faults } = benchVtd()
    const root = table()
    enter(DEVICE, root, { levels })
    map(root, address, level === 1 ? PAGE : 0, R | W, { levels, level })
    start()
    const inside = level === 1 ? 0 : PAGE
    const dma = device(DEVICE)
    expect(dma.writeU32(address + inside + 4, 0x1234)).toBe(true)
    expect([memory.readU32(PAGE + 4), dma.readU32(address + inside + 4)]).toEqual([0x1234, 0x1234])
    expect(faults()).toEqual([])
  })

  it.each<[string, number, (bench: ReturnType<typeof started>) => boolean | undefined, number, boolean]>([
    ['a page that is not there, read', 6, ({ dma }) => dma.readU32(HERE + 0x1000) !== undefined, HERE + 0x1000, false],
    ['the same, written', 5, ({ dma }) => dma.writeU32(HERE + 0x1000, 1), HERE + 0x1000, true],
    ['beyond what tables reach', 4, ({ dma }) => dma.writeU32(2 ** 48, 1), 2 ** 48, true],
    ['a bus without a table', 1, ({ device }) => device(0x1300).writeU32(HERE, 1), HERE, true],
    ['a device without a context', 2, ({ device }) => device(DEVICE + 8).writeU32(HERE, 1), HERE, true],
    ['the interrupt range, read', 0x20, ({ dma }) => dma.readU32(0xfee0_0000) !== undefined, 0xfee0_0000, false],
    [
      'the interrupt range, more than a message',
      0x20,
      ({ dma }) => dma.writeBytes(0xfee0_0000, new Uint8Array(16)),
      0xfee0_0000,
      true,
    ],
  ])('blocks and records %s', (_, reason, access, address, write) => {
    const bench = started()
    const before = new Uint8Array(1 << 20)
    bench.memory.readBytes(0, before)
    expect(access(bench)).toBe(false)
    const [[, page, why, wrote]] = bench.faults() as [[number, number, number, boolean]]
    expect([page, why, wrote]).toEqual([address, reason, write])
    const after = new Uint8Array(1 << 20)
    bench.memory.readBytes(0, after)
    expect(after).toEqual(before)
  })

  it.each<[string, number, (bench: ReturnType<typeof started>) => void]>([
    ['a root entry', 0xa, ({ memory }) => memory.writeU64(Place.root + 16, BigInt(Place.contexts) | 3n)],
    ['the upper half of a root entry', 0xa, ({ memory }) => memory.writeU64(Place.root + 24, 1n)],
    ['a context entry', 0xb, ({ memory, root }) => memory.writeU64(Place.contexts + 128, BigInt(root) | 0x11n)],
    ['its domain’s upper bits', 0xb, ({ memory }) => memory.writeU64(Place.contexts + 136, 2n | (1n << 24n))],
    ['a page of 512 GiB', 0xc, ({ memory, root }) => memory.writeU64(root, memory.readU64(root)! | 0x80n)],
    ['a page of 1 GiB that is not aligned', 0xc, ({ map, root }) => map(root, 0, PAGE, R | W, { level: 3 })],
  ])('blocks what has a reserved bit set: %s', (_, reason, change) => {
    const bench = started()
    change(bench)
    expect(bench.dma.writeU32(HERE, 1)).toBe(false)
    expect(bench.faults().map(([, , why]) => why)).toEqual([reason])
  })

  it('a table that leads to itself ends after as many levels as there are', () => {
    const { memory, root, dma } = started()
    memory.writeU64(root, BigInt(root) | 3n)
    expect([dma.readU32(8), memory.readU32(root + 8)]).toEqual([0, 0])
    expect(dma.writeU32(8, 0x77)).toBe(true)
    expect(memory.readU32(root + 8)).toBe(0x77)
  })

  it.each([
    ['read-only, written', R, false, true],
    ['write-only, read', W, true, false],
  ])('rights: %s', (_, rights, reads, writes) => {
    const { map, root, dma } = started()
    map(root, HERE + 0x1000, PAGE, rights)
    expect(dma.readU32(HERE + 0x1000) !== undefined).toBe(!reads)
    expect(dma.writeU32(HERE + 0x1000, 1)).toBe(!writes)
  })

  it('an access over two pages goes to both, or to neither', () => {
    const { map, root, dma, memory } = started()
    map(root, HERE + 0x1000, PAGE + 0x3000)
    expect(dma.writeBytes(HERE + 0xffe, Uint8Array.of(1, 2, 3, 4))).toBe(true)
    expect([memory.readU16(PAGE + 0xffe), memory.readU16(PAGE + 0x3000)]).toEqual([0x0201, 0x0403])
    expect(dma.readU32(HERE + 0xffe)).toBe(0x0403_0201)
    expect(dma.writeBytes(HERE + 0x1ffe, Uint8Array.of(9, 9, 9, 9))).toBe(false)
    expect(memory.readU16(PAGE + 0x3ffe)).toBe(0)
    const lease = dma.lease([{ address: HERE + 0xff0, length: 0x20 }], 'write')!
    expect(lease.views.map(({ length }) => length)).toEqual([16, 16])
    lease.end()
    expect(dma.lease([{ address: HERE + 0x1ff0, length: 0x20 }], 'write')).toBeUndefined()
  })

  it('pass-through, and a context that asks for silence', () => {
    const { context: enter, device, memory, faults, root } = started()
    enter(OTHER, root, { type: 2, domain: 2 })
    // Bus 2 has the same table of contexts.
    expect(device(OTHER).writeU32(PAGE, 7)).toBe(true)
    expect(memory.readU32(PAGE)).toBe(7)
    enter(OTHER + 1, root, { quiet: 1, domain: 3 })
    expect(device(OTHER + 1).writeU32(0x70_0000, 7)).toBe(false)
    expect(faults()).toEqual([])
  })
})

describe('devices that are no PCI function', () => {
  it.each([
    ["of the host's: blocked", false, undefined],
    ["of a guest's: they are not behind it", true, 5],
  ])('%s', (_, bypass, written) => {
    const made = benchVtd({ bypass })
    made.context(DEVICE, made.table())
    made.start()
    const dma = made.device(undefined)
    expect(dma.writeU32(0x7000, 5)).toBe(bypass)
    expect(made.memory.readU32(0x7000) || undefined).toBe(written)
    expect(dma.untranslated).toBe(made.memory)
  })
})

describe('caches', () => {
  it.each([
    ['all', pages(1)],
    ['the domain', pages(2, 1)],
    ['the page', pages(3, 1, HERE)],
    ['a range around it', pages(3, 1, HERE + 0x3000, 2)],
  ])('a translation lives until it is invalidated: %s', (_, descriptor) => {
    const { dma, map, root, memory, invalidate } = started()
    dma.writeU32(HERE, 1)
    map(root, HERE, PAGE + 0x1000)
    dma.writeU32(HERE, 2)
    expect([memory.readU32(PAGE), memory.readU32(PAGE + 0x1000)]).toEqual([2, 0])
    // Not by invalidating others.
    invalidate(...pages(2, 2))
    invalidate(...pages(3, 1, HERE + 0x1000))
    dma.writeU32(HERE, 3)
    expect(memory.readU32(PAGE)).toBe(3)
    invalidate(...descriptor)
    dma.writeU32(HERE, 4)
    expect([memory.readU32(PAGE), memory.readU32(PAGE + 0x1000)]).toEqual([3, 4])
  })

  it.each([
    ['all', context(1)],
    ['the domain', context(2, 1)],
    ['the device', context(3, 1, DEVICE)],
  ])('a context entry, too: %s', (_, descriptor) => {
    const { dma, memory, invalidate, faults } = started()
    dma.writeU32(HERE, 1)
    memory.fill(Place.contexts, 4096, 0)
    expect(dma.writeU32(HERE, 2)).toBe(true)
    invalidate(...descriptor)
    expect(dma.writeU32(HERE, 3)).toBe(false)
    expect(faults().map(([, , reason]) => reason)).toEqual([2])
  })

  it('by registers as well', () => {
    const { dma, map, root, memory, write, read } = started()
    dma.writeU32(HERE, 1)
    map(root, HERE, PAGE + 0x1000)
    write(Register.invalidateCommand + 4, 0x8000_0000 | (2 << 28) | 1)
    expect(read(Register.invalidateCommand + 4) >>> 31).toBe(0)
    dma.writeU32(HERE, 4)
    expect(memory.readU32(PAGE + 0x1000)).toBe(4)
  })
})

describe('the invalidation queue', () => {
  it('answers wait descriptors in memory and by an interrupt', () => {
    const { invalidate, memory, write, read, delivered } = started()
    invalidate(5 | (1 << 5), 0x77, Place.status)
    expect(memory.readU32(Place.status)).toBe(0x77)
    write(0xa4, 0x41)
    write(0xa8, 0xfee0_0000)
    write(0xa0, 0)
    invalidate(5 | (1 << 4))
    expect([read(0x9c), delivered]).toEqual([1, [{ address: 0xfee0_0000, data: 0x41 }]])
    write(0x9c, 1)
    expect(read(0x9c)).toBe(0)
  })

  it('a wait descriptor waits for the transfers that an invalidation affects, and for no other', () => {
    const { invalidate, memory, dma, map, root } = started()
    map(root, HERE + 0x5000, PAGE + 0x5000)
    const other = dma.lease([{ address: HERE + 0x5000, length: 512 }], 'write')!
    const lease = dma.lease([{ address: HERE, length: 512 }], 'write')!
    invalidate(...pages(3, 1, HERE))
    invalidate(5 | (1 << 5), 1, Place.status)
    expect(memory.readU32(Place.status)).toBe(0)
    lease.end()
    expect(memory.readU32(Place.status)).toBe(1)
    other.end()
  })

  it('stops at what is no descriptor, and goes on when it was mended', () => {
    const { invalidate, read, write, memory } = started()
    invalidate(0xf)
    invalidate(5 | (1 << 5), 1, Place.status)
    expect([read(Register.faultStatus) & 0x10, read(Register.queueHead), memory.readU32(Place.status)]).toEqual([
      0x10, 0, 0,
    ])
    memory.writeU32(Place.queue, 4)
    write(Register.faultStatus, 0x10)
    expect([read(Register.faultStatus) & 0x10, memory.readU32(Place.status)]).toEqual([0, 1])
  })
})

describe('faults', () => {
  it('are recorded until there is no room, and interrupt once', () => {
    const { dma, read, write, delivered, faults } = started()
    write(Register.faultData, 0x30)
    write(Register.faultAddress, 0xfee0_1000)
    write(Register.faultControl, 0)
    for (let page = 1; page <= 9; page++) dma.writeU32(HERE + page * 0x1000, 1)
    expect([delivered.length, read(Register.faultStatus) & 3]).toEqual([1, 3])
    expect(faults()).toHaveLength(8)
    write(Register.faultStatus, 1)
    expect(read(Register.faultStatus) & 3).toBe(0)
    dma.writeU32(HERE + 0x1000, 1)
    expect(delivered.length).toBe(2)
  })

  it('masked: pending, sent when unmasked', () => {
    const { dma, read, write, delivered } = started()
    dma.writeU32(HERE + 0x1000, 1)
    expect([read(Register.faultControl) >>> 30, delivered.length]).toEqual([3, 0])
    write(Register.faultControl, 0)
    expect([read(Register.faultControl) >>> 30, delivered.length]).toEqual([0, 1])
  })
})

describe('interrupt remapping', () => {
  const message = (index: number, subhandle = false) =>
    (0xfee0_0010 | ((index & 0x7fff) << 5) | (subhandle ? 8 : 0) | (index > 0x7fff ? 4 : 0)) >>> 0
  /** Present, vector 0x55, to APIC 3. */
  const LOW = 1 | (0x55 << 16)
  const BY_REQUESTER = 1 << 18

  it('off: messages pass', () => {
    const { messages, delivered } = benchVtd()
    messages.send(0xfee0_2000, 0x31, DEVICE)
    expect(delivered).toEqual([{ address: 0xfee0_2000, data: 0x31 }])
  })

  it('turns a handle into vector, destination and mode', () => {
    const { messages, delivered, entry, startInterrupts } = benchVtd()
    entry(5, LOW | (1 << 5), 3 << 8, DEVICE | BY_REQUESTER)
    entry(7, 1 | (0x66 << 16) | 4 | 8, 1 << 8, 0)
    startInterrupts()
    messages.send(message(5), 0, DEVICE)
    messages.send(message(5, true), 2, DEVICE)
    expect(delivered).toEqual([
      { address: 0xfee0_3000, data: 0x4155 },
      { address: 0xfee0_100c, data: 0x4066 },
    ])
  })

  it('in extended mode a destination has 32 bits', () => {
    const { messages, delivered, entry, startInterrupts } = benchVtd()
    entry(5, LOW | 4, 0x1_0002, 0)
    startInterrupts(7 | (1 << 11))
    messages.send(message(5), 0, DEVICE)
    expect(delivered).toEqual([{ address: 0xfee0_2004, data: 0x4055, destination: 0x1_0002 }])
  })

  it.each<[string, number, (bench: ReturnType<typeof benchVtd>) => void]>([
    ['the compatibility format', 0x25, ({ messages }) => messages.send(0xfee0_3000, 0x55, DEVICE)],
    ['beyond the table', 0x21, ({ messages }) => messages.send(message(256), 0, DEVICE)],
    ['an empty entry', 0x22, ({ messages }) => messages.send(message(9), 0, DEVICE)],
    ['an entry of another requester', 0x26, ({ messages }) => messages.send(message(5), 0, OTHER)],
    ['a DMA write by another requester', 0x26, ({ device }) => void device(OTHER).writeU32(message(5), 0)],
    ['a DMA write of the compatibility format', 0x25, ({ device }) => void device(DEVICE).writeU32(0xfee0_3000, 0x55)],
  ])('blocks %s', (_, reason, send) => {
    const bench = benchVtd()
    bench.entry(5, LOW, 3 << 8, DEVICE | BY_REQUESTER)
    bench.startInterrupts()
    send(bench)
    expect([bench.delivered, bench.faults().map(([, , why]) => why)]).toEqual([[], [reason]])
  })

  it.each([
    ['the same function', DEVICE, 0, true],
    ['another function, exact', DEVICE + 4, 0, false],
    ['another function, bit 2 left out', DEVICE + 4, 1, true],
    ['another function, all left out', DEVICE + 7, 3, true],
    ['another device', DEVICE + 8, 3, false],
  ])('source validation: %s', (_, requester, qualifier, allowed) => {
    const { messages, delivered, entry, startInterrupts } = benchVtd()
    entry(0, LOW, 0, DEVICE | (qualifier << 16) | BY_REQUESTER)
    startInterrupts()
    messages.send(message(0), 0, requester)
    expect(delivered.length).toBe(allowed ? 1 : 0)
  })

  it('posts a bit, and notifies once until software has taken it', () => {
    const { messages, delivered, entry, startInterrupts, memory } = benchVtd()
    // Notification vector 0xf2 to APIC 1.
    memory.writeU32(Place.posted + 32, 0xf2 << 16)
    memory.writeU32(Place.posted + 36, 1 << 8)
    entry(3, 1 | (1 << 15) | (0x45 << 16), Place.posted, DEVICE | BY_REQUESTER)
    entry(4, 1 | (1 << 15) | (0x46 << 16), Place.posted, DEVICE | BY_REQUESTER)
    startInterrupts()
    messages.send(message(3), 0, DEVICE)
    messages.send(message(4), 0, DEVICE)
    expect(delivered).toEqual([{ address: 0xfee0_1000, data: 0xf2 }])
    expect([memory.readU32(Place.posted + 8), memory.readU32(Place.posted + 32)! & 1]).toEqual([0x60, 1])
    memory.writeU32(Place.posted + 32, (0xf2 << 16) | 2)
    messages.send(message(3), 0, DEVICE)
    // Suppressed.
    expect(delivered).toHaveLength(1)
  })
})
