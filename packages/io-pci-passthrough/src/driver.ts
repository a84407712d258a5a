/** The hypervisor's driver of the host's IOMMU: one per host. It writes tables in host memory and the unit's registers, as Linux's does on a real host. */

import { invariant, NonrootError } from '@nonroot/contracts'
import type { Assignment, GuestFrames, HostBus, HostMemory, Hpa } from '@nonroot/contracts'
import { Domain, DOMAIN_LEVELS } from './domain.ts'
import { Descriptor, Global, Granularity, Present, Register, Wait } from './vtd/facts.ts'

const QUEUE_ENTRIES = 256
/** A page of entries. */
const REMAPPING_ENTRIES = 256
const REMAPPING_ORDER = 7
const POSTED = 1 << 15
/** "Verify the requester-id". */
const VALIDATE_REQUESTER = 1 << 18
const DONE = 1

/** What the driver uses of the host. */
type Host = Pick<Assignment, 'bus' | 'memory'>

export class IommuDriver {
  readonly #bus: HostBus
  readonly #memory: HostMemory
  readonly #registers: number
  readonly #root: Hpa
  readonly #contexts = new Map<number, Hpa>()
  readonly #queue: Hpa
  /** Where wait descriptors write, and the queue's tail. */
  readonly #status: Hpa
  #tail = 0
  readonly #remapping: Hpa
  readonly #usedEntries = new Set<number>()
  #command = 0
  readonly #domains = new Map<GuestFrames, { readonly domain: Domain; users: number }>()

  constructor(host: Host, registers: number) {
    this.#bus = host.bus
    this.#memory = host.memory
    this.#registers = registers
    this.#root = this.#frame()
    this.#queue = this.#frame()
    this.#status = this.#frame()
    this.#remapping = this.#frame()
    this.#start()
  }

