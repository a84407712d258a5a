/** Devices of other processes: a function of one host machine in a guest of another, by vfio-user over a stream. */

import type { DeviceDefinition } from '@nonroot/contracts'
import passthrough, { RemoteMemory, VfioUserServer } from '@nonroot/io-pci-passthrough'
import {
  benchDevice,
  createStreamPair,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  testVfioUserServer,
} from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { benchHost, GuestNvme } from '../testing/assigned-host.ts'

const SECTOR = 512
const DATA = 0x4_0000
const definition = passthrough.devices!.find(({ kind }) => kind === 'vfio-user')! as DeviceDefinition

async function serving() {
  const memory = new RemoteMemory()
  const host = await benchHost({ iommu: false, dma: memory })
  const { machine } = host
  const serving = { bus: machine.bus, interrupt: (handler: () => void) => machine.interrupts.allocate(handler) }
  const owned = await machine.take('01:00.0', 'client')
  const server = new VfioUserServer(serving, owned, memory, { log: createTestLog() })
  const ended: Promise<string>[] = []
  return {
    ...host,
    server,
    ended,
    async connect() {
      await Promise.all(ended)
      const [ours, theirs] = createStreamPair()
      ended.push(server.serve(theirs))
      return ours
    },
  }
}

async function inGuest() {
  const made = await serving()
  const guestMemory = createTestGuestMemory({ hostMemory: createTestHostMemory(512), ram: 1 << 20 })
  const stream = await made.connect()
  const { device, bench } = await benchDevice(definition, { socket: '/nvme' }, { guestMemory, backends: { stream } })
  const [{ description, signals }] = bench.functions as [(typeof bench.functions)[0]]
  description.onCommand!(0x0006)
  const nvme = new GuestNvme(description.bars![0]!.handler, guestMemory)
  nvme.start()
  await made.settle()
  signals.length = 0
  const bytes = (at: number): Uint8Array => {
    const into = new Uint8Array(SECTOR)
    guestMemory.readBytes(at, into)
    return into
  }
  return { ...made, device, bench, description, signals, nvme, guestMemory, bytes, stream, disk: made.disks[0]! }
}

describe('a server', () => {
  testVfioUserServer('nvme', serving, it)

  it('refuses functions without message interrupts', async () => {
    const { machine } = await benchHost({ devices: [{ kind: 'e1000', at: '01:00.0' }] })
    const host = { bus: machine.bus, interrupt: (handler: () => void) => machine.interrupts.allocate(handler) }
    const owned = await machine.take('01:00.0', 'client')
    expect(() => new VfioUserServer(host, owned, new RemoteMemory(), { log: createTestLog() })).toThrow(
      /neither MSI-X nor MSI/,
    )
  })
})

describe('a function of another process', () => {
  it('is the one that is served', async () => {
    const { description } = await inGuest()
    expect(description).toMatchObject({ vendorId: 0x8086, deviceId: 0x2700, classCode: 0x010802, msixVectors: 17 })
    expect(description.bars).toEqual({ 0: expect.objectContaining({ kind: 'mmio64', size: 0x2000 }) })
  })

  it('reads and writes sectors in the memory of the guest, and interrupts', async () => {
    const { nvme, settle, bytes, disk, signals, guestMemory } = await inGuest()
    nvme.issue(2, 7, DATA)
    await settle()
    expect(nvme.completion()).toBe(0)
    expect(bytes(DATA)).toEqual(disk.bytes.subarray(7 * SECTOR, 8 * SECTOR))
    expect(signals).toEqual([0])
    guestMemory.fill(DATA, SECTOR, 0x5a)
    nvme.issue(1, 9, DATA)
    await settle()
    expect([nvme.completion(), disk.bytes[9 * SECTOR]]).toEqual([0, 0x5a])
  })

  it('is refused addresses outside the memory of the guest', async () => {
    const { nvme, settle, guestMemory, disk } = await inGuest()
    const before = [...disk.bytes.subarray(9 * SECTOR, 10 * SECTOR)]
    nvme.issue(1, 9, 1 << 20)
    await settle()
    expect(nvme.completion()).not.toBe(0)
    expect([...disk.bytes.subarray(9 * SECTOR, 10 * SECTOR)]).toEqual(before)
    expect(guestMemory.readU32(DATA)).toBe(0)
  })

  it('is as at power-on after a reset, and what it did before reaches nothing', async () => {
    const { nvme, settle, disk, device, guestMemory, description, signals } = await inGuest()
    disk.hold = true
    nvme.issue(2, 7, DATA)
    await settle()
    device.reset!()
    disk.go()
    await settle()
    expect([guestMemory.readU32(DATA), signals]).toEqual([0, []])
    description.onCommand!(0x0006)
    nvme.start()
    nvme.issue(2, 7, DATA)
    await settle()
    expect(nvme.completion()).toBe(0)
  })

  it('that is killed in mid-transfer leaves the guest with registers of all ones', async () => {
    const { nvme, settle, disk, stream, bench, description, guestMemory } = await inGuest()
    disk.hold = true
    nvme.issue(2, 7, DATA)
    await settle()
    stream.destroy()
    disk.go()
    await settle()
    expect([nvme.completion(), guestMemory.readU32(DATA)]).toEqual([undefined, 0])
    expect(description.bars![0]!.handler.read(0x1c, 4)).toBe(0xffff_ffff)
    expect(bench.log.lines.join()).toContain('registers read as all ones')
  })

  it('serves the next client when the last one has gone in mid-transfer, and writes nothing of the last one’s', async () => {
    const { nvme, settle, disk, stream, connect } = await inGuest()
    disk.hold = true
    nvme.issue(2, 7, DATA)
    await settle()
    stream.destroy()
    await settle()
    disk.go()
    await settle()
    const guestMemory = createTestGuestMemory({ hostMemory: createTestHostMemory(512), ram: 1 << 20 })
    const next = await benchDevice(
      definition,
      { socket: '/nvme' },
      { guestMemory, backends: { stream: await connect() } },
    )
    await settle()
    const all = new Uint8Array(1 << 20)
    guestMemory.readBytes(0, all)
    expect(all.some((byte) => byte !== 0)).toBe(false)
    const { description } = next.bench.functions[0]!
    description.onCommand!(0x0006)
    const again = new GuestNvme(description.bars![0]!.handler, guestMemory)
    again.start()
    again.issue(2, 7, DATA)
    await settle()
    expect(again.completion()).toBe(0)
  })
})
