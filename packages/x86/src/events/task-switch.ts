/** Hardware task switches through 16- and 32-bit TSSs. Not in long mode. (SDM Vol. 3A, "Task Switching") */
import { GuestFault, type Core, LEFT } from '../state/core.ts'
import { checkWritable, implicitAccess, readLinear, writeLinear } from '../paging/access/linear.ts'
import { readFlags, writeFlags } from '../state/flags.ts'
import { gpr, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { CR0, DR6, FLAG, RIGHTS, VECTOR } from '../state/register-bits.ts'
import { NO_RPL } from '../state/selectors.ts'
import { setAllBounds, setNullSegment, setRealSegment, setSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'
import { checkStackSegment, findDescriptor, isNull, loadSegment, markDescriptor, readDescriptor, SYSTEM_TYPE, type Descriptor } from './descriptor.ts'
import { TASK_SWITCH, type DeliveredEvent, type SwitchOptions, type TaskSwitchSource } from '../state/hooks.ts'
import { Stack } from './stack.ts'
import { applyControls } from '../control/derive.ts'

const TR = segment(SEGMENT.tr)
const BUSY = 2
/** Places in a TSS: [32-bit, 16-bit]. */
const PLACES = {
  cr3: [0x1c, -1],
  eip: [0x20, 0x0e],
  eflags: [0x24, 0x10],
  registers: [0x28, 0x12],
  segments: [0x48, 0x22],
  ldt: [0x60, 0x2a],
  trap: [0x64, -1],
} as const
/**
 * A 16-bit TSS has no upper halves of the general registers, and they are not maintained. (SDM Vol. 3A, "16-Bit Task-State Segment (TSS)") Processors
 * fill them with ones.
 */
const UPPER_HALF = 0xffff_0000 | 0
const LEAST_LIMIT = [0x67, 0x2b] as const
/** Order of the segment registers in the TSS: ES CS SS DS (FS GS). */
const SEGMENT_COUNT = [6, 4] as const

/** One task's TSS, read and written by field. */
class TaskState {
  readonly core: Core
  readonly base: number
  readonly kind: 0 | 1
  readonly bytes: 2 | 4

  constructor(core: Core, base: number, wide: boolean) {
    this.core = core
    this.base = base
    this.kind = wide ? 0 : 1
    this.bytes = wide ? 4 : 2
  }
  at(place: keyof typeof PLACES, index = 0): number {
    return (this.base + PLACES[place][this.kind] + index * this.bytes) | 0
  }
  read(place: keyof typeof PLACES, index = 0): number {
    return readLinear(this.core, this.at(place, index), 0, this.bytes, implicitAccess(this.core))
  }
  write(place: keyof typeof PLACES, index: number, value: number): void {
    writeLinear(this.core, this.at(place, index), 0, this.bytes, value, implicitAccess(this.core))
  }
  get size(): number {
    return LEAST_LIMIT[this.kind] + 1
  }
}

/** True if it exited to the hypervisor instead. On return RIP, flags and mode are the new task's. */
export function switchTask(
  core: Core,
  selector: number,
  source: TaskSwitchSource,
  options: SwitchOptions = {},
): boolean {
  if (core.hooks && !options.emulated) return core.hooks.taskSwitch(selector, source, options) === LEFT
  const ext = options.ext ?? 0
  const target = targetTss(core, selector, source, ext)
  const old = currentTask(core)
  const next = new TaskState(core, target.base, (target.type & 8) !== 0)
  checkWritable(core, old.base, 0, old.size, implicitAccess(core))
  checkWritable(core, next.base, 0, next.size, implicitAccess(core))

  const oldSelector = core.segmentSelector(SEGMENT.tr)
  saveTask(core, old, source, options.returnTo ?? core.get32(S.rip))
  const state = readTask(next)
  if (source === TASK_SWITCH.jump || source === TASK_SWITCH.iret) {
    const descriptor = findDescriptor(core, oldSelector)
    if (descriptor) markDescriptor(core, descriptor, 0, BUSY)
  }
  const nested = source === TASK_SWITCH.call || source === TASK_SWITCH.gate
  if (nested) {
    writeLinear(core, next.base, 0, 2, oldSelector, implicitAccess(core))
    state.flags |= FLAG.NT
  }
  if (source !== TASK_SWITCH.iret) markDescriptor(core, target, BUSY)
  setSegment(core, SEGMENT.tr, selector, target.base, 0, target.limit, target.rights | BUSY)
  core.set32(S.cr0, core.get32(S.cr0) | CR0.ts)
  core.set32(S.dr7, core.get32(S.dr7) & ~0x155)
  try {
    loadTask(core, state, ext)
    afterSwitch(core, state, next.bytes, options.event)
  } catch (fault) {
    if (fault instanceof GuestFault) fault.atNewTask = true
    throw fault
  }
  return false
}

function targetTss(core: Core, selector: number, source: TaskSwitchSource, ext: number): Descriptor {
  const code = (selector & NO_RPL) | ext
  const vector = source === TASK_SWITCH.iret ? VECTOR.TS : VECTOR.GP
  if (selector & 4 || isNull(selector)) throw new GuestFault(vector, code)
  const d = readDescriptor(core, selector, vector, ext)
  const wanted = source === TASK_SWITCH.iret ? SYSTEM_TYPE.busyTss16 : SYSTEM_TYPE.tss16
  if (d.isSegment || (d.type & 7) !== wanted) throw new GuestFault(vector, code)
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  if (d.limit >>> 0 < LEAST_LIMIT[d.type & 8 ? 0 : 1]) throw new GuestFault(VECTOR.TS, code)
  return d
}

function currentTask(core: Core): TaskState {
  return new TaskState(core, core.get32(TR + SEG.base), (core.get32(TR + SEG.attributes) & 8) !== 0)
}

function saveTask(core: Core, task: TaskState, source: TaskSwitchSource, eip: number): void {
  task.write('eip', 0, eip)
  const flags = readFlags(core)
  task.write('eflags', 0, source === TASK_SWITCH.iret ? flags & ~FLAG.NT : flags)
  for (let n = 0; n < 8; n++) task.write('registers', n, core.get32(gpr(n)))
  for (let n = 0; n < SEGMENT_COUNT[task.kind]; n++) task.write('segments', n, core.segmentSelector(n))
}

interface NewState {
  readonly wide: boolean
  readonly cr3: number
  readonly eip: number
  flags: number
  readonly registers: number[]
  readonly segments: number[]
  readonly ldt: number
  readonly trap: boolean
}

function readTask(task: TaskState): NewState {
  const wide = task.kind === 0
  const range = (length: number) => Array.from({ length }, (_, n) => n)
  return {
    wide,
    cr3: wide ? task.read('cr3') : 0,
    eip: task.read('eip'),
    flags: task.read('eflags'),
    registers: range(8).map((n) => task.read('registers', n)),
    segments: range(6).map((n) => (n < SEGMENT_COUNT[task.kind] ? task.read('segments', n) & 0xffff : 0)),
    ldt: task.read('ldt') & 0xffff,
    trap: wide && (task.read('trap') & 1) !== 0,
  }
}

/** From here on faults belong to the new task. */
function loadTask(core: Core, state: NewState, ext: number): void {
  if (state.wide && core.get32(S.cr0) < 0) {
    core.set32(S.cr3, state.cr3)
    core.set32(S.cr3 + 4, 0)
    applyControls(core, { cr3: 'unchecked' })
  }
  core.set32(S.rip, state.eip)
  core.set32(S.rip + 4, 0)
  writeFlags(core, state.wide ? state.flags : state.flags & 0xffff)
  state.registers.forEach((value, n) => {
    core.set32(gpr(n), state.wide ? value : value | UPPER_HALF)
    core.set32(gpr(n) + 4, 0)
  })
  // Selectors first, marked not present: a fault during loading leaves them so.
  for (let n = 0; n < 6; n++) setSegment(core, n, state.segments[n]!, 0, 0, 0, RIGHTS.unusable)
  setSegment(core, SEGMENT.ldtr, state.ldt, 0, 0, 0, RIGHTS.unusable)
  if (state.flags & FLAG.VM && state.wide) {
    core.set32(S.cpl, 3)
    loadTable(core, state.ldt, ext)
    for (let n = 0; n < 6; n++) setRealSegment(core, n, state.segments[n]!)
  } else {
    const cpl = state.segments[SEGMENT.cs]! & 3
    core.set32(S.cpl, cpl)
    try {
      loadTable(core, state.ldt, ext)
      loadCode(core, state.segments[SEGMENT.cs]!, ext)
      const ss = state.segments[SEGMENT.ss]!
      if (isNull(ss)) throw new GuestFault(VECTOR.TS, ext)
      loadSegment(core, SEGMENT.ss, ss, checkStackSegment(core, ss, cpl, VECTOR.TS, (ss & NO_RPL) | ext))
      for (const n of [SEGMENT.ds, SEGMENT.es, SEGMENT.fs, SEGMENT.gs]) loadData(core, n, state.segments[n]!, cpl, ext)
    } finally {
      updateMode(core)
    }
  }
  setAllBounds(core)
  updateMode(core)
}

function loadTable(core: Core, selector: number, ext: number): void {
  if (isNull(selector)) return setNullSegment(core, SEGMENT.ldtr, selector)
  const code = (selector & NO_RPL) | ext
  const d = selector & 4 ? undefined : findDescriptor(core, selector)
  if (!d || d.isSegment || d.type !== SYSTEM_TYPE.ldt || !d.present) throw new GuestFault(VECTOR.TS, code)
  setSegment(core, SEGMENT.ldtr, selector, d.base, 0, d.limit, d.rights)
}

function loadCode(core: Core, selector: number, ext: number): void {
  const code = (selector & NO_RPL) | ext
  const d = isNull(selector) ? undefined : findDescriptor(core, selector)
  if (!d || !d.isCode) throw new GuestFault(VECTOR.TS, code)
  if (d.isConforming ? d.privilege > (selector & 3) : d.privilege !== (selector & 3))
    throw new GuestFault(VECTOR.TS, code)
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  loadSegment(core, SEGMENT.cs, selector, d)
}

function loadData(core: Core, n: number, selector: number, cpl: number, ext: number): void {
  if (isNull(selector)) return setNullSegment(core, n, selector)
  const code = (selector & NO_RPL) | ext
  const d = findDescriptor(core, selector)
  if (!d || !d.isSegment || !d.isReadable) throw new GuestFault(VECTOR.TS, code)
  if (!(d.isCode && d.isConforming) && d.privilege < Math.max(cpl, selector & 3)) throw new GuestFault(VECTOR.TS, code)
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  loadSegment(core, n, selector, d)
}

/** The error code goes on the new task's stack; the T flag traps before its first instruction. */
function afterSwitch(core: Core, state: NewState, bytes: 2 | 4, event: DeliveredEvent | undefined): void {
  if (event?.hasErrorCode) {
    const stack = Stack.current(core)
    stack.push(bytes, event.errorCode)
    stack.commit()
  }
  if (core.get32(S.rip) >>> 0 > core.segmentLimit(SEGMENT.cs)) throw new GuestFault(VECTOR.GP, 0)
  if (state.trap) core.pendingDebug |= DR6.taskSwitch
}
