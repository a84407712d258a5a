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
    ['the end of the interrupt range', 0x20, ({ dma }) => dma.readU32(0xfeef_fffc) !== undefined, 0xfeef_f000, false],
    ['behind it, where no page is', 6, ({ dma }) => dma.readU32(0xfef0_0000) !== undefined, 0xfef0_0000, false],
    ['before it, where no page is', 6, ({ dma }) => dma.readU32(0xfedf_fffc) !== undefined, 0xfedf_f000, false],
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
    expect(Buffer.compare(after, before)).toBe(0)
  })

  it.each<[string, number, (bench: ReturnType<typeof started>) => void]>([
    ['a root entry', 0xa, ({ memory }) => memory.writeU64(Place.root + 16, BigInt(Place.contexts) | 3n)],
    ['the upper half of a root entry', 0xa, ({ memory }) => memory.writeU64(Place.root + 24, 1n)],
    ['a context entry', 0xb, ({ memory, root }) => memory.writeU64(Place.contexts + 128, BigInt(root) | 0x11n)],
    ['its domain’s upper bits', 0xb, ({ memory }) => memory.writeU64(Place.contexts + 136, 2n | (1n << 24n))],
    ['a page of 512 GiB', 0xc, ({ memory, root }) => memory.writeU64(root, memory.readU64(root)! | 0x80n)],
    ['a page of 512 GiB that is aligned', 0xc, ({ map, root }) => map(root, 0, 0, R | W, { level: 4 })],
    ['a page of 1 GiB that is not aligned', 0xc, ({ map, root }) => map(root, 0, PAGE, R | W, { level: 3 })],
  ])('blocks what has a reserved bit set: %s', (_, reason, change) => {
    const bench = started()
    change(bench)
    expect(bench.dma.writeU32(HERE, 1)).toBe(false)
    expect(bench.faults().map(([, , why]) => why)).toEqual([reason])
  })

  it.each<[string, number, (bench: ReturnType<typeof started>) => void]>([
    ['the root table', 8, ({ write, enable }) => (write(Register.rootTable, 0x70_0000), enable(Global.rootTable))],
    ['a table of contexts', 9, ({ memory }) => memory.writeU64(Place.root + 16, 0x70_0001n)],
    ['a second-level table', 7, ({ memory, root }) => memory.writeU64(root, 0x70_0003n)],
    ['tables of 2 levels', 3, ({ context, root }) => context(DEVICE, root, { levels: 2 })],
    ['tables of 5 levels', 3, ({ context, root }) => context(DEVICE, root, { levels: 5 })],
    ['a type of context that there is not', 3, ({ context, root }) => context(DEVICE, root, { type: 3 })],
  ])('blocks what it cannot follow: %s', (_, reason, change) => {
    const bench = started()
    change(bench)
    expect([bench.dma.writeU32(HERE, 1), bench.dma.readU32(HERE)]).toEqual([false, undefined])
    expect(bench.faults().map(([who, , why]) => [who, why])).toEqual([
      [DEVICE, reason],
      [DEVICE, reason],
    ])
    expect(bench.memory.readU32(PAGE)).toBe(0)
  })

  it.each([
    ['a read-only table', 1n, false, true],
    ['a write-only table', 2n, true, false],
    ['a table without rights', 0n, false, false],
  ])('rights are those of all levels: %s', (_, rights, writes, reads) => {
    const { memory, root, dma } = started()
    memory.writeU64(root, (memory.readU64(root)! & ~3n) | rights)
    expect([dma.writeU32(HERE, 1), dma.readU32(HERE) !== undefined]).toEqual([writes, reads])
  })

  it('each domain has its own pages, at the same addresses', () => {
    const { context, map, table, device, memory, dma, invalidate } = started()
    const others = [1, 2, 3]
      .map((below) => DEVICE + below)
      .map((requester, index) => {
        const root = table()
        context(requester, root, { domain: 2 + index })
        map(root, HERE, PAGE + 0x1000 * (index + 1))
        return device(requester)
      })
    for (let round = 1; round <= 2; round++)
      for (const [index, each] of [dma, ...others].entries()) each.writeU32(HERE + 4 * index, round)
    const written = [0, 1, 2, 3].map((index) => memory.readU32(PAGE + 0x1000 * index + 4 * index))
    const strays = [0, 1, 2, 3].map((index) => memory.readU32(PAGE + 0x1000 * index + 4 * ((index + 1) % 4)))
    expect([written, strays]).toEqual([
      [2, 2, 2, 2],
      [0, 0, 0, 0],
    ])
    // Nor is a page beyond all addresses one of the next domain.
    expect([dma.writeU32(2 ** 48 + HERE, 9), memory.readU32(PAGE + 0x1000)]).toEqual([false, 0])
    // Forgetting one domain's pages leaves the others' where they are.
    invalidate(...pages(2, 3))
    memory.fill(Place.tables, 0x10000, 0)
    expect([dma, ...others].map((each, index) => each.writeU32(HERE + 4 * index, 3))).toEqual([true, true, false, true])
  })

  it('asking whether something is memory records nothing', () => {
    const { dma, faults } = started()
    expect([dma.isRam(HERE, 4096), dma.isRam(HERE, 4097), dma.isRam(2 ** 48, 1)]).toEqual([true, false, false])
    expect(faults()).toEqual([])
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

  it('a page that was not there is not remembered as such', () => {
    const { dma, map, root, memory } = started()
    expect(dma.writeU32(HERE + 0x1000, 1)).toBe(false)
    map(root, HERE + 0x1000, PAGE + 0x1000, R)
    expect([dma.writeU32(HERE + 0x1000, 1), dma.readU32(HERE + 0x1000)]).toEqual([false, 0])
    expect(memory.readU32(PAGE + 0x1000)).toBe(0)
  })

  it('pages that share a place in the cache are told apart', () => {
    const { dma, map, root, memory } = started()
    const far = [0, 1, 2, 3].map((index) => HERE + index * 2 ** 26)
    far.forEach((address, index) => map(root, address, PAGE + 0x1000 * index))
    for (const round of [1, 2]) far.forEach((address, index) => dma.writeU32(address, 10 * round + index))
    expect(far.map((_, index) => memory.readU32(PAGE + 0x1000 * index))).toEqual([20, 21, 22, 23])
  })

  it.each([
    ['more pages than are cached', pages(3, 1, HERE, 18)],
    ['beyond all addresses', pages(3, 1, 0, 36)],
  ])('a range may be as large as it likes: %s', (_, descriptor) => {
    const { dma, map, root, memory, invalidate } = started()
    for (const page of [0, 5]) map(root, HERE + 0x1000 * page, PAGE + 0x1000 * page)
    for (const page of [0, 5]) dma.writeU32(HERE + 0x1000 * page, 1)
    memory.fill(Place.tables, 0x10000, 0)
    invalidate(...descriptor)
    expect([0, 5].map((page) => dma.writeU32(HERE + 0x1000 * page, 2))).toEqual([false, false])
  })

  it.each([
    ['the function', 0, [true, true, true, true]],
    ['and bit 2 of it left out', 1, [true, true, false, true]],
    ['and bits 2 and 1', 2, [true, false, false, true]],
    ['all functions of the device', 3, [false, false, false, true]],
  ])('context entries of %s', (_, mask, alive) => {
    const { context: enter, root, device, memory, invalidate } = started()
    const ids = [1, 2, 4, 8].map((below) => DEVICE + below)
    for (const id of [DEVICE, ...ids]) enter(id, root)
    const devices = [DEVICE, ...ids].map(device)
    for (const each of devices) expect(each.readU32(HERE)).toBe(0)
    memory.fill(Place.contexts, 4096, 0)
    const [low, requester] = context(3, 1, DEVICE)
    invalidate(low, requester | (mask << 16))
    expect(devices.map((each) => each.readU32(HERE) !== undefined)).toEqual([false, ...alive])
  })

  it('by registers: context entries', () => {
    const { dma, memory, write, read } = started()
    dma.writeU32(HERE, 1)
    memory.fill(Place.contexts, 4096, 0)
    write(Register.contextCommand, 2)
    write(Register.contextCommand + 4, 0x8000_0000 | (2 << 29))
    expect(dma.writeU32(HERE, 1)).toBe(true)
    write(Register.contextCommand, 1)
    write(Register.contextCommand + 4, 0x8000_0000 | (2 << 29))
    // Done, and of the granularity that was asked for.
    expect([read(Register.contextCommand + 4) >>> 31, (read(Register.contextCommand + 4) >>> 27) & 3]).toEqual([0, 2])
    expect(dma.writeU32(HERE, 1)).toBe(false)
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

  it('an interrupt that software has not seen is not sent again', () => {
    const { invalidate, write, read, delivered } = started()
    write(0xa8, 0xfee0_0000)
    invalidate(5 | (1 << 4))
    expect([read(0xa0) >>> 30, delivered.length]).toEqual([3, 0])
    write(0xa0, 0)
    expect([read(0xa0) >>> 30, delivered.length]).toEqual([0, 1])
    invalidate(5 | (1 << 4))
    expect([read(0x9c), delivered.length]).toEqual([1, 1])
    write(0x9c, 1)
    invalidate(5 | (1 << 4))
    expect([read(0x9c), delivered.length]).toEqual([1, 2])
  })

  it('goes round, and starts again where it is switched off and on', () => {
    const { invalidate, read, memory, disable, enable, write } = started()
    for (let turn = 1; turn <= 257; turn++) invalidate(5 | (1 << 5), turn, Place.status)
    expect([memory.readU32(Place.status), read(Register.queueHead)]).toEqual([257, 0x10])
    disable(Global.queue)
    expect(read(Register.queueHead)).toBe(0)
    write(Register.queueTail, 0)
    enable(Global.queue)
    expect(read(Register.faultStatus) & 0x10).toBe(0)
  })

  it('of two pages has twice as many descriptors', () => {
    const made = benchVtd()
    const { write, enable, read, memory } = made
    write(Register.queueAddress, 0x40000 | 1)
    for (let slot = 0; slot < 512; slot++) memory.writeU32(0x40000 + 16 * slot, 4)
    enable(Global.queue)
    write(Register.queueTail, 0x1ff0)
    expect(read(Register.queueHead)).toBe(0x1ff0)
    write(Register.queueTail, 0x10)
    expect([read(Register.queueHead), read(Register.faultStatus) & 0x10]).toEqual([0x10, 0])
  })

  it.each([
    ['context entries of no granularity', [1]],
    ['pages of no granularity', [2]],
    ['an answer that is not in memory', [5 | (1 << 5), 1, 0x70_0000]],
  ])('stops at %s', (_, [low, second, third]) => {
    const { invalidate, read, delivered, write } = started()
    write(Register.faultAddress, 0xfee0_0000)
    write(Register.faultControl, 0)
    invalidate(low!, second, third)
    expect([read(Register.faultStatus) & 0x10, read(Register.queueHead), delivered.length]).toEqual([0x10, 0, 1])
    invalidate(4)
    expect(read(Register.queueHead)).toBe(0)
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
    // The first of them.
    expect((read(Register.faultStatus) >>> 8) & 0xff).toBe(0)
    write(Register.faults + 12, 2 ** 31)
    expect((read(Register.faultStatus) >>> 8) & 0xff).toBe(1)
    // Overflow: nothing is recorded until it is cleared, although there is room.
    dma.writeU32(HERE + 0x1000, 1)
    expect(read(Register.faults + 12) >>> 31).toBe(0)
    expect(faults()).toHaveLength(7)
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

  it.each([
    ['passes where software lets it', Global.compatibilityFormat, 0, 1],
    ['not without', 0, 0, 0],
    ['not in extended mode', Global.compatibilityFormat, 1 << 11, 0],
  ])('the compatibility format %s', (_, bit, mode, passed) => {
    const { messages, delivered, startInterrupts, enable } = benchVtd()
    startInterrupts(7 | mode)
    if (bit) enable(bit)
    messages.send(0xfee0_3000, 0x55, DEVICE)
    expect(delivered).toEqual(passed ? [{ address: 0xfee0_3000, data: 0x55 }] : [])
  })

  it.each<[string, number | undefined, (bench: ReturnType<typeof benchVtd>) => void]>([
    [
      'a table that is not in memory',
      0x23,
      ({ write, enable }) => (write(0xb8, 0x70_0007), enable(Global.remappingTable)),
    ],
    ['a posted descriptor that is not', 0x27, ({ entry }) => entry(5, LOW | (1 << 15), 0x70_0000, 0)],
    ['an empty entry that asks for silence', undefined, ({ entry }) => entry(5, 2, 0, 0)],
    [
      'the entry above the last',
      0x21,
      ({ write, enable }) => (write(0xb8, Place.remapping | 1), enable(Global.remappingTable)),
    ],
    ['buses below', 0x26, ({ entry }) => entry(5, LOW, 0, 0x0203 | (2 << 18))],
    ['buses above', 0x26, ({ entry }) => entry(5, LOW, 0, 0x0000 | (2 << 18))],
  ])('blocks a message to %s', (_, reason, change) => {
    const bench = benchVtd()
    bench.entry(5, LOW, 3 << 8, DEVICE | BY_REQUESTER)
    bench.startInterrupts()
    change(bench)
    bench.messages.send(message(5), 0, DEVICE)
    expect([bench.delivered, bench.faults().map(([, , why]) => why)]).toEqual([
      [],
      reason === undefined ? [] : [reason],
    ])
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
    ['another function, bits 2 and 1 left out', DEVICE + 6, 2, true],
    ['the same, one bit more', DEVICE + 7, 2, false],
    ['another device', DEVICE + 8, 3, false],
  ])('source validation: %s', (_, requester, qualifier, allowed) => {
    const { messages, delivered, entry, startInterrupts } = benchVtd()
    entry(0, LOW, 0, DEVICE | (qualifier << 16) | BY_REQUESTER)
    startInterrupts()
    messages.send(message(0), 0, requester)
    expect(delivered.length).toBe(allowed ? 1 : 0)
  })

  it.each([
    [0x0001, 0x0101, true],
    [0x0102, 0x0101, true],
    [0x0102, 0x0200, true],
    [0x0101, 0x0200, false],
  ])('source validation by buses: 0x%i', (buses, requester, allowed) => {
    const { messages, delivered, entry, startInterrupts } = benchVtd()
    entry(0, LOW, 0, buses | (2 << 18))
    startInterrupts()
    messages.send(message(0), 0, requester)
    expect(delivered.length).toBe(allowed ? 1 : 0)
  })

  it('posts to vectors of each word; an urgent message notifies in spite of suppression', () => {
    const { messages, delivered, entry, startInterrupts, memory } = benchVtd()
    memory.writeU32(Place.posted + 32, (0xf2 << 16) | 2)
    for (const [index, vector] of [0, 31, 32, 255].entries())
      entry(index, 1 | (1 << 15) | (vector << 16), Place.posted, 0)
    entry(4, 1 | (1 << 15) | (1 << 14) | (0x21 << 16), Place.posted, 0)
    startInterrupts()
    for (const index of [0, 1, 2, 3]) messages.send(message(index), 0, DEVICE)
    expect(delivered).toEqual([])
    messages.send(message(4), 0, DEVICE)
    expect(delivered).toEqual([{ address: 0xfee0_0000, data: 0xf2 }])
    const words = Array.from({ length: 9 }, (_, word) => memory.readU32(Place.posted + 4 * word))
    expect(words).toEqual([0x8000_0001, 3, 0, 0, 0, 0, 0, 0x8000_0000, (0xf2 << 16) | 3])
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
