/**
 * @hot Walks a guest's own tables as the hardware would if it could: the same checks in the same order, the same error code, the
 * same accessed and dirty bits. Reads guest memory; independent of shadow tables.
 */

import { PageFaultCode, PAGE_ENTRY } from '@nonroot/contracts'
import type { GuestFrames, HostMemory } from '@nonroot/contracts'
import { Access, entryIndex } from './entry.ts'
import type { GuestPaging } from './guest-paging.ts'

const HIGH = 0x1_0000_0000
/** Result of `walk` when the access is allowed. */
export const ALLOWED = -1
/** Result of `walk` when a table cannot be read or marked now: `waitsFor` says where. Nothing that the guest sees is wrong. */
export const WAIT = -2

export class GuestWalk {
  /** Guest-physical address of the access. */
  address = 0
  /** Of `WAIT`: guest-physical address of the entry. */
  waitsFor = 0
  /** Level of the entry that maps the page: 1, or above it for a large page. */
  level = 0
  /** Guest-physical start of the page. */
  page = 0
  /** `Access` bits of all levels together. */
  access = 0
  /** The dirty bit of the mapping entry, after this access. */
  dirty = false
  /** A table on the way lies where no memory is: it cannot be shadowed. */
  unbacked = false
  /** `Access` bits of the entries from the root down to this level, by level. */
  readonly accessAbove = new Int32Array(6)
  /** Guest-physical start of the table that the entry of this level points to, by level. */
  readonly tableBelow = new Float64Array(6)
  /** Guest-physical address of the entry used, by level. */
  private readonly entryAddress = new Float64Array(6)
  private readonly entryLow = new Int32Array(6)
  private readonly memory: GuestFrames
  private readonly words: Int32Array
  /** Bits of an entry's upper word that must be zero: MAXPHYADDR and up, without NX. */
  private readonly reservedHigh: number

  constructor(memory: GuestFrames, host: HostMemory, physicalAddressBits: number) {
    this.memory = memory
    this.words = host.words
    this.reservedHigh = 0x000f_ffff & ~((1 << (physicalAddressBits - 32)) - 1)
  }

  /**
   * Translate `high:low` for the access that `code` tells by its write, user and fetch bits. `ALLOWED`, the results and the tables' bits
   * set; `WAIT`; or the error code of the guest's page fault, with nothing changed. `userPages`: SMAP is suspended for this access.
   */
  walk(mode: GuestPaging, low: number, high: number, code: number, userPages: boolean): number {
    const intent = code & (PageFaultCode.write | PageFaultCode.user | PageFaultCode.fetch)
    const fault = this.descend(mode, low, high, intent)
    if (fault !== ALLOWED) return fault
    if (!this.permits(mode, intent, userPages)) return intent | PageFaultCode.present
    return mode.format === 'none' || this.mark(mode, (intent & PageFaultCode.write) !== 0) ? ALLOWED : WAIT
  }

