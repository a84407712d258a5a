/**
 * @hot The hardware page walker: linear to host-physical by the paging mode in force, with permissions, reserved bits, accessed and dirty flags. On
 * 32-bit halves: no BigInt, no allocation. Independent of the TLB. (SDM Vol. 3A, "Paging")
 */
import type { Core } from '../state/core.ts'
import { QUICK_FILL, REGION, RESERVED_HIGH, S } from '../state/layout.ts'
import { WALK_FAULT } from '../state/hooks.ts'
import { EPT_ENTRY, PAGE_ENTRY, PageFaultCode, tableIndex } from '@nonroot/contracts'
import { frameOf } from '../state/paging-entry.ts'
import {
  ABANDONED,
  ABOVE_PHYSICAL,
  ACCESS,
  DEVICE,
  FAULT,
  PAGING,
  REGION_MASK,
  STATUS,
  type PagingState,
} from '../state/paging-state.ts'
import { quickFillOf } from './tlb/quick-fill.ts'
import { guestPage } from './second-stage.ts'
import { markLarge } from './tlb/tlb.ts'
import { CR0, CR4, EFER } from '../state/register-bits.ts'

/**
 * Page-aligned HPA of a linear address, or a status. `access` is a sum of ACCESS. Sets frame, writable, isGlobal and level in the paging state; on a
 * fault, the error code.
 */
export function walk(core: Core, low: number, high: number, access: number): number {
  const p = core.paging
  p.linearLow = low
  p.linearHigh = high
  return p.asksFaults ? walkAsking(core, p, low, high, access) : walkTables(core, p, low, high, access)
}

/** The hooks handle page faults first; the guest gets only its own. */
function walkAsking(core: Core, p: PagingState, low: number, high: number, access: number): number {
  const allowed = p.hardwareRoot && p.pagingOff ? access & ~ACCESS.smap : access
  for (;;) {
    const page = walkTables(core, p, low, high, allowed)
    if (page !== FAULT) return page
    switch (core.hooks!.walkFault!(low, high, access)) {
      case WALK_FAULT.retry:
        continue
      case WALK_FAULT.device:
        return DEVICE
      case WALK_FAULT.code:
        p.level = 1
        p.isGlobal = p.writable = false
        return p.frame << 12
      case WALK_FAULT.left:
        return ABANDONED
      default:
        return FAULT
    }
  }
}

function walkTables(core: Core, p: PagingState, low: number, high: number, access: number): number {
  switch (p.kind) {
    case PAGING.none:
      p.level = 1
      p.isGlobal = false
      return finish(core, p, low >>> 12, access, true)
    case PAGING.bits32:
      return walk32(core, p, low, access)
    case PAGING.pae: {
      const pdpte = (low >>> 30) << 1
      const entry = p.pdptes[pdpte]!
      if (!(entry & PAGE_ENTRY.present)) return fault(p, access, 0)
      return walk64(core, p, low, high, access, frameOf(entry, p.pdptes[pdpte + 1]!), 2)
    }
    case PAGING.level4: {
      // The paging-structure cache: the page table of this 2 MiB region and the combined rights above it, or the large page it is in.
      const key = regionKey(low, high)
      const slot = regionSlot(key)
      const { regions } = p
      if (regions[slot] === key && regions[slot + 1] === p.generation) {
        const page =
          regions[slot + TABLE]! < 0
            ? walkLarge(core, p, low, high, access, slot)
            : walkLeaf(core, p, low, access, regions[slot + FRAME]!, regions[slot + TABLE]!, regions[slot + RIGHTS]!)
        if (page !== FAULT) return page
      }
      // A page fault must be due to the tables in memory, and discards what is cached for its address. (SDM Vol. 3A, "Operations that Invalidate TLBs
      // and Paging-Structure Caches")
      const page = walk64(core, p, low, high, access, p.rootFrame, 4)
      if (page === FAULT) regions[slot + 1] = NO_GENERATION
      return page
    }
    default:
      return walk64(core, p, low, high, access, p.rootFrame, 5)
  }
}

/** In place of a generation: the entry is empty. */
const NO_GENERATION = -1
const [FRAME, TABLE, RIGHTS, LEAF, LEVEL] = [REGION.frame >> 2, REGION.table >> 2, REGION.rights >> 2, REGION.leaf >> 2, REGION.level >> 2]
const regionKey = (low: number, high: number): number => (high << 11) | (low >>> 21)
const regionSlot = (key: number): number => ((key ^ (key >>> 9)) & REGION_MASK) << 3

