/** Split virtqueue: descriptor table, available ring, used ring. Independent of devices and transports. ("Split Virtqueues") @hot */

import { DESCRIPTOR_SIZE, DescriptorFlag } from './chain.ts'
import type { Chain } from './chain.ts'
import { RingQueue } from './ring-queue.ts'
import type { QueueHost, QueuePosition, QueueSetup } from './ring-queue.ts'

const NO_INTERRUPT = 1
const Offset = { index: 2, ring: 4, descriptorLength: 8, descriptorFlags: 12, descriptorNext: 14 } as const

/** What keeps a queue from being used at all, or undefined. */
export function refuseSplit(setup: QueueSetup, host: Pick<QueueHost, 'memory'>): string | undefined {
  const { size, descriptors, driver, device } = setup
  const event = setup.eventIndex ? 2 : 0
  if (size < 1 || size > 32768 || (size & (size - 1)) !== 0)
    return `a queue size of ${size}: not a power of two up to 32768`
  if (descriptors % 16 !== 0) return 'a descriptor table that is not aligned to 16'
  if (driver % 2 !== 0) return 'an available ring that is not aligned to 2'
  if (device % 4 !== 0) return 'a used ring that is not aligned to 4'
  if (!host.memory.isRam(descriptors, DESCRIPTOR_SIZE * size)) return 'a descriptor table outside memory'
  if (!host.memory.isRam(driver, 4 + 2 * size + event)) return 'an available ring outside memory'
  if (!host.memory.isRam(device, 4 + 8 * size + event)) return 'a used ring outside memory'
  return undefined
}

export class SplitQueue extends RingQueue {
  /** Next entry of the available ring to take, and the index up to which there are some. 16 bits, running. */
  #next = 0
  #available = 0
  #used = 0
  /** avail_event as last written. */
  #event = -1
  /** Heads in flight: a driver must not offer one twice. */
  readonly #taken: Uint8Array

  constructor(setup: QueueSetup, host: QueueHost) {
    super(setup, host)
    this.#taken = new Uint8Array(setup.size)
  }

  protected next(chain: Chain): boolean {
    const { access, setup, size } = this
    if (this.#next === this.#available && !this.#look()) return false
    const head = access.u16(setup.driver + Offset.ring + 2 * (this.#next & (size - 1)))
    if (head < 0 || head >= size) return this.fail(`descriptor ${head} of ${size} in the available ring`)
    if (this.#taken[head] === 1) return this.fail(`descriptor ${head} made available twice`)
    chain.id = head
    if (!this.#collect(chain, head)) return false
    this.#taken[head] = 1
    this.#next = (this.#next + 1) & 0xffff
    return true
  }

  /** Has the driver added some? If not, ask to be notified of the next. */
  #look(): boolean {
    const { access, setup, size } = this
    let index = access.u16(setup.driver + Offset.index)
    if (index === this.#next && setup.eventIndex && this.#event !== this.#next) {
      this.#event = this.#next
      access.memory.writeU16(setup.device + Offset.ring + 8 * size, this.#next)
      // Again: it may have added one before it could see the wish.
      index = access.u16(setup.driver + Offset.index)
    }
    if (index === this.#next) return false
    const added = (index - this.#next) & 0xffff
    if (index < 0 || added + this.flying > size)
      return this.fail(
        `an available index of ${index} where at most ${size - this.flying} buffers can follow ${this.#next}`,
      )
    this.#available = index
    return true
  }

  #collect(chain: Chain, head: number): boolean {
    const { access, setup } = this
    let table = setup.descriptors
    let entries = this.size
    let index = head
    let indirect = false
    // As many steps as there are entries: more is a loop.
    for (let steps = 0; steps < entries; steps++) {
      const at = table + DESCRIPTOR_SIZE * index
      const address = access.u64(at)
      const length = access.u32(at + Offset.descriptorLength)
      const flags = access.u16(at + Offset.descriptorFlags)
      if (flags & DescriptorFlag.indirect) {
        const wrong = this.#refuseIndirect(address, length, flags, indirect)
        if (wrong) return this.fail(wrong)
        indirect = true
        table = address
        entries = length / DESCRIPTOR_SIZE
        index = 0
        steps = -1
        continue
      }
      const wrong = chain.add(address, length, (flags & DescriptorFlag.write) !== 0, this.limit)
      if (wrong) return this.fail(wrong)
      if (!(flags & DescriptorFlag.next)) return true
      index = access.u16(at + Offset.descriptorNext)
      if (index < 0 || index >= entries) return this.fail(`next descriptor ${index} of ${entries}`)
    }
    return this.fail('a loop in a descriptor chain')
  }

  #refuseIndirect(address: number, length: number, flags: number, nested: boolean): string | undefined {
    if (!this.setup.indirect) return 'an indirect descriptor without VIRTIO_F_INDIRECT_DESC'
    if (nested) return 'an indirect table inside an indirect table'
    if (flags & DescriptorFlag.next) return 'a descriptor with both INDIRECT and NEXT'
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) return `an indirect table of ${length} bytes`
    if (!this.access.isRam(address, length)) return 'an indirect table outside memory'
    return undefined
  }

  protected publish(chain: Chain, written: number): void {
    const { access, setup, size } = this
    const { memory } = access
    const at = setup.device + Offset.ring + 8 * (this.#used & (size - 1))
    this.#taken[chain.id] = 0
    memory.writeU32(at, chain.id)
    memory.writeU32(at + 4, written)
    this.#used = (this.#used + 1) & 0xffff
    // Last: what the index covers is complete.
    memory.writeU16(setup.device + Offset.index, this.#used)
    this.unsignalled++
  }

  protected wanted(): boolean {
    const { access, setup } = this
    if (!setup.eventIndex) return (access.u16(setup.driver) & NO_INTERRUPT) === 0
    const event = access.u16(setup.driver + Offset.ring + 2 * this.size)
    return ((this.#used - event - 1) & 0xffff) < this.unsignalled
  }

  protected stepBack(chain: Chain): void {
    this.#taken[chain.id] = 0
    this.#next = (this.#next - 1) & 0xffff
  }

  position(): QueuePosition {
    return { next: this.#next, used: this.#used, unsignalled: this.unsignalled }
  }

  resume({ next, used, unsignalled }: QueuePosition): void {
    this.#next = this.#available = (next ?? 0) & 0xffff
    this.#used = (used ?? 0) & 0xffff
    this.unsignalled = (unsignalled ?? 0) & 0xffff
    this.#event = -1
  }
}
