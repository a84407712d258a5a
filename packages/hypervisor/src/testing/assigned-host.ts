/** A host machine with NVMe disks and an IOMMU, VMs' memory, and a guest's driver: no vCPU. */

import { Assignment } from '@nonroot/contracts'
import type { BlockBackend, DeviceDefinition, DmaMemory, HostBackends, IoHandler } from '@nonroot/contracts'
import emulated from '@nonroot/io-emulated'
import passthrough from '@nonroot/io-pci-passthrough'
import { benchDevice, createTestLog, createTestMetrics } from '@nonroot/testkit'
import type { HostDeviceLayer, StrategyLayer } from '../composition/stack.ts'
import { createHostMemory, DemandGuestMemory, pcMemoryMap } from '../memory/index.ts'
import { HostMachine } from '../host-machine/index.ts'
import { guestPc } from './guest-pc.ts'
import { probeDevice } from './probe.ts'

export const MIB = 2 ** 20
const common = {
  location: { file: 'test.yaml' },
  package: { name: 'test', version: '1', folder: '/' },
  folder: '/',
  options: {},
}

export interface TestDisk extends BlockBackend {
  readonly bytes: Uint8Array
  /** Requests wait until `go`. */
  hold: boolean
  go(): void
}

export function testDisk(seed: number): TestDisk {
  const waiting: (() => void)[] = []
  const bytes = new Uint8Array(MIB).map((_, index) => (index >> 9) + index + seed)
  const pass = (): Promise<void> => (disk.hold ? new Promise((resolve) => waiting.push(resolve)) : Promise.resolve())
  const disk: TestDisk = {
    ...{ bytes, size: bytes.length, sectorSize: 512, readOnly: false, hold: false },
    go() {
      disk.hold = false
      for (const resolve of waiting.splice(0)) resolve()
    },
    async read(offset, into) {
      await pass()
      into.set(bytes.subarray(offset, offset + into.length))
    },
    async write(offset, from) {
      await pass()
      bytes.set(from, offset)
    },
    flush: pass,
    close: async () => {},
  }
  return disk
}

const layerOf = (from: typeof emulated, name: string): StrategyLayer<'host'> =>
  ({
    ...common,
    thing: `host.${name}`,
    role: 'host',
    definition: from.strategies!.find((strategy) => strategy.role === 'host' && strategy.name === name),
  }) as unknown as StrategyLayer<'host'>

export interface HostOptions {
  readonly iommu?: boolean
  readonly devices?: readonly { readonly kind: string; readonly at?: string }[]
  /** What the devices reach. Default: the host's memory. */
  readonly dma?: DmaMemory
  /** Gets what reaches the parts of a `probe` that a guest must not reach. */
  readonly touched?: string[]
}

export async function benchHost({
  iommu = true,
  devices = [{ kind: 'nvme', at: '01:00.0' }],
  dma,
  touched,
}: HostOptions = {}) {
  const kinds = [...emulated.devices!, probeDevice(touched)] as DeviceDefinition[]
  const memory = createHostMemory(24 * MIB)
  const disks = devices.map((_, index) => testDisk(index))
  let opened = 0
  const machine = await HostMachine.create({
    io: [...(iommu ? [layerOf(passthrough, 'intel-iommu')] : []), layerOf(emulated, 'pci')],
    devices: devices.map(({ kind, at }, index): HostDeviceLayer => ({
      ...common,
      thing: `host.devices[${index}]`,
      name: `${kind}${index}`,
      at,
      definition: kinds.find((device) => device.kind === kind)!,
      options: { image: 'disk', network: 'none' },
    })),
    memory,
    ...(dma ? { dma } : {}),
    backends: {
      open: async (kind: string) => (kind === 'block' ? disks[opened++] : cable()),
    } as unknown as HostBackends,
    metrics: createTestMetrics(),
    log: createTestLog(),
    resolvePath: (_folder, path) => path,
  })
  const definition = passthrough.devices!.find(({ kind }) => kind === 'pci-passthrough')! as DeviceDefinition
  return {
    ...{ machine, memory, disks },
    vm: (name: string, regions = pcMemoryMap(4 * MIB)) => {
      const guestMemory = new DemandGuestMemory({ hostMemory: memory, regions })
      guestMemory.setPaging({ onMemoryChange: () => {} })
      const anywhere = { isFree: () => true }
      const assignment = machine.assignmentFor(name, guestMemory, anywhere)
      return {
        ...{ guestMemory, assignment },
        /** The whole machine in place of a bench for the device. */
        pc: () => guestPc(guestMemory, (bus) => machine.assignmentFor(name, guestMemory, bus)),
        async assign(host: string) {
          const offers = new Map<never, unknown>([[Assignment as never, assignment]])
          const made = await benchDevice(definition, { host }, { name: 'assigned0', guestMemory, offers })
          const { description } = made.bench.functions[0]!
          description.onCommand!(0x0006)
          return { ...made, nvme: new GuestNvme(description.bars![0]!.handler, guestMemory) }
        },
      }
    },
    /** A sum over everything in host memory that is not one of these VMs' own. */
    others: (...own: DemandGuestMemory[]) => {
      const mine = new Set<number>()
      for (const guest of own) for (let at = 0; at < 4 * MIB; at += 4096) mine.add((guest.peek(at) ?? 0) >>> 12)
      let sum = 0x811c_9dc5
      for (let frame = 0; frame < memory.totalFrames; frame++) {
        if (mine.has(frame)) continue
        for (let word = frame * 1024; word < (frame + 1) * 1024; word++)
          sum = Math.imul(sum ^ memory.words[word]!, 0x0100_0193)
      }
      return sum
    },
    settle: async () => {
      for (let turn = 0; turn < 50; turn++) await Promise.resolve()
    },
  }
}

