import { createRandom, testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { testDisk } from '../ahci/ahci.test.support.ts'
import plugin from '../index.ts'
import { benchNvme, ENTRIES, Place } from './nvme.test.support.ts'

const READY = 1
const FATAL = 2
const RAM = 1 << 20

async function started(disk = testDisk(), options: object = {}) {
  const made = await benchNvme(disk, options)
  await made.start()
  return { ...made, disk }
}
const sectors = (first: number, count: number, control = 0): number[] => [first, 0, (count - 1) | control]

testDevice(
  plugin.devices!.find(({ kind }) => kind === 'nvme')!,
  { image: 'disk' },
  it,
  () => ({ backends: { block: testDisk() } }),
)

describe('NVMe, as a driver finds it', () => {
  it('is a controller that becomes ready and stops', async () => {
    const { read, write, enable, bench } = await benchNvme(testDisk())
    expect([read(0), read(4), read(8), read(0x1c)]).toEqual([0x3c01_03ff, 0x20, 0x1_0400, 0])
    expect(bench.functions[0]!.description).toMatchObject({ classCode: 0x010802, msixVectors: 17 })
    enable()
    expect(read(0x1c)).toBe(READY)
    write(0x14, 0)
    expect(read(0x1c)).toBe(0)
  })

  it.each([
    ['pages of 8 KiB', (6 << 16) | (4 << 20) | (1 << 7) | 1, 0x70007],
    ['another command set', (6 << 16) | (4 << 20) | (1 << 4) | 1, 0x70007],
    ['entries of other sizes', (7 << 16) | (4 << 20) | 1, 0x70007],
    ['a queue of one entry', (6 << 16) | (4 << 20) | 1, 0x70000],
  ])('refuses %s', async (_, configuration, attributes) => {
    const { read, write } = await benchNvme(testDisk())
    write(0x24, attributes)
    write(0x14, configuration)
    expect(read(0x1c)).toBe(FATAL)
  })

  it('identifies itself and its namespace', async () => {
    const { admin, bytes } = await started(testDisk(), { serial: 'abc' })
    const view = () => new DataView(bytes(Place.data, 4096).buffer)
    expect(await admin({ opcode: 6, words: [1] })).toMatchObject({ status: 0 })
    expect(new TextDecoder().decode(bytes(Place.data + 4, 20))).toBe('abc                 ')
    expect([view().getUint8(77), view().getUint32(516, true), view().getUint8(512)]).toEqual([9, 1, 0x66])
    await admin({ opcode: 6, namespace: 1, words: [0] })
    expect([view().getBigUint64(0, true), view().getUint8(130)]).toEqual([2048n, 9])
    await admin({ opcode: 6, words: [2] })
    expect([view().getUint32(0, true), view().getUint32(4, true)]).toEqual([1, 0])
    expect(await admin({ opcode: 6, words: [0x42] })).toMatchObject({ status: 2 })
    // Data that does not fit a page goes to two.
    await admin({ opcode: 6, words: [1], prp1: Place.data + 0x800, prp2: Place.data + 0x3000 })
    expect(bytes(Place.data + 0x3000 + 768 - 0x800 + 0x800, 1)).toEqual(bytes(Place.data + 0x3300, 1))
    expect(new TextDecoder().decode(bytes(Place.data + 0x800 + 24, 12))).toBe('nonroot NVMe')
  })
})

describe('queues', () => {
  it.each([
    ['completion queue 0', 5, [(7 << 16) | 0, 3], Place.data, 0x101],
    ['the last completion queue', 5, [(7 << 16) | 16, 3], Place.data, 0],
    ['one beyond it', 5, [(7 << 16) | 17, 3], Place.data, 0x101],
    ['one that is there', 5, [(7 << 16) | 1, 3], Place.data, 0x101],
    ['a ring of one', 5, [2, 3], Place.data, 0x102],
    ['the longest ring', 5, [(1023 << 16) | 2, 3], Place.data, 0],
    ['one longer', 5, [(1024 << 16) | 2, 3], Place.data, 0x102],
    ['scattered entries', 5, [(7 << 16) | 2, 2], Place.data, 2],
    ['a ring off its page', 5, [(7 << 16) | 2, 3], Place.data + 4, 0x13],
    ['the last vector', 5, [(7 << 16) | 2, (16 << 16) | 3], Place.data, 0],
    ['one beyond', 5, [(7 << 16) | 2, (17 << 16) | 3], Place.data, 0x108],
    ['a submission queue to none', 1, [(7 << 16) | 2, (2 << 16) | 1], Place.data, 0x100],
    ['a submission queue to the admin queue', 1, [(7 << 16) | 2, 1], Place.data, 0x100],
    ['a completion queue in use', 4, [1], 0, 0x10c],
    ['none', 4, [9], 0, 0x101],
  ])('%s', async (_, opcode, words, prp1, status) => {
    const { admin } = await started()
    expect(await admin({ opcode, words, prp1 })).toMatchObject({ status })
  })

  it('wrap, and turn the phase over', async () => {
    const { io } = await started()
    for (let id = 0; id < 3 * ENTRIES; id++)
      expect(await io({ opcode: 2, id, words: sectors(id, 1) })).toEqual({ id, queue: 1, status: 0, result: 0 })
  })

  it('a full completion queue is written no further than its reader', async () => {
    const { queues, settle } = await started()
    for (let id = 0; id < ENTRIES - 1; id++) queues.io.put({ opcode: 2, id, namespace: 1, words: sectors(0, 1) })
    queues.io.ring()
    await settle()
    const first = queues.io.take()
    expect(first.map(({ id }) => id)).toEqual([0, 1, 2, 3, 4, 5, 6])
    // Not consumed yet: the ring is full for the controller.
    for (let id = 7; id < 10; id++) queues.io.put({ opcode: 2, id, namespace: 1, words: sectors(0, 1) })
    queues.io.ring()
    await settle()
    expect(queues.io.take()).toEqual([])
    queues.io.consume()
    expect(queues.io.take().map(({ id }) => id)).toEqual([7, 8, 9])
  })

  it('a queue is deleted when its commands have completed', async () => {
    const { queues, settle, disk, admin } = await started()
    disk.hold = true
    queues.io.put({ opcode: 2, id: 5, namespace: 1, words: sectors(0, 1) })
    queues.io.ring()
    queues.admin.put({ opcode: 0, id: 9, words: [1] })
    queues.admin.ring()
    await settle()
    expect([queues.admin.take(), queues.io.take()]).toEqual([[], []])
    disk.go()
    await settle()
    expect([queues.io.take()[0]!.id, queues.admin.take()[0]!.id]).toEqual([5, 9])
    queues.admin.consume()
    expect(await admin({ opcode: 4, words: [1] })).toMatchObject({ status: 0 })
  })

  it('reach no memory without Bus Master Enable: fatal, and a reset recovers', async () => {
    const disk = testDisk()
    const { io, start, bench, queues, read, write, settle, bytes } = await benchNvme(disk)
    await start()
    const before = bytes(0, 1 << 20)
    bench.functions[0]!.busMaster = false
    queues.io.put({ opcode: 2, namespace: 1, words: [3, 0, 0] })
    const issued = bytes(Place.submission, 64)
    queues.io.ring()
    await settle()
    expect([read(0x1c) & 2, queues.io.take(), bench.functions[0]!.signals]).toEqual([2, [], []])
    before.set(issued, Place.submission)
    expect(Buffer.compare(bytes(0, 1 << 20), before)).toBe(0)
    bench.functions[0]!.busMaster = true
    write(0x14, 0)
    await start()
    expect([(await io({ opcode: 2, words: [3, 0, 0] })).status, bytes(Place.data, 4)]).toEqual([
      0,
      disk.bytes.slice(3 * 512, 3 * 512 + 4),
    ])
  })

  it('out of RAM are fatal, and a reset recovers', async () => {
    const { admin, queues, read, write, start } = await started()
    await admin({ opcode: 1, prp1: RAM, words: [(7 << 16) | 2, (1 << 16) | 1] })
    write(0x1000 + 16, 1)
    expect(read(0x1c)).toBe(READY | FATAL)
    queues.io.ring()
    write(0x14, 0)
    expect(read(0x1c)).toBe(0)
    await start()
    expect(read(0x1c)).toBe(READY)
  })
})

describe('reads and writes', () => {
  const list = (memory: { writeU64(at: number, value: bigint): boolean }, at: number, pages: readonly number[]) =>
    pages.forEach((page, index) => memory.writeU64(at + 8 * index, BigInt(page)))

  it.each([
    ['a sector', 3, 1, Place.data, 0, []],
    ['from the middle of a page', 3, 2, Place.data + 0xc04, Place.data + 0x5000, []],
    ['two pages', 8, 16, Place.data, Place.data + 0x9000, []],
    ['a list', 8, 24, Place.data, 0x30000, [Place.data + 0x4000, Place.data + 0x2000]],
    ['a list from its middle', 1, 24, Place.data + 0x200, 0x30ff0, [Place.data + 0x4000, 0x31000]],
  ])('%s', async (_, first, count, prp1, prp2, pages) => {
    const { io, memory, bytes, disk } = await started()
    list(memory, prp2 || 0x30000, pages)
    // What the list continues with.
    list(memory, 0x31000, [Place.data + 0x7000, Place.data + 0x8000])
    expect(await io({ opcode: 2, prp1, prp2, words: sectors(first, count) })).toMatchObject({ status: 0 })
    const places = [prp1]
    if (pages.length === 0 && prp2) places.push(prp2)
    else if (pages.includes(0x31000)) places.push(pages[0]!, Place.data + 0x7000, Place.data + 0x8000)
    else places.push(...pages)
    let left = count * 512
    const read: number[] = []
    for (const place of places) {
      const size = Math.min(left, 4096 - (place % 4096))
      read.push(...bytes(place, size))
      left -= size
    }
    expect(read).toEqual([...disk.bytes.subarray(first * 512, (first + count) * 512)])
    // And back, to elsewhere on the disk.
    expect(await io({ opcode: 1, prp1, prp2, words: sectors(1000, count) })).toMatchObject({ status: 0 })
    expect([...disk.bytes.subarray(1000 * 512, (1000 + count) * 512)]).toEqual(read)
  })

  it.each([
    ['the last sector', { words: sectors(2047, 1) }, 0],
    ['beyond the last', { words: sectors(2047, 2) }, 0x80],
    ['2^53 sectors on', { words: [0, 0xffff_ffff, 0] }, 0x80],
    ['an odd address', { prp1: Place.data + 2, words: sectors(0, 1) }, 0x13],
    ['a second page off its start', { prp2: Place.data + 4, words: sectors(0, 16) }, 0x13],
    ['a list off its entries', { prp2: 0x30004, words: sectors(0, 24) }, 0x13],
    ['no RAM', { prp1: RAM, words: sectors(0, 1) }, 0x04],
    ['half RAM', { prp1: RAM - 256, prp2: RAM, words: sectors(0, 1) }, 0x04],
    ['a list in no RAM', { prp2: RAM, words: sectors(0, 24) }, 0x04],
    ['an address of 2^64 - 4096', { prp1: 2 ** 64 - 4096, words: sectors(0, 1) }, 0x04],
    ['another namespace', { namespace: 2, words: sectors(0, 1) }, 0x0b],
    ['SGLs', { flags: 0x40, words: sectors(0, 1) }, 0x02],
    ['a fused command', { flags: 1, words: sectors(0, 1) }, 0x02],
    ['another command', { opcode: 0x15, words: sectors(0, 1) }, 0x01],
  ])('%s', async (_, issue, status) => {
    const { io } = await started()
    expect(await io({ opcode: 2, ...issue })).toMatchObject({ status })
  })

  it('moves 2 MiB at most', async () => {
    const { io, memory } = await started(testDisk(4 << 20))
    // All entries name the same page.
    for (let at = 0x20000; at < 0x22000; at += 8) memory.writeU64(at, BigInt(Place.data + 0x1000))
    expect(await io({ opcode: 2, prp2: 0x20000, words: sectors(0, 4096) })).toMatchObject({ status: 0 })
    expect(await io({ opcode: 2, prp2: 0x20000, words: sectors(0, 4097) })).toMatchObject({ status: 2 })
  })

  it('tells errors of the disk from others', async () => {
    const { io, disk } = await started()
    disk.failing = true
    expect(await io({ opcode: 2, words: sectors(0, 1) })).toMatchObject({ status: 0x281 })
    expect(await io({ opcode: 1, words: sectors(0, 1) })).toMatchObject({ status: 0x280 })
  })

  it('does not write a read-only disk, and says that it is one', async () => {
    const { io, admin, bytes, disk } = await started(testDisk(1 << 20, true))
    const before = disk.bytes.slice()
    for (const opcode of [1, 8, 9]) expect(await io({ opcode, words: sectors(0, 1) })).toMatchObject({ status: 0x20 })
    expect(disk.bytes).toEqual(before)
    await admin({ opcode: 6, namespace: 1, words: [0] })
    expect(bytes(Place.data + 99, 1)[0]).toBe(1)
  })
})

describe('other commands', () => {
  it('flush, and writes that are durable at once', async () => {
    const { io, admin, disk } = await started()
    await io({ opcode: 0 })
    await io({ opcode: 0, namespace: 0xffff_ffff })
    await io({ opcode: 1, words: sectors(0, 1) })
    await io({ opcode: 1, words: sectors(0, 1, 2 ** 30) })
    await admin({ opcode: 9, words: [6, 0] })
    await io({ opcode: 1, words: sectors(0, 1) })
    expect(disk.calls).toEqual(['flush', 'flush', 'write 0+512', 'write 0+512', 'flush', 'write 0+512', 'flush'])
  })

  it('write zeroes', async () => {
    const { io, disk } = await started()
    expect(await io({ opcode: 8, words: sectors(4, 3) })).toMatchObject({ status: 0 })
    expect(disk.bytes.subarray(4 * 512, 7 * 512).every((byte) => byte === 0)).toBe(true)
    expect([disk.bytes[4 * 512 - 1], disk.bytes[7 * 512]]).not.toContain(0)
    expect(await io({ opcode: 8, words: sectors(2047, 2) })).toMatchObject({ status: 0x80 })
  })

  it('dataset management discards, all or nothing', async () => {
    const { io, memory, disk } = await started()
    const ranges = (...given: [number, number][]): void =>
      given.forEach(([first, count], index) => {
        memory.writeU32(Place.data + 16 * index + 4, count)
        memory.writeU64(Place.data + 16 * index + 8, BigInt(first))
      })
    ranges([8, 8], [0, 0], [2040, 8])
    expect(await io({ opcode: 9, words: [2, 4] })).toMatchObject({ status: 0 })
    expect(disk.calls).toEqual(['discard 4096+4096', `discard ${2040 * 512}+4096`])
    ranges([8, 8], [2041, 8])
    expect(await io({ opcode: 9, words: [1, 4] })).toMatchObject({ status: 0x80 })
    expect(await io({ opcode: 9, words: [0, 0] })).toMatchObject({ status: 0 })
    expect(disk.calls).toHaveLength(2)
  })

  it('features', async () => {
    const { admin, start, write } = await started()
    const get = async (id: number, word = 0) => admin({ opcode: 10, words: [id, word] })
    expect(await get(6)).toMatchObject({ status: 0, result: 1 })
    expect(await admin({ opcode: 9, words: [4, 300] })).toMatchObject({ status: 0 })
    expect(await get(4)).toMatchObject({ result: 300 })
    expect(await get(4 | (1 << 8))).toMatchObject({ result: 343 })
    expect(await get(0x0d)).toMatchObject({ status: 2 })
    expect(await admin({ opcode: 9, words: [2 ** 31 + 4, 1] })).toMatchObject({ status: 0x10d })
    expect(await get(9, 16)).toMatchObject({ status: 0, result: 16 })
    expect(await get(9, 17)).toMatchObject({ status: 2 })
    // The number of queues is agreed before there are any.
    expect(await admin({ opcode: 9, words: [7, 0x3_0003] })).toMatchObject({ status: 2 })
    await admin({ opcode: 0, words: [1] })
    await admin({ opcode: 4, words: [1] })
    expect(await admin({ opcode: 9, words: [7, 0x3_0003] })).toMatchObject({ status: 0, result: 0x3_0003 })
    expect(await admin({ opcode: 9, words: [7, 0x40_0040] })).toMatchObject({ result: 0xf_000f })
    write(0x14, 0)
    await start()
    expect(await get(4)).toMatchObject({ result: 343 })
  })

  it('logs', async () => {
    const { admin, io, bytes } = await started()
    await io({ opcode: 2, words: sectors(0, 8) })
    const log = (id: number, dwords: number, offset = 0) =>
      admin({ opcode: 2, words: [id | ((dwords - 1) << 16), 0, offset] })
    expect(await log(2, 128)).toMatchObject({ status: 0 })
    expect(new DataView(bytes(Place.data, 512).buffer).getUint32(64, true)).toBe(1)
    expect(await log(3, 128)).toMatchObject({ status: 0 })
    expect(bytes(Place.data, 1)[0]).toBe(1)
    expect(await log(3, 1, 516)).toMatchObject({ status: 2 })
    expect(await log(0x70, 1)).toMatchObject({ status: 0x109 })
  })

  it('asynchronous events wait, are reported once, and can be aborted', async () => {
    const { admin, queues, settle, write } = await started()
    const ask = async (id: number) => {
      queues.admin.put({ opcode: 12, id })
      queues.admin.ring()
      await settle()
    }
    const come = () => {
      const taken = queues.admin.take()
      queues.admin.consume()
      return taken.map(({ id, status, result }) => [id, status, result])
    }
    for (let id = 1; id <= 5; id++) await ask(id)
    expect(come()).toEqual([[5, 0x105, 0]])
    queues.admin.put({ opcode: 8, id: 20, words: [4 << 16] })
    queues.admin.ring()
    // prettier-ignore
    expect(come()).toEqual([[4, 7, 0], [20, 0, 0]])
    expect(await admin({ opcode: 8, words: [77 << 16] })).toMatchObject({ result: 1 })
    write(0x1000 + 8, ENTRIES)
    expect(come()).toEqual([[1, 0, 0x1_0100]])
    // Of the same log: not before it was read.
    write(0x1000 + 8 * 3, 0)
    expect(come()).toEqual([])
    queues.admin.put({ opcode: 2, id: 30, words: [1 | (15 << 16)] })
    queues.admin.ring()
    expect(come().map(([id, , result]) => [id, result])).toEqual([
      [2, 0x1_0000],
      [30, 0],
    ])
  })
})

describe('interrupts', () => {
  it('are messages, one for each time the doorbell is rung', async () => {
    const { queues, bench } = await started()
    for (let id = 0; id < 3; id++) queues.io.put({ opcode: 3, id, namespace: 1 })
    queues.io.ring()
    expect(bench.functions[0]!.signals).toEqual([1])
  })

  it('or a level, which falls when all is read, or masked', async () => {
    const { queues, bench, write, settle } = await started()
    const pci = bench.functions[0]!
    pci.msixEnabled = false
    queues.io.put({ opcode: 2, namespace: 1, words: sectors(0, 1) })
    queues.io.ring()
    await settle()
    expect(pci.line.raised).toBe(true)
    write(0x0c, 2)
    expect(pci.line.raised).toBe(false)
    write(0x10, 2)
    expect(pci.line.raised).toBe(true)
    queues.io.take()
    queues.io.consume()
    expect(pci.line.raised).toBe(false)
  })
})

describe('life', () => {
  it('a reset waits for what is in progress, and reports nothing of it', async () => {
    const { queues, disk, settle, read, write, enable, io, start } = await started()
    disk.hold = true
    queues.io.put({ opcode: 2, namespace: 1, words: sectors(0, 1) })
    queues.io.ring()
    write(0x14, 0)
    expect(read(0x1c)).toBe(READY)
    disk.go()
    await settle()
    expect(read(0x1c)).toBe(0)
    enable()
    expect(queues.io.take()).toEqual([])
    write(0x14, 0)
    await start()
    expect(await io({ opcode: 2, words: sectors(0, 1) })).toMatchObject({ status: 0 })
  })

  it('a shutdown flushes', async () => {
    const { read, write, settle, disk } = await started()
    write(0x14, (6 << 16) | (4 << 20) | 1 | (1 << 14))
    expect(read(0x1c)).toBe(READY | (1 << 2))
    await settle()
    expect([read(0x1c), disk.calls]).toEqual([READY | (2 << 2), ['flush']])
  })

  it('goes on from a snapshot', async () => {
    const one = await started()
    await one.io({ opcode: 1, id: 1, words: sectors(0, 1) })
    const other = await benchNvme(one.disk)
    for (let at = 0x10000; at < 0x14000; at += 4096) other.memory.writeBytes(at, one.bytes(at, 4096))
    other.device.restore!(structuredClone(one.device.save!()))
    // The second entry of the ring.
    const at = Place.submission + 64
    other.memory.writeU32(at, 2 | (7 << 16))
    other.memory.writeU32(at + 4, 1)
    other.memory.writeU64(at + 24, BigInt(Place.data))
    other.write(0x1008, 2)
    await other.settle()
    expect(other.memory.readU32(Place.completion + 16 + 12)).toBe(0x1_0007)
    expect(other.bytes(Place.data, 512)).toEqual(one.disk.bytes.subarray(0, 512))
  })

  it.each([1, 2, 3])('survives any commands (seed %d)', async (seed) => {
    const random = createRandom(seed)
    const { memory, write, settle, device, read, enable } = await started()
    const addresses = [0, Place.data, Place.data + 0x204, RAM - 4096, RAM, 2 ** 40, Place.submission, Place.completion]
    for (let round = 0; round < 1500; round++) {
      const admin = random(3) === 0
      const at = (admin ? Place.adminSubmission : Place.submission) + 64 * random(ENTRIES)
      memory.writeU32(at, random(16) | (random(20) === 0 ? random(256) << 8 : 0) | (round << 16))
      memory.writeU32(at + 4, random(3))
      memory.writeU64(at + 24, BigInt(addresses[random(addresses.length)]!))
      memory.writeU64(at + 32, BigInt(addresses[random(addresses.length)]!))
      for (let word = 0; word < 6; word++) memory.writeU32(at + 40 + 4 * word, random(4) ? random(20) : random(2 ** 31))
      write(0x1000 + 4 * random(6), random(ENTRIES))
      if (random(10) === 0) await settle()
      if (random(100) === 0) {
        write(0x14, 0)
        await settle()
        expect(read(0x1c)).toBe(0)
        enable()
      }
    }
    await device.quiesce!()
    const saved = device.save!()
    device.restore!(structuredClone(saved))
    expect(device.save!()).toEqual(saved)
  })
})
