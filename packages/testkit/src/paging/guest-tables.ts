/** Guest page tables for tests: a builder over guest memory. Writes entries as an operating system before it turns paging on. */

import type { GuestMemory } from '@nonroot/contracts'

export type TableFormat = 'legacy32' | 'pae' | 'fourLevel'

export const Entry = {
  present: 1n,
  write: 2n,
  user: 4n,
  accessed: 0x20n,
  dirty: 0x40n,
  large: 0x80n,
  global: 0x100n,
  noExecute: 1n << 63n,
} as const

/** Everything allowed at a level above the leaf. */
export const OPEN = Entry.present | Entry.write | Entry.user

export const LEVELS = { legacy32: 2, pae: 3, fourLevel: 4 } as const

export class GuestTables {
  readonly format: TableFormat
  readonly root: number
  readonly bytes: 4 | 8
  private readonly memory: GuestMemory
  private readonly allocate: () => number

  constructor(memory: GuestMemory, format: TableFormat, allocate: () => number) {
    this.memory = memory
    this.format = format
    this.bytes = format === 'legacy32' ? 4 : 8
    this.allocate = allocate
    this.root = allocate()
  }

  read(address: number): bigint {
    return this.bytes === 4 ? BigInt(this.memory.readU32(address)!) : this.memory.readU64(address)!
  }
  set(address: number, entry: bigint): void {
    if (this.bytes === 4) this.memory.writeU32(address, Number(entry & 0xffff_ffffn))
    else this.memory.writeU64(address, entry)
  }

  index(linear: bigint, level: number): number {
    const shift = BigInt(12 + (level - 1) * (this.bytes === 4 ? 10 : 9))
    const mask = this.bytes === 4 ? 0x3ffn : this.format === 'pae' && level === 3 ? 3n : 0x1ffn
    return Number((linear >> shift) & mask)
  }

  /** Guest-physical address of the entry of `level` for `linear`; tables above it are made as needed, open to all. */
  entry(linear: bigint, level: number, open = OPEN): number {
    let table = this.root
    for (let at: number = LEVELS[this.format]; ; at--) {
      const address = table + this.index(linear, at) * this.bytes
      if (at === level) return address
      let entry = this.read(address)
      if (!(entry & Entry.present)) {
        // A PDPTE of PAE has no permission bits.
        const bits = this.format === 'pae' && at === 3 ? Entry.present : open
        this.set(address, (entry = BigInt(this.allocate()) | bits))
      }
      table = Number(entry & 0x000f_ffff_ffff_f000n)
    }
  }

  map(linear: bigint, physical: number, bits: bigint, level = 1): number {
    const address = this.entry(linear, level)
    this.set(address, BigInt(physical) | bits | Entry.present | (level > 1 ? Entry.large : 0n))
    return address
  }
}
