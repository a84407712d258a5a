/** Shadow tables: the hardware's counterpart of one guest table (or of a piece of a large page), and the pool of them. Independent of vCPUs. */

import { FRAME_SHIFT } from '@nonroot/contracts'
import type { GuestFrames, HostMemory, Hpa } from '@nonroot/contracts'

/**
 * ```
 *             first write to it                CR3 or INVLPG
 *   synced ───────────────────► unsynced ──────────────────► synced
 * ```
 * Synced: no hardware table lets the guest write the table it shadows. Unsynced (level 1 only): the guest writes freely, and the
 * shadow may lag behind as a TLB may.
 */
export class ShadowTable {
  /** Host frame with the hardware's entries. */
  frame = 0 as Hpa
  level = 0
  wide = false
  /** Format, level, access and mode bits: equal ones may share. */
  role = 0
  /** `Access` bits of the guest entries above. */
  access = 0
  /** Guest frame it shadows; -1: none, it is a piece of a large page or a root of ours. */
  guestFrame = -1
  /** For a piece of a large page, the guest-physical address that entry 0 maps. */
  base = 0
  unsynced = false
  /** How many vCPUs have it as root: it may be emptied, not freed. */
  pins = 0
  /** Serial number of the fault that last went through it. */
  used = 0
  /** Emulated writes to the guest table since then. */
  writes = 0
  /** Entries above that point here, as word indices. */
  readonly parents: number[] = []
  /** Next table of the same guest frame. */
  next: ShadowTable | undefined
  /** Guest frame that each present leaf maps. Kept with the object when it is used again. */
  leaves: Int32Array | undefined

  get isDirect(): boolean {
    return this.guestFrame < 0
  }
  get entries(): number {
    return this.wide ? 512 : 1024
  }
  /** Word index of entry `index`. */
  word(index: number): number {
    return (this.frame >>> 2) + (this.wide ? index * 2 : index)
  }
  /** Entry that `word` is. */
  indexOf(word: number): number {
    const offset = word - (this.frame >>> 2)
    return this.wide ? offset >>> 1 : offset
  }
}

export class TablePool {
  /** Live tables by host frame number. */
  readonly byFrame = new Map<number, ShadowTable>()
  /** First table that shadows a guest frame, by its number. */
  private readonly heads: (ShadowTable | undefined)[] = []
  private readonly idle: ShadowTable[] = []
  private readonly host: HostMemory
  /** Guest frames that there can be. */
  readonly guestFrames: number

  constructor(host: HostMemory, guest: GuestFrames) {
    this.host = host
    const end = guest.regions.reduce((last, region) => Math.max(last, region.start + region.length), 0)
    this.guestFrames = Math.ceil(end / 4096)
  }

  get size(): number {
    return this.byFrame.size
  }

  /** The table whose frame holds the entry at `word`. */
  ofWord(word: number): ShadowTable {
    return this.byFrame.get(word >>> (FRAME_SHIFT - 2))!
  }
  /** The table that a present entry points to. */
  below(entry: number): ShadowTable {
    return this.byFrame.get(entry >>> FRAME_SHIFT)!
  }
  /** First of the tables that shadow a guest frame; go on with `next`. */
  shadowing(guestFrame: number): ShadowTable | undefined {
    return this.heads[guestFrame]
  }

  /** An empty table, or undefined when no frame is free. */
  take(role: number, level: number, wide: boolean, access: number, guestFrame: number): ShadowTable | undefined {
    const frame = this.host.allocateFrame()
    if (frame === undefined) return undefined
    const table = this.idle.pop() ?? new ShadowTable()
    table.frame = frame
    table.role = role
    table.level = level
    table.wide = wide
    table.access = access
    table.guestFrame = guestFrame
    table.base = 0
    table.unsynced = false
    table.pins = 0
    table.used = 0
    table.writes = 0
    table.parents.length = 0
    table.next = undefined
    if (level === 1) table.leaves ??= new Int32Array(1024)
    this.byFrame.set(frame >>> FRAME_SHIFT, table)
    if (guestFrame >= 0) {
      table.next = this.heads[guestFrame]
      this.heads[guestFrame] = table
    }
    return table
  }

  /** Give back a table that nothing points to any more. */
  give(table: ShadowTable): void {
    this.byFrame.delete(table.frame >>> FRAME_SHIFT)
    if (table.guestFrame >= 0) {
      let at = this.heads[table.guestFrame]
      if (at === table) this.heads[table.guestFrame] = table.next
      else {
        while (at && at.next !== table) at = at.next
        if (at) at.next = table.next
      }
    }
    table.next = undefined
    this.host.freeFrame(table.frame)
    this.idle.push(table)
  }
}
