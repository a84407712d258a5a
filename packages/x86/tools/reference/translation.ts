/**
 * Linear addresses to physical ones as the manual says, from memory each time (4-level paging), and beside it what a processor *may* still hold of walks
 * done before: where software changed a table and has not invalidated what came of it, either answer is right, and the program's outcome is not defined.
 * (SDM Vol. 3A, "4-Level Paging", "Caching Translation Information")
 */

export interface WalkRegisters {
  /** CR3 as it is. */
  readonly cr3: bigint
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

/** Physical memory in which the tables lie. */
export interface PhysicalMemory {
  readEntry(physical: number): bigint
  writeEntry(physical: number, value: bigint): void
}

/** A change that was not invalidated is met, or something that this machine does not model: from here on nothing is compared. */
export class Undefined {
  readonly why: string
  constructor(why: string) {
    this.why = why
  }
}

export type Translation = { readonly physical: number } | { readonly fault: number }

const P = 1n, RW = 2n, US = 4n, A = 0x20n, D = 0x40n, PS = 0x80n, G = 0x100n
const NX = 1n << 63n
const PHYSICAL_BITS = 40n
const ADDRESS = ((1n << PHYSICAL_BITS) - 1n) & ~0xfffn
const RESERVED_ADDRESS = ((1n << 52n) - 1n) & ~((1n << PHYSICAL_BITS) - 1n)

/** Entries as a walk used them, from the root's down: what a TLB entry stands for. */
type Path = readonly bigint[]

/** All that may be cached, by what it is cached for. */
export class Translations {
  /** By linear page number: of a PCID, and global. */
  readonly #pages = new Map<string, Path>()
  /** Entries above the leaf, by PCID, level and the address bits that select them. */
  readonly #upper = new Map<string, bigint>()
  readonly #memory: PhysicalMemory

  constructor(memory: PhysicalMemory) {
    this.#memory = memory
  }
  clear(): void {
    this.#pages.clear()
    this.#upper.clear()
  }

  translate(linear: bigint, access: Access, regs: WalkRegisters): Translation {
    const intent = (access.write ? 2 : 0) | (access.user ? 4 : 0) | (access.fetch && (regs.nxe || regs.smep) ? 16 : 0)
    const path: bigint[] = [regs.nxe ? 1n : 0n]
    const visited: { at: number; entry: bigint }[] = []
    let table = regs.cr3 & ADDRESS
    let rights = { writable: true, user: true, executable: true }
    for (let level = 4; ; level--) {
      const shift = BigInt(12 + 9 * (level - 1))
      const at = Number(table + ((linear >> shift) & 0x1ffn) * 8n)
      const entry = this.#memory.readEntry(at)
      const leaf = level === 1 || (level < 4 && (entry & PS) !== 0n)
      if (level > 1) this.#checkUpper(linear, level, entry, regs)
      let reserved = RESERVED_ADDRESS
      if (!regs.nxe) reserved |= NX
      if (level === 4) reserved |= PS
      if (leaf && level > 1) reserved |= ((1n << shift) - 1n) & ~0x1fffn
      const ends = leaf || !(entry & P) || (entry & reserved) !== 0n
      if (ends) this.#checkPage(linear, [...path, entry], regs)
      if (!(entry & P)) return this.#fault(linear, intent, regs)
      if (entry & reserved) return this.#fault(linear, intent | 9, regs)
      visited.push({ at, entry })
      path.push(entry)
      rights = {
        writable: rights.writable && (entry & RW) !== 0n,
        user: rights.user && (entry & US) !== 0n,
        executable: rights.executable && (entry & NX) === 0n,
      }
      if (!leaf) {
        // It is used, whatever comes below: its accessed flag is set.
        if (!(entry & A)) this.#memory.writeEntry(at, entry | A)
        visited.at(-1)!.entry |= A
        table = entry & ADDRESS
        continue
      }
      if (!permits(rights, access, regs)) return this.#fault(linear, intent | 1, regs)
      this.#mark(linear, visited, access, regs, level)
      const size = 1n << shift
      return { physical: Number((entry & ADDRESS & ~(size - 1n)) | (linear & (size - 1n))) }
    }
  }