/** The last step of a walk whose page table is in the cache. `rights`: bits 1 and 2 of all levels above, bit 31 their execute-disable. */
function walkLeaf(core: Core, p: PagingState, low: number, access: number, tableFrame: number, table: number, above: number): number {
  const at = table + (((low >>> 12) & 0x1ff) << 1)
  const entryLow = core.i32[at]!
  const entryHigh = core.i32[at + 1]!
  if (!(entryLow & PAGE_ENTRY.present)) return fault(p, access, 0)
  if (entryHigh & p.reservedHigh) return fault(p, access, PageFaultCode.present | PageFaultCode.reserved)
  const rights = above & entryLow
  if (forbidden(p, rights, (above | entryHigh) < 0, access)) return fault(p, access, PageFaultCode.present)
  const need = access & ACCESS.write ? PAGE_ENTRY.accessed | PAGE_ENTRY.dirty : PAGE_ENTRY.accessed
  if ((entryLow & need) !== need) {
    const status = setBits(core, tableFrame, at, need)
    if (status) return status
  }
  p.level = 1
  p.isGlobal = p.global && (entryLow & PAGE_ENTRY.global) !== 0
  const dirty = ((entryLow | need) & PAGE_ENTRY.dirty) !== 0
  return finish(core, p, frameOf(entryLow, entryHigh), access, dirty && writableBy(p, rights, access))
}

/** A large page found in the cache. If a flag must still be set in its entry, the walk is done from the root. */
function walkLarge(core: Core, p: PagingState, low: number, high: number, access: number, slot: number): number {
  const { regions } = p
  const rights = regions[slot + RIGHTS]!
  const leaf = regions[slot + LEAF]!
  if (access & ACCESS.write && !(leaf & PAGE_ENTRY.dirty)) return walk64(core, p, low, high, access, p.rootFrame, 4)
  if (forbidden(p, rights, rights < 0, access)) return fault(p, access, PageFaultCode.present)
  p.level = regions[slot + LEVEL]!
  p.isGlobal = p.global && (leaf & PAGE_ENTRY.global) !== 0
  return finish(core, p, regions[slot + FRAME]! | ((low >>> 12) & 0x1ff), access, (leaf & PAGE_ENTRY.dirty) !== 0 && writableBy(p, rights, access))
}

/** Enters the paging-structure cache. */
function remember(p: PagingState, low: number, high: number, frame: number, table: number, rights: number, noExecute: number, leaf: number, level: number): void {
  const key = regionKey(low, high)
  const slot = regionSlot(key)
  const { regions } = p
  regions[slot] = key
  regions[slot + 1] = p.generation
  regions[slot + FRAME] = frame
  regions[slot + TABLE] = table
  regions[slot + RIGHTS] = (rights & (PAGE_ENTRY.writable | PAGE_ENTRY.user)) | (noExecute & 0x8000_0000)
  regions[slot + LEAF] = leaf
  regions[slot + LEVEL] = level
}

