/**
 * @hot Builds shadow tables from guest tables and keeps them in step: write protection of what is shadowed, unsynchronised leaf
 * tables, reverse map, eviction. Independent of vCPUs: the strategy calls it.
 */

import { PAGE_ENTRY } from '@nonroot/contracts'
import type { Counter, GuestFrames, GuestMemory, HostMemory, Metrics } from '@nonroot/contracts'
import { Access, entryIndex, entrySpan } from './entry.ts'
import type { GuestPaging } from './guest-paging.ts'
import type { GuestWalk } from './guest-walk.ts'
import { NONE, ReverseMap } from './reverse-map.ts'
import { TablePool, type ShadowTable } from './table.ts'

export interface ShadowContext {
  readonly hostMemory: HostMemory
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  readonly metrics: Metrics
}

/** An entry that points to a table allows everything: the leaves hold what all levels allow together. */
const TABLE_BITS = PAGE_ENTRY.present | PAGE_ENTRY.writable | PAGE_ENTRY.user | PAGE_ENTRY.accessed
/** In a PDPTE of PAE the other bits are reserved. */
const PDPTE_BITS = PAGE_ENTRY.present
/** Emulated writes without a use in between after which a guest table is taken for ordinary memory again. */
const FLOOD = 3
const HIGH = 0x1_0000_0000

/** Level bits 2:0, format 5:3, access 8:6, mode 10:9. */
const roleOf = (level: number, mode: GuestPaging, access: number): number => level | mode.roleBits | (access << 6)
const ROLE_NO_EXECUTE = 1 << 9

export class ShadowTables {
  /** A present entry was taken back or narrowed: flush before the guest goes on. */
  flushNeeded = false
  /** An entry of a PAE root changed: the hardware has it in registers. */
  reloadRoots = false
  private readonly guest: GuestFrames
  private readonly words: Int32Array
  private readonly pool: TablePool
  private readonly reverse: ReverseMap
  /** Leaves that lead to registers of assigned devices, at frames that the reverse map has no place for: by the index of their word. */
  private readonly registerLeaves = new Set<number>()
  /** Synced tables by guest frame: where not 0, no leaf may be writable. */
  private readonly protectedBy: Uint16Array
  private unsynced: ShadowTable[] = []
  private readonly maxTables: number
  private serial = 1
  private readonly made: Counter
  private readonly dropped: Counter
  private readonly fills: Counter
  private readonly registerMaps: Counter
  private readonly unsyncs: Counter
  private readonly resyncs: Counter

  constructor(context: ShadowContext, maxTables: number) {
    const { metrics } = context
    this.guest = context.guestFrames
    this.words = context.hostMemory.words
    this.pool = new TablePool(context.hostMemory, context.guestFrames)
    this.reverse = new ReverseMap(this.pool.guestFrames)
    this.protectedBy = new Uint16Array(this.pool.guestFrames)
    this.maxTables = maxTables
    this.made = metrics.counter('tablesMade', 'Shadow tables made')
    this.dropped = metrics.counter('tablesDropped', 'Shadow tables dropped')
    this.fills = metrics.counter('fills', 'Shadow leaves written')
    this.registerMaps = metrics.counter('registerMaps', "Leaves written that lead to the host's bus")
    this.unsyncs = metrics.counter('unsyncs', 'Leaf tables that the guest was let write freely')
    this.resyncs = metrics.counter('resyncs', 'Unsynchronised tables brought up to date')
  }

  get size(): number {
    return this.pool.size
  }

  /** The root for a guest mode, pinned in place of `before`. Undefined: no frame is free. */
  root(mode: GuestPaging, before: ShadowTable | undefined): ShadowTable | undefined {
    this.serial++
    let root: ShadowTable | undefined
    const frame = Math.floor(mode.root / 4096)
    if (mode.format === 'none' || mode.format === 'pae' || !this.isBacked(frame)) {
      // A root of ours, one a vCPU: identity, PDPTE registers, or nothing at all.
      const role = roleOf(mode.levels, mode, Access.all)
      if (before?.isDirect && before.role === role && before.pins === 1) root = before
      else root = this.make(role, mode.levels, mode.wide, Access.all, -1)
      if (root && mode.format === 'pae') this.loadPdptes(root, mode)
    } else {
      root = this.find(frame, mode.levels, mode, Access.all)
    }
    if (!root) return undefined
    if (root !== before) {
      root.pins++
      if (before && --before.pins === 0 && before.isDirect) this.drop(before)
    }
    return root
  }

