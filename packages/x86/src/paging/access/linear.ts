/**
 * Guest memory at linear addresses for the processor's own use: descriptor tables, TSS, stacks. Faults are thrown as GuestFault. Addresses are pairs
 * of 32-bit halves; the TLB's supervisor bank is used on a hit.
 */
import { GuestFault, Left, type Core } from '../../state/core.ts'
import { S, segment, SEGMENT, TLB, TLB_BANK } from '../../state/layout.ts'
import { ACCESS, DEVICE, FAULT, STATUS } from '../../state/paging-state.ts'
import { bankAddress, currentAccess, fillData } from '../tlb/tlb.ts'
import { walk } from '../walk.ts'
import { CR4, EFER, FLAG, VECTOR } from '../../state/register-bits.ts'
import { lookUp } from '../tlb/entry.ts'
import { RECORD } from '../../state/record.ts'

/** Access bits of an implicit supervisor-mode access: never a user page under SMAP. (SDM Vol. 3A, "Access Modes") */
export function implicitAccess(core: Core): number {
  return core.get32(S.cr4) & CR4.smap ? ACCESS.smap : 0
}
/** Access bits of explicit accesses at a privilege level. */
export function accessAt(core: Core, cpl: number): number {
  if (cpl === 3) return ACCESS.user
  return core.get32(S.cr4) & CR4.smap && !(core.get32(S.flags) & FLAG.AC) ? ACCESS.smap : 0
}
/** Access bits of the running instruction's memory operand. */
export function operandAccess(core: Core): number {
  const segmentOf = core.i32[((core.get32(S.record) >>> 0) + RECORD.segment) >>> 2]
  return currentAccess(core) | (segmentOf === segment(SEGMENT.ss) ? ACCESS.stack : 0)
}

function bankOf(core: Core, access: number): number {
  if (access & ACCESS.user) return bankAddress(core, TLB_BANK.user)
  return bankAddress(core, access & ACCESS.smap ? TLB_BANK.supervisor : TLB_BANK.supervisorUserAllowed)
}

/** HPA of one byte. `device` accesses yield -1 with the frame in the paging state. */
function locate(core: Core, low: number, high: number, access: number): number {
  const bank = bankOf(core, access)
  const hit = lookUp(core.i32, bank, low, high, access & ACCESS.write ? TLB.write : TLB.read)
  if (hit >= 0) return hit
  const p = core.paging
  if (high !== 0 && (high << p.canonicalShift) >> p.canonicalShift !== high) throw new GuestFault(access & ACCESS.stack ? VECTOR.SS : VECTOR.GP, 0)
  const page = walk(core, low, high, access & ~ACCESS.stack)
  if (!(page & STATUS)) {
    if (!p.watches && !(p.alignmentCheck && access & ACCESS.user)) fillData(core, bank, low, high, page)
    return (page + (low & 0xfff)) >>> 0
  }
  if (page === DEVICE) return -1
  if (page === FAULT) {
    p.faultLow = low
    p.faultHigh = high
    throw new GuestFault(VECTOR.PF, p.errorCode)
  }
  throw new Left()
}

/**
 * Index into 32-bit words of `bytes` bytes that are aligned, on one page, in plain memory without code; or -1 if they must be accessed one by one.
 * Objects longer than a word thus need one translation.
 */
export function wordsAt(core: Core, low: number, high: number, bytes: number, access: number): number {
  if (low & 3 || (low & 0xfff) + bytes > 4096) return -1
  const hpa = locate(core, low, high, access)
  if (hpa < 0 || (access & ACCESS.write && core.code.hasCode(hpa & -4096))) return -1
  return hpa >>> 2
}

/** Like `wordsAt` for writes, but only on a TLB hit. Returns -1 on a miss, so that the caller can fault on the lowest byte first. */
export function knownWords(core: Core, low: number, high: number, bytes: number, access: number): number {
  if (low & 3 || (low & 0xfff) + bytes > 4096) return -1
  const hpa = lookUp(core.i32, bankOf(core, access), low, high, TLB.write)
  return hpa < 0 ? -1 : hpa >>> 2
}

/** Up to 4 bytes, unsigned for 1 and 2, signed for 4. */
export function readLinear(core: Core, low: number, high: number, bytes: 1 | 2 | 4, access: number): number {
  if ((low & 0xfff) + bytes > 4096) return readBytes(core, low, high, bytes, access)
  const hpa = locate(core, low, high, access)
  if (hpa < 0) return core.host.readDevice(core.paging.frame * 4096 + (low & 0xfff), bytes)
  return bytes === 4 ? core.view.getInt32(hpa, true) : bytes === 2 ? core.view.getUint16(hpa, true) : core.u8[hpa]!
}

