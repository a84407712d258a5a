/** Devices of the host, assigned to VMs: what works, and what must not be possible. */

import { gpa, HOST_MMIO } from '@nonroot/contracts'
import type { MemoryRegion } from '@nonroot/contracts'
import passthrough from '@nonroot/io-pci-passthrough'
import { benchDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { benchHost, MIB } from '../testing/assigned-host.ts'

const DATA = 0x10_0000
/** Configuration space of 01:00.0 on the host. */
const CONFIG = HOST_MMIO.start + 0xe000_0000 + 0x0100 * 4096
const SECTOR = 512

async function assigned(regions?: readonly MemoryRegion[]) {
  const host = await benchHost()
  const vm = host.vm('vm0', regions && [...regions])
  const made = await vm.assign('01:00.0')
  made.nvme.start()
  made.bench.functions[0]!.signals.length = 0
  const bytes = (at: number, length = SECTOR): Uint8Array => {
    const into = new Uint8Array(length)
    vm.guestMemory.readBytes(at, into)
    return into
  }
  return { ...host, ...vm, ...made, bytes, disk: host.disks[0]! }
}

describe('an assigned function', () => {
  it('is the one of the host, with a table of messages of its own', async () => {
    const { bench, machine } = await assigned()
    expect(machine.list()).toEqual([
      {
        ...{ at: '01:00.0', name: 'nvme0', kind: 'nvme', group: 1, owner: 'vm0' },
        ...{ vendorId: 0x8086, deviceId: 0x2700, classCode: 0x010802 },
      },
    ])
    const { description } = bench.functions[0]!
    expect(description).toMatchObject({ vendorId: 0x8086, deviceId: 0x2700, classCode: 0x010802, msixVectors: 17 })
    expect(description.bars).toEqual({ 0: expect.objectContaining({ kind: 'mmio64', size: 0x2000 }) })
    expect(description.capabilities).toBeUndefined()
  })

  it('reads and writes sectors by guest-physical addresses, and interrupts', async () => {
    const { nvme, bench, bytes, disk, settle, guestMemory } = await assigned()
    nvme.issue(2, 7, DATA)
    await settle()
    expect(nvme.completion()).toBe(0)
    expect(bytes(DATA)).toEqual(disk.bytes.subarray(7 * SECTOR, 8 * SECTOR))
    expect(bench.functions[0]!.signals).toEqual([0])
    guestMemory.fill(DATA, SECTOR, 0x5a)
    nvme.issue(1, 9, DATA)
    await settle()
    expect([nvme.completion(), disk.bytes[9 * SECTOR]]).toEqual([0, 0x5a])
  })

  it('has its BAR where the guest puts it, without an exit', async () => {
    const { bench, guestMemory, nvme } = await assigned()
    const bar = bench.functions[0]!.description.bars![0]! as { onPlaced(at: number | undefined): void }
    bar.onPlaced(0xc010_0000)
    const first = guestMemory.registerPage(0xc010_0ffc)!
    expect(first).toBeGreaterThanOrEqual(HOST_MMIO.start)
    expect(guestMemory.registerPage(0xc010_1000)).toBe(first + 4096)
    expect([guestMemory.registerPage(0xc010_2000), guestMemory.registerPage(0xc00f_f000)]).toEqual([
      undefined,
      undefined,
    ])
    bar.onPlaced(0x1_0000_0000)
    expect([guestMemory.registerPage(0xc010_0000), guestMemory.registerPage(0x1_0000_0000)]).toEqual([undefined, first])
    bar.onPlaced(undefined)
    expect(guestMemory.registerPage(0x1_0000_0000)).toBeUndefined()
    expect(nvme.read(8)).toBe(0x1_0400)
  })

  it('goes back to the host when its VM ends, and to the next one', async () => {
    const { device, machine, vm, guestMemory } = await assigned()
    expect(guestMemory.pinnedFrames).toBeGreaterThan(900)
    const capability = machine.bus.readMmio(CONFIG + 0x34, 1)
    const state = (): number[] => [4, capability + 2].map((at) => machine.bus.readMmio(CONFIG + at, 2))
    expect(state()).toEqual([0x406, 0x8010])
    await device.dispose!()
    expect([machine.list()[0]!.owner, guestMemory.pinnedFrames]).toEqual([undefined, 0])
    // Neither bus master nor messages.
    expect(state()).toEqual([0x002, 0x0010])
    await vm('vm1').assign('01:00.0')
    expect(machine.list()[0]!.owner).toBe('vm1')
  })

  it('interrupts after a reset as before', async () => {
    const { nvme, device, bench, settle } = await assigned()
    device.reset!()
    bench.functions[0]!.description.onCommand!(0x0006)
    nvme.start()
    bench.functions[0]!.signals.length = 0
    nvme.issue(2, 7, DATA)
    await settle()
    expect([nvme.completion(), bench.functions[0]!.signals]).toEqual([0, [0]])
  })

  it('transfers and interrupts of its next owner are that one’s alone', async () => {
    const { nvme, device, bench, bytes, settle, guestMemory, vm, disk } = await assigned()
    nvme.issue(2, 7, DATA)
    await settle()
    expect(bench.functions[0]!.signals).toEqual([0])
    await device.dispose!()
    guestMemory.fill(DATA, SECTOR, 0x33)
    const next = vm('vm1')
    const made = await next.assign('01:00.0')
    made.nvme.start()
    made.bench.functions[0]!.signals.length = 0
    made.nvme.issue(2, 9, DATA)
    await settle()
    const into = new Uint8Array(SECTOR)
    next.guestMemory.readBytes(DATA, into)
    expect(into).toEqual(disk.bytes.subarray(9 * SECTOR, 10 * SECTOR))
    expect([
      bytes(DATA).every((byte) => byte === 0x33),
      bench.functions[0]!.signals,
      made.bench.functions[0]!.signals,
    ]).toEqual([true, [0], [0]])
  })

  it('reaches memory above 4 GiB, and no ROM', async () => {
    const high = 0x1_4030_0000
    const rom = 0xffff_0000
    const { nvme, bytes, settle, disk, guestMemory } = await assigned([
      { start: gpa(0), length: 0x8_0000, kind: 'ram' },
      { start: gpa(rom), length: 0x1_0000, kind: 'rom' },
      { start: gpa(high), length: 0x10_0000, kind: 'ram' },
    ])
    for (const [n, at] of [high, high + 0xf_f000].entries()) {
      nvme.issue(2, 3 + n, at)
      await settle()
      expect([nvme.completion(), bytes(at)]).toEqual([0, disk.bytes.subarray((3 + n) * SECTOR, (4 + n) * SECTOR)])
    }
    guestMemory.writeRom(rom, new Uint8Array(4096).fill(0x44))
    nvme.issue(2, 9, rom)
    await settle()
    expect([nvme.completion(), bytes(rom).every((byte) => byte === 0x44)]).toEqual([4, true])
  })

  it('is reached by its owner until that ends, and reaches nothing of it afterwards', async () => {
    const { nvme, device, bench, guestMemory, settle, machine } = await assigned()
    const bar = bench.functions[0]!.description.bars![0]! as { onPlaced(at: number | undefined): void }
    bar.onPlaced(0xc010_0000)
    await device.dispose!()
    expect(guestMemory.registerPage(0xc010_0000)).toBeUndefined()
    // Whoever kept a handler of its registers starts it again. The memory is still there.
    guestMemory.fill(DATA, SECTOR, 0x33)
    machine.bus.writeMmio(CONFIG + 4, 2, 6)
    nvme.start()
    nvme.issue(2, 7, DATA)
    await settle()
    expect([nvme.read(0x1c) & 2, guestMemory.readU32(DATA), nvme.completion()]).toEqual([2, 0x3333_3333, undefined])
  })

  it('gives back every frame at its end', async () => {
    const { vm, memory } = await benchHost()
    const one = vm('vm0')
    // The driver keeps its own tables from the first device on.
    await (
      await one.assign('01:00.0')
    ).device.dispose!()
    const free = memory.freeFrames
    // More often than there are entries in the remapping table.
    for (let n = 0; n < 20; n++) await (await one.assign('01:00.0')).device.dispose!()
    expect(memory.freeFrames).toBe(free)
  })
})

describe('refusals', () => {
  it.each<[string, Parameters<typeof benchHost>[0], string, RegExp, RegExp]>([
    ['not there', {}, '02:00.0', /the host has no function 02:00.0/, /it has 01:00.0/],
    ['no IOMMU', { iommu: false }, '01:00.0', /the host has no IOMMU/, /host.io/],
    [
      'no message interrupts',
      { devices: [{ kind: 'e1000', at: '01:00.0' }] },
      '01:00.0',
      /neither MSI-X nor MSI/,
      /as nvme does/,
    ],
  ])('%s', async (_, options, at, message, remedy) => {
    const { vm, machine, memory } = await benchHost(options)
    const free = memory.freeFrames
    const one = vm('vm0')
    const error = await one.assign(at).catch((thrown: unknown) => thrown as { message: string; remedy: string })
    expect((error as { message: string }).message).toMatch(message)
    expect((error as { remedy: string }).remedy).toMatch(remedy)
    expect(machine.list().map(({ owner }) => owner)).toEqual([undefined])
    expect(one.guestMemory.pinnedFrames).toBe(0)
    one.guestMemory.dispose()
    expect(memory.freeFrames).toBeGreaterThanOrEqual(free - 8)
  })

  it('a host without devices', async () => {
    const device = passthrough.devices!.find(({ kind }) => kind === 'pci-passthrough')!
    await expect(benchDevice(device, { host: '01:00.0' })).rejects.toMatchObject({
      message: expect.stringContaining('there is no host function 01:00.0') as string,
      remedy: expect.stringContaining('host: { devices:') as string,
    })
  })

  it('one that is being given back', async () => {
    const { vm } = await benchHost()
    const owned = await vm('vm0').assignment.take('01:00.0')
    const given = owned.release()
    const early = await vm('vm1')
      .assignment.take('01:00.0')
      .then(() => 'taken')
      .catch((error: Error) => error.message)
    expect(early).toBe('host function 01:00.0 (nvme0) is being given back')
    await given
    await vm('vm1').assign('01:00.0')
  })

  it('a group is not split', async () => {
    const { vm } = await benchHost({
      devices: [
        { kind: 'nvme', at: '01:00.0' },
        { kind: 'nvme', at: '01:00.1' },
      ],
    })
    await vm('vm0').assign('01:00.0')
    await expect(vm('vm1').assign('01:00.1')).rejects.toThrow(/in one group with 01:00.0, which is assigned to VM vm0/)
  })

  it('memory that cannot be pinned', async () => {
    const { vm, memory, machine } = await benchHost()
    while (memory.freeFrames > 200) memory.allocateFrame()
    await expect(vm('vm0').assign('01:00.0')).rejects.toThrow(/no host frame is free/)
    expect(machine.list()[0]!.owner).toBeUndefined()
  })
})

describe('what must not be possible', () => {
  it('two owners', async () => {
    const { vm } = await assigned()
    await expect(vm('vm1').assign('01:00.0')).rejects.toThrow('host function 01:00.0 (nvme0) is assigned to VM vm0')
  })

  it.each([
    ['beyond its RAM', 4 * MIB],
    ['in the host’s tables', 0x2000],
    ['at the end of 48 bits', 2 ** 48 - 4096],
  ])("DMA outside the owner's memory: %s", async (_, address) => {
    const { nvme, others, guestMemory, settle, vm } = await assigned()
    const other = vm('vm1').guestMemory
    other.fill(0, 4 * MIB - 0x6_0000 - 0x10_0000, 0x77)
    const before = others(guestMemory)
    // 0x2000 is RAM of this VM's: what a host-physical address leads to is its own memory.
    nvme.issue(2, 3, address)
    await settle()
    expect(nvme.completion()).toBe(address < 4 * MIB ? 0 : 4)
    expect(others(guestMemory)).toEqual(before)
  })

  it("DMA after the owner's reset, and after its end", async () => {
    const { nvme, device, bench, disk, others, guestMemory, settle, vm, machine } = await assigned()
    disk.hold = true
    nvme.issue(2, 3, DATA)
    device.reset!()
    expect([0x14, 0x24, 0x28].map((at) => nvme.read(at))).toEqual([0, 0, 0])
    nvme.issue(2, 4, DATA + 0x1000)
    disk.go()
    await settle()
    expect(guestMemory.readU32(DATA + 0x1000)).toBe(0)
    bench.functions[0]!.description.onCommand!(0x0006)
    nvme.start()
    disk.hold = true
    nvme.issue(2, 3, DATA)
    let ended = false
    const end = Promise.resolve(device.dispose!()).then(() => (ended = true))
    await settle()
    // Its frames are its own until the transfer is over.
    expect([ended, guestMemory.pinnedFrames > 0]).toEqual([false, true])
    await expect(vm('vm1').assign('01:00.0')).rejects.toThrow('host function 01:00.0 (nvme0) is assigned to VM vm0')
    disk.go()
    await end
    guestMemory.dispose()
    const next = vm('vm1').guestMemory
    next.fill(0, 0x9_0000, 0x11)
    const before = others()
    // Its registers are still reachable for who kept a handler: nothing of it can reach memory.
    machine.bus.writeMmio(CONFIG + 4, 2, 6)
    nvme.write(0x24, 0x7_0007)
    nvme.write(0x28, 0x10000)
    nvme.write(0x30, 0x11000)
    nvme.write(0x14, (6 << 16) | (4 << 20) | 1)
    nvme.write(0x1000, 1)
    await settle()
    expect(nvme.read(0x1c) & 2).toBe(2)
    expect(others()).toEqual(before)
  })

  it('DMA to frames that were ballooned, shared, swapped or given to another VM: the frames stay', async () => {
    const { guestMemory, memory, nvme, bytes, settle, disk } = await assigned()
    const frame = guestMemory.peek(DATA)!
    const range = { address: DATA as never, length: 4096 }
    expect(guestMemory.release([range])).toBe(0)
    expect(guestMemory.park(DATA, { fillNow: () => {} })).toBe('pinned')
    expect(guestMemory.expose(DATA)).toBe('pinned')
    expect(guestMemory.replace(DATA, memory.allocateFrame()!)).toBe('pinned')
    expect(guestMemory.share(DATA, memory.allocateFrame()!)).toBe('pinned')
    expect(guestMemory.peek(DATA)).toBe(frame)
    nvme.issue(2, 3, DATA)
    await settle()
    expect(bytes(DATA)).toEqual(disk.bytes.subarray(3 * SECTOR, 4 * SECTOR))
  })

  it('a forged MSI: completions posted to 0xFEE00000', async () => {
    const { nvme, bench, settle, machine } = await assigned()
    let raised = 0
    const interrupts = Array.from({ length: 8 }, () => machine.interrupts.allocate(() => raised++))
    expect(interrupts).toHaveLength(8)
    nvme.start(0xfee0_0000)
    bench.functions[0]!.signals.length = 0
    nvme.issue(2, 3, DATA)
    await settle()
    expect([nvme.read(0x1c) & 2, raised, bench.functions[0]!.signals]).toEqual([2, 0, []])
  })

  it('peer-to-peer DMA around the IOMMU', async () => {
    const { vm, settle, machine } = await benchHost({
      devices: [
        { kind: 'nvme', at: '01:00.0' },
        { kind: 'nvme', at: '02:00.0' },
      ],
    })
    const one = await vm('vm0').assign('01:00.0')
    const other = await vm('vm1').assign('02:00.0')
    one.nvme.start()
    const before = other.nvme.read(0x24)
    for (const window of [0, HOST_MMIO.start]) {
      for (let at = 0xc000_0000; at < 0xc001_0000; at += 0x2000) {
        one.nvme.issue(2, 1, window + at)
        await settle()
        expect(one.nvme.completion()).toBe(4)
        one.nvme.start()
      }
    }
    expect([other.nvme.read(0x24), other.nvme.read(0x1c)]).toEqual([before, 0])
    expect(machine.list().map(({ owner }) => owner)).toEqual(['vm0', 'vm1'])
  })

  it('state of the last owner seen by the next', async () => {
    const { nvme, device, vm } = await assigned()
    nvme.write(0x28, 0x1234_5000)
    await device.dispose!()
    const next = await vm('vm1').assign('01:00.0')
    expect([0x14, 0x1c, 0x24, 0x28, 0x2c, 0x30].map((register) => next.nvme.read(register))).toEqual([0, 0, 0, 0, 0, 0])
    expect(next.bench.functions[0]!.signals).toEqual([])
  })

  it('DMA and interrupts of a function that is no bus master: not yet, not any more, and after a reset', async () => {
    const { nvme, bench, settle, device, guestMemory, disk } = await assigned()
    const command = bench.functions[0]!.description.onCommand!
    const { signals } = bench.functions[0]!
    const off = { 'not any more': () => command(0x0002), 'after a reset': () => device.reset!() }
    for (const stop of Object.values(off)) {
      signals.length = 0
      stop()
      guestMemory.fill(DATA, SECTOR, 0x33)
      // A write to the disk is a read of memory.
      for (const opcode of [2, 1] as const) {
        nvme.start()
        nvme.issue(opcode, 3, DATA)
        await settle()
        expect([nvme.read(0x1c) & 2, nvme.completion(), signals]).toEqual([2, undefined, []])
      }
      expect([guestMemory.readU32(DATA), disk.bytes[3 * SECTOR]]).toEqual([0x3333_3333, 3])
      command(0x0006)
      nvme.start()
      signals.length = 0
      nvme.issue(2, 3, DATA)
      await settle()
      expect([nvme.completion(), guestMemory.readU8(DATA), signals]).toEqual([0, 3, [0]])
    }
  })
})
