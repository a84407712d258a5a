/** Packed virtqueue: one descriptor ring that both sides write. Independent of devices and transports. ("Packed Virtqueues") @hot */

import { DESCRIPTOR_SIZE, DescriptorFlag } from './chain.ts'
import type { Chain } from './chain.ts'
import { RingQueue } from './ring-queue.ts'
import type { QueueHost, QueuePosition, QueueSetup } from './ring-queue.ts'

/** Descriptor Ring Change Event Flags. ("Event Suppression Structure Format") */
const Event = { enable: 0, disable: 1, descriptor: 2, mask: 3 } as const
const WRAP = 0x8000
const Offset = { length: 8, id: 12, flags: 14, eventFlags: 2 } as const

export function refusePacked(setup: QueueSetup, host: Pick<QueueHost, 'memory'>): string | undefined {
  const { size, descriptors, driver, device } = setup
  if (size < 1 || size > 32768) return `a queue size of ${size}: not from 1 to 32768`
  if (descriptors % 16 !== 0) return 'a descriptor ring that is not aligned to 16'
  if (driver % 4 !== 0 || device % 4 !== 0) return 'an event suppression structure that is not aligned to 4'
  if (!host.memory.isRam(descriptors, DESCRIPTOR_SIZE * size)) return 'a descriptor ring outside memory'
  if (!host.memory.isRam(driver, 4)) return 'a driver event suppression structure outside memory'
  if (!host.memory.isRam(device, 4)) return 'a device event suppression structure outside memory'
  return undefined
}

export class PackedQueue extends RingQueue {
  /** Next descriptor to take and to use, with the wrap counters (1 or 0) of those. */
  #next = 0
  #nextWrap = 1
  #used = 0
  #usedWrap = 1
  /** Ring entries popped and not used. */
  #slots = 0
  /** Device event suppression as last written. */
  #event = -1

  constructor(setup: QueueSetup, host: QueueHost) {
    super(setup, host)
    host.memory.writeU16(setup.device + Offset.eventFlags, Event.enable)
  }

  protected next(chain: Chain): boolean {
    const { access, setup } = this
    const at = setup.descriptors + DESCRIPTOR_SIZE * this.#next
    let flags = access.u16(at + Offset.flags)
    if (!this.#isAvailable(flags)) {
      if (!setup.eventIndex) return false
      const wish = this.#next | (this.#nextWrap ? WRAP : 0)
      if (this.#event === wish) return false
      this.#event = wish
      access.memory.writeU16(setup.device, wish)
      access.memory.writeU16(setup.device + Offset.eventFlags, Event.descriptor)
      // Again: it may have made one available before it could see the wish.
      flags = access.u16(at + Offset.flags)
      if (!this.#isAvailable(flags)) return false
    }
    return this.#collect(chain)
  }

  #isAvailable(flags: number): boolean {
    if (flags < 0) return this.fail('a descriptor ring outside memory')
    const avail = flags & DescriptorFlag.avail ? 1 : 0
    const used = flags & DescriptorFlag.used ? 1 : 0
    return avail === this.#nextWrap && used !== this.#nextWrap
  }

  #collect(chain: Chain): boolean {
    const { access, setup, size } = this
    let index = this.#next
    for (let slots = 1; slots <= size - this.#slots; slots++) {
      const at = setup.descriptors + DESCRIPTOR_SIZE * index
      const address = access.u64(at)
      const length = access.u32(at + Offset.length)
      const flags = access.u16(at + Offset.flags)
      const more = (flags & DescriptorFlag.next) !== 0
      const wrong =
        flags & DescriptorFlag.indirect
          ? this.#collectTable(chain, address, length, more || slots > 1)
          : chain.add(address, length, (flags & DescriptorFlag.write) !== 0, this.limit)
      if (wrong) return this.fail(wrong)
      index = index + 1 === size ? 0 : index + 1
      if (more) continue
      // The last descriptor of a list names the buffer.
      chain.id = access.u16(at + Offset.id)
      chain.slots = slots
      this.#slots += slots
      this.#advance(slots)
      return true
    }
    return this.fail(`a descriptor list of more than the ${size - this.#slots} entries that are left`)
  }

  #collectTable(chain: Chain, address: number, length: number, inList: boolean): string | undefined {
    const { access } = this
    if (!this.setup.indirect) return 'an indirect descriptor without VIRTIO_F_INDIRECT_DESC'
    if (inList) return 'an indirect descriptor in a descriptor list'
    if (length === 0 || length % DESCRIPTOR_SIZE !== 0) return `an indirect table of ${length} bytes`
    if (!access.isRam(address, length)) return 'an indirect table outside memory'
    for (let at = address; at < address + length; at += DESCRIPTOR_SIZE) {
      const writable = (access.u16(at + Offset.flags) & DescriptorFlag.write) !== 0
      const wrong = chain.add(access.u64(at), access.u32(at + Offset.length), writable, this.limit)
      if (wrong) return wrong
    }
    return undefined
  }

  #advance(slots: number): void {
    this.#next += slots
    if (this.#next < this.size) return
    this.#next -= this.size
    this.#nextWrap ^= 1
  }

  protected publish(chain: Chain, written: number): void {
    const { access, setup } = this
    const { memory } = access
    const at = setup.descriptors + DESCRIPTOR_SIZE * this.#used
    memory.writeU32(at + Offset.length, written)
    memory.writeU16(at + Offset.id, chain.id)
    const flags =
      (this.#usedWrap ? DescriptorFlag.avail | DescriptorFlag.used : 0) | (written > 0 ? DescriptorFlag.write : 0)
    // Last: what the flags hand over is complete.
    memory.writeU16(at + Offset.flags, flags)
    this.#slots -= chain.slots
    this.unsignalled += chain.slots
    this.#used += chain.slots
    if (this.#used < this.size) return
    this.#used -= this.size
    this.#usedWrap ^= 1
  }

  protected wanted(): boolean {
    const { access, setup } = this
    const flags = access.u16(setup.driver + Offset.eventFlags) & Event.mask
    if (flags !== Event.descriptor || !setup.eventIndex) return flags !== Event.disable
    const wish = access.u16(setup.driver)
    // How many entries ago the entry was that the driver waits for: 1 is the one before the next.
    let ago = this.#used - (wish & ~WRAP)
    if ((wish & WRAP ? 1 : 0) !== this.#usedWrap) ago += this.size
    return ago > 0 && ago <= this.unsignalled
  }

  protected stepBack(chain: Chain): void {
    this.#slots -= chain.slots
    this.#next -= chain.slots
    if (this.#next >= 0) return
    this.#next += this.size
    this.#nextWrap ^= 1
  }

  position(): QueuePosition {
    const { unsignalled } = this
    return { next: this.#next, nextWrap: this.#nextWrap, used: this.#used, usedWrap: this.#usedWrap, unsignalled }
  }

  resume({ next, nextWrap, used, usedWrap, unsignalled }: QueuePosition): void {
    this.#next = (next ?? 0) % this.size
    this.#nextWrap = nextWrap ? 1 : 0
    this.#used = (used ?? 0) % this.size
    this.#usedWrap = usedWrap ? 1 : 0
    this.unsignalled = unsignalled ?? 0
    this.#event = -1
  }
}