  /** PAE loads all four at once; the tables they name are shadowed at once, so that the hardware's registers stay true. */
  private loadPdptes(root: ShadowTable, mode: GuestPaging): void {
    for (let index = 0; index < 4; index++) {
      this.dropEntry(root, index)
      const low = mode.pdptes[index * 2]!
      if ((low & PAGE_ENTRY.present) === 0) continue
      const address = (mode.pdptes[index * 2 + 1]! & 0xf_ffff) * HIGH + ((low & ~0xfff) >>> 0)
      const frame = Math.floor(address / 4096)
      const below = this.isBacked(frame) ? this.find(frame, 2, mode, Access.all) : undefined
      if (below) this.link(root.word(index), below, PDPTE_BITS)
    }
    this.reloadRoots = false
  }

  /**
   * Make the path and the leaf for a walk that was allowed. `hostFrame`: where its page is, in memory or among the registers on the host's
   * bus; `write`: the access is a write, and the frame may be written. False: no frame is free.
   */
  fill(
    root: ShadowTable,
    walk: GuestWalk,
    mode: GuestPaging,
    low: number,
    high: number,
    hostFrame: number,
    write: boolean,
  ): boolean {
    const serial = ++this.serial
    const { wide } = root
    let table = root
    for (let level = root.level; level > 1; level--) {
      table.used = serial
      table.writes = 0
      const index = entryIndex(wide, low, high, level)
      const word = table.word(index)
      const entry = this.words[word]!
      if ((entry & PAGE_ENTRY.present) !== 0) {
        table = this.pool.below(entry)
        continue
      }
      let below: ShadowTable | undefined
      if (level > walk.level) {
        below = this.find(Math.floor(walk.tableBelow[level]! / 4096), level - 1, mode, walk.accessAbove[level]!)
      } else {
        below = this.make(roleOf(level - 1, mode, walk.access), level - 1, wide, walk.access, -1)
        if (below) below.base = level === walk.level ? walk.page : table.base + index * entrySpan(wide, level)
      }
      if (!below) return false
      if (level === 3 && mode.levels === 3) {
        this.link(word, below, PDPTE_BITS)
        this.reloadRoots = true
      } else {
        this.link(word, below, TABLE_BITS)
      }
      table = below
    }
    table.used = serial
    const index = entryIndex(wide, low, high, 1)
    if (hostFrame >= HIGH) this.fillRegisters(table, index, walk, hostFrame)
    else this.fillLeaf(table, index, walk, hostFrame, write)
    return true
  }

  private fillLeaf(table: ShadowTable, index: number, walk: GuestWalk, hostFrame: number, write: boolean): void {
    const frame = Math.floor(walk.address / 4096)
    const word = table.word(index)
    const writable =
      (walk.access & Access.write) !== 0 &&
      walk.dirty &&
      this.protectedBy[frame] === 0 &&
      (write || this.guest.isWritable(walk.address))
    const entry =
      hostFrame |
      PAGE_ENTRY.present |
      PAGE_ENTRY.accessed |
      PAGE_ENTRY.dirty |
      (writable ? PAGE_ENTRY.writable : 0) |
      (walk.access & Access.user ? PAGE_ENTRY.user : 0)
    const upper = walk.access & Access.execute ? 0 : PAGE_ENTRY.noExecuteHigh
    const old = this.words[word]!
    this.fills.value++
    if ((old & PAGE_ENTRY.present) !== 0) {
      const same = table.leaves![index] === frame && ((old ^ entry) & ~0xfff) === 0
      if (same) {
        // What the hardware cached was narrower or equal, unless something was taken away.
        if (
          (old & ~entry & (PAGE_ENTRY.writable | PAGE_ENTRY.user)) !== 0 ||
          (table.wide && ~this.words[word + 1]! & upper) !== 0
        ) {
          this.flushNeeded = true
        }
      } else {
        this.dropEntry(table, index)
      }
      if (same) {
        if (table.wide) this.words[word + 1] = upper
        this.words[word] = entry
        return
      }
    }
    table.leaves![index] = frame
    this.reverse.add(frame, word)
    if (table.wide) this.words[word + 1] = upper
    this.words[word] = entry
  }

