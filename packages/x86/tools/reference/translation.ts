/**
 * Linear addresses to physical ones as the manual says, from memory each time (4-level paging), and beside it what a processor *may* still hold of walks
 * done before: where software changed a table and has not invalidated what came of it, either answer is right, and the program's outcome is not defined.
 * (SDM Vol. 3A, "4-Level Paging", "Caching Translation Information")
 */

export interface WalkRegisters {
  /** Physical address of the root table: CR3 without its flags. */
  readonly table: number
  readonly pcid: number
  readonly wp: boolean
  readonly smep: boolean
  readonly smap: boolean
  readonly nxe: boolean
  readonly pge: boolean
}

export interface Access {
  readonly write: boolean
  readonly user: boolean
  readonly fetch: boolean
  /** SMAP is in force: no EFLAGS.AC, or an implicit access. */
  readonly guarded: boolean
}

/** Physical memory in which the tables lie, by halves of an entry: 32 bits at an address. */
export interface PhysicalMemory {
  readWord(physical: number): number
  writeWord(physical: number, value: number): void
}

/** A change that was not invalidated is met, or something that this machine does not model: from here on nothing is compared. */
export class Undefined {
  readonly why: string
  constructor(why: string) {
    this.why = why
  }
}

/** Flags of an entry's low half, and of its high one. */
const P = 1, RW = 2, US = 4, A = 0x20, D = 0x40, PS = 0x80, G = 0x100
const NX = 0x8000_0000
const PHYSICAL_BITS = 40
const ADDRESS_HIGH = 2 ** (PHYSICAL_BITS - 32) - 1
const RESERVED_HIGH = 0xf_ffff & ~ADDRESS_HIGH
const ADDRESS_LOW = 0xffff_f000

/** Bits of a linear page number. */
const PAGE_BITS = 36

/** An entry above the leaf, or a page, that may be cached. */
interface Upper {
  readonly low: number
  readonly high: number
  readonly nxe: boolean
}
/** Level of the leaf, whether NX was a flag and not a reserved bit, and the halves of the entries that a walk used, from the root's down: what a TLB entry stands for. */
type Path = readonly number[]

/** A page fault: the error code, below zero so that it is no physical address. */
export const isFault = (translation: number): boolean => translation < 0
export const errorCode = (translation: number): number => -1 - translation

/** All that may be cached, by what it is cached for. */
export class Translations {
  /** By linear page number: of a PCID, and global. */
  readonly #pages = new Map<number, Path>()
  /** Entries above the leaf, by PCID, level and the address bits that select them. */
  readonly #upper = new Map<number, Upper>()
  readonly #memory: PhysicalMemory
  /** The walk's entries so far: where, the low half with what was marked, the high half, the low half as it was read. */
  readonly #at = [0, 0, 0, 0]
  readonly #low = [0, 0, 0, 0]
  readonly #high = [0, 0, 0, 0]
  readonly #read = [0, 0, 0, 0]

  constructor(memory: PhysicalMemory) {
    this.#memory = memory
  }
  clear(): void {
    this.#pages.clear()
    this.#upper.clear()
  }

