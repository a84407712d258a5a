/** Devices of this package on benches: every transport with every ring. */

import { benchVirtio, createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import type { DeviceBenchOptions, VirtioSubject } from '@nonroot/testkit'
import { ALL_OFFLOADS, createFrameWork, gpa, NO_WORK } from '@nonroot/contracts'
import type {
  BlockBackend,
  CableEnd,
  EntropyBackend,
  FolderBackend,
  FolderNode,
  FrameWork,
  NetworkBackend,
  SocketBackend,
} from '@nonroot/contracts'
import plugin from './index.ts'
import { virtioOptions } from './options.ts'
import { createVirtio } from './virtio.ts'

export const WAYS = [
  { way: 'pci, split', transport: 'pci', ring: 'split' },
  { way: 'pci, packed', transport: 'pci', ring: 'packed' },
  { way: 'mmio, split', transport: 'mmio', ring: 'split' },
  { way: 'mmio, packed', transport: 'mmio', ring: 'packed' },
] as const

export const definitionOf = (kind: string) => plugin.devices!.find((device) => device.kind === kind)!

export async function subject(
  kind: string,
  deviceOptions: unknown,
  modelOptions: object = {},
  bench: DeviceBenchOptions = {},
): Promise<VirtioSubject> {
  const model = createVirtio(virtioOptions.parse(modelOptions))
  return benchVirtio(definitionOf(kind), deviceOptions, model, {
    ...memoryOf(kind),
    ...bench,
    backends: { ...usualBackends(), ...bench.backends },
  })
}

export const PLUGGABLE = { start: gpa(0x8000_0000), length: 256 * 1024, kind: 'pluggable' } as const
/** The memory of a bench for a kind of device, where it needs more than the usual. */
export function memoryOf(kind: string): Pick<DeviceBenchOptions, 'guestMemory'> {
  if (kind !== 'virtio-mem') return {}
  const ram = [{ start: gpa(0), length: 1 << 20, kind: 'ram' }, PLUGGABLE] as const
  return { guestMemory: createTestGuestMemory({ hostMemory: createTestHostMemory(512), ram }) }
}

export const usualBackends = () => ({
  entropy: countingEntropy(),
  block: memoryDisk(),
  folder: emptyFolder(),
  sockets: noSockets(),
  network: testNetwork(),
})

/** A shared folder in which everything fails. */
function emptyFolder(): FolderBackend {
  const refuse = () => Promise.reject(Object.assign(new Error('no'), { code: 'ENOENT' }))
  const methods = [
    'attributes',
    'change',
    'find',
    'list',
    'createFile',
    'createFolder',
    'createLink',
    'addName',
    'rename',
    'remove',
    'open',
    'target',
  ]
  const root = {
    kind: 'folder',
    ...Object.fromEntries(methods.map((name) => [name, refuse])),
    retain: () => root,
    release: async () => {},
  } as unknown as FolderNode
  return { readOnly: false, root, space: refuse, close: async () => {} }
}

const noSockets = (): SocketBackend => ({
  connect: () => Promise.reject(new Error('nobody listens')),
  onConnect: () => () => {},
  close: async () => {},
})

export interface TestNetwork extends NetworkBackend {
  /** What the driver sent, and what was left to do. */
  readonly frames: { frame: Uint8Array; work: FrameWork }[]
  card: CableEnd | undefined
  /** Room for so many more frames. */
  room: number
  flushed: number
  readied: number
  on: boolean
  /** To the driver, as a batch of one. */
  deliver(frame: Uint8Array, work?: Partial<FrameWork>): boolean
}

/** A network of one test. */
export function testNetwork(offloads = ALL_OFFLOADS): TestNetwork {
  const network: TestNetwork = {
    macAddress: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3),
    mtu: 1500,
    frames: [],
    card: undefined,
    room: Infinity,
    flushed: 0,
    readied: 0,
    on: true,
    connect(card) {
      network.card = card
      return {
        offloads,
        receive(frame, work) {
          if (network.room <= 0) return false
          network.room--
          network.frames.push({ frame: frame.slice(), work: { ...work } })
          return true
        },
        flush: () => void network.flushed++,
        ready: () => void network.readied++,
        carrier: (on) => void (network.on = on),
      }
    },
    deliver(frame, work) {
      const taken = network.card!.receive(frame, work ? { ...createFrameWork(), ...work } : NO_WORK)
      network.card!.flush()
      return taken
    },
    close: async () => {},
  }
  return network
}

export function countingEntropy(): EntropyBackend {
  let next = 1
  return { fill: (into) => into.forEach((_, index) => (into[index] = next++ & 0xff || 1)) }
}

export interface MemoryDisk extends BlockBackend {
  bytes: Uint8Array
  /** Calls, in order: `write 512+1024`. */
  readonly calls: string[]
  /** Requests wait until `go`. */
  hold: boolean
  go(): void
  failing: boolean
  resize(size: number): void
}

export function memoryDisk(size = 64 * 1024, readOnly = false): MemoryDisk {
  const waiting: (() => void)[] = []
  let resized: ((size: number) => void) | undefined
  const pass = async (call: string): Promise<void> => {
    disk.calls.push(call)
    if (disk.hold) await new Promise<void>((resolve) => waiting.push(resolve))
    if (disk.failing) throw new Error('the disk is on fire')
  }
  const disk: MemoryDisk = {
    bytes: new Uint8Array(size),
    calls: [],
    hold: false,
    failing: false,
    readOnly,
    sectorSize: 512,
    get size() {
      return disk.bytes.length
    },
    go() {
      disk.hold = false
      for (const resolve of waiting.splice(0)) resolve()
    },
    async read(offset, into) {
      await pass(`read ${offset}+${into.length}`)
      into.set(disk.bytes.subarray(offset, offset + into.length))
    },
    async write(offset, from) {
      const copy = from.slice()
      await pass(`write ${offset}+${from.length}`)
      disk.bytes.set(copy, offset)
    },
    flush: () => pass('flush'),
    discard: (offset, length) => pass(`discard ${offset}+${length}`),
    async writeZeroes(offset, length) {
      await pass(`zero ${offset}+${length}`)
      disk.bytes.fill(0, offset, offset + length)
    },
    onResize(listener) {
      resized = listener
      return () => (resized = undefined)
    },
    resize(to) {
      const bytes = new Uint8Array(to)
      bytes.set(disk.bytes.subarray(0, to))
      disk.bytes = bytes
      resized?.(to)
    },
    close: async () => {},
  }
  return disk
}
