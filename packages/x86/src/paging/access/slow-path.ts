/**
 * @hot Slow path of guest memory accesses, called from wasm on a TLB miss: translates, checks, fills the TLB and makes the access itself, for page
 * crossings, devices, pages with code and watched pages. On a fault, records it in the vCPU block and returns 1. `info` is bytes | segment number <<
 * 8.
 */
import type { Core } from '../../state/core.ts'
import { watchHits } from './watch.ts'
import { EXIT, S, SEGMENT, TLB, TLB_BANK, TLB_BANK_SIZE } from '../../state/layout.ts'
import { ACCESS, DEVICE, FAULT, STATUS } from '../../state/paging-state.ts'
import { currentAccess, fillData, forgetPage } from '../tlb/tlb.ts'
import { walk } from '../walk.ts'
import { VECTOR } from '../../state/register-bits.ts'
import { lookUp } from '../tlb/entry.ts'


export function slowRead(core: Core, info: number): 0 | 1 {
  const bytes = info & 0xff
  const low = core.get32(S.address)
  const high = core.get32(S.address + 4)
  count(core, 0)
  const page = translateData(core, low, high, info, currentAccess(core))
  if (page & STATUS && page !== DEVICE) return 1
  const offset = low & 0xfff
  if (offset + bytes > 4096) return readAcross(core, low, high, bytes, page, 0)
  if (page === DEVICE) return readDevice(core, low, bytes)
  loadValue(core, (page + offset) >>> 0, bytes, 0)
  return 0
}

export function slowWrite(core: Core, info: number): 0 | 1 {
  const bytes = info & 0xff
  const low = core.get32(S.address)
  const high = core.get32(S.address + 4)
  count(core, 8)
  const page = translateData(core, low, high, info, currentAccess(core) | ACCESS.write)
  if (page & STATUS && page !== DEVICE) return 1
  const offset = low & 0xfff
  if (writesOverOwnCode(core, page, offset, Math.min(bytes, 4096 - offset))) return interpretInstead(core)
  if (offset + bytes > 4096) return writeAcross(core, low, high, bytes, page)
  if (page === DEVICE) return writeDevice(core, low, bytes)
  storeValue(core, page, offset, bytes, 0)
  return 0
}

/** Reads a value that will be written: every byte is checked for writing. */
export function slowModify(core: Core, info: number): 0 | 1 {
  const bytes = info & 0xff
  const low = core.get32(S.address)
  const high = core.get32(S.address + 4)
  core.set32(S.modify, core.base + S.value)
  count(core, 8)
  const page = translateData(core, low, high, info, currentAccess(core) | ACCESS.write)
  if (page & STATUS && page !== DEVICE) return 1
  const offset = low & 0xfff
  if (writesOverOwnCode(core, page, offset, Math.min(bytes, 4096 - offset))) return interpretInstead(core)
  if (offset + bytes > 4096) return readAcross(core, low, high, bytes, page, ACCESS.write)
  if (page === DEVICE) return readDevice(core, low, bytes)
  loadValue(core, (page + offset) >>> 0, bytes, 0)
  if (!core.code.hasCode(page)) core.set32(S.modify, (page + offset) | 0)
  return 0
}

/** Records #PF at a linear address with the error code that the walk left. */
export function raisePageFault(core: Core, low: number, high: number): void {
  core.paging.faultLow = low
  core.paging.faultHigh = high
  forgetPage(core, low, high)
  core.raise(VECTOR.PF, core.paging.errorCode)
}

