/** Far JMP, CALL and RET, IRET, INT n and similar, with gates and task switches. (SDM Vol. 2A "CALL", "INT n", "IRET", "JMP"; Vol. 2B "RET") */
import { GuestFault, JUMPED, Left, LEFT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { deliverThroughTable, innerStack } from '../events/gate.ts'
import { enterDebugHandler } from '../events/debug.ts'
import { Stack } from '../events/stack.ts'
import { switchTask } from '../events/task-switch.ts'
import { carryInto, implicitAccess, readLinear } from '../paging/access/linear.ts'
import { ioPrivilege, readFlags, writeFlags } from '../state/flags.ts'
import { EXIT, gpr, RSP, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { FLAG, RIGHTS, VECTOR } from '../state/register-bits.ts'
import { NO_RPL } from '../state/selectors.ts'
import { in64BitCode, isLong, isProtected, isV86, setRealSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'
import { checkStackSegment, dropInnerSegments, isNull, loadSegment, readDescriptor, readUpperBase, setNullStack, SYSTEM_TYPE, type Descriptor } from '../events/descriptor.ts'
import { EVENT, TASK_SWITCH, type EventKind, type TaskSwitchSource } from '../state/hooks.ts'
import { goOn, goOnAt } from './transfer.ts'

type Bytes = 2 | 4 | 8
const TR = segment(SEGMENT.tr)
const fault = (vector: number, code = 0): never => {
  throw new GuestFault(vector, code)
}
const errorOf = (selector: number): number => selector & NO_RPL

/** Target of a far transfer, in halves because RIP has 64 bits in 64-bit mode. */
interface Target {
  readonly low: number
  readonly high: number
}
const cut = (low: number, high: number, bytes: Bytes): Target =>
  bytes === 8 ? { low, high } : { low: bytes === 2 ? low & 0xffff : low, high: 0 }

/** RIP must be inside the new code segment, or canonical for 64-bit code. */
function checkTarget(core: Core, d: Descriptor, { low, high }: Target): void {
  if (isLong(core) && d.rights & RIGHTS.long) {
    const shift = core.paging.canonicalShift
    if ((high << shift) >> shift !== high) fault(VECTOR.GP)
  } else if (low >>> 0 > d.limit >>> 0) fault(VECTOR.GP)
}

function enterCode(core: Core, selector: number, d: Descriptor, cpl: number): void {
  loadSegment(core, SEGMENT.cs, (selector & NO_RPL) | cpl, d)
  core.set32(S.cpl, cpl)
}

/** Real-address and virtual-8086 mode: CS:IP as given. In real mode CS is writable data. */
function transferReal(core: Core, selector: number, target: Target): Outcome {
  if (target.low >>> 0 > core.segmentLimit(SEGMENT.cs)) fault(VECTOR.GP)
  setRealSegment(core, SEGMENT.cs, selector)
  updateMode(core)
  return goOnAt(core, target.low, 0)
}

// ------------------------------------------------------------------ JMP and CALL

/** (selector, offset, bytes of an operand). */
function jmpFar(core: Core): Outcome {
  const selector = core.arg32(0) & 0xffff
  const bytes = core.arg32(2) as Bytes
  const target = cut(core.get32(S.args + 8), core.get32(S.args + 12), bytes)
  if (!isProtected(core)) return transferReal(core, selector, target)
  const d = farDescriptor(core, selector)
  if (!d.isSegment) return throughSystem(core, selector, d, TASK_SWITCH.jump)
  const cpl = core.get32(S.cpl)
  checkDirect(core, selector, d, cpl)
  checkTarget(core, d, target)
  enterCode(core, selector, d, cpl)
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

/** (selector, offset, bytes of an operand). */
function callFar(core: Core): Outcome {
  const selector = core.arg32(0) & 0xffff
  const bytes = core.arg32(2) as Bytes
  const target = cut(core.get32(S.args + 8), core.get32(S.args + 12), bytes)
  if (!isProtected(core)) {
    if (target.low >>> 0 > core.segmentLimit(SEGMENT.cs)) fault(VECTOR.GP)
    pushReturn(core, Stack.current(core), bytes).commit()
    return transferReal(core, selector, target)
  }
  const d = farDescriptor(core, selector)
  if (!d.isSegment) return throughSystem(core, selector, d, TASK_SWITCH.call)
  const cpl = core.get32(S.cpl)
  checkDirect(core, selector, d, cpl)
  const stack = pushReturn(core, Stack.current(core), bytes)
  checkTarget(core, d, target)
  enterCode(core, selector, d, cpl)
  stack.commit()
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

function pushReturn(core: Core, stack: Stack, bytes: Bytes): Stack {
  const next = core.nextRip()
  stack.push(bytes, core.segmentSelector(SEGMENT.cs))
  stack.push(bytes, Number(BigInt.asIntN(32, next)), Number(BigInt.asIntN(32, next >> 32n)))
  return stack
}

function farDescriptor(core: Core, selector: number): Descriptor {
  if (isNull(selector)) fault(VECTOR.GP)
  return readDescriptor(core, selector)
}

/** A code segment named directly: no change of privilege. */
function checkDirect(core: Core, selector: number, d: Descriptor, cpl: number): void {
  const code = errorOf(selector)
  if (!d.isCode) fault(VECTOR.GP, code)
  if (d.isConforming ? d.privilege > cpl : (selector & 3) > cpl || d.privilege !== cpl) fault(VECTOR.GP, code)
  if (isLong(core) && (d.rights & (RIGHTS.long | RIGHTS.big)) === (RIGHTS.long | RIGHTS.big)) fault(VECTOR.GP, code)
  if (!d.present) fault(VECTOR.NP, code)
}

/** Call gate, task gate or TSS. */
function throughSystem(core: Core, selector: number, d: Descriptor, source: TaskSwitchSource): Outcome {
  const code = errorOf(selector)
  const cpl = core.get32(S.cpl)
  const long = isLong(core)
  const type = d.type
  const isCallGate = type === SYSTEM_TYPE.callGate32 || (type === SYSTEM_TYPE.callGate16 && !long)
  const isTask = !long && (type === SYSTEM_TYPE.taskGate || type === SYSTEM_TYPE.tss16 || type === SYSTEM_TYPE.tss32)
  if (!isCallGate && !isTask) fault(VECTOR.GP, code)
  if (d.privilege < Math.max(cpl, selector & 3)) fault(VECTOR.GP, code)
  if (!d.present) fault(VECTOR.NP, code)
  if (isCallGate) return throughCallGate(core, selector, d, source === TASK_SWITCH.call)
  const tss = type === SYSTEM_TYPE.taskGate ? d.gateSelector : selector
  const returnTo = Number(core.nextRip())
  if (switchTask(core, tss, source, { returnTo })) return LEFT
  return goOn(core)
}

function throughCallGate(core: Core, selector: number, gate: Descriptor, call: boolean): Outcome {
  const long = isLong(core)
  const high = long ? readUpperBase(core, gate, selector) : 0
  const wide = (gate.type & 8) !== 0
  const bytes: Bytes = long ? 8 : wide ? 4 : 2
  const target: Target = { low: wide ? gate.gateOffset : gate.gateOffset & 0xffff, high }
  const cs = gate.gateSelector
  if (isNull(cs)) fault(VECTOR.GP)
  const d = readDescriptor(core, cs)
  const cpl = core.get32(S.cpl)
  if (!d.isCode || d.privilege > cpl) fault(VECTOR.GP, errorOf(cs))
  if (long && (d.rights & (RIGHTS.long | RIGHTS.big)) !== RIGHTS.long) fault(VECTOR.GP, errorOf(cs))
  if (!call && !d.isConforming && d.privilege !== cpl) fault(VECTOR.GP, errorOf(cs))
  if (!d.present) fault(VECTOR.NP, errorOf(cs))
  const newCpl = call && !d.isConforming ? d.privilege : cpl
  if (newCpl < cpl) return callInner(core, d, cs, target, newCpl, bytes, gate.high & 0x1f)
  if (call) {
    // On a 64-bit stack if the target is 64-bit code.
    const stack = pushReturn(
      core,
      long ? Stack.flat(core, core.get32(gpr(RSP)), core.get32(gpr(RSP) + 4), cpl) : Stack.current(core),
      bytes,
    )
    checkTarget(core, d, target)
    enterCode(core, cs, d, cpl)
    stack.commit()
  } else {
    checkTarget(core, d, target)
    enterCode(core, cs, d, cpl)
  }
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

/** A call to an inner level: the stack comes from the TSS, parameters are copied. */
function callInner(
  core: Core,
  d: Descriptor,
  cs: number,
  target: Target,
  cpl: number,
  bytes: Bytes,
  parameters: number,
): Outcome {
  let stack: Stack
  let ss = cpl
  let stackSegment: Descriptor | undefined
  if (bytes === 8) {
    const slot = 4 + 8 * cpl
    if (slot + 7 > core.get32(TR + SEG.limit) >>> 0) fault(VECTOR.TS, errorOf(core.segmentSelector(SEGMENT.tr)))
    const low = core.get32(TR + SEG.base)
    const high = core.get32(TR + SEG.base + 4)
    const word = (n: number) => readLinear(core, (low + n) | 0, carryInto(core, low, high, n), 4, implicitAccess(core))
    stack = Stack.flat(core, word(slot), word(slot + 4), cpl)
  } else {
    const top = innerStack(core, cpl, 0)
    ss = top.selector
    if (isNull(ss)) fault(VECTOR.TS)
    stackSegment = checkStackSegment(core, ss, cpl, VECTOR.TS, errorOf(ss))
    stack = new Stack(core, stackSegment.rights & RIGHTS.big ? 32 : 16, top.pointer, 0, cpl, stackSegment, errorOf(ss))
  }
  const outer = Stack.current(core)
  stack.push(bytes, core.segmentSelector(SEGMENT.ss))
  stack.push(bytes, core.get32(gpr(RSP)), core.get32(gpr(RSP) + 4))
  if (bytes !== 8) for (let n = parameters - 1; n >= 0; n--) stack.push(bytes, outer.peek(bytes, n * bytes))
  pushReturn(core, stack, bytes)
  checkTarget(core, d, target)
  enterCode(core, cs, d, cpl)
  if (stackSegment) loadSegment(core, SEGMENT.ss, ss, stackSegment)
  else setNullStack(core, cpl, cpl)
  stack.commit()
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

// ------------------------------------------------------------------ RET and IRET

/** (bytes to release, bytes of an operand). */
function retf(core: Core): Outcome {
  const release = core.arg32(0) & 0xffff
  const bytes = core.arg32(1) as Bytes
  const stack = Stack.current(core)
  const low = stack.pop(bytes)
  const target = cut(low, stack.upper, bytes)
  const cs = stack.pop(bytes) & 0xffff
  if (!isProtected(core)) {
    if (target.low >>> 0 > core.segmentLimit(SEGMENT.cs)) fault(VECTOR.GP)
    stack.move(release)
    stack.commit()
    return transferReal(core, cs, target)
  }
  const cpl = core.get32(S.cpl)
  const d = returnCode(core, cs, cpl)
  const newCpl = cs & 3
  stack.move(release)
  if (newCpl === cpl) {
    checkTarget(core, d, target)
    enterCode(core, cs, d, cpl)
    stack.commit()
  } else returnOuter(core, stack, d, cs, target, bytes, release)
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

/** The code segment to which RET or IRET returns. */
function returnCode(core: Core, cs: number, cpl: number): Descriptor {
  if (isNull(cs)) fault(VECTOR.GP)
  const code = errorOf(cs)
  const d = readDescriptor(core, cs)
  const rpl = cs & 3
  if (!d.isCode || rpl < cpl) fault(VECTOR.GP, code)
  if (d.isConforming ? d.privilege > rpl : d.privilege !== rpl) fault(VECTOR.GP, code)
  if (isLong(core) && (d.rights & (RIGHTS.long | RIGHTS.big)) === (RIGHTS.long | RIGHTS.big)) fault(VECTOR.GP, code)
  if (!d.present) fault(VECTOR.NP, code)
  return d
}

/** What is popped, as pairs of halves: RIP, CS and RFLAGS; RSP and SS. */
const innerFrame = new Int32Array(6)
const outerFrame = new Int32Array(4)

/** Pops SS:RSP and returns to an outer level (or, IRET in 64-bit mode, any). */
function returnOuter(
  core: Core,
  stack: Stack,
  d: Descriptor,
  cs: number,
  target: Target,
  bytes: Bytes,
  release: number,
): void {
  stack.read(bytes, outerFrame, 2)
  const low = outerFrame[0]!
  const high = outerFrame[1]!
  const ss = outerFrame[2]! & 0xffff
  const cpl = cs & 3
  const to64 = isLong(core) && (d.rights & RIGHTS.long) !== 0
  const outer = cpl !== core.get32(S.cpl)
  let stackSegment: Descriptor | undefined
  if (isNull(ss)) {
    if (!to64 || cpl === 3 || (ss & 3) !== cpl) fault(VECTOR.GP)
  } else stackSegment = checkStackSegment(core, ss, cpl, VECTOR.GP, errorOf(ss))
  checkTarget(core, d, target)
  enterCode(core, cs, d, cpl)
  if (stackSegment) loadSegment(core, SEGMENT.ss, ss, stackSegment)
  else setNullStack(core, ss, cpl)
  const size = to64 ? 64 : core.segmentAttributes(SEGMENT.ss) & RIGHTS.big ? 32 : 16
  const top = new Stack(core, size, low, bytes === 8 ? high : 0, cpl, { base: 0, limit: -1, rights: 0 })
  top.move(release)
  // A 16-bit stack does not change the rest of RSP, which keeps the value of the popped stack.
  if (size === 16) stack.commit()
  top.commit()
  if (outer) dropInnerSegments(core, cpl)
}

/** Flags that IRET may load. */
function returnFlags(core: Core, image: number, bytes: Bytes, cpl: number): void {
  const old = readFlags(core)
  let mask: number = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF | FLAG.TF | FLAG.DF | FLAG.NT
  if (cpl <= ioPrivilege(old)) mask |= FLAG.IF
  if (cpl === 0) mask |= FLAG.IOPL
  if (bytes !== 2) mask |= FLAG.RF | FLAG.AC | FLAG.ID | (cpl === 0 ? FLAG.VIF | FLAG.VIP : 0)
  // RF affects only instruction breakpoints.
  const image_ = core.debugging ? image : image & ~FLAG.RF
  writeFlags(core, (old & ~mask) | (image_ & mask))
}

function iret(core: Core): Outcome {
  if (core.get32(S.nmiBlocked)) return unblocking(core)
  return returnFromInterrupt(core)
}

/** Ends the blocking of NMIs, even if it faults. A pending NMI is delivered after this instruction. (SDM Vol. 3A, "Handling Multiple NMIs") */
function unblocking(core: Core): Outcome {
  core.set32(S.nmiBlocked, 0)
  core.unblocksNmi = true
  let outcome: Outcome
  try {
    outcome = returnFromInterrupt(core)
  } catch (thrown) {
    if (thrown instanceof Left) core.unblocksNmi = false
    throw thrown
  }
  core.unblocksNmi = false
  if (outcome !== JUMPED || !core.get32(S.attention)) return outcome
  core.set32(S.exit, EXIT.attention)
  return LEFT
}

/** (bytes of an operand). */
function returnFromInterrupt(core: Core): Outcome {
  const bytes = core.arg32(0) as Bytes
  const flags = core.get32(S.flags)
  if (isV86(core)) {
    if (ioPrivilege(flags) < 3) fault(VECTOR.GP)
    return iretReal(core, bytes)
  }
  if (!isProtected(core)) return iretReal(core, bytes)
  if (flags & FLAG.NT) {
    if (isLong(core)) fault(VECTOR.GP)
    const link = readLinear(core, core.get32(TR + SEG.base), 0, 2, implicitAccess(core))
    if (switchTask(core, link, TASK_SWITCH.iret, { returnTo: Number(core.nextRip()) })) return LEFT
    return goOn(core)
  }
  const stack = Stack.current(core)
  stack.read(bytes, innerFrame, 3)
  const target = cut(innerFrame[0]!, innerFrame[1]!, bytes)
  const cs = innerFrame[2]! & 0xffff
  const image = innerFrame[4]!
  const cpl = core.get32(S.cpl)
  if (image & FLAG.VM && bytes === 4 && cpl === 0 && !isLong(core)) return iretToV86(core, stack, target, cs, image)
  const d = returnCode(core, cs, cpl)
  if (in64BitCode(core) || (cs & 3) !== cpl) returnOuter(core, stack, d, cs, target, bytes, 0)
  else {
    checkTarget(core, d, target)
    enterCode(core, cs, d, cpl)
    stack.commit()
  }
  returnFlags(core, image, bytes, cpl)
  updateMode(core)
  return goOnAt(core, target.low, target.high)
}

/** Real-address mode, and virtual-8086 mode with IOPL 3 (which then keeps IOPL and VM). */
function iretReal(core: Core, bytes: Bytes): Outcome {
  const stack = Stack.current(core)
  const target = cut(stack.pop(bytes), 0, bytes)
  const cs = stack.pop(bytes) & 0xffff
  const image = stack.pop(bytes)
  if (target.low >>> 0 > core.segmentLimit(SEGMENT.cs)) fault(VECTOR.GP)
  stack.commit()
  const old = readFlags(core)
  const kept = isV86(core) ? FLAG.IOPL | FLAG.VM | FLAG.VIF | FLAG.VIP : FLAG.VM | FLAG.VIF | FLAG.VIP
  const loaded = (bytes === 2 ? 0xffff : 0x27_ffff) & ~kept
  writeFlags(core, (old & ~loaded & ~FLAG.RF) | (image & loaded & ~(core.debugging ? 0 : FLAG.RF)))
  return transferReal(core, cs, target)
}

function iretToV86(core: Core, stack: Stack, target: Target, cs: number, image: number): Outcome {
  const esp = stack.pop(4)
  const ss = stack.pop(4)
  const selectors = [SEGMENT.es, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs].map((n) => [n, stack.pop(4) & 0xffff] as const)
  writeFlags(core, core.debugging ? image : image & ~FLAG.RF)
  core.set32(S.cpl, 3)
  setRealSegment(core, SEGMENT.cs, cs)
  setRealSegment(core, SEGMENT.ss, ss & 0xffff)
  for (const [n, selector] of selectors) setRealSegment(core, n, selector)
  core.set32(gpr(RSP), esp)
  core.set32(gpr(RSP) + 4, 0)
  updateMode(core)
  return goOnAt(core, target.low & 0xffff, 0)
}

// ------------------------------------------------------------------ software interrupts

/** Delivered with the next instruction's RIP; a fault during delivery belongs to this instruction. */
function softwareInterrupt(core: Core, kind: EventKind, vector: number): Outcome {
  const length = core.recordLength()
  core.settleRip()
  if (kind !== EVENT.software && core.hooks?.exception(vector, 0, kind, length)) return LEFT
  core.delivering = { kind, vector, errorCode: 0, hasErrorCode: false, length }
  core.set64(S.rip, core.nextRip())
  let left: boolean
  try {
    left = deliverThroughTable(core, core.delivering)
  } catch (thrown) {
    if (!(thrown instanceof Left)) throw thrown
    left = true
  }
  core.delivering = undefined
  if (left) {
    core.settleRip()
    return LEFT
  }
  // TF is cleared, and there is no single step. Breakpoints delayed by MOV SS are delivered with INT1, or before the handler's first instruction.
  core.stepping = false
  if (kind === EVENT.privilegedSoftware && core.pendingDebug) enterDebugHandler(core)
  return goOn(core)
}

/** (vector). */
function int(core: Core): Outcome {
  if (isV86(core) && ioPrivilege(core.get32(S.flags)) < 3) fault(VECTOR.GP)
  return softwareInterrupt(core, EVENT.software, core.arg32(0) & 0xff)
}
const int3 = (core: Core): Outcome => softwareInterrupt(core, EVENT.softwareException, VECTOR.BP)
const into = (core: Core): Outcome => softwareInterrupt(core, EVENT.softwareException, VECTOR.OF)
const int1 = (core: Core): Outcome => softwareInterrupt(core, EVENT.privilegedSoftware, VECTOR.DB)

export const farTransfers: Record<string, SystemRoutine> = { jmpFar, callFar, retf, iret, int, int3, into, int1 }
