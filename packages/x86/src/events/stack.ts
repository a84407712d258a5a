/** A stack for event delivery and far transfers: pushed to or popped from first, and stored to SS:RSP when everything has succeeded. */
import { GuestFault, type Core } from '../state/core.ts'
import { accessAt, carryInto, readLinear, wordsAt, writeLinear } from '../paging/access/linear.ts'
import { ACCESS } from '../state/paging-state.ts'
import { gpr, RSP, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { in64BitCode, isProtected } from '../state/segments.ts'
import { RIGHTS, VECTOR } from '../state/register-bits.ts'

const RSP_AT = gpr(RSP)

export class Stack {
  readonly core: Core
  /** Width of the pointer. */
  readonly size: 16 | 32 | 64
  readonly base: number
  readonly limit: number
  readonly rights: number
  /** Paging access bits of the stack's privilege level. */
  readonly access: number
  /** Error code of its stack faults. */
  readonly code: number
  low: number
  high: number
  /** Upper half of the last 8-byte pop. */
  upper = 0

  constructor(
    core: Core,
    size: 16 | 32 | 64,
    low: number,
    high: number,
    cpl: number,
    segment_: { base: number; limit: number; rights: number },
    code = 0,
  ) {
    this.core = core
    this.size = size
    this.low = low
    this.high = high
    this.base = segment_.base
    this.limit = segment_.limit >>> 0
    this.rights = segment_.rights
    this.access = accessAt(core, cpl)
    this.code = code
  }

  /** The current SS:RSP. */
  static current(core: Core, code = 0): Stack {
    const at = segment(SEGMENT.ss)
    const rights = core.get32(at + SEG.attributes)
    const size = in64BitCode(core) ? 64 : rights & RIGHTS.big ? 32 : 16
    return new Stack(
      core,
      size,
      core.get32(RSP_AT),
      core.get32(RSP_AT + 4),
      core.get32(S.cpl),
      { base: core.get32(at + SEG.base), limit: core.get32(at + SEG.limit), rights },
      code,
    )
  }
  /** A 64-bit stack at an address. */
  static flat(core: Core, low: number, high: number, cpl: number, code = 0): Stack {
    return new Stack(core, 64, low, high, cpl, { base: 0, limit: -1, rights: 0 }, code)
  }

  push(bytes: 2 | 4 | 8, low: number, high = 0): void {
    this.move(-bytes)
    this.#access(0, bytes)
    const { core, access } = this
    const at = this.#linear(0)
    if (bytes !== 8) return writeLinear(core, at, this.#upper(0), bytes, low, access)
    const words = wordsAt(core, at, this.#upper(0), 8, access | ACCESS.write)
    if (words >= 0) {
      core.i32[words] = low
      core.i32[words + 1] = high
      return
    }
    writeLinear(core, at, this.#upper(0), 4, low, access)
    writeLinear(core, (at + 4) | 0, this.#upper(4), 4, high, access)
  }
  /** Low 32 bits; of 8 bytes the rest is in `upper`. */
  pop(bytes: 2 | 4 | 8): number {
    const value = this.peek(bytes, 0)
    this.move(bytes)
    return value
  }
  /** Pops `count` values into pairs of halves, at once if they are in plain memory. */
  read(bytes: 2 | 4 | 8, into: Int32Array, count: number): void {
    const { core } = this
    if (bytes === 8 && this.size === 64) {
      this.checkCanonical()
      const words = wordsAt(core, this.low, this.high, count * 8, this.access)
      if (words >= 0) {
        for (let n = 0; n < count * 2; n++) into[n] = core.i32[words + n]!
        return this.move(count * 8)
      }
    }
    for (let n = 0; n < count; n++) {
      into[2 * n] = this.pop(bytes)
      into[2 * n + 1] = bytes === 8 ? this.upper : 0
    }
  }
  /** Reads at an offset from the top. */
  peek(bytes: 2 | 4 | 8, offset: number): number {
    this.#access(offset, bytes)
    const { core, access } = this
    const at = this.#linear(offset)
    if (bytes !== 8) return readLinear(core, at, this.#upper(offset), bytes, access)
    const words = wordsAt(core, at, this.#upper(offset), 8, access)
    if (words >= 0) {
      this.upper = core.i32[words + 1]!
      return core.i32[words]!
    }
    this.upper = readLinear(core, (at + 4) | 0, this.#upper(offset + 4), 4, access)
    return readLinear(core, at, this.#upper(offset), 4, access)
  }
  move(bytes: number): void {
    const { low, size } = this
    if (size === 16) this.low = (low & ~0xffff) | ((low + bytes) & 0xffff)
    else {
      this.low = (low + bytes) | 0
      if (size === 64)
        this.high =
          (this.high + (bytes < 0 ? (low >>> 0 < -bytes ? -1 : 0) : (low >>> 0) + bytes > 0xffff_ffff ? 1 : 0)) | 0
      else this.high = 0
    }
  }
  /** Stores it to the stack pointer; upper bits beyond the width are unchanged. */
  commit(): void {
    const { core, size } = this
    if (size === 16) return void core.view.setUint16(core.base + RSP_AT, this.low & 0xffff, true)
    core.set32(RSP_AT, this.low)
    core.set32(RSP_AT + 4, size === 64 ? this.high : 0)
  }

  /** #SS if a 64-bit pointer is not canonical. */
  checkCanonical(): void {
    const shift = this.core.paging.canonicalShift
    if ((this.high << shift) >> shift !== this.high) throw new GuestFault(VECTOR.SS, this.code)
  }

  #offset(offset: number): number {
    return this.size === 16 ? (this.low + offset) & 0xffff : (this.low + offset) | 0
  }
  #linear(offset: number): number {
    return (this.base + this.#offset(offset)) | 0
  }
  #upper(offset: number): number {
    return this.size === 64 ? carryInto(this.core, this.low, this.high, offset) : 0
  }
  /** Canonical or inside the segment, else #SS. */
  #access(offset: number, bytes: number): void {
    if (this.size === 64) return this.checkCanonical()
    const first = this.#offset(offset) >>> 0
    const last = first + bytes - 1
    const down = isProtected(this.core) && (this.rights & (RIGHTS.code | RIGHTS.direction)) === RIGHTS.direction
    const inside = down
      ? first > this.limit && last <= (this.rights & RIGHTS.big ? 0xffff_ffff : 0xffff)
      : last <= this.limit
    if (!inside) throw new GuestFault(VECTOR.SS, this.code)
  }
}