  /** Nothing is executed from there. */
  private fillRegisters(table: ShadowTable, index: number, walk: GuestWalk, hostFrame: number): void {
    const frame = Math.floor(walk.address / 4096)
    const word = table.word(index)
    this.dropEntry(table, index)
    table.leaves![index] = frame
    if (frame < this.pool.guestFrames) this.reverse.add(frame, word)
    else this.registerLeaves.add(word)
    this.words[word + 1] = Math.floor(hostFrame / HIGH) | PAGE_ENTRY.noExecuteHigh
    this.words[word] =
      (hostFrame % HIGH) |
      (PAGE_ENTRY.present | PAGE_ENTRY.accessed | PAGE_ENTRY.dirty) |
      (walk.dirty ? walk.access & Access.write : 0) |
      (walk.access & Access.user)
    this.registerMaps.value++
  }

  /** May the guest write this frame through a leaf? Leaf tables are let go of (unsynchronised) for it; others must be emulated. */
  openForWrite(frame: number): boolean {
    if (this.protectedBy[frame] === 0) return true
    for (let table = this.pool.shadowing(frame); table; table = table.next) {
      if (table.level > 1 && !table.unsynced) return false
    }
    for (let table = this.pool.shadowing(frame); table;) {
      const next = table.next
      if (!table.unsynced) {
        // A table that nothing points to any more is about to become something else.
        if (table.parents.length === 0) this.drop(table)
        else {
          table.unsynced = true
          this.protectedBy[frame]!--
          this.unsynced.push(table)
          this.unsyncs.value++
        }
      }
      table = next
    }
    return true
  }

  /** Bring all unsynchronised tables below `root` up to date and watch them again. */
  synchronise(root: ShadowTable): void {
    if (this.unsynced.length === 0) return
    const pending = this.unsynced
    this.unsynced = []
    for (const table of pending) {
      if (!table.unsynced) continue
      if (table.parents.length === 0) {
        this.drop(table)
      } else if (!this.leadsTo(table, root)) {
        this.unsynced.push(table)
      } else {
        this.resync(table)
        table.unsynced = false
        this.protect(table.guestFrame)
      }
    }
  }

  private leadsTo(table: ShadowTable, root: ShadowTable): boolean {
    if (table === root) return true
    for (const parent of table.parents) if (this.leadsTo(this.pool.ofWord(parent), root)) return true
    return false
  }

  /** INVLPG: what the hardware would read anew for this address. True: the TLB entry of this address, and no other, must go. */
  synchroniseAddress(root: ShadowTable, low: number, high: number): boolean {
    let sole = true
    let table = root
    for (let level = root.level; level > 1; level--) {
      const entry = this.words[table.word(entryIndex(table.wide, low, high, level))]!
      if ((entry & PAGE_ENTRY.present) === 0) return false
      table = this.pool.below(entry)
      if (table.parents.length > 1) sole = false
    }
    if (!table.unsynced) return false
    const before = this.flushNeeded
    this.resyncEntry(table, entryIndex(table.wide, low, high, 1), this.guestWords(table))
    // Reached through one path only, it is cached for one address only.
    if (before || !sole || !this.flushNeeded) return false
    this.flushNeeded = false
    return true
  }

  private resync(table: ShadowTable): void {
    this.resyncs.value++
    const from = this.guestWords(table)
    const first = table.frame >>> 2
    const step = table.wide ? 2 : 1
    const count = table.entries
    for (let index = 0; index < count; index++) {
      if ((this.words[first + index * step]! & PAGE_ENTRY.present) !== 0) this.resyncEntry(table, index, from)
    }
  }

  /** Word index of the guest's table, -1 where it is gone. One that was parked is not shadowed any more. */
  private guestWords(table: ShadowTable): number {
    const host = this.guest.peek(table.guestFrame * 4096)
    return host === undefined ? -1 : host >>> 2
  }

