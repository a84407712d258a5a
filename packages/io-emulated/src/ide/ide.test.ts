import { benchDevice, createRandom, testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { testDisk } from '../ahci/ahci.test.support.ts'
import plugin from '../index.ts'

const ide = plugin.devices!.find(({ kind }) => kind === 'ide')!
const READY = 0x50
const DATA_READY = 0x58
const FAILED = 0x51
const Error = { aborted: 0x04, idNotFound: 0x10, uncorrectable: 0x40 } as const
const TABLE = 0x8000
const DATA = 0x40000

testDevice(ide, { image: 'disk' }, it, () => ({ backends: { block: testDisk() } }))

async function start(disk = testDisk(), options: object = {}) {
  const { device, bench } = await benchDevice(ide, { image: 'disk', ...options }, { backends: { block: disk } })
  const { guestMemory: memory } = bench
  const busMaster = bench.mmio[0]!.base
  const reg = {
    read: (at: number) => bench.readPort(0x1f0 + at),
    write: (at: number, value: number) => bench.writePort(0x1f0 + at, value),
    control: (value: number) => bench.writePort(0x3f6, value),
    alternate: () => bench.readPort(0x3f6),
  }
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  }
  /** Task file: high-order bytes first, as 48-bit commands want them. */
  const issue = (command: number, { lba = 0, count = 0, features = 0, device = 0x40 } = {}): void => {
    const byte = (value: number, at: number): number => Math.floor(value / 2 ** (8 * at)) & 0xff
    reg.write(6, device)
    for (const half of [1, 0]) {
      reg.write(1, byte(features, half))
      reg.write(2, byte(count, half))
      for (let at = 0; at < 3; at++) reg.write(3 + at, byte(lba, 3 * half + at))
    }
    reg.write(7, command)
  }
  const bus = {
    status: () => bench.readMmio(busMaster + 2, 1),
    clear: () => bench.writeMmio(busMaster + 2, 0x66, 1),
    /** Regions of a transfer; the data lies at `DATA`. */
    start(toMemory: boolean, regions: readonly number[], at = DATA): void {
      let address = at
      regions.forEach((length, index) => {
        memory.writeU32(TABLE + 8 * index, address)
        memory.writeU32(TABLE + 8 * index + 4, (length & 0xffff) | (index === regions.length - 1 ? 0x8000_0000 : 0))
        address += length
      })
      bench.writeMmio(busMaster + 4, TABLE, 4)
      bench.writeMmio(busMaster, toMemory ? 9 : 1, 1)
    },
    stop: () => bench.writeMmio(busMaster, 0, 1),
  }
  const dma = async (
    command: number,
    toMemory: boolean,
    regions: readonly number[],
    registers: Parameters<typeof issue>[1] = {},
  ) => {
    bus.stop()
    bus.clear()
    issue(command, registers)
    bus.start(toMemory, regions)
    await settle()
    const length = regions.reduce((sum, size) => sum + size, 0)
    const data = new Uint8Array(length)
    memory.readBytes(DATA, data)
    return { bus: bus.status(), status: reg.read(7), error: reg.read(1), data }
  }
  const words = (count: number): number[] => Array.from({ length: count }, () => bench.readPort(0x1f0, 2))
  return { device, bench, memory, disk, reg, issue, bus, dma, settle, words, line: bench.line(14) }
}

it('takes its ports with it when the guest unplugs it', async () => {
  const { device, bench } = await benchDevice(ide, { image: 'disk' }, { backends: { block: testDisk() } })
  const { unpluggable, onPlugged } = bench.functions[0]!.description
  onPlugged!(false)
  expect([unpluggable, bench.readPort(0x1f7), bench.readPort(0x3f6)]).toEqual(['disk', 0xff, 0xff])
  onPlugged!(true)
  expect([bench.readPort(0x1f7), bench.readPort(0x3f6)]).toEqual([READY, READY])
  await device.dispose?.()
})