export function writeLinear(
  core: Core,
  low: number,
  high: number,
  bytes: 1 | 2 | 4,
  value: number,
  access: number,
): void {
  if ((low & 0xfff) + bytes > 4096) return writeBytes(core, low, high, bytes, value, access)
  const hpa = locate(core, low, high, access | ACCESS.write)
  if (hpa < 0) return core.host.writeDevice(core.paging.frame * 4096 + (low & 0xfff), bytes, value)
  if (bytes === 4) core.view.setInt32(hpa, value, true)
  else if (bytes === 2) core.view.setUint16(hpa, value, true)
  else core.u8[hpa] = value
  const page = hpa & -4096
  if (core.code.hasCode(page)) core.code.invalidate(hpa, bytes)
}

function readBytes(core: Core, low: number, high: number, bytes: number, access: number): number {
  let value = 0
  for (let i = 0; i < bytes; i++)
    value |= readLinear(core, (low + i) | 0, carry(core, low, high, i), 1, access) << (8 * i)
  return value
}

/** Both pages are checked before the first byte is written. */
function writeBytes(core: Core, low: number, high: number, bytes: number, value: number, access: number): void {
  locate(core, low, high, access | ACCESS.write)
  locate(core, (low + bytes - 1) | 0, carry(core, low, high, bytes - 1), access | ACCESS.write)
  for (let i = 0; i < bytes; i++)
    writeLinear(core, (low + i) | 0, carry(core, low, high, i), 1, (value >>> (8 * i)) & 0xff, access)
}

function carry(core: Core, low: number, high: number, offset: number): number {
  return (low >>> 0) + offset > 0xffff_ffff && core.get32(S.efer) & EFER.lma ? (high + 1) | 0 : high
}

/** Throws unless `bytes` (at most a page) from here may be written: for stack frames that must be written completely or not at all. */
export function checkWritable(core: Core, low: number, high: number, bytes: number, access: number): void {
  locate(core, low, high, access | ACCESS.write)
  const last = (low + bytes - 1) | 0
  if ((last ^ low) & -4096) locate(core, last & -4096, carry(core, low, high, bytes - 1), access | ACCESS.write)
}

/** 64-bit reads for cold code. */
export function readLinear64(core: Core, linear: bigint, access: number): bigint {
  const low = Number(BigInt.asIntN(32, linear))
  const high = Number(BigInt.asIntN(32, linear >> 32n))
  const first = readLinear(core, low, high, 4, access) >>> 0
  const second = readLinear(core, (low + 4) | 0, carry(core, low, high, 4), 4, access) >>> 0
  return (BigInt(second) << 32n) | BigInt(first)
}
export { carry as carryInto }

/** Copies guest memory into `into` at `at`: completely or, on a fault, not at all. At most a page. */
export function readRange(
  core: Core,
  low: number,
  high: number,
  into: Uint8Array,
  length: number,
  access: number,
  at = 0,
): void {
  const head = Math.min(length, 4096 - (low & 0xfff))
  // The walk determines a device's address, so each page's frame is kept with it.
  const first = locate(core, low, high, access)
  const firstFrame = core.paging.frame
  const second = head < length ? locate(core, (low + head) | 0, carry(core, low, high, head), access) : 0
  const secondFrame = core.paging.frame
  const part = (hpa: number, frame: number, from: number, count: number) => {
    if (hpa >= 0) return into.set(core.u8.subarray(hpa, hpa + count), at + from)
    for (let i = 0; i < count; i++)
      into[at + from + i] = core.host.readDevice(frame * 4096 + ((low + from + i) & 0xfff), 1)
  }
  part(first, firstFrame, 0, head)
  if (head < length) part(second, secondFrame, head, length - head)
}

/** Copies bytes [start, end) of `from` to guest memory: completely or, on a fault, not at all. At most a page. */
export function writeRange(
  core: Core,
  low: number,
  high: number,
  from: Uint8Array,
  start: number,
  end: number,
  access: number,
): void {
  const length = end - start
  const head = Math.min(length, 4096 - (low & 0xfff))
  const first = locate(core, low, high, access | ACCESS.write)
  const firstFrame = core.paging.frame
  const second = head < length ? locate(core, (low + head) | 0, carry(core, low, high, head), access | ACCESS.write) : 0
  const secondFrame = core.paging.frame
  const part = (hpa: number, frame: number, offset: number, count: number) => {
    const bytes = from.subarray(start + offset, start + offset + count)
    if (hpa < 0) {
      for (let i = 0; i < count; i++) core.host.writeDevice(frame * 4096 + ((low + offset + i) & 0xfff), 1, bytes[i]!)
      return
    }
    core.u8.set(bytes, hpa)
    if (core.code.hasCode(hpa & -4096)) core.code.invalidate(hpa, count)
  }
  part(first, firstFrame, 0, head)
  if (head < length) part(second, secondFrame, head, length - head)
}
