/** What must not be possible by an assigned function's configuration space, BARs, messages and pin, in a guest with a whole PC. What DMA must not reach: assignment.test.ts. */

import { gpa, HOST_MMIO } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { benchHost, MIB } from '../testing/assigned-host.ts'
import { Probe, ProbeCommand, SMALL_BAR } from '../testing/probe.ts'

const HOST_CONFIG = HOST_MMIO.start + 0xe000_0000
const PROBE = 0x0100
const NVME_BAR_SIZE = 0x2000

async function guest() {
  const touched: string[] = []
  const devices = [
    { kind: 'probe', at: '01:00.0' },
    { kind: 'nvme', at: '02:00.0' },
    { kind: 'probe', at: '03:00.0' },
  ]
  const host = await benchHost({ devices, touched })
  const { machine, vm } = host
  const own = vm('vm0')
  const pc = await own.pc()
  // A device with an address of its own, as virtio-mmio: between the BARs of others.
  const beside = pc.contexts.deviceContext('beside', '/').mmio(4096, { read: () => 0x77, write: () => {} })
  const nvme = await pc.assign('02:00.0')
  const probe = await pc.assign('01:00.0')
  for (const { pci } of [nvme, probe]) pci.write(0x04, 6, 2)
  const register = (offset: number, value?: number): number => {
    const at = gpa(probe.pci.bar(0) + offset)
    if (value !== undefined) pc.bus.writeMmio(at, 4, value)
    return pc.bus.readMmio(at, 4)
  }
  let raised = 0
  const vectors = Array.from({ length: 4 }, () => machine.interrupts.allocate(() => raised++))
  const config = (id: number): number[] =>
    Array.from({ length: 64 }, (_, word) => machine.bus.readMmio(HOST_CONFIG + id * 4096 + 4 * word, 4))
  return { ...host, ...pc, own, nvme, probe, beside, register, touched, vectors, config, raised: () => raised }
}
type Guest = Awaited<ReturnType<typeof guest>>

describe('a BAR of an assigned function does not hide', () => {
  it.each<[string, (made: Guest) => number, string]>([
    ['RAM', () => 0x20_0000, 'ram'],
    ['the last page of RAM', () => 4 * MIB - 0x1000, 'ram'],
    ['low RAM', () => 0x1000, 'ram'],
    ["the host bridge's configuration space", () => 0xe000_0000, 'pc'],
    ['its own configuration space', () => 0xe000_8000, 'pc'],
    ['the I/O APIC', () => 0xfec0_0000, 'interrupts'],
    ['the local APIC, where messages go', () => 0xfee0_0000, 'interrupts'],
    ['another device', ({ beside }) => beside.base, 'beside'],
    ['another device, with its second page', ({ beside }) => beside.base - 0x1000, 'beside'],
    ["another assigned function's registers", ({ probe }) => probe.pci.bar(0), 'host'],
    ['the MSI-X table of another function', ({ probe }) => probe.pci.bar(1), 'pc'],
    ['its own MSI-X table', ({ nvme }) => nvme.pci.bar(2), 'pc'],
  ])('%s', async (what, target, owner) => {
    const made = await guest()
    const { nvme, where } = made
    const at = target(made)
    const base = at - (at % NVME_BAR_SIZE)
    const before = [where(base), where(base + 0x1000)]
    expect(where(what.includes('second') ? base + 0x1000 : at)).toContain(owner)
    nvme.pci.place(0, base)
    // What was free beside it may be the BAR's now; what was somebody's still is.
    const after = [where(base), where(base + 0x1000)]
    before.forEach((who, page) => who !== 'nothing' && expect(after[page]).toBe(who))
  })

  it('what it hid before: it follows the BAR away', async () => {
    const { nvme, where } = await guest()
    nvme.pci.place(0, 0xd000_0000)
    expect(where(0xd000_0000)).toContain('host')
    nvme.pci.place(0, 0x20_0000)
    expect([where(0xd000_0000), where(0x20_0000)]).toEqual(['nothing', 'ram'])
    nvme.pci.place(0, 2 ** 40)
    expect([where(2 ** 40), where(2 ** 40 + 0x1000)]).toEqual(['host 0xffc0004000', 'host 0xffc0005000'])
    nvme.pci.write(0x04, 0, 2)
    expect(where(2 ** 40)).toBe('nothing')
  })
})