describe('a parallel ATA channel', () => {
  it('has one drive, decoded at the legacy places', async () => {
    const { reg, bench } = await start()
    expect([reg.read(7), reg.read(2), reg.read(3), reg.read(4), reg.read(5)]).toEqual([READY, 1, 1, 0, 0])
    reg.write(6, 0xb0)
    expect([reg.read(7), reg.alternate(), reg.read(2), reg.read(6)]).toEqual([0, 0, 0, 0xb0])
    expect(bench.functions[0]!.description).toMatchObject({ deviceId: 0x7111, classCode: 0x010180 })
  })

  it('IDENTIFY by PIO: an interrupt when the data is there, taken off by reading the status', async () => {
    const { reg, issue, words, line } = await start()
    issue(0xec)
    expect([line.raised, reg.alternate(), line.raised, reg.read(7), line.raised]).toEqual([
      true,
      DATA_READY,
      true,
      DATA_READY,
      false,
    ])
    const data = words(256)
    expect([data[60], data[75], data[100]]).toEqual([2048, 0, 2048])
    expect([reg.read(7), words(1)[0], line.raised]).toEqual([READY, 0xffff, false])
  })

  it('reads and writes by PIO, an interrupt a sector', async () => {
    const { reg, issue, words, bench, disk, settle, line } = await start()
    issue(0x24, { lba: 4, count: 2 })
    expect(reg.alternate()).toBe(0x80)
    await settle()
    const edges = line.edges
    const first = words(256)
    expect([line.edges - edges, reg.read(7)]).toEqual([0, DATA_READY])
    const second = words(256)
    expect(reg.read(7)).toBe(READY)
    const bytes = new Uint8Array(Uint16Array.from([...first, ...second]).buffer)
    expect(bytes).toEqual(disk.bytes.slice(4 * 512, 6 * 512))
    issue(0x30, { lba: 9, count: 1 })
    expect(reg.read(7)).toBe(DATA_READY)
    for (let word = 0; word < 128; word++) bench.writePort(0x1f0, 0x0403_0201, 4)
    await settle()
    expect([reg.read(7), ...disk.bytes.subarray(9 * 512, 9 * 512 + 5)]).toEqual([READY, 1, 2, 3, 4, 1])
  })

  /** Sector, cylinder low and high as they lie in the low bytes of an LBA. */
  const chs = (cylinder: number, sector: number): number => sector | (cylinder << 8)

  it.each([
    { name: 'its own geometry', cylinder: 1, head: 2, sector: 3, lba: (1 * 16 + 2) * 63 + 2 },
    { name: 'the first sector', cylinder: 0, head: 0, sector: 1, lba: 0 },
    { name: 'the last sector of a track', cylinder: 0, head: 15, sector: 63, lba: 1007 },
    {
      name: 'a geometry that it is told',
      geometry: [4, 17],
      cylinder: 5,
      head: 3,
      sector: 17,
      lba: (5 * 4 + 3) * 17 + 16,
    },
  ])('reads and writes by cylinder, head and sector: $name', async ({ geometry, cylinder, head, sector, lba }) => {
    const { reg, issue, words, bench, disk, settle } = await start()
    if (geometry) issue(0x91, { device: geometry[0]! - 1, count: geometry[1]! })
    issue(0xec)
    const [heads, perTrack] = geometry ?? [16, 63]
    const identity = words(256)
    expect(identity.slice(53, 59)).toEqual([
      7,
      Math.floor(2048 / (heads! * perTrack!)),
      heads,
      perTrack,
      Math.floor(2048 / (heads! * perTrack!)) * heads! * perTrack!,
      0,
    ])
    issue(0x20, { device: head, lba: chs(cylinder, sector), count: 1 })
    await settle()
    expect(new Uint8Array(Uint16Array.from(words(256)).buffer)).toEqual(disk.bytes.slice(lba * 512, lba * 512 + 512))
    issue(0x30, { device: head, lba: chs(cylinder, sector), count: 1 })
    for (let word = 0; word < 128; word++) bench.writePort(0x1f0, 0x0403_0201, 4)
    await settle()
    expect([reg.read(7), ...disk.bytes.subarray(lba * 512, lba * 512 + 5)]).toEqual([READY, 1, 2, 3, 4, 1])
  })

  it.each([
    { name: 'sector 0', command: 0x20, lba: chs(0, 0), device: 0 },
    { name: 'a sector behind the track', command: 0x20, lba: chs(0, 64), device: 0 },
    { name: 'a head that is not there', command: 0x20, lba: chs(0, 1), device: 4, geometry: true },
    { name: 'a cylinder behind the end', command: 0x20, lba: chs(3, 1), device: 0 },
    { name: 'a 48-bit command', command: 0x24, lba: chs(0, 1), device: 0 },
  ])('has no sector at $name', async ({ command, lba, device, geometry }) => {
    const { reg, issue, settle } = await start()
    if (geometry) issue(0x91, { device: 3, count: 63 })
    issue(command, { device, lba, count: 1 })
    await settle()
    expect([reg.read(7), reg.read(1)]).toEqual([FAILED, Error.idNotFound])
  })

  it.each([
    { name: 'READ DMA', command: 0xc8 },
    { name: 'READ DMA EXT', command: 0x25 },
  ])('$name reads into the regions', async ({ command }) => {
    const { dma, disk, line } = await start()
    const { data, status, bus } = await dma(command, true, [100, 1400, 36], { lba: 9, count: 3 })
    expect([status, bus & 7, line.edges]).toEqual([READY, 4, 1])
    expect(data).toEqual(disk.bytes.slice(9 * 512, 12 * 512))
  })

  it('WRITE DMA EXT writes from the regions; 64 KiB are a count of 0', async () => {
    const { dma, disk, memory } = await start()
    const bytes = new Uint8Array(65_536 + 512).map((_, index) => index * 3)
    memory.writeBytes(DATA, bytes)
    const { status } = await dma(0x35, false, [65_536, 512], { lba: 5, count: 129 })
    expect(status).toBe(READY)
    expect(disk.bytes.slice(5 * 512, 5 * 512 + bytes.length)).toEqual(bytes)
  })

  it('the drive waits for the bus master', async () => {
    const { issue, bus, reg, settle, disk } = await start()
    issue(0x25, { count: 1 })
    await settle()
    expect([reg.alternate(), disk.calls]).toEqual([DATA_READY, []])
    bus.start(true, [512])
    await settle()
    expect([reg.alternate(), disk.calls]).toEqual([READY, ['read 0+512']])
  })

  it('high-order bytes read back under HOB', async () => {
    const { reg, dma } = await start()
    const { status, error } = await dma(0x25, true, [512], { lba: 0x112233445566, count: 1 })
    expect([status, error, reg.read(3), reg.read(4), reg.read(5)]).toEqual([FAILED, Error.idNotFound, 0x66, 0x55, 0x44])
    reg.control(0x80)
    expect([reg.read(3), reg.read(4), reg.read(5)]).toEqual([0x33, 0x22, 0x11])
  })

  it.each([
    { name: 'an unknown command', command: 0xff, error: Error.aborted },
    { name: 'a queued command', command: 0x60, error: Error.aborted },
    { name: 'an unknown feature', command: 0xef, error: Error.aborted },
  ])('$name is aborted', async ({ command, error }) => {
    const { issue, bus, reg, settle } = await start()
    issue(command, { features: 0x77, count: 1 })
    bus.start(true, [512])
    await settle()
    expect([reg.read(7), reg.read(1)]).toEqual([FAILED, error])
  })

  it.each([
    { name: 'regions too short', regions: [510] },
    { name: 'regions outside memory', regions: [512], at: 0xfff0_0000 },
  ])('$name: an error of the bus master, and nothing read', async ({ regions, at }) => {
    const { issue, bus, reg, settle, disk } = await start()
    issue(0x25, { count: 1 })
    bus.start(true, regions, at)
    await settle()
    expect([reg.read(7), bus.status() & 3, disk.calls]).toEqual([FAILED, 2, []])
  })

  it('errors of the back end are errors of the command', async () => {
    const { dma, disk } = await start()
    disk.failing = true
    expect(await dma(0x25, true, [512], { count: 1 })).toMatchObject({ status: FAILED, error: Error.uncorrectable })
    expect((await dma(0x35, false, [512], { count: 1 })).status).toBe(FAILED | 0x20)
  })

  it('soft reset: busy until nothing of before touches memory any more, then the signature', async () => {
    const { issue, bus, reg, settle, disk } = await start()
    disk.hold = true
    issue(0x25, { count: 1 })
    bus.start(true, [512])
    reg.control(4)
    reg.control(0)
    expect(reg.alternate()).toBe(0x80)
    disk.go()
    await settle()
    expect([reg.read(7), reg.read(1), reg.read(2), reg.read(3)]).toEqual([READY, 1, 1, 1])
  })

  it('nIEN keeps the line quiet', async () => {
    const { issue, reg, line } = await start()
    reg.control(2)
    issue(0xec)
    expect(line.raised).toBe(false)
    reg.control(0)
    expect(line.raised).toBe(true)
  })

  it('goes on from a snapshot in the midst of a PIO transfer', async () => {
    const { issue, words, device, disk } = await start()
    issue(0x20, { lba: 3, count: 1 })
    await device.quiesce!()
    words(10)
    const other = await start()
    other.device.restore!(structuredClone(device.save!()))
    const rest = new Uint8Array(Uint16Array.from(other.words(246)).buffer)
    expect(rest).toEqual(disk.bytes.slice(3 * 512 + 20, 4 * 512))
    expect(other.reg.read(7)).toBe(READY)
  })

  it.each([1, 2, 3, 4])('survives noise (seed %d)', async (seed) => {
    const random = createRandom(seed)
    const { issue, bus, reg, settle, device, bench, memory, dma } = await start()
    const commands = [0x25, 0x35, 0x20, 0x30, 0xec, 0x06, 0x2f, 0xea, 0xc8, 0xef]
    for (let step = 0; step < 400; step++) {
      if (random(3) === 0)
        issue(commands[random(commands.length)]!, { lba: random(3000), count: random(20), features: random(4) })
      if (random(3) === 0) bus.start(random(2) === 0, [random(4096), random(65536)], random(8) ? DATA : random(2 ** 32))
      if (random(8) === 0) memory.writeU32(TABLE + random(64), random(2 ** 32))
      if (random(4) === 0) bench.writePort(0x1f0 + random(8), random(2 ** 32), ([1, 2, 4] as const)[random(3)]!)
      if (random(4) === 0) bench.readPort(0x1f0 + random(8), ([1, 2, 4] as const)[random(3)]!)
      if (random(20) === 0) reg.control(random(256))
      if (random(10) === 0) bus.stop()
      if (random(4) === 0) await settle()
    }
    await device.quiesce!()
    device.reset!()
    expect((await dma(0x25, true, [512], { count: 1 })).status).toBe(READY)
  })
})

it('moves nothing by DMA without Bus Master Enable', async () => {
  const { dma, bench, disk, memory } = await start()
  bench.functions[0]!.busMaster = false
  memory.fill(DATA, 512, 0x33)
  const refused = await dma(0x25, true, [512], { lba: 3, count: 1 })
  expect([refused.bus & 2, refused.data.every((byte) => byte === 0x33)]).toEqual([2, true])
  await dma(0x35, false, [512], { lba: 9, count: 1 })
  expect(disk.bytes[9 * 512]).toBe(9)
  bench.functions[0]!.busMaster = true
  expect((await dma(0x25, true, [512], { lba: 3, count: 1 })).data).toEqual(disk.bytes.slice(3 * 512, 4 * 512))
})
