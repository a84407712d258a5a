/**
 * What TLBs and paging-structure caches of a domain's vCPUs may still hold, at most: everything that its tables have allowed since the last flush.
 * For tests: counts alone do not show that a flush is missing. Not part of the package.
 */

import { FRAME_USE } from '@nonroot/contracts'
import type { TableCalls } from '@nonroot/contracts'
import type { FrameTable } from '../frame-table.ts'

const [P, RW] = [1, 2]

interface Cached {
  /** Frames that a translation may lead to; those that it may lead writes to. */
  readonly reached: Set<number>
  readonly writable: Set<number>
  /** Level by frame, of tables that a walk may begin in the middle of. */
  readonly tables: Map<number, number>
}

/** A vCPU keeps translations of its kernel's root and of its users' apart. */
const ROOTS = ['kernel', 'user'] as const

export class Translations {
  readonly #frames: FrameTable
  readonly #words: Int32Array
  readonly #tables: Pick<TableCalls, 'root'>
  /** By vCPU, then by root. */
  readonly #cached: readonly (readonly Cached[])[]
  readonly #loaded: number[][]

  constructor(frames: FrameTable, words: Int32Array, tables: Pick<TableCalls, 'root'>, vcpuCount: number) {
    this.#frames = frames
    this.#words = words
    this.#tables = tables
    const empty = (): Cached => ({ reached: new Set(), writable: new Set(), tables: new Map() })
    this.#cached = Array.from({ length: vcpuCount }, () => ROOTS.map(empty))
    this.#loaded = Array.from({ length: vcpuCount }, () => ROOTS.map(() => 0))
  }

  /** As `PagingPort.flushAll`. */
  flush(vcpu: number): void {
    for (const cached of this.#cached[vcpu]!) clear(cached)
  }
  /** As `PagingPort.setRoots`. */
  load(vcpu: number, roots: readonly [kernel: number, user: number]): void {
    roots.forEach((root, which) => {
      if (this.#loaded[vcpu]![which] !== root) clear(this.#cached[vcpu]![which]!)
      this.#loaded[vcpu]![which] = root
    })
  }

  /** Stale translations as they are; then all that the tables allow now may be cached. */
  faults(): string[] {
    const found: string[] = []
    const { owner, use, uses } = this.#frames
    const isChecked = (frame: number): boolean => uses[frame]! > 0 && use[frame] !== FRAME_USE.writable
    this.#cached.forEach((banks, vcpu) =>
      banks.forEach((cached, which) => {
        const who = `vCPU ${vcpu} (${ROOTS[which]})`
        for (const frame of cached.reached)
          if (owner[frame] === 0) found.push(`${who} may still reach frame ${frame}, which was given back`)
        for (const frame of cached.writable)
          if (isChecked(frame)) found.push(`${who} may still write frame ${frame}, which became use ${use[frame]}`)
        for (const [frame, level] of cached.tables)
          if (uses[frame] === 0 || use[frame] !== level)
            found.push(`${who} may still walk frame ${frame} as a table of level ${level}`)
        const root = this.#tables.root(vcpu, ROOTS[which]!)
        if (root !== 0) this.#collect(cached, new Set(), root, 4)
      }),
    )
    return found
  }

  #collect(cached: Cached, seen: Set<number>, table: number, level: number): void {
    if (seen.has(table)) return
    seen.add(table)
    if (level < 4) cached.tables.set(table, level)
    for (let index = 0; index < 512; index++) {
      if (level === 4 && index >= 256 && index < 272) continue
      const low = this.#words[table * 1024 + index * 2]!
      if (!(low & P)) continue
      const target = (low >>> 12) + (this.#words[table * 1024 + index * 2 + 1]! & 0xfffff) * 0x100000
      if (level > 1) {
        this.#collect(cached, seen, target, level - 1)
        continue
      }
      cached.reached.add(target)
      // Whatever the levels above say: they may have said otherwise before.
      if (low & RW) cached.writable.add(target)
    }
  }
}

function clear({ reached, writable, tables }: Cached): void {
  reached.clear()
  writable.clear()
  tables.clear()
}
