/**
 * Translates guest-virtual to guest-physical addresses by the guest's own tables, without side effects or permission checks: for hypercalls,
 * emulation and debuggers.
 */

import { CR4, PAGE_ENTRY } from '@nonroot/contracts'
import type { GuestMemory, GuestPagingState } from '@nonroot/contracts'

const ADDRESS = 0xff_ffff_f000n
const PRESENT = BigInt(PAGE_ENTRY.present)
const LARGE = BigInt(PAGE_ENTRY.large)
const GLOBAL = BigInt(PAGE_ENTRY.global)

export function guestTranslate(memory: GuestMemory, paging: GuestPagingState, address: bigint): number | undefined {
  switch (paging.format) {
    case 'none':
      return Number(address & 0xffff_ffffn)
    case 'legacy32': {
      const directory = memory.readU32(Number(paging.cr3 & 0xffff_f000n) + Number((address >> 22n) & 0x3ffn) * 4)
      if (directory === undefined || !(directory & PAGE_ENTRY.present)) return undefined
      if (directory & PAGE_ENTRY.large && paging.cr4 & CR4.pse) {
        return (
          ((directory >>> 13) & 0xff) * 0x1_0000_0000 + ((directory & 0xffc0_0000) >>> 0) + Number(address & 0x3f_ffffn)
        )
      }
      const entry = memory.readU32(((directory & ~0xfff) >>> 0) + Number((address >> 12n) & 0x3ffn) * 4)
      return entry === undefined || !(entry & PAGE_ENTRY.present)
        ? undefined
        : ((entry & ~0xfff) >>> 0) + Number(address & 0xfffn)
    }
    case 'pae': {
      const pdpte = memory.readU64(Number(paging.cr3 & 0xffff_ffe0n) + Number((address >> 30n) & 3n) * 8)
      return pdpte === undefined || !(pdpte & PRESENT) ? undefined : addressIn(walk(memory, pdpte & ADDRESS, address, 2), address)
    }
    case 'fourLevel':
      return addressIn(walk(memory, paging.cr3 & ADDRESS, address, 4), address)
    case 'fiveLevel':
      return addressIn(walk(memory, paging.cr3 & ADDRESS, address, 5), address)
  }
}

/** Whether a write of CR3 leaves the translation of an address. (SDM Vol. 3A, "Global Pages") */
export function isGlobalPage(memory: GuestMemory, paging: GuestPagingState, address: bigint): boolean {
  if (!(paging.cr4 & CR4.pge) || paging.format !== 'fourLevel') return false
  const leaf = walk(memory, paging.cr3 & ADDRESS, address, 4)
  return leaf !== undefined && (leaf.entry & GLOBAL) !== 0n
}

/** An entry that maps a page of `1 << shift` bytes. */
interface Leaf {
  readonly entry: bigint
  readonly shift: bigint
}
function addressIn(leaf: Leaf | undefined, address: bigint): number | undefined {
  if (!leaf) return undefined
  const inside = (1n << leaf.shift) - 1n
  return Number((leaf.entry & ADDRESS & ~inside) | (address & inside))
}

/** Entries of eight bytes. */
function walk(memory: GuestMemory, root: bigint, address: bigint, levels: number): Leaf | undefined {
  let table = root
  for (let level = levels; level > 0; level--) {
    const shift = BigInt(12 + (level - 1) * 9)
    const entry = memory.readU64(Number(table + ((address >> shift) & 0x1ffn) * 8n))
    if (entry === undefined || !(entry & PRESENT)) return undefined
    if (level === 1 || (level <= 3 && entry & LARGE)) return { entry, shift }
    table = entry & ADDRESS
  }
  return undefined
}
