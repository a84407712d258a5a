/** One vCPU's paging registers, unpacked for the walk. Independent of tables. */

import { CR0, CR4, EFER } from '@nonroot/contracts'
import type { GuestMemory, PagingFormat, PagingPort } from '@nonroot/contracts'

/** Levels of each format; none has an identity table of two. */
const LEVELS: Readonly<Record<PagingFormat, number>> = { none: 2, legacy32: 2, pae: 3, fourLevel: 4, fiveLevel: 5 }
const CODES: Readonly<Record<PagingFormat, number>> = { none: 0, legacy32: 1, pae: 2, fourLevel: 3, fiveLevel: 4 }

export class GuestPaging {
  format: PagingFormat = 'none'
  levels = 2
  /** Entries have eight bytes. */
  wide = false
  writeProtect = false
  smep = false
  smap = false
  noExecute = false
  pageSizeExtensions = false
  /** Guest-physical address of the table that CR3 names. */
  root = 0
  /** What tables made from this mode's entries depend on, to key shadow tables with. */
  roleBits = 0
  /** The four PDPTE registers of PAE, as words: loaded with CR3, not when memory changes. (SDM Vol. 3A, "PDPTE Registers") */
  readonly pdptes = new Int32Array(8)

  /** Take over the registers. CR3 itself, and what it loads, come with `loadRoot`. */
  loadMode(port: PagingPort): void {
    const { format, cr0, cr4, efer } = port.guestPaging()
    this.format = format
    this.levels = LEVELS[format]
    this.wide = format === 'pae' || format === 'fourLevel'
    this.writeProtect = (cr0 & CR0.wp) !== 0
    this.smep = (cr4 & CR4.smep) !== 0
    this.smap = (cr4 & CR4.smap) !== 0
    this.noExecute = this.wide && (efer & EFER.nxe) !== 0
    this.pageSizeExtensions = (cr4 & CR4.pse) !== 0
    this.roleBits = (CODES[format] << 3) | (this.noExecute ? 1 << 9 : 0) | (this.pageSizeExtensions ? 1 << 10 : 0)
  }

  loadRoot(port: PagingPort, memory: GuestMemory, physicalAddressBits: number): void {
    const { cr3 } = port.guestPaging()
    const low = Number(cr3 & 0xffff_f000n)
    if (this.format === 'fourLevel') {
      const high = Number((cr3 >> 32n) & ((1n << BigInt(physicalAddressBits - 32)) - 1n))
      this.root = high * 0x1_0000_0000 + low
    } else if (this.format === 'pae') {
      this.root = Number(cr3 & 0xffff_ffe0n)
      for (let i = 0; i < 8; i++) this.pdptes[i] = memory.readU32(this.root + i * 4) ?? -1
    } else {
      this.root = low
    }
  }
}
