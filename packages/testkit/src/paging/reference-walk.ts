/**
 * Page walk by the book, in BigInt, for tests: first stage in all formats. The judge of strategies, and, pointed at their tables, the
 * hardware that they run on. (SDM Vol. 3A, "Paging")
 */

import type { PagingFormat } from '@nonroot/contracts'

export interface PagingRegisters {
  format: PagingFormat
  root: bigint
  wp: boolean
  smep: boolean
  smap: boolean
  nxe: boolean
  pse: boolean
  /** RFLAGS.AC. */
  ac: boolean
  /** PAE: as they were when CR3 was loaded. */
  pdptes?: readonly bigint[]
}

export interface WalkAccess {
  readonly write: boolean
  readonly user: boolean
  readonly fetch: boolean
}

/** Memory that tables lie in. `undefined`: nothing there. It may throw to abort the walk (a second-stage fault). */
export interface TableMemory {
  read(address: number, bytes: 4 | 8): bigint | undefined
}

export type WalkResult =
  | { readonly fault: number }
  | {
      readonly address: number
      /** Bits to set, in order: what the walk does to the tables. */
      readonly marks: readonly { readonly address: number; readonly bits: number }[]
    }

const P = 1n
const RW = 2n
const US = 4n
const PS = 0x80n
const NX = 1n << 63n

const LEVELS = { none: 0, legacy32: 2, pae: 3, fourLevel: 4, fiveLevel: 5 } as const

export function referenceWalk(
  memory: TableMemory,
  regs: PagingRegisters,
  linear: bigint,
  access: WalkAccess,
  physicalAddressBits = 40,
): WalkResult {
  if (regs.format === 'none') return { address: Number(linear & 0xffff_ffffn), marks: [] }
  const wide = regs.format !== 'legacy32'
  const intent = (access.write ? 2 : 0) | (access.user ? 4 : 0) | (access.fetch && (regs.nxe || regs.smep) ? 16 : 0)
  const marks: { address: number; bits: number }[] = []
  const addressMask = ((1n << BigInt(physicalAddressBits)) - 1n) & ~0xfffn
  let writable = true
  let user = true
  let executable = true
  let table = regs.root & (wide ? (regs.format === 'pae' ? 0xffff_ffe0n : addressMask) : 0xffff_f000n)
  for (let level: number = LEVELS[regs.format]; ; level--) {
    const shift = BigInt(12 + (level - 1) * (wide ? 9 : 10))
    const index = (linear >> shift) & (wide ? (regs.format === 'pae' && level === 3 ? 3n : 0x1ffn) : 0x3ffn)
    if (regs.format === 'pae' && level === 3) {
      const pdpte = regs.pdptes![Number(index)]!
      if (!(pdpte & P)) return { fault: intent }
      table = pdpte & addressMask
      continue
    }
    const at = Number(table + index * (wide ? 8n : 4n))
    const entry = memory.read(at, wide ? 8 : 4) ?? (wide ? (1n << 64n) - 1n : 0xffff_ffffn)
    if (!(entry & P)) return { fault: intent }
    const large = (entry & PS) !== 0n && (wide ? level === 2 || level === 3 : level === 2 && regs.pse)
    let reserved = 0n
    if (wide) {
      reserved |= ((1n << 52n) - 1n) & ~((1n << BigInt(physicalAddressBits)) - 1n)
      if (regs.format === 'pae') reserved |= ((1n << 63n) - 1n) & ~((1n << 52n) - 1n)
      if (!regs.nxe) reserved |= NX
      if (level === 4) reserved |= PS
      if (large) reserved |= ((1n << shift) - 1n) & ~0x1fffn
    } else if (large) {
      reserved |= 1n << 21n
    }
    if (entry & reserved) return { fault: intent | 1 | 8 }
    writable &&= (entry & RW) !== 0n
    user &&= (entry & US) !== 0n
    executable &&= !wide || (entry & NX) === 0n
    const leaf = level === 1 || large
    marks.push({ address: at, bits: leaf && access.write ? 0x60 : 0x20 })
    if (!leaf) {
      table = wide ? entry & addressMask : entry & 0xffff_f000n
      continue
    }
    if (!permitted(regs, access, { writable, user, executable })) return { fault: intent | 1 }
    const size = 1n << shift
    let base = (wide ? entry & addressMask : entry & 0xffff_f000n) & ~(size - 1n)
    if (large && !wide) base |= ((entry >> 13n) & 0xffn) << 32n
    return { address: Number(base | (linear & (size - 1n))), marks }
  }
}

function permitted(
  regs: PagingRegisters,
  access: WalkAccess,
  page: { writable: boolean; user: boolean; executable: boolean },
): boolean {
  if (access.fetch && !page.executable) return false
  if (access.user) return page.user && (!access.write || page.writable)
  if (access.fetch) return !(regs.smep && page.user)
  if (regs.smap && page.user && !regs.ac) return false
  return !access.write || page.writable || !regs.wp
}