/** PAE, 4-level and 5-level paging: entries of 64 bits. */
function walk64(
  core: Core,
  p: PagingState,
  low: number,
  high: number,
  access: number,
  root: number,
  levels: number,
): number {
  const { i32 } = core
  let frame = root
  let rights: number = PAGE_ENTRY.writable | PAGE_ENTRY.user
  let noExecute = 0
  for (let level = levels; ; level--) {
    const table = guestPage(core, frame, 0, true)
    if (table & STATUS && table !== DEVICE) return table
    const at = ((table & -4096) >>> 2) + (tableIndex(low, high, level) << 1)
    // Addresses without memory read as all ones, which has reserved bits set.
    const entryLow = table === DEVICE ? -1 : i32[at]!
    const entryHigh = table === DEVICE ? -1 : i32[at + 1]!
    if (level === 1 && levels === 4 && table !== DEVICE) remember(p, low, high, frame, (table & -4096) >>> 2, rights, noExecute, 0, 1)
    if (!(entryLow & PAGE_ENTRY.present)) return fault(p, access, 0)
    const leaf = level === 1 || (level <= 3 && (entryLow & PAGE_ENTRY.large) !== 0)
    if (entryHigh & p.reservedHigh || (level > 1 && entryLow & reservedLow(level, entryLow))) {
      return fault(p, access, PageFaultCode.present | PageFaultCode.reserved)
    }
    rights &= entryLow
    noExecute |= entryHigh
    if (!leaf) {
      if (!(entryLow & PAGE_ENTRY.accessed)) {
        const status = setBits(core, frame, at, PAGE_ENTRY.accessed)
        if (status) return status
      }
      frame = frameOf(entryLow, entryHigh)
      continue
    }
    if (forbidden(p, rights, noExecute < 0, access)) return fault(p, access, PageFaultCode.present)
    const need = access & ACCESS.write ? PAGE_ENTRY.accessed | PAGE_ENTRY.dirty : PAGE_ENTRY.accessed
    if ((entryLow & need) !== need) {
      const status = setBits(core, frame, at, need)
      if (status) return status
    }
    p.level = level
    p.isGlobal = p.global && (entryLow & PAGE_ENTRY.global) !== 0
    const inner = (1 << ((level - 1) * 9)) - 1
    const page = (frameOf(entryLow, entryHigh) & ~inner) | ((low >>> 12) & inner)
    if (level > 1 && levels === 4) {
      remember(p, low, high, page & ~0x1ff, -1, rights, noExecute, entryLow | need, level)
      // Parts of the page may enter the TLB without a walk.
      markLarge(p, low, high, level)
    }
    const dirty = ((entryLow | need) & PAGE_ENTRY.dirty) !== 0
    return finish(core, p, page, access, dirty && writableBy(p, rights, access))
  }
}

/** 32-bit paging, with 4 MiB pages of 40-bit addresses (PSE-36). */
function walk32(core: Core, p: PagingState, low: number, access: number): number {
  const { i32 } = core
  let frame = p.rootFrame
  let rights: number = PAGE_ENTRY.writable | PAGE_ENTRY.user
  for (let level = 2; ; level--) {
    const table = guestPage(core, frame, 0, true)
    if (table & STATUS && table !== DEVICE) return table
    const at = ((table & -4096) >>> 2) + ((level === 2 ? low >>> 22 : low >>> 12) & 0x3ff)
    const entry = table === DEVICE ? -1 : i32[at]!
    if (!(entry & PAGE_ENTRY.present)) return fault(p, access, 0)
    const large = level === 2 && p.largePages32 && (entry & PAGE_ENTRY.large) !== 0
    if (large && entry & 0x0020_0000) return fault(p, access, PageFaultCode.present | PageFaultCode.reserved)
    rights &= entry
    if (level === 2 && !large) {
      if (!(entry & PAGE_ENTRY.accessed)) {
        const status = setBits(core, frame, at, PAGE_ENTRY.accessed)
        if (status) return status
      }
      frame = entry >>> 12
      continue
    }
    if (forbidden(p, rights, false, access)) return fault(p, access, PageFaultCode.present)
    const need = access & ACCESS.write ? PAGE_ENTRY.accessed | PAGE_ENTRY.dirty : PAGE_ENTRY.accessed
    if ((entry & need) !== need) {
      const status = setBits(core, frame, at, need)
      if (status) return status
    }
    p.level = level
    p.isGlobal = p.global && (entry & PAGE_ENTRY.global) !== 0
    const dirty = ((entry | need) & PAGE_ENTRY.dirty) !== 0
    const page = large
      ? ((entry >>> 22) << 10) | (((entry >>> 13) & 0xff) << 20) | ((low >>> 12) & 0x3ff)
      : entry >>> 12
    return finish(core, p, page, access, dirty && writableBy(p, rights, access))
  }
}

function reservedLow(level: number, entry: number): number {
  if (!(entry & PAGE_ENTRY.large)) return 0
  return level === 2 ? 0x001f_e000 : level === 3 ? 0x3fff_e000 : PAGE_ENTRY.large
}