  private descend(mode: GuestPaging, low: number, high: number, intent: number): number {
    let access: number = Access.all
    this.unbacked = false
    if (mode.format === 'none') {
      // Above the root, so that the identity is built as one large page.
      this.level = mode.levels + 1
      this.page = 0
      this.address = low >>> 0
      this.access = access
      this.dirty = true
      return ALLOWED
    }
    const wide = mode.wide
    let table = mode.root
    for (let level = mode.levels; ; level--) {
      const index = entryIndex(wide, low, high, level)
      let entry: number
      let upper = 0
      if (level === 3 && mode.levels === 3) {
        entry = mode.pdptes[index * 2]!
        upper = mode.pdptes[index * 2 + 1]!
        if ((entry & PAGE_ENTRY.present) === 0) return intent
      } else {
        const at = table + index * (wide ? 8 : 4)
        const host = this.memory.translate(at, 'read')
        if (host === 'wait') {
          this.waitsFor = at
          return WAIT
        }
        // Tables where nothing answers read as all ones.
        if (host === undefined) this.unbacked = true
        entry = host === undefined ? -1 : this.words[host >>> 2]!
        if (wide) upper = host === undefined ? -1 : this.words[(host >>> 2) + 1]!
        if ((entry & PAGE_ENTRY.present) === 0) return intent
        if (this.reserved(mode, entry, upper, level)) return intent | PageFaultCode.present | PageFaultCode.reserved
        this.entryAddress[level] = at
        this.entryLow[level] = entry
        access &=
          (entry & (PAGE_ENTRY.writable | PAGE_ENTRY.user)) | (upper & PAGE_ENTRY.noExecuteHigh ? 0 : Access.execute)
      }
      this.accessAbove[level] = access
      const large = level > 1 && this.isLarge(mode, entry, level)
      if (level > 1 && !large) {
        table = (upper & 0xf_ffff) * HIGH + ((entry & ~0xfff) >>> 0)
        this.tableBelow[level] = table
        continue
      }
      this.level = level
      this.access = access
      this.dirty = (entry & PAGE_ENTRY.dirty) !== 0
      const mask = level === 1 ? 0xfff : !wide ? 0x3f_ffff : level === 2 ? 0x1f_ffff : 0x3fff_ffff
      // PSE-36: bits 20:13 of a 4 MiB entry are bits 39:32 of the address.
      const above = wide ? upper & 0xf_ffff : large ? (entry >>> 13) & 0xff : 0
      this.page = above * HIGH + ((entry & ~mask) >>> 0)
      this.address = this.page + ((low & mask) >>> 0)
      return ALLOWED
    }
  }

  private isLarge(mode: GuestPaging, entry: number, level: number): boolean {
    if ((entry & PAGE_ENTRY.large) === 0) return false
    return mode.wide ? level <= 3 : mode.pageSizeExtensions
  }

  private reserved(mode: GuestPaging, entry: number, upper: number, level: number): boolean {
    if (!mode.wide) {
      return level === 2 && this.isLarge(mode, entry, level) && (entry & (1 << 21)) !== 0
    }
    if ((upper & this.reservedHigh) !== 0) return true
    if ((upper & PAGE_ENTRY.noExecuteHigh) !== 0 && !mode.noExecute) return true
    // PAE knows neither available nor protection-key bits in 62:52.
    if (mode.levels === 3 && (upper & 0x7ff0_0000) !== 0) return true
    if ((entry & PAGE_ENTRY.large) === 0 || level === 1) return false
    return level === 4 || (level === 3 ? (entry & 0x3fff_e000) !== 0 : (entry & 0x1f_e000) !== 0)
  }

  /** (SDM Vol. 3A, "Determination of Access Rights") */
  private permits(mode: GuestPaging, intent: number, userPages: boolean): boolean {
    if (mode.format === 'none') return true
    const { access } = this
    const fetch = (intent & PageFaultCode.fetch) !== 0
    if (fetch && (access & Access.execute) === 0) return false
    const write = (intent & PageFaultCode.write) !== 0
    const userPage = (access & Access.user) !== 0
    if ((intent & PageFaultCode.user) !== 0) return userPage && (!write || (access & Access.write) !== 0)
    if (userPage && (fetch ? mode.smep : mode.smap && !userPages)) return false
    return !write || (access & Access.write) !== 0 || !mode.writeProtect
  }

  /** Accessed at every level, dirty at the last; false: it has to wait, and is done again then. (SDM Vol. 3A, "Accessed and Dirty Flags") */
  private mark(mode: GuestPaging, write: boolean): boolean {
    const top = mode.levels === 3 ? 2 : mode.levels
    for (let level = top; level >= this.level; level--) {
      const bits = write && level === this.level ? PAGE_ENTRY.accessed | PAGE_ENTRY.dirty : PAGE_ENTRY.accessed
      if ((this.entryLow[level]! & bits) === bits) continue
      const host = this.memory.translate(this.entryAddress[level]!, 'write')
      if (host === 'wait') {
        this.waitsFor = this.entryAddress[level]!
        return false
      }
      // Tables in ROM cannot be marked.
      if (host !== undefined) Atomics.or(this.words, host >>> 2, bits)
    }
    if (write) this.dirty = true
    return true
  }
}