  /** The physical address, or a page fault (`isFault`). */
  translate(linear: bigint, access: Access, regs: WalkRegisters): number {
    const intent = (access.write ? 2 : 0) | (access.user ? 4 : 0) | (access.fetch && (regs.nxe || regs.smep) ? 16 : 0)
    const page = pageOf(linear)
    let table = regs.table
    let writable = true, user = true, executable = true
    for (let level = 4; ; level--) {
      const n = 4 - level
      const at = table + (Math.floor(page / SPAN[level]!) % 512) * 8
      const low = this.#memory.readWord(at), high = this.#memory.readWord(at + 4)
      this.#at[n] = at
      this.#low[n] = this.#read[n] = low
      this.#high[n] = high
      const leaf = level === 1 || (level < 4 && (low & PS) !== 0)
      if (level > 1) this.#checkUpper(page, level, low, high, regs)
      let isReserved = (high & RESERVED_HIGH) !== 0 || (!regs.nxe && (high & NX) !== 0)
      if (level === 4 && low & PS) isReserved = true
      // Between a large page's PAT bit and its address.
      if (leaf && level > 1 && ((low & ~0x1fff) >>> 0) % (SPAN[level]! * 4096)) isReserved = true
      const present = (low & P) !== 0
      if (leaf || !present || isReserved) this.#checkPage(page, level, regs)
      if (!present) return this.#fault(linear, intent, regs)
      if (isReserved) return this.#fault(linear, intent | 9, regs)
      writable &&= (low & RW) !== 0
      user &&= (low & US) !== 0
      executable &&= (high & NX) === 0
      if (!leaf) {
        // It is used, whatever comes below: its accessed flag is set.
        if (!(low & A)) this.#memory.writeWord(at, low | A)
        this.#low[n] = low | A
        table = addressOf(low, high)
        continue
      }
      if (!permits({ writable, user, executable }, access, regs)) return this.#fault(linear, intent | 1, regs)
      this.#mark(page, access, regs, level)
      const size = SPAN[level]! * 4096
      const base = addressOf(low, high)
      return base - (base % size) + (page % SPAN[level]!) * 4096 + Number(linear & 0xfffn)
    }
  }

  /** Accessed and dirty flags, and what may be remembered of the walk from now on. */
  #mark(page: number, access: Access, regs: WalkRegisters, leafLevel: number): void {
    const path = [leafLevel, regs.nxe ? 1 : 0]
    const last = 4 - leafLevel
    for (let n = 0; n <= last; n++) {
      const low = this.#low[n]!, high = this.#high[n]!
      const marked = low | A | (n === last && access.write ? D : 0)
      // Two levels may share one table entry: the later level sees what the earlier one marked.
      if (marked !== low) this.#memory.writeWord(this.#at[n]!, this.#memory.readWord(this.#at[n]!) | marked)
      path.push(marked, high)
      this.#low[n] = marked
      if (n !== last) this.#upper.set(upperKey(page, 4 - n, regs.pcid), { low: marked, high, nxe: regs.nxe })
    }
    const owner = regs.pge && (this.#low[last]! & G) !== 0 ? GLOBAL : regs.pcid
    this.#pages.set(pageKey(page, owner), path)
    // A large page is remembered as a whole.
    if (leafLevel > 1) this.#upper.set(upperKey(page, leafLevel, owner), { low: this.#low[last]!, high: this.#high[last]!, nxe: regs.nxe })
  }

  /** The same entries as when the page was last used, the one at `level` as it was read: a dirty flag that the processor has yet to set counts. */
  #checkPage(page: number, level: number, regs: WalkRegisters): void {
    for (let owner = regs.pcid; ; owner = GLOBAL) {
      const known = this.#pages.get(pageKey(page, owner))
      if (known && !this.#isPath(known, level, regs.nxe)) throw new Undefined(`the translation of ${show(page)} changed, and was not invalidated`)
      if (owner === GLOBAL) return
    }
  }
  #isPath(known: Path, level: number, nxe: boolean): boolean {
    if (known[0] !== level) return false
    const sameNx = known[1] === (nxe ? 1 : 0)
    for (let n = 0; n <= 4 - level; n++) {
      if (known[2 + 2 * n] !== this.#read[n] || known[3 + 2 * n] !== this.#high[n]) return false
      if (!sameNx && this.#high[n]! & NX) return false
    }
    return true
  }
  #checkUpper(page: number, level: number, low: number, high: number, regs: WalkRegisters): void {
    for (let owner = regs.pcid; ; owner = GLOBAL) {
      const known = this.#upper.get(upperKey(page, level, owner))
      if (known && (known.low !== low || known.high !== high || (high & NX && known.nxe !== regs.nxe))) throw new Undefined(`a level ${level} entry for ${show(page)} changed, and was not invalidated`)
      if (owner === GLOBAL) return
    }
  }

