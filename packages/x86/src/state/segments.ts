/** The hidden parts of segment registers: setting them, and the bounds within which accesses need no slow check. */
import type { Core } from './core.ts'
import { S, SEG, segment, SEGMENT } from './layout.ts'
import { CR0, EFER, FLAG, RIGHTS, VECTOR } from './register-bits.ts'

export const privilegeOf = (rights: number): number => (rights >>> 5) & 3

export const isProtected = (core: Core): boolean => (core.get32(S.cr0) & CR0.pe) !== 0 && !(core.get32(S.flags) & FLAG.VM)
export const isV86 = (core: Core): boolean => (core.get32(S.flags) & FLAG.VM) !== 0 && (core.get32(S.cr0) & CR0.pe) !== 0
export const isLong = (core: Core): boolean => (core.get32(S.efer) & EFER.lma) !== 0
export const in64BitCode = (core: Core): boolean => (core.get32(S.mode) & 3) === 2

/** Loads a segment register as a whole. */
export function setSegment(
  core: Core,
  n: number,
  selector: number,
  baseLow: number,
  baseHigh: number,
  limit: number,
  rights: number,
): void {
  const at = segment(n)
  core.set32(at + SEG.base, baseLow)
  core.set32(at + SEG.base + 4, baseHigh)
  core.set32(at + SEG.limit, limit | 0)
  core.set32(at + SEG.selector, selector & 0xffff)
  core.set32(at + SEG.attributes, rights)
  if (n <= SEGMENT.gs) setBounds(core, n)
}

/** Real-address and virtual-8086 mode: the base follows from the selector; the rest is unchanged or fixed. */
export function setRealSegment(core: Core, n: number, selector: number): void {
  const v86 = isV86(core)
  const limit = v86 ? 0xffff : core.segmentLimit(n)
  setSegment(
    core,
    n,
    selector,
    (selector & 0xffff) << 4,
    0,
    limit,
    v86 ? 0xf3 : core.segmentAttributes(n) & ~RIGHTS.unusable,
  )
}

/** A null selector in a data segment register. In 64-bit mode the register still works, with base 0. */
export function setNullSegment(core: Core, n: number, selector: number): void {
  setSegment(core, n, selector, 0, 0, 0, RIGHTS.unusable)
}

/** Makes a register null as a change of privilege does: selector and validity change, base and limit do not. (SDM Vol. 2, "IRET", "RET") */
export function invalidateSegment(core: Core, n: number): void {
  const at = segment(n)
  core.set32(at + SEG.selector, 0)
  core.set32(at + SEG.attributes, core.get32(at + SEG.attributes) | RIGHTS.unusable)
  setBounds(core, n)
}

/** Recomputes the bounds of plain accesses. Real-address mode looks at limits only. */
export function setBounds(core: Core, n: number): void {
  const at = segment(n)
  const rights = core.get32(at + SEG.attributes)
  const limit = core.get32(at + SEG.limit)
  let read = false
  let write = false
  if (!isProtected(core)) read = write = true
  else if (!(rights & RIGHTS.unusable) && rights & RIGHTS.user) {
    if (rights & RIGHTS.code) read = (rights & RIGHTS.readWrite) !== 0
    else if (!(rights & RIGHTS.direction)) {
      read = true
      write = (rights & RIGHTS.readWrite) !== 0
    }
  }
  const low = (limit + 1) | 0
  const high = limit === -1 ? 1 : 0
  core.set32(at + SEG.readBound, read ? low : 0)
  core.set32(at + SEG.readBound + 4, read ? high : 0)
  core.set32(at + SEG.writeBound, write ? low : 0)
  core.set32(at + SEG.writeBound + 4, write ? high : 0)
}

/** After a change between real-address, virtual-8086 and protected mode. */
export function setAllBounds(core: Core): void {
  for (let n = 0; n <= SEGMENT.gs; n++) setBounds(core, n)
}

/**
 * Slow limit and type check of an access in a mode with segments: offset in the `address` slot, `info` bytes | segment number << 16 | write << 24. 0
 * if it is allowed. (SDM Vol. 3A, "Limit Checking", "Type Checking")
 */
export function checkSegment(core: Core, info: number): 0 | 1 {
  const n = (info >>> 16) & 0xff
  const at = segment(n)
  const rights = core.get32(at + SEG.attributes)
  const offset = core.get32(S.address) >>> 0
  const limit = core.get32(at + SEG.limit) >>> 0
  if (segmentAllows(core, rights, limit, offset, info & 0xffff, info >> 24 !== 0)) return 0
  core.raise(n === SEGMENT.ss ? VECTOR.SS : VECTOR.GP, 0)
  return 1
}

function segmentAllows(
  core: Core,
  rights: number,
  limit: number,
  offset: number,
  bytes: number,
  write: boolean,
): boolean {
  const last = offset + bytes - 1
  if (isProtected(core)) {
    if (rights & RIGHTS.unusable) return false
    if (rights & RIGHTS.code ? write || !(rights & RIGHTS.readWrite) : write && !(rights & RIGHTS.readWrite))
      return false
    if ((rights & (RIGHTS.code | RIGHTS.direction)) === RIGHTS.direction) {
      return offset > limit && last <= (rights & RIGHTS.big ? 0xffff_ffff : 0xffff)
    }
  }
  // At a limit of 4 GiB the access wraps; this is model-specific.
  return last <= limit || limit === 0xffff_ffff
}
