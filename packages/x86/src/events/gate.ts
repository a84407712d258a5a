/**
 * One delivery through the interrupt vector table or the IDT, in every mode: interrupt, trap and task gates, stack switches, error
 * codes. Throws GuestFault before any register changes. (SDM Vol. 3A, "Exception- or Interrupt-Handler Procedures")
 */
import { GuestFault, type Core } from '../state/core.ts'
import { carryInto, implicitAccess, knownWords, readLinear, wordsAt } from '../paging/access/linear.ts'
import { readFlags } from '../state/flags.ts'
import { gpr, RSP, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { CR0, FLAG, RIGHTS, VECTOR } from '../state/register-bits.ts'
import { NO_RPL } from '../state/selectors.ts'
import { invalidateSegment, isLong, isV86, setSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'
import { checkStackSegment, isNull, loadSegment, readDescriptor, setNullStack, SYSTEM_TYPE, type Descriptor } from './descriptor.ts'
import { EVENT, TASK_SWITCH, type DeliveredEvent } from '../state/hooks.ts'
import { Stack } from './stack.ts'
import { switchTask } from './task-switch.ts'
import { isFault, isSoftware } from './vectors.ts'

const IDTR = segment(SEGMENT.idtr)
const TR = segment(SEGMENT.tr)
const RSP_AT = gpr(RSP)

/** RFLAGS as saved for this event. */
function flagsImage(core: Core, event: DeliveredEvent): number {
  const flags = readFlags(core)
  return event.kind === EVENT.exception && isFault(event.vector) ? flags | FLAG.RF : flags
}

/** True if a task switch exited to the hypervisor. */
export function deliverThroughTable(core: Core, event: DeliveredEvent): boolean {
  if (!(core.get32(S.cr0) & CR0.pe)) deliverReal(core, event)
  else if (isLong(core)) deliverLong(core, event)
  else return deliverProtected(core, event)
  return false
}

/** Real-address mode: vectors of segment:offset, no error codes. */
function deliverReal(core: Core, event: DeliveredEvent): void {
  const at = event.vector * 4
  if (at + 3 > core.get32(IDTR + SEG.limit) >>> 0)
    throw new GuestFault(event.vector === VECTOR.DF ? VECTOR.DF : VECTOR.GP, 0)
  const entry = readLinear(core, (core.get32(IDTR + SEG.base) + at) | 0, 0, 4, 0)
  const stack = Stack.current(core)
  stack.push(2, flagsImage(core, event) & 0xffff)
  stack.push(2, core.segmentSelector(SEGMENT.cs))
  stack.push(2, core.get32(S.rip) & 0xffff)
  stack.commit()
  core.set32(S.flags, core.get32(S.flags) & ~(FLAG.IF | FLAG.TF | FLAG.RF | FLAG.AC))
  const cs = entry >>> 16
  setSegment(core, SEGMENT.cs, cs, cs << 4, 0, core.segmentLimit(SEGMENT.cs), core.segmentAttributes(SEGMENT.cs))
  core.set64(S.rip, BigInt(entry & 0xffff))
  updateMode(core)
}

/** The target code segment of a gate. `limit` of privilege: it may not be less privileged than CPL. */
function gateTarget(core: Core, selector: number, ext: number): Descriptor {
  if (isNull(selector)) throw new GuestFault(VECTOR.GP, ext)
  const code = (selector & NO_RPL) | ext
  const d = readDescriptor(core, selector, VECTOR.GP, ext)
  if (!d.isCode || d.privilege > core.get32(S.cpl)) throw new GuestFault(VECTOR.GP, code)
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  return d
}

function deliverLong(core: Core, event: DeliveredEvent): void {
  const ext = isSoftware(event.kind) ? 0 : 1
  const code = event.vector * 8 + 2 + ext
  const offset = event.vector * 16
  if (offset + 15 > core.get32(IDTR + SEG.limit) >>> 0) throw new GuestFault(VECTOR.GP, code)
  const tableLow = core.get32(IDTR + SEG.base)
  const tableHigh = core.get32(IDTR + SEG.base + 4)
  const access = implicitAccess(core)
  const gateLow = (tableLow + offset) | 0
  const gateHigh = carryInto(core, tableLow, tableHigh, offset)
  const words = wordsAt(core, gateLow, gateHigh, 16, access)
  const whole = words >= 0
  const first = whole ? core.i32[words]! : readLinear(core, gateLow, gateHigh, 4, access)
  const second = whole ? core.i32[words + 1]! : gateWord(core, gateLow, gateHigh, 4)
  const third = whole ? core.i32[words + 2]! : gateWord(core, gateLow, gateHigh, 8)
  const type = (second >>> 8) & 0x1f
  if (type !== SYSTEM_TYPE.interruptGate32 && type !== SYSTEM_TYPE.trapGate32) throw new GuestFault(VECTOR.GP, code)
  const cpl = core.get32(S.cpl)
  if (!ext && ((second >>> 13) & 3) < cpl) throw new GuestFault(VECTOR.GP, code)
  if (!(second & 0x8000)) throw new GuestFault(VECTOR.NP, code)

  const selector = first >>> 16
  const target = gateTarget(core, selector, ext)
  if ((target.rights & (RIGHTS.long | RIGHTS.big)) !== RIGHTS.long)
    throw new GuestFault(VECTOR.GP, (selector & NO_RPL) | ext)
  const newCpl = target.isConforming ? cpl : target.privilege

  const ist = second & 7
  let low = core.get32(RSP_AT)
  let high = core.get32(RSP_AT + 4)
  if (ist || newCpl !== cpl) {
    const slot = ist ? 0x1c + 8 * ist : 4 + 8 * newCpl
    const trSelector = (core.segmentSelector(SEGMENT.tr) & NO_RPL) | ext
    if (slot + 7 > core.get32(TR + SEG.limit) >>> 0) throw new GuestFault(VECTOR.TS, trSelector)
    const baseLow = core.get32(TR + SEG.base)
    const baseHigh = core.get32(TR + SEG.base + 4)
    low = readLinear(core, (baseLow + slot) | 0, carryInto(core, baseLow, baseHigh, slot), 4, access)
    high = readLinear(core, (baseLow + slot + 4) | 0, carryInto(core, baseLow, baseHigh, slot + 4), 4, access)
  }
  // The target is checked before anything is pushed. (SDM Vol. 2A, "INT n/INTO/INT3/INT1", Operation)
  const ripLow = (first & 0xffff) | (second & 0xffff_0000)
  const shift = core.paging.canonicalShift
  const hasStack = (high << shift) >> shift === high
  if (hasStack && (third << shift) >> shift !== third) throw new GuestFault(VECTOR.GP, ext)
  const stack = pushFrame(core, event, low & ~15, high, newCpl, ext)

  loadSegment(core, SEGMENT.cs, (selector & NO_RPL) | newCpl, target)
  if (newCpl !== cpl) setNullStack(core, newCpl, newCpl)
  core.set32(S.cpl, newCpl)
  stack.commit()
  core.set32(S.rip, ripLow)
  core.set32(S.rip + 4, third)
  enterHandler(core, type)
}

const gateWord = (core: Core, low: number, high: number, n: number): number =>
  readLinear(core, (low + n) | 0, carryInto(core, low, high, n), 4, implicitAccess(core))

/** Pushes SS, RSP, RFLAGS, CS, RIP and the error code on a 64-bit stack; all at once if it is plain memory. */
function pushFrame(core: Core, event: DeliveredEvent, low: number, high: number, cpl: number, ext: number): Stack {
  const bytes = event.hasErrorCode ? 48 : 40
  const stack = Stack.flat(core, low, high, cpl, ext)
  const { i32 } = core
  stack.move(-bytes)
  stack.checkCanonical()
  let at = knownWords(core, stack.low, stack.high, bytes, stack.access)
  if (at >= 0) {
    if (event.hasErrorCode) at = put64(i32, at, event.errorCode, 0)
    at = put64(i32, at, core.get32(S.rip), core.get32(S.rip + 4))
    at = put64(i32, at, core.segmentSelector(SEGMENT.cs), 0)
    at = put64(i32, at, flagsImage(core, event), 0)
    at = put64(i32, at, core.get32(RSP_AT), core.get32(RSP_AT + 4))
    put64(i32, at, core.segmentSelector(SEGMENT.ss), 0)
    return stack
  }
  stack.move(bytes)
  stack.push(8, core.segmentSelector(SEGMENT.ss))
  stack.push(8, core.get32(RSP_AT), core.get32(RSP_AT + 4))
  stack.push(8, flagsImage(core, event))
  stack.push(8, core.segmentSelector(SEGMENT.cs))
  stack.push(8, core.get32(S.rip), core.get32(S.rip + 4))
  if (event.hasErrorCode) stack.push(8, event.errorCode)
  return stack
}
function put64(i32: Int32Array, at: number, low: number, high: number): number {
  i32[at] = low
  i32[at + 1] = high
  return at + 2
}

/** Clears the flags that a gate clears, and updates the mode. */
function enterHandler(core: Core, type: number): void {
  const cleared = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM | (type & 1 ? 0 : FLAG.IF)
  core.set32(S.flags, core.get32(S.flags) & ~cleared)
  updateMode(core)
}

function deliverProtected(core: Core, event: DeliveredEvent): boolean {
  const ext = isSoftware(event.kind) ? 0 : 1
  const code = event.vector * 8 + 2 + ext
  const offset = event.vector * 8
  if (offset + 7 > core.get32(IDTR + SEG.limit) >>> 0) throw new GuestFault(VECTOR.GP, code)
  const table = (core.get32(IDTR + SEG.base) + offset) | 0
  const access = implicitAccess(core)
  const first = readLinear(core, table, 0, 4, access)
  const second = readLinear(core, (table + 4) | 0, 0, 4, access)
  const type = (second >>> 8) & 0x1f
  const isGate =
    type === SYSTEM_TYPE.taskGate ||
    (type & 0x17) === SYSTEM_TYPE.interruptGate16 ||
    (type & 0x17) === SYSTEM_TYPE.trapGate16
  if (!isGate) throw new GuestFault(VECTOR.GP, code)
  if (!ext && ((second >>> 13) & 3) < core.get32(S.cpl)) throw new GuestFault(VECTOR.GP, code)
  if (!(second & 0x8000)) throw new GuestFault(VECTOR.NP, code)
  const selector = first >>> 16
  if (type === SYSTEM_TYPE.taskGate) return switchTask(core, selector, TASK_SWITCH.gate, { ext, event })
  throughGate(core, event, type, selector, (first & 0xffff) | (second & 0xffff_0000), ext)
  return false
}

function throughGate(
  core: Core,
  event: DeliveredEvent,
  type: number,
  selector: number,
  gateOffset: number,
  ext: number,
): void {
  const target = gateTarget(core, selector, ext)
  const cpl = core.get32(S.cpl)
  const v86 = isV86(core)
  const newCpl = target.isConforming ? cpl : target.privilege
  if (v86 && newCpl !== 0) throw new GuestFault(VECTOR.GP, (selector & NO_RPL) | ext)
  const wide = (type & 8) !== 0
  const size = wide ? 4 : 2
  const image = flagsImage(core, event)
  const rip = wide ? gateOffset : gateOffset & 0xffff
  const inner = newCpl < cpl

  let stack: Stack
  let stackSelector = 0
  let stackDescriptor: Descriptor | undefined
  if (inner) {
    const top = innerStack(core, newCpl, ext)
    stackSelector = top.selector
    if (isNull(stackSelector)) throw new GuestFault(VECTOR.TS, ext)
    stackDescriptor = checkStackSegment(core, stackSelector, newCpl, VECTOR.TS, (stackSelector & NO_RPL) | ext)
    const big = (stackDescriptor.rights & RIGHTS.big) !== 0
    stack = new Stack(core, big ? 32 : 16, top.pointer, 0, newCpl, stackDescriptor, (stackSelector & NO_RPL) | ext)
    if (v86) for (const n of [SEGMENT.gs, SEGMENT.fs, SEGMENT.ds, SEGMENT.es]) stack.push(size, core.segmentSelector(n))
    stack.push(size, core.segmentSelector(SEGMENT.ss))
    stack.push(size, core.get32(RSP_AT))
  } else stack = Stack.current(core, ext)
  stack.push(size, image)
  stack.push(size, core.segmentSelector(SEGMENT.cs))
  stack.push(size, core.get32(S.rip))
  if (event.hasErrorCode) stack.push(size, event.errorCode)
  if (rip >>> 0 > target.limit >>> 0) throw new GuestFault(VECTOR.GP, ext)

  core.set32(S.flags, core.get32(S.flags) & ~FLAG.VM)
  loadSegment(core, SEGMENT.cs, (selector & NO_RPL) | newCpl, target)
  if (stackDescriptor) loadSegment(core, SEGMENT.ss, stackSelector, stackDescriptor)
  if (v86) for (const n of [SEGMENT.gs, SEGMENT.fs, SEGMENT.ds, SEGMENT.es]) invalidateSegment(core, n)
  core.set32(S.cpl, newCpl)
  stack.commit()
  core.set32(S.rip, rip)
  core.set32(S.rip + 4, 0)
  enterHandler(core, type)
}

/** SS:ESP of a privilege level from a 16- or 32-bit TSS. */
export function innerStack(core: Core, cpl: number, ext: number): { selector: number; pointer: number } {
  const wide = (core.get32(TR + SEG.attributes) & 8) !== 0
  const slot = wide ? 4 + 8 * cpl : 2 + 4 * cpl
  const limit = core.get32(TR + SEG.limit) >>> 0
  if (slot + (wide ? 5 : 3) > limit) throw new GuestFault(VECTOR.TS, (core.segmentSelector(SEGMENT.tr) & NO_RPL) | ext)
  const at = (core.get32(TR + SEG.base) + slot) | 0
  const access = implicitAccess(core)
  return wide
    ? { pointer: readLinear(core, at, 0, 4, access), selector: readLinear(core, (at + 4) | 0, 0, 2, access) }
    : { pointer: readLinear(core, at, 0, 2, access), selector: readLinear(core, (at + 2) | 0, 0, 2, access) }
}