const cable = () => ({
  macAddress: Uint8Array.of(0x52, 0x54, 0, 0, 0, 1),
  mtu: 1500,
  connect: () => ({ receive: () => true, ready: () => {} }),
  close: async () => {},
})

/** A guest's driver of NVMe, by registers alone: what a hostile one does is up to its caller. */
export class GuestNvme {
  readonly #registers: IoHandler
  readonly #memory: DmaMemory
  #tail = 0
  #head = 0
  static readonly place = {
    adminSubmission: 0x10000,
    adminCompletion: 0x11000,
    submission: 0x12000,
    completion: 0x13000,
  } as const

  constructor(registers: IoHandler, memory: DmaMemory) {
    this.#registers = registers
    this.#memory = memory
  }

  read(at: number): number {
    return this.#registers.read(at, 4)
  }
  write(at: number, value: number): void {
    this.#registers.write(at, 4, value >>> 0)
  }

  /** The controller on, with one pair of queues. */
  start(completion: number = GuestNvme.place.completion): void {
    const { place } = GuestNvme
    this.#memory.fill(place.adminSubmission, 0x4000, 0)
    this.#tail = this.#head = 0
    this.write(0x14, 0)
    this.write(0x24, 0x7_0007)
    this.write(0x28, place.adminSubmission)
    this.write(0x30, place.adminCompletion)
    this.write(0x14, (6 << 16) | (4 << 20) | 1)
    this.#put(place.adminSubmission, { opcode: 5, prp1: completion, words: [(7 << 16) | 1, 3] })
    this.#put(place.adminSubmission + 64, { opcode: 1, prp1: place.submission, words: [(7 << 16) | 1, (1 << 16) | 1] })
    this.write(0x1000, 2)
  }

  #put(at: number, { opcode, prp1, words }: { opcode: number; prp1: number; words: readonly number[] }): void {
    this.#memory.fill(at, 64, 0)
    this.#memory.writeU32(at, opcode)
    this.#memory.writeU32(at + 4, 1)
    this.#memory.writeU64(at + 24, BigInt(prp1))
    words.forEach((word, index) => this.#memory.writeU32(at + 40 + 4 * index, word))
  }

  /** Reads (2) or writes (1) a sector; the status comes by `completion`. */
  issue(opcode: 1 | 2, sector: number, prp1: number): void {
    this.#put(GuestNvme.place.submission + 64 * this.#tail, { opcode, prp1, words: [sector, 0, 0] })
    this.#tail = (this.#tail + 1) % 8
    this.write(0x1008, this.#tail)
  }

  /** Status of the next completion; undefined: there is none. */
  completion(): number | undefined {
    const at = GuestNvme.place.completion + 16 * this.#head
    const last = this.#memory.readU32(at + 12)!
    if (!((last >>> 16) & 1)) return undefined
    this.#head++
    return (last >>> 17) & 0x7ff
  }
}
