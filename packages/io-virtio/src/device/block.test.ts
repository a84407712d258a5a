import { findVirtioRegisters } from '@nonroot/testkit'
import type { MockVirtioDriver } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { memoryDisk, subject, WAYS } from '../virtio.test.support.ts'
import type { MemoryDisk } from '../virtio.test.support.ts'
import { BlockFeature, BlockStatus, BlockType } from './block-format.ts'

const header = (type: number, sector: number | bigint = 0): Uint8Array => {
  const view = new DataView(new ArrayBuffer(16))
  view.setUint32(0, type, true)
  view.setBigUint64(8, BigInt(sector), true)
  return new Uint8Array(view.buffer)
}
const segment = (sector: number | bigint, sectors: number, flags = 0): Uint8Array => {
  const view = new DataView(new ArrayBuffer(16))
  view.setBigUint64(0, BigInt(sector), true)
  view.setUint32(8, sectors, true)
  view.setUint32(12, flags, true)
  return new Uint8Array(view.buffer)
}
const pattern = (length: number, seed = 7): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * seed) & 0xff)

async function start(disk: MemoryDisk = memoryDisk(), options: object = {}, model: object = {}) {
  const made = await subject('virtio-blk', { image: 'disk', ...options }, model, { backends: { block: disk } })
  made.driver.start()
  return made
}

const status = (parts: readonly Uint8Array[]): number => parts.at(-1)![0]!

describe.each(WAYS)('virtio-blk over $way', ({ transport, ring }) => {
  const model = { transport, ring }

  it('reads what it wrote', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk, {}, model)
    const data = pattern(4096)
    const written = await driver.request(
      0,
      [header(BlockType.write, 8), data.subarray(0, 1000), data.subarray(1000)],
      [1],
    )
    expect([status(written.parts), written.written]).toEqual([BlockStatus.ok, 1])
    expect(disk.bytes.slice(4096, 8192)).toEqual(data)
    const read = await driver.request(0, [header(BlockType.read, 8)], [512, 3584, 1])
    expect([status(read.parts), read.written]).toEqual([BlockStatus.ok, 4097])
    expect(new Uint8Array([...read.parts[0]!, ...read.parts[1]!])).toEqual(data)
    expect(driver.registers.queueInterrupts(0)).toBeGreaterThan(0)
  })

  it('counts how long the back end took', async () => {
    const disk = memoryDisk()
    disk.hold = true
    const { driver, bench } = await start(disk, {}, model)
    const request = driver.request(0, [header(BlockType.read, 8)], [512, 1])
    bench.clock.advanceNs(3000)
    disk.go()
    await request
    expect(bench.context.metrics.samples().find(({ name }) => name.endsWith('requestNs'))).toMatchObject({ kind: 'histogram', count: 1, value: 3000, max: 3000 })
  })

  it('header and status in whatever descriptors: MUST NOT make assumptions about the arrangement', async () => {
    const { driver } = await start(memoryDisk(), {}, model)
    const request = header(BlockType.read)
    const { parts } = await driver.request(0, [request.subarray(0, 3), request.subarray(3)], [500, 12, 1])
    expect(status(parts)).toBe(BlockStatus.ok)
    // Data and status in one descriptor.
    const joined = await driver.request(0, [request], [513])
    expect([joined.parts[0]![512], joined.written]).toEqual([BlockStatus.ok, 513])
  })

  it('runs requests side by side and completes them as the back end does', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk, {}, model)
    disk.hold = true
    const first = driver.request(0, [header(BlockType.read, 0)], [512, 1])
    const second = driver.request(0, [header(BlockType.read, 1)], [512, 1])
    await Promise.resolve()
    expect(disk.calls).toEqual(['read 0+512', 'read 512+512'])
    disk.go()
    expect([status((await first).parts), status((await second).parts)]).toEqual([0, 0])
  })
})

