/** A driver's virtqueues, both formats, over guest memory. Obeys the specification unless asked not to. Independent of the transport. */

import type { GuestMemory } from '@nonroot/contracts'
import { check } from '../check.ts'

/** One stretch of a buffer. Readable ones come first. */
export interface DriverElement {
  readonly address: number
  readonly length: number
  readonly writable?: boolean
}

export interface UsedBuffer {
  readonly id: number
  readonly written: number
}

export interface DriverRing {
  readonly size: number
  /** What goes into the queue's registers. */
  readonly areas: { readonly descriptors: number; readonly driver: number; readonly device: number }
  /** Make a buffer available. `table`: put the descriptors there and one indirect descriptor into the ring. Gives the buffer's id. */
  add(elements: readonly DriverElement[], table?: number): number
  /** Buffers used since the last call. */
  takeUsed(): UsedBuffer[]
  /** Whether the device asked to be notified of what was added since the last call. */
  wantsKick(): boolean
  /** For a kick with VIRTIO_F_NOTIFICATION_DATA: the upper 16 bits. */
  readonly nextOffset: number
  /** Used buffer notifications: always, never, or (EVENT_IDX) once `after` more were used. */
  interruptWhen(when: 'always' | 'never' | { readonly after: number }): void
}

export interface DriverRingOptions {
  readonly memory: GuestMemory
  /** Where the ring's parts go, 4 KiB apart. */
  readonly at: number
  readonly size: number
  readonly eventIndex?: boolean
}

const Flag = { next: 1, write: 2, indirect: 4, avail: 0x80, used: 0x8000 } as const

/** Bytes of guest memory that a ring of this size takes. */
export const ringBytes = (size: number): number =>
  [16 * size, 6 + 2 * size, 6 + 8 * size].reduce((sum, part) => sum + Math.ceil(part / 4096) * 4096, 0)

function layout({ at, size }: DriverRingOptions): DriverRing['areas'] {
  const driver = at + Math.ceil((16 * size) / 4096) * 4096
  return { descriptors: at, driver, device: driver + Math.ceil((6 + 2 * size) / 4096) * 4096 }
}

/** Write one descriptor, well-formed or not. The fields of a packed one differ: `id` then takes the place of `next`. */
export function writeDescriptor(
  memory: GuestMemory,
  at: number,
  descriptor: { address: number | bigint; length: number; flags: number; next?: number },
): void {
  memory.writeU64(at, BigInt(descriptor.address))
  memory.writeU32(at + 8, descriptor.length)
  memory.writeU16(at + 12, descriptor.flags)
  memory.writeU16(at + 14, descriptor.next ?? 0)
}

export function createSplitRing(options: DriverRingOptions): DriverRing {
  const { memory, size, eventIndex = false } = options
  const areas = layout(options)
  memory.fill(areas.descriptors, ringBytes(size), 0)
  const free = Array.from({ length: size }, (_, index) => index)
  const taken = new Map<number, number[]>()
  let available = 0
  let seen = 0
  let kicked = 0
  const place = (elements: readonly DriverElement[], table: number | undefined): number[] => {
    const indexes = table === undefined ? elements.map(() => free.shift()) : [free.shift()]
    check(
      indexes.every((index) => index !== undefined),
      'the driver has no descriptor left',
    )
    const own = indexes as number[]
    elements.forEach(({ address, length, writable }, step) => {
      const at = table === undefined ? areas.descriptors + 16 * own[step]! : table + 16 * step
      const last = step === elements.length - 1
      const next = last ? 0 : table === undefined ? own[step + 1]! : step + 1
      writeDescriptor(memory, at, {
        address,
        length,
        flags: (writable ? Flag.write : 0) | (last ? 0 : Flag.next),
        next,
      })
    })
    if (table !== undefined) {
      const at = areas.descriptors + 16 * own[0]!
      writeDescriptor(memory, at, { address: table, length: 16 * elements.length, flags: Flag.indirect })
    }
    return own
  }
  return {
    size,
    areas,
    add(elements, table) {
      const indexes = place(elements, table)
      const head = indexes[0]!
      taken.set(head, indexes)
      memory.writeU16(areas.driver + 4 + 2 * (available % size), head)
      available = (available + 1) & 0xffff
      memory.writeU16(areas.driver + 2, available)
      return head
    },
    takeUsed() {
      const used: UsedBuffer[] = []
      for (const end = memory.readU16(areas.device + 2)!; seen !== end; seen = (seen + 1) & 0xffff) {
        const at = areas.device + 4 + 8 * (seen % size)
        const id = memory.readU32(at)!
        const indexes = taken.get(id)
        check(indexes, `the device used buffer ${id}, which was not available`)
        taken.delete(id)
        free.push(...indexes)
        used.push({ id, written: memory.readU32(at + 4)! })
      }
      return used
    },
    wantsKick() {
      const before = kicked
      kicked = available
      if (!eventIndex) return (memory.readU16(areas.device)! & 1) === 0 && before !== available
      const event = memory.readU16(areas.device + 4 + 8 * size)!
      return ((available - event - 1) & 0xffff) < ((available - before) & 0xffff)
    },
    get nextOffset() {
      return available
    },
    interruptWhen(when) {
      memory.writeU16(areas.driver, when === 'never' && !eventIndex ? 1 : 0)
      const after = when === 'always' ? 0 : when === 'never' ? 0x8000 : when.after - 1
      if (eventIndex) memory.writeU16(areas.driver + 4 + 2 * size, (seen + after) & 0xffff)
    },
  }
}