/** Translates the first byte, checks alignment and breakpoints, and fills the TLB if allowed. */
function translateData(core: Core, low: number, high: number, info: number, access: number): number {
  const p = core.paging
  const bytes = info & 0xff
  if (high !== 0 && !canonical(core, low, high, bytes)) {
    core.raise(info >> 8 === SEGMENT.ss ? VECTOR.SS : VECTOR.GP, 0)
    return FAULT
  }
  const crosses = (low & 0xfff) + bytes > 4096
  const page = crosses ? pageAt(core, low, high, access) : walk(core, low, high, access)
  if (page === FAULT) raisePageFault(core, low, high)
  if (page & STATUS && page !== DEVICE) return page
  if (p.alignmentCheck && low & (bytes - 1)) {
    core.raise(VECTOR.AC, 0)
    return FAULT
  }
  if (p.watches) {
    if (watchHits(core, low, high, bytes, (access & ACCESS.write) !== 0)) return page
  }
  if (page === DEVICE || p.alignmentCheck) return page
  if (!crosses) fillData(core, core.get32(S.tlb), low, high, page)
  return page
}

function canonical(core: Core, low: number, high: number, bytes: number): boolean {
  const shift = core.paging.canonicalShift
  const last = low + bytes - 1
  const lastHigh = (high + ((low >>> 0) + bytes - 1 > 0xffff_ffff ? 1 : 0)) | 0
  return (high << shift) >> shift === high && ((lastHigh << shift) >> shift === lastHigh || last === 0)
}

/** One page of an access that crosses pages: it may be in the TLB, which has not been looked up for it. */
function pageAt(core: Core, low: number, high: number, access: number): number {
  const known = lookUp(core.i32, core.get32(S.tlb), low & -4096, high, access & ACCESS.write ? TLB.write : TLB.read)
  return known >= 0 ? known : walk(core, low, high, access)
}

/** Page of the last byte of an access that crosses. Only 64-bit addresses carry into the upper half. */
function secondPage(core: Core, low: number, high: number, bytes: number, write: number): number {
  const nextLow = ((low | 0xfff) + 1) | 0
  const nextHigh = nextLow === 0 && (core.get32(S.mode) & 3) === 2 ? (high + 1) | 0 : high
  const page = pageAt(core, nextLow, nextHigh, currentAccess(core) | write)
  if (page === FAULT) raisePageFault(core, nextLow, nextHigh)
  return page
}

/** Both pages are translated before either is read. With `write` what is read will be written. */
function readAcross(core: Core, low: number, high: number, bytes: number, first: number, write: number): 0 | 1 {
  const firstFrame = core.paging.frame
  const offset = low & 0xfff
  const head = 4096 - offset
  const second = secondPage(core, low, high, bytes, write)
  if (second & STATUS && second !== DEVICE) return 1
  if (write && writesOverOwnCode(core, second, 0, bytes - head)) return interpretInstead(core)
  readPart(core, first, firstFrame, offset, head, 0)
  readPart(core, second, core.paging.frame, 0, bytes - head, head)
  return 0
}

function writeAcross(core: Core, low: number, high: number, bytes: number, first: number): 0 | 1 {
  const firstFrame = core.paging.frame
  const offset = low & 0xfff
  const head = 4096 - offset
  const second = secondPage(core, low, high, bytes, ACCESS.write)
  if (second & STATUS && second !== DEVICE) return 1
  if (writesOverOwnCode(core, second, 0, bytes - head)) return interpretInstead(core)
  writePart(core, first, firstFrame, offset, head, 0)
  writePart(core, second, core.paging.frame, 0, bytes - head, head)
  return 0
}

/** The part of an access on one of its two pages, to or from the value slot at `at`. A device, at page `frame`, gets byte accesses. */
function readPart(core: Core, page: number, frame: number, offset: number, bytes: number, at: number): void {
  const value = core.base + S.value + at
  for (let i = 0; i < bytes; i++)
    core.u8[value + i] = page === DEVICE ? core.host.readDevice(frame * 4096 + offset + i, 1) : core.u8[((page + offset) >>> 0) + i]!
}
function writePart(core: Core, page: number, frame: number, offset: number, bytes: number, at: number): void {
  if (page !== DEVICE) return storeValue(core, page, offset, bytes, at)
  const value = core.base + S.value + at
  for (let i = 0; i < bytes; i++) core.host.writeDevice(frame * 4096 + offset + i, 1, core.u8[value + i]!)
}

