/** The little world that test programs run in: an address space with every kind of page, registers, segments, a deterministic chip around. */
import { createTestHostMemory } from '@nonroot/testkit'
import type { HostMemory } from '@nonroot/contracts'
import type { Core, ProcessorHost } from '../../src/state/core.ts'
import { flushAll } from '../../src/paging/tlb/tlb.ts'
import { updatePaging } from '../../src/paging/walk.ts'
import { S, SEGMENT } from '../../src/state/layout.ts'
import { setSegment } from '../../src/state/segments.ts'
import { RIGHTS } from '../../src/state/register-bits.ts'
import { updateMode } from '../../src/control/update-mode.ts'
import type { Random } from '../float/operands.ts'

export type CodeSize = 16 | 32 | 64

/** Linear addresses. */
export const CODE = 0x40_0000
export const DATA = 0x50_0000
export const GDT = 0x52_0000
/** Pages of each. */
export const PAGES = 16
const AREA = PAGES << 12
/** Pages of the data that are there and writable: programs aim at these mostly. */
export const PLAIN_PAGES = 8
/** A page of the data for a program's own counters: nothing else aims at it. */
export const COUNTERS = DATA + 0xa000
/** The data page that is the first page of code under another address. */
export const ALIAS = DATA + 0xd000
export const STACK = DATA + 0x7800
/** Where FS and GS lead in 64-bit mode. */
export const FS_BASE = DATA + 0x1000
export const GS_BASE = DATA + 0x3000

const DEVICE = 0xfe00_0000

const P = 1, W = 2, U = 4, D = 0x40
const NX = 1n << 63n
/** Rights of the pages of data that are not plain. */
const ODD_DATA: Record<number, bigint> = { 11: 0n, 12: BigInt(P | U), 14: NX | BigInt(P | W | U), 15: BigInt(P | W) }
const ODD_CODE: Record<number, bigint> = { 8: BigInt(P | U), 9: 0n }

/** A write to the device page, in order. */
export interface DeviceWrite {
  readonly address: number
  readonly size: number
  readonly value: number
}

const mix = (a: number, b: number): number => Math.imul(a ^ 0x9e37_79b9, b | 1) >>> 7

export class Surroundings implements ProcessorHost {
  readonly memory: HostMemory
  readonly writes: DeviceWrite[] = []
  /** Called at every access to a port or device. */
  onAccess = (): void => {}
  constructor(frames: number) {
    this.memory = createTestHostMemory(frames)
  }
  /** What is memory to the guest: the processor's own blocks, for one, are not. */
  guest = { start: 0, end: 0 }
  hostAddress(physical: number): number {
    return physical >= this.guest.start && physical < this.guest.end ? physical : -1
  }
  readPort(port: number, size: number): number {
    this.onAccess()
    return mix(port, size)
  }
  writePort(port: number, size: number, value: number): void {
    this.onAccess()
    this.writes.push({ address: port, size, value })
  }
  readDevice(physical: number, size: number): number {
    this.onAccess()
    return mix(physical, size)
  }
  writeDevice(physical: number, size: number, value: number): void {
    this.onAccess()
    this.writes.push({ address: physical, size, value })
  }
  readTsc(): bigint {
    return 0x1234_5678_9abcn
  }
  readMsr(): undefined {
    return undefined
  }
  writeMsr(): boolean {
    return false
  }
  random64(): bigint {
    return 0x0123_4567_89ab_cdefn
  }
  readTaskPriority(): number {
    return 0
  }
  writeTaskPriority(): void {}
}

/** Descriptors of the GDT, by selector. */
export const SELECTOR = { code64: 0x08, data: 0x10, code32: 0x18, code16: 0x20, userCode64: 0x2b, userData: 0x33, userCode32: 0x3b, userCode16: 0x43 } as const

export class World {
  readonly core: Core
  /** HPA of the areas. */
  readonly code: number
  readonly data: number
  readonly #gdt: number
  /** Everything of memory that a program can change: code, data and page tables lie in one piece. */
  readonly start: number
  readonly end: number
  readonly #root: number
  /** Words of the page table with entries for memory. */
  #leaves: readonly number[] = []
  /** HPA of the page tables, behind all that a program can reach. */
  readonly tables: number

  constructor(core: Core, surroundings: Surroundings) {
    this.core = core
    const frames = 2 * PAGES + 1 + 4
    this.start = core.memory.allocateFrames(frames, 1)!
    this.end = this.start + frames * 4096
    this.code = this.start
    this.data = this.start + AREA
    this.#gdt = this.data + AREA
    this.tables = this.#gdt + 4096
    this.#root = this.tables
    surroundings.guest = this
  }

  get bytes(): Uint8Array {
    return this.core.u8.subarray(this.start, this.end)
  }

  /** HPA of a linear address of code or data. */
  host(linear: number): number {
    return linear >= DATA ? this.data + linear - DATA : this.code + linear - CODE
  }

  /** Memory as every program finds it, but for its own code. */
  fill(random: Random): void {
    const words = new Uint32Array(this.core.memory.memory.buffer, this.start, AREA / 2)
    for (let n = 0; n < words.length; n++) words[n] = random.below(3) ? random.u32() : 0
    this.#writeTables()
    this.#writeGdt()
    this.noteAll()
  }
  /** The processor hears that all of it may have changed. */
  noteAll(): void {
    for (let at = this.start; at < this.start + 2 * AREA; at += 4096) this.core.memory.noteWrite(at as never, 4096)
    flushAll(this.core)
  }