  /** Narrow or drop one leaf so that it allows no more than the guest's entry does now. Widening is left to the next fault. */
  private resyncEntry(table: ShadowTable, index: number, from: number): void {
    const word = table.word(index)
    const old = this.words[word]!
    if ((old & PAGE_ENTRY.present) === 0) return
    const { wide } = table
    const entry = from < 0 ? 0 : this.words[from + (wide ? index * 2 : index)]!
    const upper = wide && from >= 0 ? this.words[from + index * 2 + 1]! : 0
    const frame = (upper & 0xf_ffff) * (HIGH / 4096) + (entry >>> 12)
    const present = (entry & (PAGE_ENTRY.present | PAGE_ENTRY.accessed)) === (PAGE_ENTRY.present | PAGE_ENTRY.accessed)
    const reserved = (upper & PAGE_ENTRY.noExecuteHigh) !== 0 && (table.role & ROLE_NO_EXECUTE) === 0
    if (!present || reserved || frame !== table.leaves![index]) {
      this.dropEntry(table, index)
      return
    }
    const access =
      table.access &
      ((entry & (PAGE_ENTRY.writable | PAGE_ENTRY.user)) | (upper & PAGE_ENTRY.noExecuteHigh ? 0 : Access.execute))
    const writable =
      (old & PAGE_ENTRY.writable) !== 0 && (access & Access.write) !== 0 && (entry & PAGE_ENTRY.dirty) !== 0
    const now =
      (old & ~(PAGE_ENTRY.writable | PAGE_ENTRY.user)) |
      (writable ? PAGE_ENTRY.writable : 0) |
      (access & Access.user ? PAGE_ENTRY.user : 0)
    const above = wide ? this.words[word + 1]! & 0xf_ffff : 0
    const nowUpper = above | (access & Access.execute && above === 0 ? 0 : PAGE_ENTRY.noExecuteHigh)
    if (now === old && (!wide || nowUpper === this.words[word + 1]!)) return
    if (wide) this.words[word + 1] = nowUpper
    this.words[word] = now
    this.flushNeeded = true
  }

  /** The guest wrote a table that is write-protected: forget what was made of those entries. */
  guestWrote(address: number, length: number): void {
    const end = address + length
    for (let at = address; at < end;) {
      const frame = Math.floor(at / 4096)
      const stop = Math.min(end, (frame + 1) * 4096)
      for (let table = frame < this.pool.guestFrames ? this.pool.shadowing(frame) : undefined; table;) {
        const { next } = table
        const shift = table.wide ? 3 : 2
        const last = (stop - 1 - frame * 4096) >>> shift
        for (let index = (at - frame * 4096) >>> shift; index <= last; index++) this.dropEntry(table, index)
        if (++table.writes >= FLOOD && table.pins === 0) this.drop(table)
        table = next
      }
      at = stop
    }
  }

  memoryChanged(address: number, length: number, protect: boolean): void {
    const last = Math.min(Math.ceil((address + length) / 4096), this.pool.guestFrames)
    for (let frame = Math.floor(address / 4096); frame < last; frame++) {
      if (protect) {
        this.removeWriteAccess(frame)
        continue
      }
      for (let node = this.reverse.first(frame); node !== NONE; node = this.reverse.first(frame)) {
        const word = this.reverse.entry(node)
        const table = this.pool.ofWord(word)
        this.dropEntry(table, table.indexOf(word))
      }
      for (let table = this.pool.shadowing(frame); table;) {
        const { next } = table
        this.drop(table)
        table = next
      }
    }
    for (const word of this.registerLeaves) {
      const table = this.pool.ofWord(word)
      const index = table.indexOf(word)
      const at = table.leaves![index]! * 4096
      if (at >= address && at < address + length) this.dropEntry(table, index)
    }
  }

  takeAccessed(frame: number): boolean | undefined {
    if (frame >= this.pool.guestFrames || this.reverse.first(frame) === NONE) return undefined
    let accessed = false
    for (let node = this.reverse.first(frame); node !== NONE; node = this.reverse.next(node)) {
      const word = this.reverse.entry(node)
      if ((this.words[word]! & PAGE_ENTRY.accessed) === 0) continue
      accessed = true
      this.words[word]! &= ~PAGE_ENTRY.accessed
    }
    if (accessed) this.flushNeeded = true
    return accessed
  }

  /** The table that shadows a guest frame in this role, made if need be. Undefined: no frame is free. */
  private find(frame: number, level: number, mode: GuestPaging, access: number): ShadowTable | undefined {
    const role = roleOf(level, mode, access)
    for (let table = this.pool.shadowing(frame); table; table = table.next) {
      if (table.role === role) return table
    }
    const table = this.make(role, level, mode.wide, access, frame)
    if (table) this.protect(frame)
    return table
  }

