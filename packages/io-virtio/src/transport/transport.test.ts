import type { DmaMemory, Iommu, IoSize, MemoryPiece, PciCapability } from '@nonroot/contracts'
import { createTestConsole, VirtioFeature, VirtioStatus } from '@nonroot/testkit'
import type { DeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { memoryDisk, subject, WAYS } from '../virtio.test.support.ts'

const capabilitiesOf = (bench: DeviceBench) =>
  bench.functions[0]!.description.capabilities!.map((capability) => {
    const body = new DataView(capability.body.buffer, capability.body.byteOffset)
    return {
      capability,
      id: capability.id,
      length: body.getUint8(0),
      type: body.getUint8(1),
      bar: body.getUint8(2),
      offset: body.getUint32(6, true),
      size: body.getUint32(10, true),
    }
  })

describe('PCI', () => {
  const start = async (kind = 'virtio-blk', options: object = { image: 'disk', queues: 4 }, model = {}) => {
    const made = await subject(kind, options, model)
    const base = made.bench.mmio[0]!.base
    return {
      ...made,
      base,
      read: (offset: number, size: IoSize) => made.bench.readMmio(base + offset, size),
      write: (offset: number, size: IoSize, value: number) => made.bench.writeMmio(base + offset, value, size),
    }
  }

  it('MUST have Vendor ID 0x1AF4 and a Device ID of 0x1040 plus the Virtio Device ID', async () => {
    const { bench } = await start()
    expect(bench.functions[0]!.description).toMatchObject({
      vendorId: 0x1af4,
      deviceId: 0x1042,
      revision: 1,
      msixVectors: 5,
    })
  })

  it('MUST present at least one capability of each structure, aligned, with all extra data in cap_len', async () => {
    const { bench } = await start()
    const found = capabilitiesOf(bench)
    expect(found.map(({ type }) => type).sort()).toEqual([1, 2, 3, 4, 5])
    for (const { capability, id, length, offset } of found) {
      expect([id, length, offset % 4]).toEqual([9, capability.body.length + 2, 0])
    }
  })

  it('MUST present notify_off_multiplier and a cap.length that reaches all queues', async () => {
    const { bench, driver, read, write } = await start()
    const notify = capabilitiesOf(bench).find(({ type }) => type === 2)!
    const multiplier = new DataView(notify.capability.body.buffer, notify.capability.body.byteOffset).getUint32(
      14,
      true,
    )
    expect(multiplier).toBe(4)
    driver.reset()
    for (let index = 0; index < 4; index++) {
      write(0x16, 2, index)
      expect(read(0x1e, 2) * multiplier + 4).toBeLessThanOrEqual(notify.size)
    }
  })

  it('has no device configuration structure where there is no configuration', async () => {
    const { bench } = await start('virtio-rng', {})
    expect(capabilitiesOf(bench).map(({ type }) => type)).not.toContain(4)
  })

  it('MUST present feature bits for any device_feature_select', async () => {
    const { read, write } = await start()
    write(0, 4, 7)
    expect(read(4, 4)).toBe(0)
    write(0, 4, 1)
    expect(read(4, 4) & 1).toBe(1)
    write(0, 4, 0xffff_ffff)
    expect(read(4, 4)).toBe(0)
  })

  it('MUST present the feature bits that the driver wrote, until they are settled', async () => {
    const { driver, read, write } = await start()
    driver.reset()
    driver.negotiate([VirtioFeature.version1, 9])
    write(8, 4, 0)
    write(12, 4, 0)
    expect(read(12, 4)).toBe(1 << 9)
    write(8, 4, 5)
    expect(read(12, 4)).toBe(0)
  })

  it('MUST return the vector mapped to an event, NO_VECTOR on failure, unmapped upon reset', async () => {
    const { driver, read, write } = await start()
    driver.reset()
    expect([read(0x10, 2), read(0x1a, 2)]).toEqual([0xffff, 0xffff])
    write(0x10, 2, 4)
    write(0x1a, 2, 0)
    expect([read(0x10, 2), read(0x1a, 2)]).toEqual([4, 0])
    write(0x10, 2, 5)
    write(0x1a, 2, 0x7ff)
    expect([read(0x10, 2), read(0x1a, 2)]).toEqual([0xffff, 0xffff])
    write(0x1a, 2, 3)
    driver.reset()
    expect(read(0x1a, 2)).toBe(0xffff)
  })

  it('MUST NOT deliver an interrupt for a queue whose vector is NO_VECTOR', async () => {
    const { driver, bench, write } = await start('virtio-rng', {})
    driver.start()
    write(0x16, 2, 0)
    write(0x1a, 2, 0xffff)
    await driver.request(0, [], [8])
    expect(bench.functions[0]!.signals).toEqual([])
    write(0x1a, 2, 1)
    await driver.request(0, [], [8])
    expect(bench.functions[0]!.signals).toEqual([1])
  })

  it('MUST set the Device Configuration Interrupt bit in ISR status before it sends a change notification, with MSI-X, too', async () => {
    const disk = memoryDisk()
    const { driver, bench } = await subject('virtio-blk', { image: 'disk' }, {}, { backends: { block: disk } })
    driver.start()
    const isr = () => bench.readMmio(bench.mmio[0]!.base + 0x1000, 1)
    expect(isr()).toBe(0)
    disk.resize(1024)
    const [pciFunction] = bench.functions
    expect([pciFunction!.signals, pciFunction!.line.raised, isr(), isr()]).toEqual([[0], false, 2, 0])
  })

  it('MUST present a value of 0 or a power of 2 in queue_size, whatever was written, unless rings are packed', async () => {
    for (const ring of ['split', 'packed'] as const) {
      const { driver, read, write } = await start('virtio-rng', {}, { ring })
      driver.reset()
      driver.negotiate(driver.offered())
      write(0x18, 2, 3)
      expect(read(0x18, 2)).toBe(ring === 'split' ? 0 : 3)
      write(0x18, 2, 16)
      expect(read(0x18, 2)).toBe(16)
    }
  })

  it('fields can be read in parts', async () => {
    const { read, write } = await start()
    write(0x16, 2, 3)
    expect([read(0x12, 2), read(0x12, 1), read(0x13, 1), read(0x14, 4)]).toEqual([4, 4, 0, 3 << 16])
    expect([read(0x38, 2), read(0x3000, 4)]).toEqual([0, 0])
    expect([read(0x18, 4), read(0x3c, 4), read(0x1ffc, 4)]).toEqual([(0xffff_0000 | 512) >>> 0, 0, 0])
  })

  it('MUST allow independent access to high and low 32-bit parts of 64-bit fields', async () => {
    const { driver, read, write } = await start()
    driver.reset()
    for (const [index, at] of [0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].entries()) write(at, 4, 0x1000 * (index + 1))
    write(0x24, 4, 7)
    expect([0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((at) => read(at, 4))).toEqual([
      0x1000, 7, 0x3000, 0x4000, 0x5000, 0x6000,
    ])
    // The capacity of a disk, and of a queue that does not exist, nothing.
    expect([driver.registers.readConfig(0, 4), driver.registers.readConfig(4, 4)]).toEqual([128, 0])
    write(0x16, 2, 99)
    expect([read(0x20, 4), read(0x34, 4)]).toEqual([0, 0])
  })

  it('queues are reset one by one (VIRTIO_F_RING_RESET)', async () => {
    const { driver, read, write } = await start()
    driver.start({ queueSize: 16 })
    write(0x16, 2, 1)
    expect([read(0x18, 2), read(0x1c, 2)]).toEqual([16, 1])
    driver.registers.resetQueue()
    // MUST present 0 in both queue_reset and queue_enable when queue reset has completed
    expect([read(0x3a, 2), read(0x1c, 2), read(0x18, 2)]).toEqual([0, 0, 512])
    driver.enable(1, driver.makeRing(1, 32))
    expect([read(0x1c, 2), read(0x3a, 2)]).toEqual([1, 0])
    const { parts } = await driver.request(1, [new Uint8Array(16)], [512, 1])
    expect(parts[1]![0]).toBe(0)
    const { parts: others } = await driver.request(0, [new Uint8Array(16)], [512, 1])
    expect(others[1]![0]).toBe(0)
  })

  it('the driver cannot clear status bits, nor reach DRIVER_OK without FEATURES_OK', async () => {
    const { driver } = await start()
    driver.reset()
    driver.registers.writeStatus(VirtioStatus.acknowledge | VirtioStatus.driver)
    driver.registers.writeStatus(VirtioStatus.driverOk)
    expect(driver.registers.status()).toBe(3)
    driver.registers.writeStatus(VirtioStatus.failed | VirtioStatus.needsReset)
    expect(driver.registers.status()).toBe(0x83)
  })

  it('queues are not enabled before the features are settled', async () => {
    const { driver } = await start()
    driver.reset()
    driver.enable(0, driver.makeRing(0, 8))
    expect(driver.registers.queueEnabled()).toBe(false)
  })

  it('upon reset its registers are those of a new one, of each queue too', async () => {
    const registers = ({ read, write }: Awaited<ReturnType<typeof start>>): number[] => {
      const selects = [read(0, 4), read(8, 4), read(0x16, 2)]
      const features = [0, 1].map((word) => (write(8, 4, word), read(0xc, 4)))
      const queues = [0, 1, 2, 3].flatMap((queue) => {
        write(0x16, 2, queue)
        return [read(0x18, 2), read(0x1a, 2), read(0x1c, 2), ...[0x20, 0x24, 0x28, 0x2c, 0x30, 0x34].map((at) => read(at, 4))]
      })
      return [...selects, ...features, ...queues]
    }
    const used = await start()
    used.driver.start()
    used.driver.registers.writeConfig(32, 1, 0)
    for (const [at, value] of [[0, 1], [8, 1]] as const) used.write(at, 4, value)
    used.write(0x16, 2, 3)
    used.driver.registers.writeStatus(0)
    expect(registers(used)).toEqual(registers(await start()))
    expect(used.driver.registers.readConfig(32, 1)).toBe(1)
    // Of a single queue: its areas and its vector.
    used.driver.start()
    used.write(0x16, 2, 1)
    const fresh = await start()
    fresh.write(0x16, 2, 1)
    used.driver.registers.resetQueue()
    for (const at of [0x20, 0x24, 0x28, 0x2c, 0x30, 0x34]) expect([at, used.read(at, 4)]).toEqual([at, 0])
    expect(used.read(0x1a, 2)).toBe(fresh.read(0x1a, 2))
  })

  it('a ring outside memory: NEEDS_RESET, and the driver is told once it may be', async () => {
    const { driver, bench } = await start()
    driver.reset()
    driver.negotiate([VirtioFeature.version1])
    driver.enable(0, { size: 8, areas: { descriptors: 2 ** 40, driver: 0x1000, device: 0x2000 } })
    expect([driver.needsReset, bench.functions[0]!.signals]).toEqual([true, []])
    driver.ready()
    expect(bench.functions[0]!.signals).toEqual([0])
  })

  describe('without MSI-X', () => {
    it('ISR status says which, and reading it resets it and de-asserts the interrupt', async () => {
      const { driver, bench, read } = await start('virtio-rng', {})
      const [pciFunction] = bench.functions
      pciFunction!.msixEnabled = false
      driver.start()
      await driver.request(0, [], [8])
      expect([pciFunction!.line.raised, pciFunction!.signals]).toEqual([true, []])
      expect(read(0x1000, 1)).toBe(1)
      expect([pciFunction!.line.raised, read(0x1000, 1)]).toEqual([false, 0])
      driver.memory.writeU16(driver.ring(0).areas.driver + 2, 0x7777)
      driver.registers.notify(0)
      expect([pciFunction!.line.raised, read(0x1000, 1) & 2]).toEqual([true, 2])
      driver.registers.writeStatus(0)
      expect(read(0x1000, 1)).toBe(0)
    })
  })

  describe('PCI configuration access capability', () => {
    const window = (bench: DeviceBench) => {
      const { capability } = capabilitiesOf(bench).find(({ type }) => type === 5)!
      const { handler, writeMask } = capability as PciCapability & { handler: NonNullable<PciCapability['handler']> }
      const select = (bar: number, offset: number, size: number) => {
        handler.write(4, 1, bar)
        handler.write(8, 4, offset)
        handler.write(12, 4, size)
      }
      return { handler, writeMask, select }
    }

    it('MUST execute reads and writes of pci_cfg_data at the BAR', async () => {
      const { bench, driver } = await start()
      const { handler, select, writeMask } = window(bench)
      expect([...writeMask!]).toEqual([0, 0, 255, 0, 0, 0, ...new Array<number>(12).fill(255)])
      select(0, 0x14, 1)
      handler.write(16, 1, 3)
      expect(driver.registers.status()).toBe(3)
      expect(handler.read(16, 4) & 0xff).toBe(3)
      select(0, 0x12, 2)
      expect(handler.read(16, 2)).toBe(4)
      select(0, 0x16, 2)
      handler.write(16, 4, 0xdead_0002)
      select(0, 0x1e, 2)
      expect(handler.read(16, 2)).toBe(2)
      select(0, 0x08, 4)
      handler.write(16, 4, 0x8000_0001)
      expect([handler.read(16, 4), handler.read(17, 1)]).toEqual([0x8000_0001, 0])
    })

    it('gives its own fields as they were written', async () => {
      const { handler } = window((await start()).bench)
      expect(handler.read(8, 4)).toBe(-1)
    })

    it.each([
      { name: 'another BAR', bar: 1, offset: 0, size: 4 },
      { name: 'an unaligned offset', bar: 0, offset: 2, size: 4 },
      { name: 'beyond the BAR', bar: 0, offset: 0x4000, size: 4 },
      { name: 'a size of 3', bar: 0, offset: 0, size: 3 },
      { name: 'a huge offset', bar: 0, offset: 0xffff_fffc, size: 4 },
    ])('reaches nothing: $name', async ({ bar, offset, size }) => {
      const { bench, driver } = await start()
      const { handler, select } = window(bench)
      select(bar, offset, size)
      handler.write(16, 4, 0xffff_ffff)
      expect([handler.read(16, 4), driver.registers.status()]).toEqual([0xffff_ffff, 0])
    })
  })

  it('is found with all options', async () => {
    const { driver } = await start('virtio-rng', {}, { inOrder: true, notificationData: true, ring: 'packed' })
    driver.start()
    for (const feature of Object.values(VirtioFeature)) expect(driver.has(feature)).toBe(true)
    for (let index = 0; index < 70; index++) expect((await driver.request(0, [], [8])).written).toBe(8)
  })

  it('offers what is asked for only', async () => {
    const { driver } = await start('virtio-rng', {}, { indirect: false, eventIndex: false })
    expect([...driver.offered()]).toEqual([VirtioFeature.version1, VirtioFeature.ringReset])
    driver.start()
    expect((await driver.request(0, [], [8, 8])).written).toBe(16)
  })
})

describe.each(WAYS)('behind an IOMMU, over $way', ({ transport, ring }) => {
  const ACCESS_PLATFORM = 33
  /** Addresses are 1 TiB higher than the guest's memory. */
  const OFFSET = 2 ** 40
  const iommu: Iommu = {
    attach: (_requester, memory) =>
      new Proxy(memory, {
        get(target, name: keyof DmaMemory) {
          if (name === 'untranslated') return target
          const method = target[name] as (...args: unknown[]) => unknown
          return (first: number | readonly MemoryPiece[], ...rest: unknown[]) =>
            method.call(
              target,
              typeof first === 'number'
                ? first - OFFSET
                : first.map(({ address, length }) => ({ address: address - OFFSET, length })),
              ...rest,
            )
        },
      }),
  }
  const start = (kind: string, options: object) => subject(kind, options, { transport, ring }, { iommu })

  it('offers VIRTIO_F_ACCESS_PLATFORM, and fails to operate if it is not accepted', async () => {
    const { driver } = await start('virtio-rng', {})
    driver.reset()
    expect(driver.offered().has(ACCESS_PLATFORM)).toBe(true)
    const all = [...driver.offered()]
    expect(driver.negotiate(all.filter((feature) => feature !== ACCESS_PLATFORM))).toBe(false)
    driver.reset()
    expect(driver.negotiate(all)).toBe(true)
    // A ring by guest-physical addresses is none.
    driver.enable(0, driver.makeRing(0, 8))
    expect(driver.needsReset).toBe(true)
  })

  it('not for the balloon, whose driver clears it: its addresses are physical', async () => {
    const { driver } = await start('virtio-balloon', {})
    driver.reset()
    expect(driver.offered().has(ACCESS_PLATFORM)).toBe(false)
    driver.start()
    expect(driver.needsReset).toBe(false)
  })

  it('not without one', async () => {
    const { driver } = await subject('virtio-rng', {}, { transport, ring })
    expect(driver.offered().has(ACCESS_PLATFORM)).toBe(false)
  })
})

describe.each(WAYS)('over $way', ({ transport, ring }) => {
  it('goes on from a snapshot, with its rings, its status and what is pending', async () => {
    const model = { transport, ring }
    const one = await subject('virtio-blk', { image: 'disk', queues: 2 }, model)
    one.driver.start()
    const ask = () => one.driver.request(1, [new Uint8Array(16)], [512, 1])
    expect((await ask()).written).toBe(513)
    await one.device.quiesce!()
    const saved = structuredClone(one.device.save!())
    const other = await subject('virtio-blk', { image: 'disk', queues: 2 }, model, {
      guestMemory: one.bench.guestMemory,
    })
    other.device.restore!(saved)
    const { registers } = other.driver
    expect([registers.deviceId, registers.generation()]).toEqual([2, one.driver.registers.generation()])
    expect([registers.status(), registers.readConfig(0, 4), registers.readConfig(34, 2)]).toEqual([0xf, 128, 2])
    Object.assign(one.driver, { registers })
    for (let round = 0; round < 70; round++) expect((await ask()).written).toBe(513)
    expect(() => other.device.restore!({ ...saved, type: 'virtio-net' })).toThrow(/another device/)
    await other.device.dispose!()
  })

  it('MUST present 1 in queue_reset as long as the queue reset is ongoing, 0 in it and in queue_enable when it has completed', async () => {
    const disk = memoryDisk()
    const made = await subject(
      'virtio-blk',
      { image: 'disk', queues: 2 },
      { transport, ring },
      { backends: { block: disk } },
    )
    const { driver, device } = made
    const { registers } = driver
    driver.start()
    disk.hold = true
    const [header, data] = [driver.allocate(16), driver.allocate(513)]
    driver.send(1, [
      { address: header, length: 16 },
      { address: data, length: 513, writable: true },
    ])
    registers.selectQueue(1)
    expect([registers.queueEnabled(), registers.queueResetting()]).toEqual([true, false])
    registers.resetQueue()
    expect(registers.queueResetting()).toBe(true)
    disk.go()
    await device.quiesce!()
    expect([registers.queueEnabled(), registers.queueResetting()]).toEqual([false, false])
    driver.enable(1, driver.makeRing(1, 16))
    expect([registers.queueEnabled(), registers.queueResetting()]).toEqual([true, false])
    expect((await driver.request(1, [new Uint8Array(16)], [512, 1])).written).toBe(513)
    registers.writeStatus(0)
    expect(registers.queueResetting()).toBe(false)
  })

  it('MUST present a changed config_generation after a change that the driver may have seen half of', async () => {
    const disk = memoryDisk()
    const { driver } = await subject(
      'virtio-blk',
      { image: 'disk' },
      { transport, ring },
      { backends: { block: disk } },
    )
    driver.start()
    const { registers } = driver
    // Many more than a byte counts.
    for (let round = 1; round < 600; round++) {
      const generation = registers.generation()
      registers.readConfig(0, 4)
      disk.resize(512 * round)
      expect(registers.generation()).not.toBe(generation)
    }
  })

  it('a broken device is saved and restored as one', async () => {
    const model = { transport, ring }
    const one = await subject('virtio-blk', { image: 'disk' }, model)
    one.driver.start()
    one.driver.send(0, [{ address: 0x80000, length: 16 }])
    expect(one.driver.needsReset).toBe(true)
    const other = await subject('virtio-blk', { image: 'disk' }, model, { guestMemory: one.bench.guestMemory })
    other.device.restore!(structuredClone(one.device.save!()))
    expect(other.driver.needsReset).toBe(true)
    other.driver.start()
    expect((await other.driver.request(0, [new Uint8Array(16)], [512, 1])).written).toBe(513)
  })

  it('a broken device writes to none of its queues, restored or not', async () => {
    const model = { transport, ring }
    const console = createTestConsole()
    const one = await subject('virtio-console', {}, model, { backends: { console } })
    one.driver.start()
    const buffer = one.driver.allocate(16)
    one.driver.send(0, [{ address: buffer, length: 16, writable: true }])
    one.driver.send(1, [{ address: 0xffff_0000, length: 16 }])
    expect(one.driver.needsReset).toBe(true)
    const again = createTestConsole()
    const bench = { guestMemory: one.bench.guestMemory, backends: { console: again } }
    const other = await subject('virtio-console', {}, model, bench)
    other.device.restore!(structuredClone(one.device.save!()))
    console.type('one')
    again.type('other')
    for (const { registers } of [one.driver, other.driver]) registers.notify(0)
    expect(one.driver.bytes(buffer, 16)).toEqual(new Uint8Array(16))
    expect(one.driver.ring(0).takeUsed()).toEqual([])
    expect([one, other].map(({ driver }) => driver.registers.queueInterrupts(0))).toEqual([0, 0])
  })
})

it('a device whose queue has a size that is none is not made', async () => {
  const { benchVirtio } = await import('@nonroot/testkit')
  const { defineDevice, noOptions, VirtioTransport } = await import('@nonroot/contracts')
  const { createVirtio, virtioOptions } = await import('../index.ts')
  const definition = defineDevice({
    kind: 'odd',
    summary: 'a queue of three',
    options: noOptions,
    create: (_options, context) =>
      context.capability(VirtioTransport).attach(() => ({ deviceId: 63, queueSizes: [3], process: () => {} })),
  })
  await expect(benchVirtio(definition, {}, createVirtio(virtioOptions.parse({})))).rejects.toThrow(
    /queue size 3 is not a power of two/,
  )
})

describe('MMIO', () => {
  const start = async (kind = 'virtio-rng', options: object = {}) => {
    const made = await subject(kind, options, { transport: 'mmio' })
    const base = made.bench.mmio[0]!.base
    return {
      ...made,
      read: (offset: number, size: IoSize = 4) => made.bench.readMmio(base + offset, size),
      write: (offset: number, value: number, size: IoSize = 4) => made.bench.writeMmio(base + offset, value, size),
    }
  }

  it('MUST return 0x74726976 in MagicValue, 0x2 in Version', async () => {
    const { read } = await start()
    expect([read(0), read(4), read(8), read(12)]).toEqual([0x74726976, 2, 4, 0x1af4])
  })

  it('answers 32 bit wide and aligned accesses only', async () => {
    const { read, write } = await start()
    expect([read(0, 2), read(2, 1)]).toEqual([0, 0])
    write(0x70, 1, 1)
    expect(read(0x70)).toBe(0)
  })

  it('a shared memory region that does not exist has length and base of all ones', async () => {
    const { read } = await start()
    expect([0xb0, 0xb4, 0xb8, 0xbc].map((offset) => read(offset))).toEqual(new Array(4).fill(0xffff_ffff))
    // Around it, and where nothing is.
    expect([0x48, 0xac, 0xc4, 0xf8].map((offset) => read(offset))).toEqual([0, 0, 0, 0])
  })

  it('MUST present each event in InterruptStatus until the driver acknowledges it', async () => {
    const { driver, bench, read, write } = await start()
    driver.start()
    await driver.request(0, [], [8])
    const line = bench.line(5)
    expect([line.raised, read(0x60)]).toEqual([true, 1])
    driver.memory.writeU16(driver.ring(0).areas.driver + 2, 0x7777)
    driver.registers.notify(0)
    expect(read(0x60)).toBe(3)
    // What is left is a new edge.
    const { edges } = line
    write(0x64, 1)
    expect([line.raised, line.edges, read(0x60)]).toEqual([true, edges + 1, 2])
    write(0x64, 2)
    expect([line.raised, read(0x60)]).toEqual([false, 0])
  })

  it('upon reset MUST clear all bits in InterruptStatus and ready bits in QueueReady', async () => {
    const { driver, bench, read } = await start()
    driver.start()
    await driver.request(0, [], [8])
    driver.reset()
    expect([read(0x60), bench.line(5).raised, driver.registers.queueEnabled()]).toEqual([0, false, false])
  })

  it('MUST NOT access virtual queue contents when QueueReady is zero', async () => {
    const { driver, write } = await start()
    driver.start()
    write(0x30, 0)
    write(0x44, 0)
    driver.ring(0).add([{ address: driver.allocate(8), length: 8, writable: true }])
    driver.registers.notify(0)
    expect(driver.ring(0).takeUsed()).toEqual([])
    driver.registers.resetQueue()
    driver.enable(0, driver.makeRing(0, 8))
    expect((await driver.request(0, [], [8])).written).toBe(8)
  })

  it('says where it is', async () => {
    const { createVirtio, virtioOptions } = await import('../index.ts')
    const { benchVirtio } = await import('@nonroot/testkit')
    const { countingEntropy, definitionOf } = await import('../virtio.test.support.ts')
    const model = createVirtio(virtioOptions.parse({ transport: 'mmio' }))
    expect(model.describe!()).toEqual({})
    const backends = { entropy: countingEntropy() }
    const { bench } = await benchVirtio(definitionOf('virtio-rng'), {}, model, { backends })
    expect(model.describe!()).toEqual({ virtioMmio: [{ address: bench.mmio[0]!.base, length: 512, gsi: 5 }] })
    for (let index = 1; index < 11; index++) await benchVirtio(definitionOf('virtio-rng'), {}, model, { backends })
    await expect(benchVirtio(definitionOf('virtio-rng'), {}, model, { backends })).rejects.toThrow(
      /11 virtio-mmio devices/,
    )
  })
})
