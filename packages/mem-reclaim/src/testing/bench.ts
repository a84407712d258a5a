/** A host with VMs and one policy, for tests. Not in the published package. */

import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type {
  Balloon,
  Device,
  DiskPages,
  GuestFrames,
  GuestMemory,
  HostMemory,
  Metrics,
  PluggableMemory,
  ReclaimPressure,
  ReclaimReport,
  ReclaimSubject,
  SwapBackend,
  SwapFile,
} from '@nonroot/contracts'
import { Balloon as balloonToken, PluggableMemory as pluggableToken } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory, createTestMetrics } from '@nonroot/testkit'
import { MemoryPolicy } from '../policy/policy.ts'
import type { Technique } from '../technique.ts'

export interface TestVmOptions extends Partial<
  Pick<ReclaimSubject, 'minimumFrames' | 'maximumFrames' | 'shares' | 'group' | 'isDeterministic' | 'onDisk'>
> {
  readonly pages?: number
  readonly balloon?: Balloon
  readonly pluggable?: PluggableMemory
}

export interface TestVm extends ReclaimSubject {
  readonly memory: GuestMemory & GuestFrames
  /** Pages that the guest has accessed since they were last asked about. */
  readonly accessed: Set<number>
  /** Why the VM must end. */
  failure: string | undefined
  /** Fills a page with a number in each word. */
  fill(page: number, value: number): void
  /** A vCPU's read of a page's first word: waits for the page. */
  read(page: number): Promise<number>
}

export class Bench {
  readonly host: HostMemory
  readonly metrics: Metrics = createTestMetrics()
  readonly policy: MemoryPolicy
  #nowNs = 0

  constructor(frames: number, make: (host: HostMemory, metrics: Metrics) => readonly Technique[], idleTax = 0.75) {
    this.host = createTestHostMemory(frames)
    this.policy = new MemoryPolicy(make, { idleTax })
    this.policy.attach(this.host, this.metrics)
  }

  vm(name: string, options: TestVmOptions = {}): TestVm {
    const { pages = 256, balloon, pluggable, ...subject } = options
    const device = (offers: Device['offers']): Device => ({ offers }) as unknown as Device
    const memory = createTestGuestMemory({
      hostMemory: this.host,
      ram: pages * FRAME_SIZE,
      onFailure: (message) => (vm.failure ??= message),
    })
    const accessed = new Set<number>()
    const vm: TestVm = {
      ...{ name, memory, frames: memory, accessed, failure: undefined },
      ...{ minimumFrames: 0, maximumFrames: pages, shares: 1000, isDeterministic: false, ...subject },
      takeAccessed: (address) =>
        memory.peek(address) === undefined ? undefined : accessed.delete(address / FRAME_SIZE),
      devices: new Map([
        ...(balloon ? [['balloon', device(new Map([[balloonToken, balloon]]))] as const] : []),
        ...(pluggable ? [['memory', device(new Map([[pluggableToken, pluggable]]))] as const] : []),
      ]),
      fill(page, value) {
        accessed.add(page)
        const words = new Int32Array(FRAME_SIZE / 4).fill(value)
        memory.writeBytes(page * FRAME_SIZE, new Uint8Array(words.buffer))
      },
      async read(page) {
        accessed.add(page)
        while (memory.translate(page * FRAME_SIZE, 'read') === 'wait') {
          const failure = await memory.ready(page * FRAME_SIZE)
          if (failure !== undefined) throw new Error(failure)
        }
        return memory.readU32(page * FRAME_SIZE)!
      },
    }
    this.policy.addSubject(vm)
    return vm
  }

  get pressure(): ReclaimPressure {
    const { freeFrames, totalFrames } = this.host
    return { wantedFrames: 0, freeFrames, totalFrames, reservedFrames: 0 }
  }