/** Compiled code would overwrite code, perhaps its own. */
function writesOverOwnCode(core: Core, page: number, offset: number, bytes: number): boolean {
  return core.compiled && page !== DEVICE && core.code.isCode((page + offset) >>> 0, bytes)
}

/** Copies memory to the value slot. */
function loadValue(core: Core, hpa: number, bytes: number, at: number): void {
  const { view } = core
  const value = core.base + S.value + at
  switch (bytes) {
    case 1:
      return void (core.u8[value] = core.u8[hpa]!)
    case 2:
      return view.setUint16(value, view.getUint16(hpa, true), true)
    case 4:
      return view.setInt32(value, view.getInt32(hpa, true), true)
    case 8:
      view.setInt32(value, view.getInt32(hpa, true), true)
      return view.setInt32(value + 4, view.getInt32(hpa + 4, true), true)
    default:
      for (let i = 0; i < bytes; i++) core.u8[value + i] = core.u8[hpa + i]!
  }
}

/** Copies the value slot to memory; code decoded from there is invalidated. */
function storeValue(core: Core, page: number, offset: number, bytes: number, at: number): void {
  const { view } = core
  const value = core.base + S.value + at
  const hpa = (page + offset) >>> 0
  switch (bytes) {
    case 1:
      core.u8[hpa] = core.u8[value]!
      break
    case 2:
      view.setUint16(hpa, view.getUint16(value, true), true)
      break
    case 4:
      view.setInt32(hpa, view.getInt32(value, true), true)
      break
    case 8:
      view.setInt32(hpa, view.getInt32(value, true), true)
      view.setInt32(hpa + 4, view.getInt32(value + 4, true), true)
      break
    default:
      for (let i = 0; i < bytes; i++) core.u8[hpa + i] = core.u8[value + i]!
  }
  if (core.code.hasCode(page)) core.code.invalidate(hpa, bytes)
}

/** Device accesses have 1, 2 or 4 bytes; wider ones are split, low half first. */
function readDevice(core: Core, low: number, bytes: number): 0 | 1 {
  const physical = core.paging.frame * 4096 + (low & 0xfff)
  const value = core.base + S.value
  const size = bytes > 4 ? 4 : bytes
  for (let at = 0; at < bytes; at += size) {
    const word = core.host.readDevice(physical + at, size)
    if (size === 4) core.view.setInt32(value + at, word | 0, true)
    else if (size === 2) core.view.setUint16(value + at, word, true)
    else core.u8[value + at] = word
  }
  return 0
}

function writeDevice(core: Core, low: number, bytes: number): 0 | 1 {
  const physical = core.paging.frame * 4096 + (low & 0xfff)
  const value = core.base + S.value
  const size = bytes > 4 ? 4 : bytes
  for (let at = 0; at < bytes; at += size) {
    const word =
      size === 4
        ? core.view.getUint32(value + at, true)
        : size === 2
          ? core.view.getUint16(value + at, true)
          : core.u8[value + at]!
    core.host.writeDevice(physical + at, size, word)
  }
  return 0
}

/** Compiled code is about to overwrite code, perhaps its own: it stops before this instruction, which the interpreter executes. */
function interpretInstead(core: Core): 1 {
  core.set32(S.exit, EXIT.interpret)
  return 1
}

function count(core: Core, which: 0 | 8): void {
  core.i32[(core.base + S.statistics + which) >>> 2]!++
}

/** Call after the alignment check or watches were enabled: accesses to their pages must take the slow path. */
export function forgetUserBank(core: Core): void {
  const { paging } = core
  for (let number = 0; number < paging.contexts.length; number++) if (number !== paging.context) paging.contexts[number]!.isEmpty = true
  const banks = core.get32(S.banks)
  core.i32.fill(-1, (banks + TLB_BANK.user * TLB_BANK_SIZE) >>> 2, (banks + TLB_BANK.count * TLB_BANK_SIZE) >>> 2)
}