  #frame(): Hpa {
    const frame = this.#memory.allocateFrame()
    if (frame !== undefined) return frame
    throw new NonrootError({
      code: 'host.memory',
      message: "no host frame is free for the tables of the host's IOMMU",
      thing: 'host.memory',
      remedy: 'give the host more memory (host.memory)',
    })
  }

  /** Nothing is mapped and no interrupt has an entry: from now on every DMA and every message is blocked unless it is allowed here. */
  #start(): void {
    this.#writePair(Register.rootTable, this.#root)
    this.#writePair(Register.remappingTable, this.#remapping + REMAPPING_ORDER)
    this.#writePair(Register.queueAddress, this.#queue)
    this.#write(Register.queueTail, 0)
    this.#enable(Global.queue)
    this.#enable(Global.rootTable)
    this.#enable(Global.remappingTable)
    this.#invalidate(Descriptor.context | (Granularity.global << 4))
    this.#invalidate(Descriptor.iotlb | (Granularity.global << 4))
    this.#enable(Global.interruptRemapping)
    this.#enable(Global.translation)
  }

  #write(register: number, value: number): void {
    this.#bus.writeMmio(this.#registers + register, 4, value)
  }
  #writePair(register: number, value: number): void {
    this.#write(register, value)
    this.#write(register + 4, 0)
  }

  #enable(bit: number): void {
    this.#write(Register.command, this.#command + bit)
    const status = this.#bus.readMmio(this.#registers + Register.status, 4)
    invariant(Math.floor(status / bit) % 2 === 1, 'the IOMMU follows its command register')
    // Setting a table's address is not a state.
    if (bit !== Global.rootTable && bit !== Global.remappingTable) this.#command += bit
  }

  /** Executed when this returns, transfers of the past excepted: `synchronise` waits for those. */
  #invalidate(low: number, second = 0, third = 0): void {
    const { words } = this.#memory
    const at = (this.#queue >>> 2) + this.#tail * 4
    words[at] = low
    words[at + 1] = second
    words[at + 2] = third
    words[at + 3] = 0
    this.#tail = (this.#tail + 1) % QUEUE_ENTRIES
    this.#write(Register.queueTail, this.#tail << 4)
  }

  /** Waits until what was invalidated is used by no transfer any more. */
  async synchronise(): Promise<void> {
    const status = this.#status >>> 2
    this.#memory.words[status] = 0
    this.#invalidate(Descriptor.wait | Wait.status, DONE, this.#status)
    while (Atomics.load(this.#memory.words, status) !== DONE)
      await new Promise((resolve) => void setTimeout(resolve, 1))
  }

  // Domains

  /** The domain of a VM's memory, made for its first device. */
  open(frames: GuestFrames): Domain {
    let entry = this.#domains.get(frames)
    if (!entry) {
      const used = new Set([...this.#domains.values()].map(({ domain }) => domain.id))
      let id = 1
      while (used.has(id)) id++
      entry = { domain: new Domain(id, this.#memory, frames), users: 0 }
      this.#domains.set(frames, entry)
    }
    entry.users++
    return entry.domain
  }

  close(frames: GuestFrames): void {
    const entry = this.#domains.get(frames)
    if (!entry || --entry.users > 0) return
    this.#domains.delete(frames)
    entry.domain.dispose()
  }

  /** Word index of a requester's context entry. */
  #context(requester: number): number {
    const { words } = this.#memory
    const bus = requester >> 8
    let table = this.#contexts.get(bus)
    if (table === undefined) {
      table = this.#frame()
      this.#contexts.set(bus, table)
      words[(this.#root >>> 2) + bus * 4] = table | Present
    }
    return (table >>> 2) + (requester & 0xff) * 4
  }

  attach(requester: number, { id, root }: Domain): void {
    const at = this.#context(requester)
    const { words } = this.#memory
    words[at + 2] = (DOMAIN_LEVELS - 2) | (id << 8)
    words[at] = root | Present
    this.#forget(requester, id)
  }

  async detach(requester: number, { id }: Domain): Promise<void> {
    const { words } = this.#memory
    const at = this.#context(requester)
    words[at] = 0
    words[at + 2] = 0
    this.#forget(requester, id)
    await this.synchronise()
  }

  #forget(requester: number, domain: number): void {
    this.#invalidate(Descriptor.context | (Granularity.selective << 4) | (domain << 16), requester)
    this.#invalidate(Descriptor.iotlb | (Granularity.domain << 4) | (domain << 16))
  }

  // Interrupts

  /** Entries for a requester's messages, each posted as a bit of the descriptor. */
  allocateInterrupts(
    requester: number,
    count: number,
    descriptor: Hpa,
  ): { index: number; address: number; data: number }[] {
    const made: { index: number; address: number; data: number }[] = []
    const { words } = this.#memory
    for (let index = 0; index < REMAPPING_ENTRIES && made.length < count; index++) {
      if (this.#usedEntries.has(index)) continue
      this.#usedEntries.add(index)
      const at = (this.#remapping >>> 2) + index * 4
      words[at + 1] = descriptor
      words[at + 2] = requester | VALIDATE_REQUESTER
      words[at + 3] = 0
      words[at] = Present | POSTED | (made.length << 16)
      made.push({ index, address: 0xfee0_0010 + ((index & 0x7fff) << 5), data: 0 })
    }
    if (made.length === count) return made
    this.freeInterrupts(made)
    throw new NonrootError({
      code: 'device.create',
      message: `the host's IOMMU has no ${count} interrupt entries left of ${REMAPPING_ENTRIES}`,
      remedy: 'assign fewer functions',
    })
  }

  freeInterrupts(entries: readonly { readonly index: number }[]): void {
    for (const { index } of entries) {
      this.#memory.words.fill(0, (this.#remapping >>> 2) + index * 4, (this.#remapping >>> 2) + index * 4 + 4)
      this.#usedEntries.delete(index)
    }
    this.#invalidate(Descriptor.interruptCache)
  }
}

const drivers = new WeakMap<HostBus, IommuDriver>()

/** The driver of this host's IOMMU. Throws `device.create` if there is none. */
export function driverOf(host: Assignment, at: string): IommuDriver {
  const known = drivers.get(host.bus)
  if (known) return known
  if (host.iommu === undefined) {
    throw new NonrootError({
      code: 'device.create',
      message: `host function ${at} cannot be assigned: the host has no IOMMU, and its DMA would reach all memory`,
      thing: at,
      remedy: 'leave host.io out, or add { use: "@nonroot/io-pci-passthrough", strategy: intel-iommu } to it',
    })
  }
  const driver = new IommuDriver(host, host.iommu)
  drivers.set(host.bus, driver)
  return driver
}
