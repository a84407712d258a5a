/**
 * Frequent instructions of translated kernel code, carried out without the virtual CPU: at CPL 0 of the guest, in 64-bit mode, TF clear. What is not
 * simple, faults among it, is left to the virtual CPU, which executes the instruction from the start. @hot
 */

import {
  ACCESS,
  CR4,
  EXIT,
  FLAG,
  gpr,
  GuestFault,
  isCanonical48,
  Left,
  readFlags,
  readLinear,
  RSP,
  S,
  SEG,
  segment,
  SEGMENT,
  setShadow,
  SHADOW,
  updateMode,
  wordsAt,
  writeFlags,
  writeRange,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { TRAP_BYTES } from '../translation/encode.ts'
import { POINT } from '../translation/points.ts'
import { HIDDEN, UNUSUAL, type Target } from '../translation/shortcuts.ts'
import type { Translations } from '../translation/translations.ts'

/** The virtual CPU has to execute it. */
export const SLOW = -1
const GS_BASE = segment(SEGMENT.gs) + SEG.base
const WORD = 8

export class Shortcuts {
  readonly #core: Core
  readonly #translations: Translations
  readonly #bytes = new Uint8Array(WORD)
  readonly #view = new DataView(this.#bytes.buffer)
  /** What was read last. */
  #low = 0
  #high = 0

  constructor(core: Core, translations: Translations) {
    this.#core = core
    this.#translations = translations
  }

  /** Deprivileged code was left at an offset of the cache. */
  settleShadow(at: number): void {
    const { quick } = this.#translations
    if (quick.shadowAt === at) setShadow(this.#core, SHADOW.sti)
    quick.shadowAt = -1
  }

  /** Offset in the cache at which to go on, or SLOW. `at`: the offset of the instruction's trap, which is a byte. */
  run(point: number, kind: number, at: number): number {
    switch (kind) {
      case POINT.return:
        return this.#return(this.#translations.points.extra(point))
      case POINT.indirect:
        return this.#branch(point, this.#translations.targets[this.#translations.points.extra(point)])
      case POINT.cli:
        this.#setFlags(this.#core.get32(S.flags) & ~FLAG.IF)
        return at + TRAP_BYTES
      case POINT.sti:
        return this.#enable(at + TRAP_BYTES)
      case POINT.pushFlags:
        return this.#push(this.#virtualFlags() & ~HIDDEN, 0) ? at + TRAP_BYTES : SLOW
      case POINT.popFlags:
        return this.#popFlags(at + TRAP_BYTES)
      case POINT.stac:
        return this.#allowUser(FLAG.AC, at + TRAP_BYTES)
      case POINT.clac:
        return this.#allowUser(0, at + TRAP_BYTES)
      case POINT.swapGs:
        return this.#swapGs(at + TRAP_BYTES)
      case POINT.fromSegment:
        return this.#fromSegment(this.#translations.points.extra(point), at + TRAP_BYTES)
      case POINT.fromControl:
        return this.#fromControl(this.#translations.points.extra(point), at + TRAP_BYTES)
      default:
        return SLOW
    }
  }

  /** RET, releasing `more` bytes. */
  #return(more: number): number {
    const core = this.#core
    if (!this.#pop()) return SLOW
    const low = this.#low
    const high = this.#high
    const offset = isCanonical48(high) ? this.#translations.target(low, high) : SLOW
    if (offset >= 0) this.#moveStack(core, WORD + more)
    return offset
  }

  #branch(point: number, target: Target | undefined): number {
    if (!target) return SLOW
    const core = this.#core
    // The cache may be emptied below, with its points.
    const { points } = this.#translations
    const sum = (points.low(point) >>> 0) + points.length(point)
    const nextHigh = points.high(point) + (sum > 0xffff_ffff ? 1 : 0)
    if (target.register >= 0) {
      this.#low = core.get32(gpr(target.register))
      this.#high = core.get32(gpr(target.register) + 4)
    } else if (!this.#read(BigInt.asUintN(64, this.#address(target)))) return SLOW
    const low = this.#low
    const high = this.#high
    if (!isCanonical48(high)) return SLOW
    const offset = this.#translations.target(low, high)
    return offset < 0 || !target.isCall || this.#push(sum | 0, nextHigh | 0) ? offset : SLOW
  }
  #address({ base, index, scale, displacement, segment: of }: Target): bigint {
    const core = this.#core
    let address = displacement
    if (base >= 0) address += core.get64(gpr(base))
    if (index >= 0) address += core.get64(gpr(index)) << BigInt(scale)
    if (of >= SEGMENT.fs) address += core.segmentBase(of)
    return address
  }

  // --- flags ---

  /** Guest's RFLAGS: IOPL is 0 in the processor. */
  #virtualFlags(): number {
    return readFlags(this.#core) | this.#translations.quick.ioPrivilege
  }
  #setFlags(flags: number): void {
    this.#core.set32(S.flags, flags & ~FLAG.RF)
  }
  #enable(next: number): number {
    const core = this.#core
    const flags = core.get32(S.flags)
    if (flags & FLAG.IF) return next
    // What is pending comes after the next instruction: the virtual CPU sees to it.
    if (core.get32(S.attention)) return SLOW
    this.#setFlags(flags | FLAG.IF)
    this.#translations.quick.shadowAt = next
    return next
  }
  #popFlags(next: number): number {
    const core = this.#core
    if (!this.#pop()) return SLOW
    const flags = this.#low
    if (flags & UNUSUAL || this.#translations.quick.ioPrivilege) return SLOW
    const old = core.get32(S.flags)
    if (flags & ~old & FLAG.IF && core.get32(S.attention)) return SLOW
    writeFlags(core, flags & ~FLAG.RF)
    this.#moveStack(core, WORD)
    if ((flags ^ old) & FLAG.AC) updateMode(core)
    return next
  }
  #allowUser(flag: number, next: number): number {
    const core = this.#core
    if (!(core.get32(S.cr4) & CR4.smap)) return SLOW
    this.#setFlags((core.get32(S.flags) & ~FLAG.AC) | flag)
    updateMode(core)
    return next
  }
  #swapGs(next: number): number {
    const core = this.#core
    for (const half of [0, 4]) {
      const base = core.get32(GS_BASE + half)
      core.set32(GS_BASE + half, core.get32(S.kernelGsBase + half))
      core.set32(S.kernelGsBase + half, base)
    }
    return next
  }

  /** MOV of CS or SS to a register (`extra`: its number), in which the privilege level is that of the guest's kernel. */
  #fromSegment(extra: number, next: number): number {
    const core = this.#core
    const to = gpr(extra & 15)
    core.set32(to, core.get32(segment(extra >> 4) + SEG.selector) & ~3 & 0xffff)
    core.set32(to + 4, 0)
    return next
  }
  /** MOV of CR2 or CR3 to a register. */
  #fromControl(extra: number, next: number): number {
    const core = this.#core
    const from = extra >> 4 === 2 ? S.cr2 : S.cr3
    const to = gpr(extra & 15)
    core.set32(to, core.get32(from))
    core.set32(to + 4, core.get32(from + 4))
    return next
  }

  // --- the stack ---

  #moveStack(core: Core, by: number): void {
    const low = core.get32(gpr(RSP)) >>> 0
    const sum = low + by
    core.set32(gpr(RSP), sum | 0)
    core.set32(gpr(RSP) + 4, core.get32(gpr(RSP) + 4) + Math.floor(sum / 0x1_0000_0000))
  }
  /** Reads the word at the top of the stack. */
  #pop(): boolean {
    const core = this.#core
    return this.#readAt(core.get32(gpr(RSP)), core.get32(gpr(RSP) + 4))
  }
  #push(value: number, valueHigh: number): boolean {
    const core = this.#core
    const low = core.get32(gpr(RSP)) >>> 0
    const to = low - WORD
    const high = core.get32(gpr(RSP) + 4) + (to < 0 ? -1 : 0)
    if (!isCanonical48(high)) return false
    try {
      const at = wordsAt(core, to | 0, high | 0, WORD, this.#accessBits() | ACCESS.write)
      if (at >= 0) {
        core.i32[at] = value
        core.i32[at + 1] = valueHigh
        this.#moveStack(core, -WORD)
        return true
      }
      this.#view.setInt32(0, value, true)
      this.#view.setInt32(4, valueHigh, true)
      writeRange(core, to | 0, high | 0, this.#bytes, 0, WORD, this.#accessBits())
    } catch (fault) {
      return this.#refused(fault)
    }
    this.#moveStack(core, -WORD)
    return true
  }

  #read(address: bigint): boolean {
    return this.#readAt(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))
  }
  /** Eight bytes, into #low and #high. */
  #readAt(low: number, high: number): boolean {
    const core = this.#core
    if (!isCanonical48(high)) return false
    try {
      const at = wordsAt(core, low, high, WORD, this.#accessBits())
      if (at >= 0) {
        this.#low = core.i32[at]!
        this.#high = core.i32[at + 1]!
        return true
      }
      const upper = (low >>> 0) + 4
      this.#low = readLinear(core, low, high, 4, this.#accessBits())
      this.#high = readLinear(core, upper | 0, (high + (upper > 0xffff_ffff ? 1 : 0)) | 0, 4, this.#accessBits())
    } catch (fault) {
      return this.#refused(fault)
    }
    return true
  }
  #refused(fault: unknown): false {
    if (!(fault instanceof GuestFault) && !(fault instanceof Left)) throw fault
    this.#core.set32(S.exit, EXIT.lookup)
    return false
  }
  #accessBits(): number {
    const core = this.#core
    return core.get32(S.cr4) & CR4.smap && !(core.get32(S.flags) & FLAG.AC) ? ACCESS.smap : 0
  }
}
