/** All architectural state of a processor by name, in the contracts' form: snapshots, boot protocols, debuggers. Cold. */
import {
  GENERAL_REGISTERS,
  type DescriptorTable,
  type SegmentState,
  type VcpuState,
  type VcpuStatePatch,
} from '@nonroot/contracts'
import type { Core } from '../state/core.ts'
import { readXsaveArea, writeXsaveArea } from './state-images.ts'
import { readFlags, writeFlags } from '../state/flags.ts'
import { S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { CR0, FLAG } from '../state/register-bits.ts'
import { MSRS, readMsr, writeMsr } from './msrs.ts'
import { privilegeOf } from '../state/segments.ts'
import { updateBreakpoints } from './update-mode.ts'
import { ALL_CONTROLS, applyControls } from './derive.ts'

/** The part of VcpuState that the processor has itself. Its owner knows whether it is halted. */
export type ProcessorState = Omit<VcpuState, 'activity'>

const SEGMENT_REGISTERS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs', 'ldtr', 'tr'] as const
const TABLE_REGISTERS = ['gdtr', 'idtr'] as const
const CONTROL_SLOTS = {
  rip: S.rip,
  cr0: S.cr0,
  cr2: S.cr2,
  cr3: S.cr3,
  cr4: S.cr4,
  efer: S.efer,
  xcr0: S.xcr0,
} as const
const DEBUG_SLOTS = [S.dr0, S.dr1, S.dr2, S.dr3, S.dr6, S.dr7] as const
const SHADOWS = ['none', 'sti', 'movSs'] as const

const TSC = 0x10
/** EFER has a name of its own. */
const NOT_LISTED = new Set([0xc000_0080])

const fromEntries = <T>(entries: Iterable<readonly [string, unknown]>): T => Object.fromEntries(entries) as T

const readSegment = (core: Core, n: number): SegmentState => ({
  selector: core.segmentSelector(n),
  base: core.segmentBase(n),
  limit: core.segmentLimit(n),
  attributes: core.segmentAttributes(n),
})
function writeSegment(core: Core, n: number, { selector, base, limit, attributes }: SegmentState): void {
  const at = segment(n)
  core.set64(at + SEG.base, base)
  core.set32(at + SEG.limit, limit | 0)
  core.set32(at + SEG.selector, selector & 0xffff)
  core.set32(at + SEG.attributes, attributes)
}

export function readRegisters(core: Core): ProcessorState {
  const msrs = new Map<number, bigint>()
  for (const [index, { readOnly }] of MSRS) {
    if (!readOnly && !NOT_LISTED.has(index)) msrs.set(index, readMsr(core, index)!)
  }
  return {
    ...fromEntries<ProcessorState>(GENERAL_REGISTERS.map((name, n) => [name, core.register(n)])),
    ...fromEntries<ProcessorState>(Object.entries(CONTROL_SLOTS).map(([name, slot]) => [name, core.get64(slot)])),
    ...fromEntries<ProcessorState>(SEGMENT_REGISTERS.map((name) => [name, readSegment(core, SEGMENT[name])])),
    ...fromEntries<ProcessorState>(
      TABLE_REGISTERS.map((name) => [
        name,
        { base: core.segmentBase(SEGMENT[name]), limit: core.segmentLimit(SEGMENT[name]) },
      ]),
    ),
    rflags: BigInt(readFlags(core) >>> 0),
    dr: DEBUG_SLOTS.map((slot) => core.get64(slot)) as unknown as VcpuState['dr'],
    msrs,
    xsave: readXsaveArea(core),
    interruptShadow: SHADOWS[core.get32(S.shadow)] ?? 'none',
    nmiBlocked: core.get32(S.nmiBlocked) !== 0,
  }
}

/**
 * Changes the given state and updates everything derived from it. No checks: the values must be those of a processor. CPL is that of SS, as VM entry
 * takes it (3 in virtual-8086 mode, 0 in real-address mode).
 */
export function writeRegisters(core: Core, patch: VcpuStatePatch): void {
  GENERAL_REGISTERS.forEach((name, n) => given(patch[name], (value) => core.setRegister(n, value)))
  for (const name of Object.keys(CONTROL_SLOTS) as (keyof typeof CONTROL_SLOTS)[]) {
    given(patch[name], (value) => core.set64(CONTROL_SLOTS[name], value))
  }
  for (const name of SEGMENT_REGISTERS) given(patch[name], (value) => writeSegment(core, SEGMENT[name], value))
  for (const name of TABLE_REGISTERS)
    given(patch[name], (value: DescriptorTable) =>
      writeSegment(core, SEGMENT[name], { selector: 0, attributes: 0, ...value }),
    )
  given(patch.rflags, (value) => writeFlags(core, Number(value & 0xffff_ffffn)))
  given(patch.dr, (values) => values.forEach((value, n) => core.set64(DEBUG_SLOTS[n]!, value)))
  for (const [index, value] of patch.msrs ?? []) putMsr(core, index, value)
  given(patch.xsave, (area) => writeXsaveArea(core, area))
  given(patch.interruptShadow, (shadow) => core.set32(S.shadow, SHADOWS.indexOf(shadow)))
  given(patch.nmiBlocked, (blocked) => core.set32(S.nmiBlocked, blocked ? 1 : 0))
  derive(core)
}

/** Stored without checks: values in a snapshot were checked when the guest wrote them. The TSC continues from the value. */
function putMsr(core: Core, index: number, value: bigint): void {
  const row = MSRS.get(index)
  if (!row || index === TSC) writeMsr(core, index, value)
  else if (row.slot !== undefined) core.set64(row.slot, value)
  else if (!row.readOnly) core.msrs.set(index, value)
}

function given<T>(value: T | undefined, write: (value: T) => void): void {
  if (value !== undefined) write(value)
}

function derive(core: Core): void {
  const real = !(core.get32(S.cr0) & CR0.pe)
  const v86 = (core.get32(S.flags) & FLAG.VM) !== 0
  core.set32(S.cpl, real ? 0 : v86 ? 3 : privilegeOf(core.segmentAttributes(SEGMENT.ss)))
  applyControls(core, ALL_CONTROLS)
  updateBreakpoints(core)
}