  /** Accessed and dirty flags, and what may be remembered of the walk from now on. */
  #mark(linear: bigint, visited: readonly { at: number; entry: bigint }[], access: Access, regs: WalkRegisters, leafLevel: number): void {
    const path: bigint[] = [regs.nxe ? 1n : 0n]
    for (const [n, { at, entry }] of visited.entries()) {
      const isLeaf = n === visited.length - 1
      const marked = entry | A | (isLeaf && access.write ? D : 0n)
      // Two levels may share one table entry: the later level sees what the earlier one marked.
      if (marked !== entry) this.#memory.writeEntry(at, this.#memory.readEntry(at) | marked)
      path.push(marked)
      if (!isLeaf) this.#upper.set(upperKey(linear, 4 - n, regs.pcid), marked)
    }
    const owner = regs.pge && (visited.at(-1)!.entry & G) !== 0n ? GLOBAL : regs.pcid
    this.#pages.set(pageKey(linear, owner), [BigInt(leafLevel), ...path])
    // A large page is remembered as a whole.
    if (leafLevel > 1) this.#upper.set(upperKey(linear, leafLevel, owner), path.at(-1)!)
  }

  /** The same entry as when it was last used, but for a dirty flag that the processor has yet to set. */
  #checkPage(linear: bigint, path: Path, regs: WalkRegisters): void {
    const now = [BigInt(6 - path.length), ...path].join()
    for (const owner of [regs.pcid, GLOBAL]) {
      const known = this.#pages.get(pageKey(linear, owner))
      if (known && known.join() !== now) throw new Undefined(`the translation of ${hex(linear)} changed, and was not invalidated`)
    }
  }
  #checkUpper(linear: bigint, level: number, entry: bigint, regs: WalkRegisters): void {
    for (const owner of [regs.pcid, GLOBAL]) {
      const known = this.#upper.get(upperKey(linear, level, owner))
      if (known !== undefined && known !== entry) throw new Undefined(`a level ${level} entry for ${hex(linear)} changed, and was not invalidated`)
    }
  }

  /** A page fault invalidates what is known of its address. (SDM Vol. 3A, "Operations that Invalidate TLBs and Paging-Structure Caches") */
  #fault(linear: bigint, error: number, { pcid }: WalkRegisters): Translation {
    this.invalidatePage(linear, pcid, false)
    return { fault: error }
  }

  // --- operations that invalidate ---

  /** INVLPG: the page for this PCID and global ones, and this PCID's upper entries for any address. */
  invalidatePage(linear: bigint, pcid: number, allUpper = true): void {
    for (const owner of [pcid, GLOBAL]) {
      this.#dropPage(linear, owner)
      for (let level = 4; level > 1; level--) this.#upper.delete(upperKey(linear, level, owner))
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
    this.#dropPage(linear, pcid)
    this.#dropUpper((owner) => owner === pcid)
  }
  /** The page, of whatever size, that holds an address. */
  #dropPage(linear: bigint, owner: number): void {
    for (const [key, path] of this.#pages) {
      const [who, page] = key.split('/')
      const span = 9n * (path[0]! - 1n)
      if (Number(who) === owner && BigInt(page!) >> span === (BigInt.asUintN(64, linear) >> 12n) >> span) this.#pages.delete(key)
    }
  }
  #dropPages(which: (owner: number) => boolean): void {
    for (const key of this.#pages.keys()) if (which(Number(key.split('/')[0]))) this.#pages.delete(key)
  }
  #dropUpper(which: (owner: number) => boolean): void {
    for (const key of this.#upper.keys()) if (which(Number(key.split('/')[0]))) this.#upper.delete(key)
  }
}

/** In place of a PCID: entries that belong to all. */
const GLOBAL = -1
const pageKey = (linear: bigint, owner: number): string => `${owner}/${BigInt.asUintN(64, linear) >> 12n}`
const upperKey = (linear: bigint, level: number, pcid: number): string => `${pcid}/${level}/${BigInt.asUintN(48, linear) >> BigInt(12 + 9 * (level - 1))}`
const hex = (value: bigint): string => `0x${BigInt.asUintN(64, value).toString(16)}`

function permits(page: { writable: boolean; user: boolean; executable: boolean }, access: Access, regs: WalkRegisters): boolean {
  if (access.fetch && !page.executable) return false
  if (access.user) return page.user && (!access.write || page.writable)
  if (access.fetch) return !(regs.smep && page.user)
  if (regs.smap && page.user && access.guarded) return false
  return !access.write || page.writable || !regs.wp
}