  /**
   * HPAs of the pages that were written since `markClean`, by the dirty flags of the page tables: what the walks behind all accesses say.
   * (SDM Vol. 3A, "Accessed and Dirty Flags")
   */
  dirtyPages(): number[] {
    const { i32 } = this.core
    return this.#leaves.filter((word) => i32[word]! & D).map((word) => i32[word]! & ~0xfff)
  }
  /** The TLB must be flushed with it: it holds what is dirty. */
  markClean(): void {
    for (const word of this.#leaves) this.core.i32[word]! &= ~D
  }

  #writeTables(): void {
    const { view, u8 } = this.core
    const [pml4, pdpt, pd, table] = [0, 1, 2, 3].map((n) => this.tables + n * 4096) as [number, number, number, number]
    u8.fill(0, pml4, pml4 + 4 * 4096)
    const entry = (at: number, index: number, value: bigint) => view.setBigUint64(at + 8 * index, value, true)
    const all = BigInt(P | W | U)
    entry(pml4, 0, BigInt(pdpt) | all)
    entry(pdpt, 0, BigInt(pd) | all)
    entry(pd, CODE >>> 21, BigInt(table) | all)
    const index = (linear: number) => (linear >>> 12) & 511
    for (let page = 0; page < PAGES; page++) {
      entry(table, index(CODE) + page, BigInt(this.code + page * 4096) | (ODD_CODE[page] ?? all))
      entry(table, index(DATA) + page, BigInt(this.data + page * 4096) | (ODD_DATA[page] ?? all))
    }
    entry(table, index(DATA) + 9, BigInt(DEVICE) | all)
    entry(table, index(ALIAS), BigInt(this.code) | all)
    entry(table, index(GDT), BigInt(this.#gdt) | BigInt(P | W))
    this.#leaves = [CODE, DATA].flatMap((area) => Array.from({ length: PAGES }, (_, page) => index(area) + page)).concat(index(GDT))
      .map((n) => (table + 8 * n) >>> 2)
      .filter((word) => this.core.i32[word]! & P && this.core.i32[word]! >>> 0 < DEVICE)
  }

  #writeGdt(): void {
    const { view } = this.core
    const code = (dpl: number, bits: number) => 0x0000_9b00 | (dpl << 13) | (bits === 64 ? 0x20_0000 : bits === 32 ? 0xcf_0000 : 0x0f_0000)
    const data = (dpl: number) => 0x00cf_9300 | (dpl << 13)
    const high = [0, code(0, 64), data(0), code(0, 32), code(0, 16), code(3, 64), data(3), code(3, 32), code(3, 16)]
    for (const [n, word] of high.entries()) {
      view.setUint32(this.#gdt + 8 * n, n === 0 ? 0 : 0xffff, true)
      view.setUint32(this.#gdt + 8 * n + 4, word, true)
    }
  }

  /** Mode, segments and control registers for code of that size at that privilege. All of it in long mode, with paging. */
  enter(codeSize: CodeSize, user: boolean, options: { alignment?: boolean; stack16?: boolean } = {}): void {
    const { core } = this
    core.set64(S.cr3, BigInt(this.#root))
    core.set64(S.cr0, options.alignment ? 0x8005_0033n : 0x8001_0033n) // PG, (AM,) WP, NE, ET, MP, PE
    core.set64(S.cr4, 0x6a0n) // OSXMMEXCPT, OSFXSR, PGE, PAE
    core.set64(S.efer, 0xd01n) // NXE, LMA, LME, SCE
    const dpl = user ? 0x60 : 0
    const rights = RIGHTS.user | RIGHTS.present | dpl | RIGHTS.accessed | RIGHTS.readWrite | RIGHTS.granular
    const base = codeSize === 16 ? DATA : 0
    const dataSelector = user ? SELECTOR.userData : SELECTOR.data
    for (const n of [SEGMENT.es, SEGMENT.ss, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs]) {
      const at = codeSize !== 64 ? base : n === SEGMENT.fs ? FS_BASE : n === SEGMENT.gs ? GS_BASE : 0
      const big = n === SEGMENT.ss && (options.stack16 || codeSize === 16) ? 0 : RIGHTS.big
      setSegment(core, n, dataSelector, at, 0, -1, rights | big)
    }
    const which = `${user ? 'userCode' : 'code'}${codeSize}` as keyof typeof SELECTOR
    const size = codeSize === 64 ? RIGHTS.long : codeSize === 32 ? RIGHTS.big : 0
    setSegment(core, SEGMENT.cs, SELECTOR[which], codeSize === 16 ? CODE : 0, 0, codeSize === 16 ? 0xffff : -1, rights | RIGHTS.code | size)
    setSegment(core, SEGMENT.gdtr, 0, GDT, 0, 0x4f, 0)
    setSegment(core, SEGMENT.idtr, 0, GDT, 0, 0, 0)
    setSegment(core, SEGMENT.ldtr, 0, 0, 0, 0, 0x1_0000)
    setSegment(core, SEGMENT.tr, 0, GDT, 0, 0, 0x8b)
    core.set32(S.cpl, user ? 3 : 0)
    for (const slot of [S.dr0, S.dr1, S.dr2, S.dr3]) core.set64(slot, 0n)
    core.set64(S.dr6, 0xffff_0ff0n)
    core.set64(S.dr7, 0x400n)
    core.set64(S.kernelGsBase, BigInt(DATA + 0x2000))
    for (const slot of [S.shadow, S.attention, S.nmiBlocked]) core.set32(slot, 0)
    core.pendingDebug = 0
    core.delivering = undefined
    updatePaging(core)
    updateMode(core)
    flushAll(core)
  }
}

/** Base that offsets of an ordinary data access count from. */
export const dataBase = (codeSize: CodeSize): number => (codeSize === 16 ? DATA : 0)
export const codeBase = (codeSize: CodeSize): number => (codeSize === 16 ? CODE : 0)