  private make(
    role: number,
    level: number,
    wide: boolean,
    access: number,
    guestFrame: number,
  ): ShadowTable | undefined {
    if (this.pool.size >= this.maxTables) this.evict()
    let table = this.pool.take(role, level, wide, access, guestFrame)
    if (!table && this.evict()) table = this.pool.take(role, level, wide, access, guestFrame)
    if (!table) return undefined
    table.used = this.serial
    this.made.value++
    return table
  }

  /** One table that a frame may be given for: the oldest of a few that no fault in progress uses. False: there is none. */
  private evict(): boolean {
    let victim: ShadowTable | undefined
    let looked = 0
    for (const table of this.pool.byFrame.values()) {
      if (table.pins > 0 || table.used === this.serial) continue
      if (!victim || table.used < victim.used) victim = table
      // Insertion order is age: the first ones are the likeliest.
      if (++looked === 32) break
    }
    if (!victim) return false
    this.drop(victim)
    return true
  }

  private isBacked(frame: number): boolean {
    const address = frame * 4096
    return this.guest.peek(address) !== undefined || this.guest.state(address) !== undefined
  }

  private link(word: number, below: ShadowTable, bits: number): void {
    // While nothing led to it, no flush brought the leaf tables below it up to date.
    for (const leaf of this.unsynced) if (this.leadsTo(leaf, below)) this.resync(leaf)
    below.parents.push(word)
    this.words[word] = below.frame | bits
  }

  private protect(frame: number): void {
    this.protectedBy[frame]!++
    this.removeWriteAccess(frame)
  }

  private removeWriteAccess(frame: number): void {
    for (let node = this.reverse.first(frame); node !== NONE; node = this.reverse.next(node)) {
      const word = this.reverse.entry(node)
      if ((this.words[word]! & PAGE_ENTRY.writable) === 0) continue
      this.words[word]! &= ~PAGE_ENTRY.writable
      this.flushNeeded = true
    }
  }

  /** Clear one entry, with what hangs on it alone. */
  private dropEntry(table: ShadowTable, index: number): void {
    const word = table.word(index)
    const entry = this.words[word]!
    if ((entry & PAGE_ENTRY.present) === 0) return
    this.words[word] = 0
    this.flushNeeded = true
    if (table.level === 1) {
      const frame = table.leaves![index]!
      if (frame < this.pool.guestFrames) this.reverse.remove(frame, word)
      else this.registerLeaves.delete(word)
      return
    }
    if (table.level === 3 && table.isDirect) this.reloadRoots = true
    const below = this.pool.below(entry)
    below.parents.splice(below.parents.indexOf(word), 1)
    // A guest's table may be linked again; a piece of a large page may not.
    if (below.parents.length === 0 && below.pins === 0 && below.isDirect) this.drop(below)
  }

  /** Empty a table and, unless it is a root in use, free it. */
  private drop(table: ShadowTable): void {
    const first = table.frame >>> 2
    const step = table.wide ? 2 : 1
    for (let index = 0; index < table.entries; index++) {
      if ((this.words[first + index * step]! & PAGE_ENTRY.present) !== 0) this.dropEntry(table, index)
    }
    table.writes = 0
    if (table.pins > 0) return
    for (const parent of table.parents) {
      this.words[parent] = 0
      this.flushNeeded = true
      const above = this.pool.ofWord(parent)
      if (above.level === 3 && above.isDirect) this.reloadRoots = true
    }
    table.parents.length = 0
    if (table.unsynced) {
      const at = this.unsynced.indexOf(table)
      if (at >= 0) this.unsynced.splice(at, 1)
      table.unsynced = false
    } else if (!table.isDirect) {
      this.protectedBy[table.guestFrame]!--
    }
    this.dropped.value++
    this.pool.give(table)
  }

  /** Drop everything but roots in use, and empty those. */
  clear(): void {
    for (const table of [...this.pool.byFrame.values()]) {
      if (this.pool.byFrame.get(table.frame >>> 12) === table) this.drop(table)
    }
  }

  dispose(): void {
    for (const table of this.pool.byFrame.values()) table.pins = 0
    this.clear()
    this.flushNeeded = false
  }
}