describe('virtio-blk', () => {
  const config = (driver: MockVirtioDriver) => ({
    capacity: driver.registers.readConfig(0, 4),
    blockSize: driver.registers.readConfig(20, 4),
    writeback: driver.registers.readConfig(32, 1),
    queues: driver.registers.readConfig(34, 2),
  })

  it('says what it is', async () => {
    const { driver } = await start(memoryDisk(1 << 20), { queues: 3 })
    expect(config(driver)).toEqual({ capacity: 2048, blockSize: 512, writeback: 1, queues: 3 })
    expect(driver.registers.deviceId).toBe(2)
  })

  it('MUST initialize padding bytes unused0 and unused1 to 0, and all that it does not offer', async () => {
    const { driver } = await start(memoryDisk(1 << 20), { queues: 3 })
    const { registers } = driver
    expect([registers.readConfig(33, 1), registers.readConfig(56, 4) >>> 8]).toEqual([0, 0])
    for (let offset = 60; offset < 100; offset += 4) expect(registers.readConfig(offset, 4)).toBe(0)
  })

  it('SHOULD clear write_zeroes_may_unmap if and only if a write zeroes request cannot deallocate', async () => {
    const able = memoryDisk()
    const unable = memoryDisk()
    delete unable.writeZeroes
    for (const [disk, wanted] of [
      [able, 1],
      [unable, 0],
    ] as const)
      expect((await start(disk)).driver.registers.readConfig(56, 1)).toBe(wanted)
  })

  it('gives its serial number', async () => {
    const { driver } = await start(memoryDisk(), { serial: 'nonroot-0001' })
    const { parts, written } = await driver.request(0, [header(BlockType.getId)], [20, 1])
    expect(new TextDecoder().decode(parts[0])).toBe('nonroot-0001'.padEnd(20, '\0'))
    expect([status(parts), written]).toEqual([0, 21])
  })

  it.each([
    { name: 'beyond the end', request: header(BlockType.read, 128), room: 512 },
    { name: 'across the end', request: header(BlockType.read, 127), room: 1024 },
    { name: 'at a sector whose offset wraps', request: header(BlockType.read, (1n << 55n) + 1n), room: 512 },
    { name: 'at the last sector there can be', request: header(BlockType.read, (1n << 64n) - 1n), room: 512 },
    { name: 'of a length that is no multiple of 512', request: header(BlockType.read), room: 100 },
    { name: 'with half a header', request: header(BlockType.read).subarray(0, 8), room: 512 },
  ])('a read $name is an I/O error', async ({ request, room }) => {
    const { driver } = await start()
    const { parts, written } = await driver.request(0, [request], [room, 1])
    // The used length covers nothing that was not written.
    expect([status(parts), written]).toEqual([BlockStatus.ioError, 0])
  })

  it('writes beyond the end, and to no sector', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    const beyond = await driver.request(0, [header(BlockType.write, 128), pattern(512)], [1])
    expect(status(beyond.parts)).toBe(BlockStatus.ioError)
    expect(disk.calls).toEqual([])
  })

  it('reads, writes, discards and zeroes up to the last sector', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    for (const [request, room] of [
      [[header(BlockType.read, 126)], [1024, 1]],
      [[header(BlockType.write, 127), pattern(512)], [1]],
      [[header(BlockType.discard), segment(120, 8)], [1]],
      [[header(BlockType.writeZeroes), segment(0, 128)], [1]],
    ] as const)
      expect(status((await driver.request(0, request, room)).parts)).toBe(BlockStatus.ok)
    expect(disk.calls).toEqual(['read 64512+1024', 'write 65024+512', 'discard 61440+4096', 'zero 0+65536'])
  })

  it.each([2, 3, 5, 9, 10, 14, 15, 16, 26, 99, 0x8000_0000])(
    'MUST reject request type %i with VIRTIO_BLK_S_UNSUPP',
    async (type) => {
      const { driver } = await start()
      expect(status((await driver.request(0, [header(type)], [512, 1])).parts)).toBe(BlockStatus.unsupported)
    },
  )

  it('an error of the back end is an error of that request', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    disk.failing = true
    for (const request of [header(BlockType.read), header(BlockType.flush)])
      expect(status((await driver.request(0, [request], [512, 1])).parts)).toBe(BlockStatus.ioError)
    disk.failing = false
    expect(status((await driver.request(0, [header(BlockType.read)], [512, 1])).parts)).toBe(BlockStatus.ok)
  })

  it('MUST set status to IOERR for a write if VIRTIO_BLK_F_RO is offered, and MUST NOT write any data', async () => {
    const disk = memoryDisk(65536, true)
    const { driver } = await start(disk, { readOnly: true })
    expect(driver.offered().has(BlockFeature.readOnly)).toBe(true)
    for (const request of [
      [header(BlockType.write), pattern(512)],
      [header(BlockType.writeZeroes), segment(0, 1)],
    ])
      expect(status((await driver.request(0, request, [1])).parts)).toBe(BlockStatus.ioError)
    expect(disk.calls).toEqual([])
    expect(driver.offered().has(BlockFeature.discard)).toBe(false)
  })

  it('discards and writes zeroes', async () => {
    const disk = memoryDisk()
    disk.bytes.fill(9)
    const { driver } = await start(disk)
    const discarded = await driver.request(0, [header(BlockType.discard), segment(8, 8), segment(32, 16)], [1])
    const zeroed = await driver.request(0, [header(BlockType.writeZeroes), segment(1, 2, 1)], [1])
    expect([status(discarded.parts), status(zeroed.parts)]).toEqual([0, 0])
    expect(disk.calls).toEqual(['discard 4096+4096', 'discard 16384+8192', 'zero 512+1024'])
    expect([...disk.bytes.slice(511, 514)]).toEqual([9, 0, 0])
  })

  it('writes zeroes over a back end that cannot', async () => {
    const disk = memoryDisk(1 << 20)
    disk.bytes.fill(9)
    delete disk.writeZeroes
    const { driver } = await start(disk)
    expect(status((await driver.request(0, [header(BlockType.writeZeroes), segment(2, 1030)], [1])).parts)).toBe(0)
    expect(disk.bytes.subarray(1024, 1024 + 1030 * 512).every((byte) => byte === 0)).toBe(true)
    expect(disk.bytes[1024 + 1030 * 512]).toBe(9)
  })

  it.each([
    { name: 'an unknown flag', type: BlockType.writeZeroes, data: segment(0, 1, 2), wanted: BlockStatus.unsupported },
    { name: 'unmap in a discard', type: BlockType.discard, data: segment(0, 1, 1), wanted: BlockStatus.unsupported },
    { name: 'a range beyond the end', type: BlockType.discard, data: segment(120, 9), wanted: BlockStatus.ioError },
    {
      name: 'a range that wraps',
      type: BlockType.discard,
      data: segment((1n << 64n) - 1n, 2),
      wanted: BlockStatus.ioError,
    },
    { name: 'too long a range', type: BlockType.discard, data: segment(0, 0xffff_ffff), wanted: BlockStatus.ioError },
    {
      name: 'half a segment',
      type: BlockType.discard,
      data: segment(0, 1).subarray(0, 8),
      wanted: BlockStatus.ioError,
    },
    { name: 'too many segments', type: BlockType.discard, data: new Uint8Array(33 * 16), wanted: BlockStatus.ioError },
    { name: 'no segment', type: BlockType.writeZeroes, data: new Uint8Array(0), wanted: BlockStatus.ioError },
  ])('refuses $name', async ({ type, data, wanted }) => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    expect(status((await driver.request(0, [header(type), data], [1])).parts)).toBe(wanted)
    expect(disk.calls).toEqual([])
  })

  it.each([
    { name: 'a plain disk', change: {}, features: [BlockFeature.discard, BlockFeature.writeZeroes], config: [2 ** 21, 32, 2 ** 21, 32, 1] },
    { name: 'read-only', change: { readOnly: true }, features: [BlockFeature.readOnly], config: [0, 0, 0, 0, 0] },
    { name: 'without discard', change: { discard: undefined }, features: [BlockFeature.writeZeroes], config: [0, 0, 2 ** 21, 32, 1] },
    { name: 'without zeroes', change: { writeZeroes: undefined }, features: [BlockFeature.discard, BlockFeature.writeZeroes], config: [2 ** 21, 32, 2 ** 21, 32, 0] },
  ])('offers what the back end can: $name', async ({ change, features, config }) => {
    const { driver } = await start(Object.assign(memoryDisk(), change))
    const { discard, writeZeroes, readOnly } = BlockFeature
    expect([readOnly, discard, writeZeroes].filter((bit) => driver.offered().has(bit))).toEqual(features.toSorted((a, b) => a - b))
    expect([...[36, 40, 48, 52].map((at) => driver.registers.readConfig(at, 4)), driver.registers.readConfig(56, 1)]).toEqual(config)
    expect(driver.registers.readConfig(44, 4) !== 0).toBe(config[0] !== 0)
  })

  it.each([
    { sectors: 2 ** 21, wanted: BlockStatus.ok },
    { sectors: 2 ** 21 + 1, wanted: BlockStatus.ioError },
  ])('takes $sectors sectors in a segment, as configured: status $wanted', async ({ sectors, wanted }) => {
    // 4 GiB: the bound of a segment, not the disk's end.
    const disk = Object.defineProperty(memoryDisk(), 'size', { value: 2 ** 32 })
    const { driver } = await start(disk)
    for (const [field, type, call] of [
      [36, BlockType.discard, 'discard'],
      [48, BlockType.writeZeroes, 'zero'],
    ] as const) {
      expect(driver.registers.readConfig(field, 4)).toBe(2 ** 21)
      const { parts } = await driver.request(0, [header(type), segment(8, 1), segment(16, sectors)], [1])
      expect(status(parts)).toBe(wanted)
      // Of a request that is refused nothing is done.
      const done = [`${call} 4096+512`, `${call} 8192+${sectors * 512}`]
      expect(disk.calls.splice(0)).toEqual(wanted === BlockStatus.ok ? done : [])
    }
  })

  it('a stable write is committed before it completes', async () => {
    const disk = memoryDisk()
    const made = await subject('virtio-blk', { image: 'disk' }, {}, { backends: { block: disk } })
    const write = async () => made.driver.request(0, [header(BlockType.write), pattern(512)], [1])
    // Neither FLUSH nor CONFIG_WCE negotiated.
    made.driver.start({ accept: (bit) => bit !== BlockFeature.flush && bit !== BlockFeature.configWriteback })
    await write()
    expect(disk.calls.splice(0)).toEqual(['write 0+512', 'flush'])
    // FLUSH: the driver's affair.
    made.driver.start()
    await write()
    await made.driver.request(0, [header(BlockType.flush)], [1])
    expect(disk.calls.splice(0)).toEqual(['write 0+512', 'flush'])
    // Writeback switched off.
    made.driver.registers.writeConfig(32, 1, 0)
    await write()
    expect(disk.calls.splice(0)).toEqual(['write 0+512', 'flush'])
    const zeroes = async () => made.driver.request(0, [header(BlockType.writeZeroes), segment(1, 2)], [1])
    await zeroes()
    expect(disk.calls.splice(0)).toEqual(['zero 512+1024', 'flush'])
    made.driver.registers.writeConfig(32, 1, 1)
    await zeroes()
    expect(disk.calls.splice(0)).toEqual(['zero 512+1024'])
    // A reset is followed by a cache that is written back.
    made.driver.registers.writeConfig(32, 1, 0)
    made.driver.start()
    await write()
    expect([made.driver.registers.readConfig(32, 1), disk.calls.splice(0)]).toEqual([1, ['write 0+512']])
    // "If CONFIG_WCE is negotiated but FLUSH is not, the device MUST initialize writeback to 0"
    made.driver.start({ accept: (bit) => bit !== BlockFeature.flush })
    expect(made.driver.registers.readConfig(32, 1)).toBe(0)
  })

  it('tells of a new size', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    const generation = driver.registers.generation()
    expect(config(driver).capacity).toBe(128)
    disk.resize(1 << 20)
    expect(driver.registers.generation()).not.toBe(generation)
    expect([config(driver).capacity, driver.registers.configInterrupts()]).toEqual([2048, 1])
    expect(status((await driver.request(0, [header(BlockType.read, 2000)], [512, 1])).parts)).toBe(0)
  })

  it('large requests go in slices', async () => {
    const disk = memoryDisk(1 << 20)
    const { driver } = await start(disk)
    const { parts } = await driver.request(0, [header(BlockType.read)], [600 * 1024, 1])
    expect([status(parts), disk.calls.length]).toEqual([0, 3])
  })

  it('has a bound for what it holds at a time, and goes on with the rest', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk, { queueSize: 256 }, { indirect: true })
    driver.start({ queueSize: 256 })
    disk.hold = true
    const requests = Array.from({ length: 100 }, (_, sector) =>
      driver.request(0, [header(BlockType.read, sector)], [512, 1]),
    )
    await Promise.resolve()
    expect(disk.calls).toHaveLength(64)
    disk.go()
    for (const request of requests) expect(status((await request).parts)).toBe(0)
  })

  it('a reset is over when nothing of before it touches memory any more', async () => {
    const disk = memoryDisk()
    const { driver, device } = await start(disk)
    const { registers } = driver
    const address = 0x80000
    const read = () =>
      driver.send(0, [
        { address: driver.place(header(BlockType.read)), length: 16 },
        { address, length: 513, writable: true },
      ])
    disk.hold = true
    read()
    // However often, and with whatever in between.
    for (const value of [0, 0, 1, 0]) {
      registers.writeStatus(value)
      expect(registers.status()).not.toBe(0)
    }
    device.reset!()
    expect(registers.status()).not.toBe(0)
    disk.go()
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(registers.status()).toBe(0)
    driver.memory.fill(address, 513, 0xee)
    expect(driver.bytes(address, 513).every((byte) => byte === 0xee)).toBe(true)
    driver.start()
    expect(status((await driver.request(0, [header(BlockType.read, 1)], [512, 1])).parts)).toBe(0)
    await device.quiesce?.()
  })

  it('is quiet only when those have ended, too, that waited for room', async () => {
    const disk = memoryDisk()
    const { driver, device } = await start(disk, { queueSize: 256 })
    driver.start({ queueSize: 256 })
    disk.hold = true
    const requests = Array.from({ length: 100 }, () => driver.request(0, [header(BlockType.read)], [512, 1]))
    const quiet = device.quiesce!()
    disk.go()
    await quiet
    expect(disk.calls).toHaveLength(100)
    for (const request of requests) expect(status((await request).parts)).toBe(0)
  })

  it('a driver that does not wait for that has its requests wait', async () => {
    const disk = memoryDisk()
    const { driver } = await start(disk)
    disk.hold = true
    driver.send(0, [
      { address: driver.place(header(BlockType.read)), length: 16 },
      { address: 0x80000, length: 513, writable: true },
    ])
    driver.registers.writeStatus(0)
    driver.rings.length = 0
    expect(driver.negotiate(driver.offered())).toBe(true)
    driver.enable(0, driver.makeRing(0, 64))
    driver.ready()
    disk.hold = false
    const after = driver.request(0, [header(BlockType.read, 1)], [512, 1])
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(disk.calls).toEqual(['read 0+512'])
    disk.go()
    expect(status((await after).parts)).toBe(0)
    expect(disk.calls).toEqual(['read 0+512', 'read 512+512'])
  })

  it('requests that the back end can do at once are done when the driver is back, with one notification', async () => {
    const disk = memoryDisk()
    const now: string[] = []
    const { driver } = await start(
      Object.assign(disk, {
        readNow: (offset: number, into: readonly Uint8Array[]) => {
          if (disk.failing) throw new Error('the disk is on fire')
          if (offset > 4096) return false
          now.push(`read ${offset}`)
          for (const part of into) part.fill(7)
          return true
        },
        writeNow: (offset: number) => now.push(`write ${offset}`) > 0,
      }),
    )
    const read = await driver.request(0, [header(BlockType.read)], [512, 512, 1])
    expect([status(read.parts), read.written, read.parts[1]![511]]).toEqual([BlockStatus.ok, 1025, 7])
    await driver.request(0, [header(BlockType.write, 2), pattern(512)], [1])
    const beside = await driver.request(0, [header(BlockType.read, 20)], [512, 1])
    expect([status(beside.parts), now, disk.calls]).toEqual([0, ['read 0', 'write 1024'], ['read 10240+512']])
    // A stable write is not done before it is flushed.
    driver.registers.writeConfig(32, 1, 0)
    await driver.request(0, [header(BlockType.write, 2), pattern(512)], [1])
    expect([now.length, disk.calls.splice(0)]).toEqual([2, ['read 10240+512', 'write 1024+512', 'flush']])
    driver.registers.writeConfig(32, 1, 1)
    disk.failing = true
    const failed = await driver.request(0, [header(BlockType.read)], [512, 1])
    expect([status(failed.parts), failed.written]).toEqual([BlockStatus.ioError, 0])
  })

  it('a request without room for a status breaks the device', async () => {
    const { driver } = await start()
    driver.send(0, [{ address: driver.place(header(BlockType.read)), length: 16 }])
    expect(driver.needsReset).toBe(true)
  })

  it('goes on from a snapshot', async () => {
    const one = await start()
    await one.driver.request(0, [header(BlockType.read)], [512, 1])
    one.driver.registers.writeConfig(32, 1, 0)
    await one.device.quiesce?.()
    const saved = structuredClone(one.device.save!())
    const disk = memoryDisk()
    const other = await subject('virtio-blk', { image: 'disk' }, {}, { guestMemory: one.bench.guestMemory, backends: { block: disk } })
    other.device.restore!(saved)
    // The driver notices nothing: it goes on with its rings.
    const driver: MockVirtioDriver = Object.assign(one.driver, { registers: findVirtioRegisters(other.bench) })
    for (let round = 0; round < 100; round++)
      expect(status((await driver.request(0, [header(BlockType.read)], [512, 1])).parts)).toBe(0)
    // Its cache is still written through.
    disk.calls.length = 0
    await driver.request(0, [header(BlockType.write), pattern(512)], [1])
    expect(disk.calls).toEqual(['write 0+512', 'flush'])
  })
})