  /** Lets time pass in samples of 100 ms. */
  pass(seconds: number): void {
    for (let sample = 0; sample < seconds * 10; sample++) {
      this.#nowNs += 1e8
      this.policy.sample(this.pressure, this.#nowNs)
    }
  }

  want(wantedFrames: number): Promise<ReclaimReport> {
    return this.policy.onPressure({ ...this.pressure, wantedFrames })
  }

  metric(name: string): number {
    return this.metrics.samples().find((sample) => sample.name === name)!.value
  }

  techniques(vm: TestVm): Record<string, number> {
    return Object.fromEntries(this.policy.reclaimed(vm.name).map(({ technique, frames }) => [technique, frames]))
  }
}

/** As many words as a page has runs of equal words: pages of one value compress well, mixed ones do not. */
export function createTestSwap(pages = 0): SwapBackend & { readonly pages: Map<number, Uint8Array>; fails: string } {
  const kept = new Map<number, Uint8Array>()
  const backend = { pages: kept, fails: '' }
  const read = (page: number): Uint8Array => {
    if (backend.fails) throw new Error(backend.fails)
    return kept.get(page)!
  }
  const file: SwapFile = {
    pages,
    write(page, from) {
      if (backend.fails) throw new Error(backend.fails)
      kept.set(page, from.slice())
    },
    readNow: (page, into) => into.set(read(page)),
    read: async (page) => {
      const content = read(page)
      await new Promise((resolve) => void setTimeout(resolve, 1))
      return content
    },
  }
  return Object.assign(backend, {
    compress: (page: Uint8Array) => (page.every((byte, at) => byte === page[at % 4]) ? page.slice(0, 4) : page.slice()),
    expand: (packed: Uint8Array, into: Uint8Array) => {
      for (let at = 0; at < into.length; at += packed.length) into.set(packed, at)
    },
    ...(pages > 0 ? { file } : {}),
    close: () => kept.clear(),
  })
}

/** The first pages of a guest are as on its disk. */
export function createTestDiskPages(
  memory: () => GuestFrames,
  pages: number,
): DiskPages & { readonly kept: Map<number, Uint8Array> } {
  const kept = new Map<number, Uint8Array>()
  return {
    kept,
    mayKeep: (frame) => Array.from({ length: pages }, (_, page) => memory().peek(page * FRAME_SIZE)).includes(frame),
    keep: (address, content) => (kept.set(address, content.slice()), true),
    fillNow: (address, into) => into.set(kept.get(address)!),
    fill: async (address) => kept.get(address)!,
    isNear: () => false,
    drop: (address) => void kept.delete(address),
  }
}

/** A balloon whose guest has so many pages to spare, the last of its memory first. */
export function createTestBalloon(
  memory: () => GuestFrames & GuestMemory,
  guest: { availablePages: number; isDead?: boolean },
): Balloon {
  const listeners = new Set<(frames: number) => void>()
  let [target, actual] = [0, 0]
  const total = (): number => memory().size / FRAME_SIZE
  return {
    get targetFrames() {
      return target
    },
    get actualFrames() {
      return actual
    },
    setTarget(frames) {
      target = frames
      if (guest.isDead) return
      const reachable = Math.min(target, actual + guest.availablePages)
      for (; actual < reachable; guest.availablePages--, actual++)
        memory().release([{ address: gpa((total() - 1 - actual) * FRAME_SIZE), length: FRAME_SIZE }])
      guest.availablePages += actual - reachable
      actual = reachable
      for (const listener of listeners) listener(actual)
    },
    onChange: (listener) => (listeners.add(listener), () => listeners.delete(listener)),
    statistics: async () =>
      guest.isDead
        ? undefined
        : { totalBytes: memory().size, availableBytes: guest.availablePages * FRAME_SIZE + 8 * 2 ** 20 },
    freePages: async () => undefined,
  }
}

/** A memory device over all of a guest's memory, which can unplug so many blocks, the last first. */
export function createTestPluggable(
  memory: () => GuestFrames,
  guest: { blockFrames: number; pages: number; freeBlocks: number },
): PluggableMemory {
  const { blockFrames, pages } = guest
  let [requested, plugged] = [pages, pages]
  return {
    blockFrames,
    regionFrames: pages,
    usualFrames: pages,
    get requestedFrames() {
      return requested
    },
    get pluggedFrames() {
      return plugged
    },
    request(frames) {
      requested = Math.floor(frames / blockFrames) * blockFrames
      for (; plugged < requested; plugged += blockFrames) guest.freeBlocks++
      for (; plugged > requested && guest.freeBlocks > 0; guest.freeBlocks--) {
        plugged -= blockFrames
        memory().release([{ address: gpa(plugged * FRAME_SIZE), length: blockFrames * FRAME_SIZE }])
      }
    },
  }
}
