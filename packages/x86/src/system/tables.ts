/** Descriptor-table registers, segment loads, and queries of descriptors: LAR, LSL, VERR, VERW. (SDM Vol. 2, their own pages) */
import { GuestFault, NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { carryInto, operandAccess, readLinear, writeLinear } from '../paging/access/linear.ts'
import { S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { in64BitCode, isLong, setSegment } from '../state/segments.ts'
import { RIGHTS, VECTOR } from '../state/register-bits.ts'
import { NO_RPL } from '../state/selectors.ts'
import { SHADOW, setShadow } from '../state/shadow.ts'
import { updateMode } from '../control/update-mode.ts'
import { findDescriptor, isNull, loadDataSegment, markDescriptor, readDescriptor, readUpperBase, SYSTEM_TYPE, type Descriptor } from '../events/descriptor.ts'

/** (table register, linear address, operand size). */
function loadTable(core: Core): Outcome {
  const n = core.arg32(0)
  const low = core.get32(S.args + 8)
  const high = core.get32(S.args + 12)
  const access = operandAccess(core)
  const at = (offset: number, bytes: 2 | 4) =>
    readLinear(core, (low + offset) | 0, carryInto(core, low, high, offset), bytes, access)
  const limit = at(0, 2)
  const base = at(2, 4)
  const upper = in64BitCode(core) ? at(6, 4) : 0
  const shift = core.paging.canonicalShift
  if ((upper << shift) >> shift !== upper) throw new GuestFault(VECTOR.GP, 0)
  setSegment(core, n, 0, core.arg32(2) === 16 ? base & 0xff_ffff : base, upper, limit, 0)
  return NEXT
}

/** (table register, linear address). */
function storeTable(core: Core): Outcome {
  const at = segment(core.arg32(0))
  const low = core.get32(S.args + 8)
  const high = core.get32(S.args + 12)
  const access = operandAccess(core)
  const write = (offset: number, bytes: 2 | 4, value: number) =>
    writeLinear(core, (low + offset) | 0, carryInto(core, low, high, offset), bytes, value, access)
  // The far end first, so that a fault leaves nothing partly written.
  if (in64BitCode(core)) write(6, 4, core.get32(at + SEG.base + 4))
  write(2, 4, core.get32(at + SEG.base))
  write(0, 2, core.get32(at + SEG.limit) & 0xffff)
  return NEXT
}

/** Upper half of an LDT's or TSS's base: the whole must be canonical. */
function upperBase(core: Core, d: Descriptor, selector: number): number {
  const upper = readUpperBase(core, d, selector)
  const shift = core.paging.canonicalShift
  if ((upper << shift) >> shift !== upper) throw new GuestFault(VECTOR.GP, selector & NO_RPL)
  return upper
}

/** (selector). */
function lldt(core: Core): Outcome {
  const selector = core.arg32(0) & 0xffff
  if (isNull(selector)) {
    setSegment(core, SEGMENT.ldtr, selector, 0, 0, 0, RIGHTS.unusable)
    return NEXT
  }
  const code = selector & NO_RPL
  if (selector & 4) throw new GuestFault(VECTOR.GP, code)
  const d = readDescriptor(core, selector)
  if (d.isSegment || d.type !== SYSTEM_TYPE.ldt) throw new GuestFault(VECTOR.GP, code)
  const upper = isLong(core) ? upperBase(core, d, selector) : 0
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  setSegment(core, SEGMENT.ldtr, selector, d.base, upper, d.limit, d.rights)
  return NEXT
}

/** (selector). */
function ltr(core: Core): Outcome {
  const selector = core.arg32(0) & 0xffff
  const code = selector & NO_RPL
  if (isNull(selector) || selector & 4) throw new GuestFault(VECTOR.GP, code)
  const d = readDescriptor(core, selector)
  const available = d.type === SYSTEM_TYPE.tss32 || (d.type === SYSTEM_TYPE.tss16 && !isLong(core))
  if (d.isSegment || !available) throw new GuestFault(VECTOR.GP, code)
  const upper = isLong(core) ? upperBase(core, d, selector) : 0
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  markDescriptor(core, d, 2)
  setSegment(core, SEGMENT.tr, selector, d.base, upper, d.limit, d.rights | 2)
  return NEXT
}

/** (segment register, selector, whether SS also holds events off for one instruction: LSS does not, nor a second load behind the first). */
function loadSegmentRegister(core: Core): Outcome {
  const n = core.arg32(0)
  if (n === SEGMENT.cs || n > SEGMENT.gs) throw new GuestFault(VECTOR.UD)
  const big = core.segmentAttributes(SEGMENT.ss) & RIGHTS.big
  loadDataSegment(core, n, core.arg32(1) & 0xffff)
  if (n === SEGMENT.ss) {
    if (core.arg32(2) && core.covered !== SHADOW.movSs) setShadow(core, SHADOW.movSs)
    if ((core.segmentAttributes(SEGMENT.ss) & RIGHTS.big) !== big) updateMode(core)
  }
  return NEXT
}

const setZero = (core: Core, zero: boolean): void => {
  core.set32(S.zr, zero ? 0 : 1)
  core.set32(S.zr + 4, 0)
}

/** The descriptor, if CPL and RPL allow access to it. */
function visible(core: Core, selector: number): Descriptor | undefined {
  const d = isNull(selector) ? undefined : findDescriptor(core, selector)
  if (!d) return undefined
  if (d.isCode && d.isConforming) return d
  return d.privilege >= Math.max(core.get32(S.cpl), selector & 3) ? d : undefined
}

const bitSet = (...types: number[]): number => types.reduce((all, type) => all | (1 << type), 0)
const T = SYSTEM_TYPE
/** System types that LAR and LSL accept, outside and inside long mode. */
const LAR_TYPES = [
  bitSet(T.tss16, T.ldt, T.busyTss16, T.callGate16, T.taskGate, T.tss32, T.busyTss32, T.callGate32),
  bitSet(T.ldt, T.tss32, T.busyTss32, T.callGate32),
]
const LSL_TYPES = [bitSet(T.tss16, T.ldt, T.busyTss16, T.tss32, T.busyTss32), bitSet(T.ldt, T.tss32, T.busyTss32)]

function known(core: Core, d: Descriptor, types: readonly number[]): boolean {
  return d.isSegment || ((types[isLong(core) ? 1 : 0]! >>> d.type) & 1) !== 0
}

/** (selector) → ZF, value slot. */
function lar(core: Core): Outcome {
  const d = visible(core, core.arg32(0) & 0xffff)
  const found = d !== undefined && known(core, d, LAR_TYPES)
  if (found) core.set64(S.value, BigInt(d.high & 0x00f0_ff00))
  setZero(core, found)
  return NEXT
}
function lsl(core: Core): Outcome {
  const d = visible(core, core.arg32(0) & 0xffff)
  const found = d !== undefined && known(core, d, LSL_TYPES)
  if (found) core.set64(S.value, BigInt(d.limit >>> 0))
  setZero(core, found)
  return NEXT
}
function verr(core: Core): Outcome {
  const d = visible(core, core.arg32(0) & 0xffff)
  setZero(core, d !== undefined && d.isSegment && d.isReadable)
  return NEXT
}
function verw(core: Core): Outcome {
  const d = visible(core, core.arg32(0) & 0xffff)
  setZero(core, d !== undefined && d.isWritableData)
  return NEXT
}

export const tables: Record<string, SystemRoutine> = {
  loadTable,
  storeTable,
  lldt,
  ltr,
  loadSegmentRegister,
  lar,
  lsl,
  verr,
  verw,
}