/** (SDM Vol. 3A, "Determination of Access Rights") */
function forbidden(p: PagingState, rights: number, noExecute: boolean, access: number): boolean {
  if (access & ACCESS.user) {
    if (!(rights & PAGE_ENTRY.user)) return true
    if (access & ACCESS.write) return !(rights & PAGE_ENTRY.writable)
    return (access & ACCESS.fetch) !== 0 && noExecute
  }
  if (rights & PAGE_ENTRY.user && (access & ACCESS.fetch ? p.smep : access & ACCESS.smap)) return true
  if (access & ACCESS.fetch) return noExecute
  return (access & ACCESS.write) !== 0 && !(rights & PAGE_ENTRY.writable) && p.writeProtect
}

function writableBy(p: PagingState, rights: number, access: number): boolean {
  return (rights & PAGE_ENTRY.writable) !== 0 || (!(access & ACCESS.user) && !p.writeProtect)
}

function fault(p: PagingState, access: number, cause: number): number {
  p.errorCode = cause | (access & (ACCESS.write | ACCESS.user)) | (access & ACCESS.fetch ? p.fetchBit : 0)
  return FAULT
}

/** Sets accessed or dirty flags in a guest's entry, a write that the second stage must allow. Returns 0 or a status. */
function setBits(core: Core, tableFrame: number, at: number, bits: number): number {
  const page = guestPage(core, tableFrame, ACCESS.write, true)
  if (page & STATUS) return page === DEVICE ? 0 : page
  core.i32[at]! |= bits
  return 0
}

function finish(core: Core, p: PagingState, frame: number, access: number, writable: boolean): number {
  const page = guestPage(core, frame, access, false)
  if (page & STATUS) return page
  p.frame = frame
  p.writable = writable && (page & EPT_ENTRY.write) !== 0
  return page & -4096
}

/** Updates what the walker derives from CR0, CR3, CR4 and EFER, and notifies the hooks. Does not flush. */
export function updatePaging(core: Core): void {
  derivePaging(core)
  // The owner of a hardware root must follow at once, because the next access may be translated.
  core.hooks?.pagingChanged?.()
}

/** The same if the owner of the hooks changed them itself. */
export function derivePaging(core: Core): void {
  const p = core.paging
  const cr0 = core.get32(S.cr0)
  const cr4 = core.get32(S.cr4)
  const efer = core.get32(S.efer)
  const nx = (efer & EFER.nxe) !== 0
  const paging = cr0 < 0
  const long = (efer & EFER.lma) !== 0
  p.kind = !paging
    ? PAGING.none
    : long
      ? cr4 & CR4.la57
        ? PAGING.level5
        : PAGING.level4
      : cr4 & CR4.pae
        ? PAGING.pae
        : PAGING.bits32
  p.rootFrame = p.kind === PAGING.bits32 ? core.get32(S.cr3) >>> 12 : frameOf(core.get32(S.cr3), core.get32(S.cr3 + 4))
  p.writeProtect = (cr0 & CR0.wp) !== 0
  p.smep = (cr4 & CR4.smep) !== 0
  p.global = (cr4 & CR4.pge) !== 0
  p.largePages32 = (cr4 & CR4.pse) !== 0
  p.reservedHigh = reservedHigh(nx, p.kind)
  const wide = p.kind >= PAGING.pae
  p.fetchBit = p.smep || (nx && wide) ? PageFaultCode.fetch : 0
  p.canonicalShift = p.kind === PAGING.level5 ? 7 : 16
  useHardwareRoot(p, paging, nx)
  p.asksFaults = p.hooksFaults || p.hardwareRoot !== undefined
  core.set32(QUICK_FILL, quickFillOf(core))
  core.set32(RESERVED_HIGH, p.reservedHigh)
}

function useHardwareRoot(p: PagingState, paging: boolean, nx: boolean): void {
  const { hardwareRoot } = p
  if (!hardwareRoot) return
  // The hypervisor's tables: always write-protected, never global, no large pages of 32-bit paging.
  p.kind = hardwareRoot.kind
  p.rootFrame = hardwareRoot.root >>> 12
  p.writeProtect = true
  p.global = false
  p.largePages32 = false
  p.reservedHigh = reservedHigh(nx, p.kind)
  p.pagingOff = !paging
  if (!paging) p.smep = false
  p.fetchBit = p.smep || (nx && p.kind >= PAGING.pae) ? PageFaultCode.fetch : 0
}

function reservedHigh(nx: boolean, kind: number): number {
  return ABOVE_PHYSICAL | (nx ? 0 : 0x8000_0000) | (kind === PAGING.pae ? 0x7ff0_0000 : 0) | 0
}