  /** A page fault invalidates what is known of its address. (SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches") */
  #fault(linear: bigint, error: number, { pcid }: WalkRegisters): number {
    this.invalidatePage(linear, pcid, false)
    return -1 - error
  }

  // --- operations that invalidate ---

  /** INVLPG: the page for this PCID and global ones, and this PCID's upper entries for any address. */
  invalidatePage(linear: bigint, pcid: number, allUpper = true): void {
    const page = pageOf(linear)
    for (const owner of [pcid, GLOBAL]) {
      this.#dropPage(page, owner)
      for (let level = 4; level > 1; level--) this.#upper.delete(upperKey(page, level, owner))
    }
    if (allUpper) this.#dropUpper((owner) => owner === pcid)
  }
  /** MOV to CR3: one PCID's, global pages aside. */
  invalidatePcid(pcid: number): void {
    this.#dropPages((owner) => owner === pcid)
    this.#dropUpper((owner) => owner === pcid)
  }
  /** All PCIDs; global pages on demand. */
  invalidateAll(globals: boolean): void {
    this.#dropPages((owner) => globals || owner !== GLOBAL)
    this.#dropUpper((owner) => globals || owner !== GLOBAL)
  }
  /** One PCID's and global pages: CR4.SMEP set, CR4.PAE changed. */
  invalidateCurrent(pcid: number): void {
    this.#dropPages((owner) => owner === pcid || owner === GLOBAL)
    this.#dropUpper((owner) => owner === pcid || owner === GLOBAL)
  }
  /** INVPCID of an address: not global pages. */
  invalidateAddress(linear: bigint, pcid: number): void {
    this.#dropPage(pageOf(linear), pcid)
    this.#dropUpper((owner) => owner === pcid)
  }
  /** The page, of whatever size, that holds an address. */
  #dropPage(page: number, owner: number): void {
    for (const [key, path] of this.#pages) {
      const span = SPAN[path[0]!]!
      if (ownerOfPage(key) === owner && Math.floor((key % 2 ** PAGE_BITS) / span) === Math.floor(page / span)) this.#pages.delete(key)
    }
  }
  #dropPages(which: (owner: number) => boolean): void {
    for (const key of this.#pages.keys()) if (which(ownerOfPage(key))) this.#pages.delete(key)
  }
  #dropUpper(which: (owner: number) => boolean): void {
    for (const key of this.#upper.keys()) if (which(Math.floor(ownerOfPage(key) / 8))) this.#upper.delete(key)
  }
}

/** In place of a PCID: entries that belong to all. */
const GLOBAL = 4096
/** 4 KiB pages that an entry of a level maps. */
const SPAN = [0, 1, 512, 512 ** 2, 512 ** 3]
const pageOf = (linear: bigint): number => Number(BigInt.asUintN(48, linear) >> 12n)
const pageKey = (page: number, owner: number): number => owner * 2 ** PAGE_BITS + page
const ownerOfPage = (key: number): number => Math.floor(key / 2 ** PAGE_BITS)
const upperKey = (page: number, level: number, owner: number): number => (owner * 8 + level) * 2 ** PAGE_BITS + Math.floor(page / SPAN[level]!)
const addressOf = (low: number, high: number): number => (high & ADDRESS_HIGH) * 2 ** 32 + ((low & ADDRESS_LOW) >>> 0)
const show = (page: number): string => `0x${(page * 4096).toString(16)}`

function permits(page: { writable: boolean; user: boolean; executable: boolean }, access: Access, regs: WalkRegisters): boolean {
  if (access.fetch && !page.executable) return false
  if (access.user) return page.user && (!access.write || page.writable)
  if (access.fetch) return !(regs.smep && page.user)
  if (regs.smap && page.user && access.guarded) return false
  return !access.write || page.writable || !regs.wp
}