describe('registers', () => {
  it('of less than a page are not mapped with what lies beside them, and end where they end', async () => {
    const { probe, bus, touched, where } = await guest()
    probe.pci.place(2, 0xd000_0000, false)
    expect(where(0xd000_0000)).not.toContain('host')
    expect([bus.readMmio(gpa(0xd000_0000), 1), bus.readMmio(gpa(0xd000_0000 + SMALL_BAR), 1)]).toEqual([0x5a, 0])
    bus.writeMmio(gpa(0xd000_0000 + SMALL_BAR), 4, 1)
    expect(touched).toEqual([])
    bus.writeMmio(gpa(0xd000_0000), 4, 1)
    expect(touched).toEqual(['small'])
  })

  it('of one function work when another of the VM has gone', async () => {
    const { probe, nvme, register, own } = await guest()
    await nvme.device.dispose!()
    register(Probe.address, 0x10_0000)
    register(Probe.data, 0x77)
    register(Probe.command, ProbeCommand.write)
    expect([register(Probe.result), own.guestMemory.readU32(0x10_0000)]).toEqual([1, 0x77])
    expect(own.guestMemory.pinnedFrames).toBeGreaterThan(900)
    await probe.device.dispose!()
    expect(own.guestMemory.pinnedFrames).toBe(0)
  })
})

describe('configuration space', () => {
  it('has no capability but that of its messages, and no ports', async () => {
    const { probe } = await guest()
    expect(probe.pci.capabilities()).toEqual([0x11])
    probe.pci.write(0x14, 0xffff_ffff)
    probe.pci.write(0x3c, 0xffff_ffff)
    // BAR 1 is the MSI-X table, in memory; no pin.
    expect([probe.pci.read(0x14) & 1, probe.pci.read(0x3d, 1)]).toEqual([0, 0])
  })

  it.each<[string, (made: Guest) => void]>([
    [
      'all ones everywhere',
      ({ probe: { pci } }) => {
        for (let at = 0; at < 4096; at += 4) pci.write(at, 0xffff_ffff)
      },
    ],
    [
      'all zeros everywhere, byte by byte',
      ({ probe: { pci } }) => {
        for (let at = 0; at < 4096; at++) pci.write(at, 0, 1)
      },
    ],
    [
      'anything anywhere',
      ({ probe: { pci } }) => {
        const random = createRandom(7)
        for (let step = 0; step < 20_000; step++) {
          const size = ([1, 2, 4] as const)[random(3)]!
          pci.write(random(4096 / size) * size, random(2 ** 32), size)
        }
      },
    ],
    [
      'the same by ports',
      ({ bus }) => {
        const random = createRandom(8)
        for (let step = 0; step < 20_000; step++) {
          bus.writePort(0xcf8, 4, 0x8000_0000 + random(2 ** 24))
          bus.writePort(0xcfc, 4, random(2 ** 32))
        }
      },
    ],
  ])("nothing that is written reaches the host's function but bus master: %s", async (_, write) => {
    const made = await guest()
    const ids = [PROBE, 0x0200, 0x0300]
    const before = ids.map(made.config)
    write(made)
    const after = ids.map(made.config)
    // Decoding stays on and the pin off, whatever the guest wants.
    const command = after.map((words) => words[1]! & 0xffff & ~4)
    expect(command).toEqual([0x402, 0x402, 0x002])
    for (const words of [...before, ...after]) words[1] = 0
    expect(after).toEqual(before)
    expect(made.touched).toEqual([])
  })
})

describe('a function without Bus Master Enable', () => {
  it.each([
    ['DMA', ProbeCommand.write, ({ own }: Guest) => own.guestMemory.readU32(0x10_0000)],
    ['a message by DMA', ProbeCommand.write, ({ machine }: Guest) => machine.bus.readMmio(machine.iommu! + 0x20c, 4)],
    ['a message', ProbeCommand.signal, ({ sent }: Guest) => sent.length],
  ])('makes no %s', async (what, command, seen) => {
    const made = await guest()
    const { probe, bus, register, settle } = made
    const table = probe.pci.bar(1)
    ;[0xfee0_0000, 0, 0x41, 0].forEach((word, index) => bus.writeMmio(gpa(table + 4 * index), 4, word))
    probe.pci.write(probe.pci.read(0x34, 1) + 2, 0x8000, 2)
    register(Probe.address, what === 'DMA' ? 0x10_0000 : 0xfee0_0000)
    register(Probe.data, 0)
    register(Probe.data, what === 'a message' ? 0 : 0x1234)
    made.own.guestMemory.writeU32(0x10_0000, 0)
    probe.pci.write(0x04, 2, 2)
    register(Probe.command, command)
    await settle()
    expect([register(Probe.result), seen(made)]).toEqual([0, 0])
    probe.pci.write(0x04, 6, 2)
    register(Probe.command, command)
    await settle()
    expect(seen(made)).not.toBe(0)
  })
})

