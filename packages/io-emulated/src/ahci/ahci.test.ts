import { gpa } from '@nonroot/contracts'
import { createRandom, testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import plugin from '../index.ts'
import { benchAhci, Place, testDisk } from './ahci.test.support.ts'
import { PortInterrupt } from './registers.ts'

const READY = 0x50
const FAILED = 0x51
const Error = { aborted: 0x04, idNotFound: 0x10, uncorrectable: 0x40 } as const

async function started(disk = testDisk(), options: object = {}) {
  const made = await benchAhci(disk, options)
  made.start()
  return { ...made, disk }
}

testDevice(
  plugin.devices!.find(({ kind }) => kind === 'ahci')!,
  { image: 'disk' },
  it,
  () => ({ backends: { block: testDisk() } }),
)

describe('AHCI, as a driver finds it', () => {
  it('is one port with a disk', async () => {
    const { read, port, start, bench, fis } = await benchAhci(testDisk())
    expect([read(0x00), read(0x0c), read(0x10)]).toEqual([0xc1341f00, 1, 0x10300])
    expect(bench.functions[0]!.description).toMatchObject({ classCode: 0x010601, msiVectors: 1, interruptPin: 'A' })
    expect([port.read(0x24), port.read(0x28), port.read(0x20)]).toEqual([0x101, 0x133, 0x150])
    start()
    // The signature that waited for FIS receive.
    expect(fis(0x40, 16)).toEqual([0x34, 0, READY, 1, 1, 0, 0, 0x40, 0, 0, 0, 0, 1, 0, 0, 0])
  })

  it('COMRESET brings the signature again', async () => {
    const { port, memory, fis } = await started()
    memory.fill(Place.fis, 256, 0)
    port.write(0x18, port.read(0x18) & ~1)
    port.write(0x2c, 0x301)
    expect([port.read(0x28), port.read(0x20)]).toEqual([0, 0x7f])
    port.write(0x2c, 0x300)
    expect([port.read(0x28), port.read(0x30)]).toEqual([0x133, 0x0401_0000])
    expect(fis(0x40, 4)).toEqual([0x34, 0, READY, 1])
  })

  it('a soft reset, too', async () => {
    const { port, prepare, memory, fis } = await started()
    memory.fill(Place.fis, 256, 0)
    prepare(0, { command: 0, raw: { 1: 0, 15: 4 } })
    port.write(0x38, 1)
    prepare(1, { command: 0, raw: { 1: 0, 15: 0 } })
    port.write(0x38, 2)
    expect([port.read(0x38), ...fis(0x40, 4)]).toEqual([0, 0x34, 0, READY, 1])
  })
})

describe('commands', () => {
  it('IDENTIFY says what the disk is, and adds up to nothing', async () => {
    const { run } = await started(testDisk(), { serial: 'abc' })
    const { data, status, interrupts, transferred } = await run({ command: 0xec, regions: [512] })
    const word = (at: number) => data[2 * at]! | (data[2 * at + 1]! << 8)
    expect([status, interrupts & PortInterrupt.pioSetup, transferred]).toEqual([READY, PortInterrupt.pioSetup, 512])
    expect(String.fromCharCode(...[1, 0, 3, 2].map((at) => data[20 + at]!))).toBe('abc ')
    expect([word(60), word(75), word(76) & 0x100, word(100), word(169)]).toEqual([2048, 31, 0x100, 2048, 1])
    expect(data.reduce((sum, byte) => sum + byte, 0) & 0xff).toBe(0)
  })

  it.each([
    { name: 'READ SECTOR(S)', command: 0x20, pio: true },
    { name: 'READ SECTOR(S) EXT', command: 0x24, pio: true },
    { name: 'READ DMA', command: 0xc8, pio: false },
    { name: 'READ DMA EXT', command: 0x25, pio: false },
  ])('$name reads into the regions', async ({ command, pio }) => {
    const { run, disk } = await started()
    const { data, status, transferred, interrupts } = await run({ command, lba: 9, count: 3, regions: [100, 1400, 36] })
    expect([status, transferred]).toEqual([READY, 1536])
    expect(interrupts & (pio ? PortInterrupt.pioSetup : PortInterrupt.deviceToHost)).toBeGreaterThan(0)
    expect(data).toEqual(disk.bytes.slice(9 * 512, 12 * 512))
  })

  it.each([
    { name: 'WRITE SECTOR(S)', command: 0x30 },
    { name: 'WRITE SECTOR(S) EXT', command: 0x34 },
    { name: 'WRITE DMA', command: 0xca },
    { name: 'WRITE DMA EXT', command: 0x35 },
    { name: 'WRITE DMA FUA EXT', command: 0x3d },
  ])('$name writes from the regions', async ({ command }) => {
    const { run, disk, memory } = await started()
    const bytes = Uint8Array.from({ length: 1024 }, (_, index) => index * 3)
    memory.writeBytes(Place.data, bytes)
    const { status } = await run({ command, lba: 5, count: 2, regions: [600, 424], write: true })
    expect(status).toBe(READY)
    expect(disk.bytes.slice(5 * 512, 7 * 512)).toEqual(bytes)
    expect(disk.calls.includes('flush')).toBe(command === 0x3d)
  })

  it('a count of 0 is the most', async () => {
    const { run, disk } = await started()
    const { status } = await run({ command: 0xc8, count: 0, regions: [256 * 512] })
    expect([status, disk.calls]).toEqual([READY, [`read 0+${256 * 512}`]])
  })

  it('28-bit commands have four bits of the address in the device register', async () => {
    const { run } = await started()
    expect((await run({ command: 0xc8, count: 1, device: 0x41, regions: [512] })).error).toBe(Error.idNotFound)
  })

  it('flushes, trims, sets features', async () => {
    const { run, disk, memory } = await started()
    expect((await run({ command: 0xe7 })).status).toBe(READY)
    expect((await run({ command: 0xea })).status).toBe(READY)
    memory.writeU64(Place.data, 4n | (8n << 48n))
    memory.writeU64(Place.data + 8, 100n | (2n << 48n))
    expect((await run({ command: 0x06, features: 1, count: 1, regions: [512], write: true })).status).toBe(READY)
    expect((await run({ command: 0xef, features: 0x82 })).status).toBe(READY)
    expect((await run({ command: 0x35, count: 1, regions: [512], write: true })).status).toBe(READY)
    expect(disk.calls).toEqual(['flush', 'flush', 'discard 2048+4096', 'discard 51200+1024', 'write 0+512', 'flush'])
  })

  it.each([
    { name: 'an unknown command', issue: { command: 0xff }, error: Error.aborted },
    { name: 'an unknown feature', issue: { command: 0xef, features: 0x77 }, error: Error.aborted },
    {
      name: 'a read past the end',
      issue: { command: 0x25, lba: 2047, count: 2, regions: [1024] },
      error: Error.idNotFound,
    },
    {
      name: 'a read at 2^48',
      issue: { command: 0x25, lba: 2 ** 48 - 1, count: 1, regions: [512] },
      error: Error.idNotFound,
    },
    {
      name: 'cylinders and heads',
      issue: { command: 0x25, count: 1, device: 0, regions: [512] },
      error: Error.idNotFound,
    },
    {
      name: 'a trim past the end',
      issue: { command: 0x06, features: 1, count: 9, regions: [4608] },
      error: Error.aborted,
    },
    { name: 'regions too short', issue: { command: 0x25, count: 2, regions: [512, 510] }, error: Error.aborted },
    {
      name: 'no register FIS',
      issue: { command: 0x25, count: 1, regions: [512], raw: { 0: 0x46 } },
      error: Error.aborted,
    },
    {
      name: 'a frame of one doubleword',
      issue: { command: 0x25, count: 1, dwords: 1, regions: [512] },
      error: Error.aborted,
    },
    {
      name: 'regions outside memory',
      issue: { command: 0x25, count: 1, regions: [512], at: 2 ** 40 },
      error: Error.aborted,
    },
  ])('$name fails, and the next command works', async ({ issue, error }) => {
    const { run, port, recover, disk } = await started()
    const failed = await run(issue)
    expect([failed.status, failed.error]).toEqual([FAILED, error])
    expect(failed.interrupts & PortInterrupt.taskFileError).toBeGreaterThan(0)
    expect([port.read(0x38), disk.calls]).toEqual([1, []])
    recover()
    expect(port.read(0x38)).toBe(0)
    expect((await run({ command: 0x25, count: 1, regions: [512] })).status).toBe(READY)
  })

  it('errors of the back end are errors of the command', async () => {
    const { run, disk, recover } = await started()
    disk.failing = true
    expect(await run({ command: 0x25, count: 1, regions: [512] })).toMatchObject({
      status: FAILED,
      error: Error.uncorrectable,
    })
    recover()
    expect((await run({ command: 0x35, count: 1, regions: [512], write: true })).status).toBe(FAILED | 0x20)
    recover()
    expect((await run({ command: 0xea })).status).toBe(FAILED | 0x20)
  })

  it('a read-only disk refuses writes and trims', async () => {
    const { run, recover } = await started(testDisk(1 << 20, true))
    expect((await run({ command: 0x35, count: 1, regions: [512], write: true })).error).toBe(Error.aborted)
    recover()
    expect((await run({ command: 0x06, features: 1, count: 1, regions: [512], write: true })).error).toBe(Error.aborted)
  })
})

describe('queued commands', () => {
  it('run side by side, and end in one FIS each', async () => {
    const { queue, port, disk, settle, fis, memory } = await started()
    disk.hold = true
    queue({
      3: { command: 0x60, lba: 1, count: 1, regions: [512] },
      7: { command: 0x60, lba: 8, count: 2, regions: [1024], at: 0x50000 },
    })
    expect([port.read(0x38), port.read(0x34), disk.calls]).toEqual([0, 0x88, ['read 512+512', 'read 4096+1024']])
    disk.go()
    await settle()
    expect([port.read(0x34), port.read(0x10) & PortInterrupt.setDeviceBits]).toEqual([0, PortInterrupt.setDeviceBits])
    expect(fis(0x58, 4)).toEqual([0xa1, 0x40, READY, 0])
    const read = new Uint8Array(1024)
    memory.readBytes(0x50000, read)
    expect(read).toEqual(disk.bytes.slice(4096, 5120))
  })

  it('the log says which failed, once', async () => {
    const { queue, port, settle, run, recover } = await started()
    queue({ 2: { command: 0x60, lba: 5000, count: 1, regions: [512] } })
    await settle()
    expect([port.read(0x20), port.read(0x34), port.read(0x10) & PortInterrupt.taskFileError]).toEqual([
      (Error.idNotFound << 8) | FAILED,
      4,
      PortInterrupt.taskFileError,
    ])
    recover()
    const log = await run({ command: 0x2f, lba: 0x10, count: 1, regions: [512] })
    expect([...log.data.subarray(0, 6)]).toEqual([2, 0, FAILED, Error.idNotFound, 5000 & 0xff, 5000 >> 8])
    expect((await run({ command: 0x2f, lba: 0x10, count: 1, regions: [512] })).data[0]).toBe(0x80)
    const directory = await run({ command: 0x47, lba: 0, count: 1, regions: [512] })
    expect([directory.data[0], directory.data[0x20]]).toEqual([1, 1])
  })

  it('others wait for them', async () => {
    const { queue, prepare, port, disk, settle } = await started()
    disk.hold = true
    queue({ 0: { command: 0x60, count: 1, regions: [512] } })
    prepare(1, { command: 0xea })
    port.write(0x38, 2)
    expect(disk.calls).toEqual(['read 0+512'])
    disk.go()
    await settle()
    expect([disk.calls, port.read(0x38)]).toEqual([['read 0+512', 'flush'], 0])
  })
})

describe('stopping in the midst', () => {
  it('PxCMD.CR stays until nothing touches memory any more', async () => {
    const { prepare, port, disk, settle } = await started()
    disk.hold = true
    prepare(0, { command: 0x25, count: 1, regions: [512] })
    port.write(0x38, 1)
    port.write(0x18, port.read(0x18) & ~1)
    expect([port.read(0x38), port.read(0x18) & 0x8000]).toEqual([0, 0x8000])
    disk.go()
    await settle()
    expect([port.read(0x18) & 0x8000, port.read(0x10)]).toEqual([0, 0])
  })

  it('GHC.HR does, too, and what is issued meanwhile waits', async () => {
    const { prepare, port, disk, settle, write, read, start, run } = await started()
    disk.hold = true
    prepare(0, { command: 0x25, count: 1, regions: [512] })
    port.write(0x38, 1)
    write(0x04, 0x8000_0001)
    expect(read(0x04) & 1).toBe(1)
    start()
    const next = run({ command: 0xea })
    expect(disk.calls).toEqual(['read 0+512'])
    disk.go()
    await settle()
    expect([(await next).status, read(0x04) & 1]).toEqual([READY, 0])
  })

  it('quiesces before it is saved, and goes on where it was', async () => {
    const { prepare, port, disk, device, memory } = await started()
    disk.hold = true
    prepare(0, { command: 0x25, count: 1, regions: [512] })
    port.write(0x38, 1)
    const quiet = device.quiesce!()
    disk.go()
    await quiet
    const saved = structuredClone(device.save!())
    const other = await benchAhci(testDisk())
    other.device.restore!(saved)
    expect(other.device.save!()).toEqual(saved)
    expect(other.port.read(0x10) & PortInterrupt.deviceToHost).toBe(PortInterrupt.deviceToHost)
    // The driver goes on: no register is written again.
    const bytes = new Uint8Array(memory.size)
    memory.readBytes(gpa(0), bytes)
    other.memory.writeBytes(gpa(0), bytes)
    const [pci] = other.bench.functions
    expect(pci!.line.raised).toBe(true)
    other.port.write(0x10, other.port.read(0x10))
    other.write(0x08, 1)
    expect(pci!.line.raised).toBe(false)
    const { data, status } = await other.run({ command: 0x25, lba: 3, count: 2, regions: [1024] }, 5)
    expect([
      status,
      Buffer.compare(data, disk.bytes.subarray(1536, 2560)),
      pci!.line.edges > 1,
      other.port.read(0x38),
    ]).toEqual([READY, 0, true, 0])
  })
})

describe('interrupts', () => {
  it('a level by pin, gone when both status registers are cleared', async () => {
    const { bench, prepare, port, write, read } = await started()
    const [pci] = bench.functions
    prepare(0, { command: 0xec, regions: [512] })
    port.write(0x38, 1)
    expect([pci!.line.raised, read(0x08)]).toEqual([true, 1])
    port.write(0x10, 0xffff_ffff)
    expect(pci!.line.raised).toBe(true)
    write(0x08, 1)
    expect(pci!.line.raised).toBe(false)
  })

  it('one message for each cause, and again for what came while the guest looked', async () => {
    const { bench, prepare, port, write } = await started()
    const [pci] = bench.functions
    pci!.msixEnabled = true
    prepare(0, { command: 0xec, regions: [512] })
    port.write(0x38, 1)
    expect(pci!.signals).toEqual([0])
    port.write(0x38, 0)
    expect(pci!.signals).toEqual([0])
    write(0x08, 1)
    expect(pci!.signals).toEqual([0, 0])
    port.write(0x10, 0xffff_ffff)
    write(0x08, 1)
    expect(pci!.signals).toEqual([0, 0])
  })
})

describe('hostile guests', () => {
  it.each([
    { name: 'command list', at: 0x00 },
    { name: 'FIS area', at: 0x08 },
  ])('a $name outside memory is a host bus error', async ({ at }) => {
    const { port, prepare, settle } = await started()
    prepare(0, { command: 0xec, regions: [512] })
    port.write(at, 0xfff0_0000)
    port.write(at + 4, 0xffff_ffff)
    port.write(0x38, 1)
    await settle()
    expect(port.read(0x10) & PortInterrupt.hostBusFatal).toBe(PortInterrupt.hostBusFatal)
  })

  it('a table of 65,535 regions into the controller itself', async () => {
    const { port, prepare, memory, settle, bench, disk } = await started()
    prepare(0, { command: 0x25, count: 1, regions: [512], at: bench.mmio[0]!.base })
    memory.writeU32(Place.list, 5 | (0xffff << 16))
    port.write(0x38, 1)
    await settle()
    expect(port.read(0x10) & PortInterrupt.hostBusFatal).toBe(PortInterrupt.hostBusFatal)
    expect(disk.calls).toEqual([])
  })

  it.each([1, 2, 3, 4, 5, 6])('noise in lists, tables and registers (seed %d)', async (seed) => {
    const random = createRandom(seed)
    const { port, write, memory, settle, device, recover, run, start } = await started()
    const commands = [0x25, 0x35, 0x60, 0x61, 0xec, 0x06, 0x2f, 0xea, 0xc8, 0xef]
    for (let step = 0; step < 400; step++) {
      const slot = random(32)
      const header = Place.list + slot * 32
      memory.writeU32(header, random(8) === 0 ? random(2 ** 32) : 5 | (random(4) << 16))
      memory.writeU64(header + 8, BigInt(random(8) === 0 ? random(2 ** 32) : Place.tables + 128 * random(64)))
      const fis = Uint8Array.from({ length: 20 }, () => (random(2) === 0 ? 0 : random(256)))
      fis.set([random(16) === 0 ? random(256) : 0x27, random(16) === 0 ? 0 : 0x80, commands[random(commands.length)]!])
      fis[7]! |= 0x40
      memory.writeBytes(Place.tables + 128 * random(64), fis)
      memory.writeU32(Place.tables + 0x80 + 16 * random(300), random(2 ** 20))
      memory.writeU32(Place.tables + 0x8c + 16 * random(300), random(4) === 0 ? random(2 ** 32) : random(4096))
      if (random(3) === 0) port.write(0x34, random(2 ** 32))
      port.write(0x38, 1 << slot)
      if (random(40) === 0) port.write(4 * random(16), random(2 ** 32))
      if (random(10) === 0) recover()
      if (random(60) === 0) start()
      if (random(100) === 0) write(0x04, 0x8000_0003)
      if (random(4) === 0) await settle()
    }
    await settle()
    await device.quiesce!()
    device.reset!()
    memory.fill(Place.list, 1024, 0)
    start()
    expect((await run({ command: 0xec, regions: [512] })).status).toBe(READY)
  })
})

it('reaches no memory without Bus Master Enable', async () => {
  const disk = testDisk()
  const { run, start, bench, memory, port, recover } = await benchAhci(disk)
  start()
  bench.functions[0]!.busMaster = false
  memory.fill(Place.data, 512, 0x33)
  const before = new Uint8Array(1 << 20)
  const refused = await run({ command: 0x25, lba: 3, count: 1, regions: [512] })
  expect([refused.data.every((byte) => byte === 0x33), refused.transferred]).toEqual([true, 0])
  await run({ command: 0x35, lba: 9, count: 1, regions: [512], write: true })
  expect([disk.bytes[9 * 512], disk.calls]).toEqual([9, []])
  // Nor does what it says of them.
  memory.readBytes(Place.fis, before.subarray(0, 256))
  bench.functions[0]!.busMaster = true
  recover()
  const done = await run({ command: 0x25, lba: 3, count: 1, regions: [512] })
  expect([done.data, port.read(0x38)]).toEqual([disk.bytes.slice(3 * 512, 4 * 512), 0])
})