export function createPackedRing(options: DriverRingOptions): DriverRing {
  const { memory, size } = options
  const areas = layout(options)
  memory.fill(areas.descriptors, ringBytes(size), 0)
  const ids = Array.from({ length: size }, (_, id) => id)
  const slots = new Map<number, number>()
  let next = 0
  let wrap = 1
  let left = size
  let seen = 0
  let seenWrap = 1
  let added = 0
  const advance = (): void => {
    if (++next < size) return
    next = 0
    wrap ^= 1
  }
  return {
    size,
    areas,
    add(elements, table) {
      const id = ids.shift()
      const count = table === undefined ? elements.length : 1
      check(id !== undefined && left >= count, 'the driver has no descriptor left')
      if (table !== undefined) {
        elements.forEach(
          ({ address, length, writable }, step) =>
            memory.writeU64(table + 16 * step, BigInt(address)) &&
            memory.writeU32(table + 16 * step + 8, length) &&
            memory.writeU16(table + 16 * step + 12, 0) &&
            memory.writeU16(table + 16 * step + 14, writable ? Flag.write : 0),
        )
      }
      const parts: readonly DriverElement[] =
        table === undefined ? elements : [{ address: table, length: 16 * elements.length }]
      const first = areas.descriptors + 16 * next
      let firstFlags = 0
      parts.forEach(({ address, length, writable }, step) => {
        const at = areas.descriptors + 16 * next
        const flags =
          (wrap ? Flag.avail : Flag.used) |
          (writable ? Flag.write : 0) |
          (table === undefined ? 0 : Flag.indirect) |
          (step === parts.length - 1 ? 0 : Flag.next)
        memory.writeU64(at, BigInt(address))
        memory.writeU32(at + 8, length)
        memory.writeU16(at + 12, id)
        if (step === 0) firstFlags = flags
        else memory.writeU16(at + 14, flags)
        advance()
      })
      // The first descriptor last: the device never sees half a list.
      memory.writeU16(first + 14, firstFlags)
      slots.set(id, count)
      left -= count
      added += count
      return id
    },
    takeUsed() {
      const used: UsedBuffer[] = []
      for (;;) {
        const at = areas.descriptors + 16 * seen
        const flags = memory.readU16(at + 14)!
        if ((flags & Flag.avail ? 1 : 0) !== seenWrap || (flags & Flag.used ? 1 : 0) !== seenWrap) return used
        const id = memory.readU16(at + 12)!
        const count = slots.get(id)
        check(count !== undefined, `the device used buffer ${id}, which was not available`)
        slots.delete(id)
        ids.push(id)
        left += count
        seen += count
        if (seen >= size) {
          seen -= size
          seenWrap ^= 1
        }
        used.push({ id, written: flags & Flag.write ? memory.readU32(at + 8)! : 0 })
      }
    },
    wantsKick() {
      const since = added
      added = 0
      const flags = memory.readU16(areas.device + 2)! & 3
      if (flags !== 2) return flags === 0 && since > 0
      const event = memory.readU16(areas.device)!
      let ago = next - (event & 0x7fff)
      if (event >> 15 !== wrap) ago += size
      return ago > 0 && ago <= since
    },
    get nextOffset() {
      return next | (wrap << 15)
    },
    interruptWhen(when) {
      if (typeof when === 'object') {
        const at = seen + when.after - 1
        const offset = at % size
        memory.writeU16(areas.driver, offset | ((at >= size ? seenWrap ^ 1 : seenWrap) << 15))
        memory.writeU16(areas.driver + 2, 2)
      } else memory.writeU16(areas.driver + 2, when === 'never' ? 1 : 0)
    },
  }
}