describe('interrupts', () => {
  const vectorOf = ({ interrupts }: Guest): number => (interrupts.hasPending(0) ? interrupts.acknowledge(0) : -1)

  it('no storm by a pin without a handler: it is off, and leads nowhere', async () => {
    const made = await guest()
    const { probe, register, raised, config } = made
    probe.pci.write(0x04, 0x0003, 2)
    register(Probe.command, ProbeCommand.assertPin)
    for (const command of [6, 0x406, 2, 6]) probe.pci.write(0x04, command, 2)
    expect([config(PROBE)[1]! & 0x400, raised(), vectorOf(made)]).toEqual([0x400, 0, -1])
  })

  it.each<[string, number, number, (made: Guest) => number]>([
    ["a vector of the host's", 0xfee0_0000, 0, ({ vectors }) => vectors[0]!.vector],
    ['RAM of its own', 0x10_0000, 0, () => 0x41],
    ['RAM of the host', 0x2000, 0, () => 0x41],
    ["the host's registers", 0xc000_0000, HOST_MMIO.start / 2 ** 32, () => 0x41],
    ['above the message range', 0xfef0_0000, 0, () => 0x41],
    ['the message range 4 GiB higher', 0xfee0_0000, 1, () => 0x41],
  ])("a message of the guest's to %s interrupts no one else and writes nothing", async (_, low, high, data) => {
    const made = await guest()
    const { probe, bus, register, raised, others, vm, own, settle, sent } = made
    const other = vm('vm1').guestMemory
    other.fill(0x1000, 4096, 0x55)
    const table = probe.pci.bar(1)
    ;[low, high, data(made), 0].forEach((word, index) => bus.writeMmio(gpa(table + 4 * index), 4, word))
    const capability = probe.pci.read(0x34, 1)
    probe.pci.write(capability + 2, 0x8000, 2)
    own.guestMemory.fill(0x10_0000, 4096, 0)
    const before = others()
    register(Probe.data, 0)
    register(Probe.command, ProbeCommand.signal)
    await settle()
    // All of memory, the guest's own included: a message is no write to RAM. It went to the guest's own interrupt controller.
    expect([others(), raised()]).toEqual([before, 0])
    expect(sent).toEqual([[low + high * 2 ** 32, data(made)]])
  })

  it.each<[string, (made: Guest) => { at: number; data: number }]>([
    ['the compatibility format', ({ vectors }) => ({ at: 0xfee0_0000, data: vectors[0]!.vector })],
    // Entries 0 to 16 are the NVMe's, 17 and 18 the probe's, 19 and 20 of the other VM's.
    ["an entry of the VM's other function", () => ({ at: 0xfee0_0010 + (3 << 5), data: 0 })],
    ["an entry of another VM's function", () => ({ at: 0xfee0_0010 + (19 << 5), data: 0 })],
    ['an entry that is not there', () => ({ at: 0xfee0_0010 + (200 << 5), data: 0 })],
    ['an entry by its subhandle', () => ({ at: 0xfee0_0018, data: 19 })],
  ])('a forged message by DMA is blocked: %s', async (_, forge) => {
    const made = await guest()
    const other = await made.vm('vm1').assign('03:00.0')
    other.bench.functions[0]!.signals.length = 0
    const before = made.others(made.own.guestMemory)
    const { at, data } = forge(made)
    made.register(Probe.address, at)
    made.register(Probe.data, data)
    made.register(Probe.command, ProbeCommand.write)
    await made.settle()
    const { machine } = made
    const iommu = machine.iommu!
    const fault = machine.bus.readMmio(iommu + 0x20c, 4)
    expect([fault >>> 31, machine.bus.readMmio(iommu + 0x208, 4) & 0xffff]).toEqual([1, PROBE])
    expect([made.raised(), other.bench.functions[0]!.signals]).toEqual([0, []])
    expect(made.others(made.own.guestMemory)).toEqual(before)
  })
})

describe('a stale translation', () => {
  it('reaches nothing after unmapping: pages that a function has just used', async () => {
    const { probe, register, machine, own, others, vm, nvme, touched } = await guest()
    const at = HOST_MMIO.start + 0xc000_0000
    register(Probe.address, 0x10_0000)
    register(Probe.data, 0x1234_5678)
    register(Probe.command, ProbeCommand.write)
    expect([register(Probe.result), own.guestMemory.readU32(0x10_0000)]).toEqual([1, 0x1234_5678])
    await probe.device.dispose!()
    await nvme.device.dispose!()
    own.guestMemory.dispose()
    const next = vm('vm1').guestMemory
    next.fill(0, 0x9_0000, 0x11)
    const before = others()
    // By who kept a way to the registers, and to configuration space.
    machine.bus.writeMmio(HOST_CONFIG + PROBE * 4096 + 4, 2, 6)
    const write = (offset: number, value: number): void => machine.bus.writeMmio(at + offset, 4, value)
    for (const [offset, value] of [
      [Probe.address, 0x10_0000],
      [Probe.data, 0xdead_beef],
      [Probe.command, ProbeCommand.write],
      // Its entry of the remapping table: the first of its two, after the NVMe's 17.
      [Probe.address, 0xfee0_0010 + (17 << 5)],
      [Probe.data, 0],
      [Probe.command, ProbeCommand.write],
    ] as const) {
      write(offset, value)
      const isMessage = offset === Probe.command && machine.bus.readMmio(at, 4) > 0xfee0_0000
      if (offset === Probe.command) expect(machine.bus.readMmio(at + Probe.result, 4)).toBe(isMessage ? 1 : 0)
    }
    expect([others(), touched]).toEqual([before, []])
  })
})
