/** @hot Which instructions exit: the `exit` column of the processor's rows, decided by the VM-execution controls. */

import { EXIT_CAUSES, gpr, MODE, RCX, RDI, RSI, S, CR0 } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import { crAccessQualification } from './exit-qualification.ts'
import { EXIT_REASONS, type ExitReasonName } from '../tables/exit-reasons.ts'
import {
  hasInstructionInformation,
  instructionInformation,
  linear,
  operandLinearAddress,
} from './instruction-information.ts'
import { portExits } from '../tables/io-bitmap.ts'
import { msrExits } from '../tables/msr-bitmap.ts'
import type { ControlCache } from './control-cache.ts'

type Judge = (controls: ControlCache, core: Core) => boolean

const processor =
  (bit: number): Judge =>
  (controls) =>
    (controls.processor & bit) !== 0
const secondary =
  (bit: number): Judge =>
  (controls) =>
    (controls.secondary & bit) !== 0
const always: Judge = () => true
const never: Judge = () => false

/** MOV to CR: arguments (number, value). (SDM Vol. 3C, "Instructions That Cause VM Exits Conditionally") */
const crLoad: Judge = (controls, core) => {
  switch (core.arg32(0)) {
    case 0:
      return ((core.arg32(1) ^ core.get32(S.cr0)) & controls.cr0Mask) !== 0
    case 3:
      return (controls.processor & ProcessorControl.cr3LoadExiting) !== 0 && !controls.cr3Targets.includes(core.arg(1))
    case 4:
      return ((core.arg32(1) ^ core.get32(S.cr4)) & controls.cr4Mask) !== 0
    case 8:
      return (controls.processor & ProcessorControl.cr8LoadExiting) !== 0
    default:
      return false
  }
}
/** MOV from CR: arguments (number). */
const crStore: Judge = (controls, core) => {
  const register = core.arg32(0)
  const bit = register === 3 ? ProcessorControl.cr3StoreExiting : register === 8 ? ProcessorControl.cr8StoreExiting : 0
  return (controls.processor & bit) !== 0
}
const lmsw: Judge = (controls, core) => {
  const shadow = core.get32(S.cr0)
  const source = core.arg32(0)
  // PE can only be set.
  return (
    ((source ^ shadow) & controls.cr0Mask & (CR0.mp | CR0.em | CR0.ts)) !== 0 ||
    (source & ~shadow & controls.cr0Mask & CR0.pe) !== 0
  )
}
const clts: Judge = (controls, core) => (controls.cr0Mask & core.get32(S.cr0) & CR0.ts) !== 0

/** Arguments (port, bytes). */
const io: Judge = (controls, core) => {
  if (!(controls.processor & ProcessorControl.useIoBitmaps)) {
    return (controls.processor & ProcessorControl.unconditionalIoExiting) !== 0
  }
  return portExits(core.u8, controls.ioBitmapA, controls.ioBitmapB, core.arg32(0) & 0xffff, core.arg32(1))
}
const msr =
  (write: boolean): Judge =>
  (controls, core) =>
    !(controls.processor & ProcessorControl.useMsrBitmaps) ||
    msrExits(core.u8, controls.msrBitmap, core.get32(gpr(RCX)) >>> 0, write)

/** PAUSE exiting; else, at CPL 0, PAUSE-loop exiting. */
const pause: Judge = (controls, core) =>
  (controls.processor & ProcessorControl.pauseExiting) !== 0 ||
  ((controls.secondary & SecondaryControl.pauseLoopExiting) !== 0 &&
    core.get32(S.cpl) === 0 &&
    controls.pauseLoop.exceeded())

/** By the `when` of the rows; RDMSR and WRMSR share theirs. */
const JUDGES: Readonly<Record<string, Judge>> = {
  always,
  hltExiting: processor(ProcessorControl.hltExiting),
  invlpgExiting: processor(ProcessorControl.invlpgExiting),
  mwaitExiting: processor(ProcessorControl.mwaitExiting),
  monitorExiting: processor(ProcessorControl.monitorExiting),
  pauseExiting: pause,
  rdpmcExiting: processor(ProcessorControl.rdpmcExiting),
  rdtscExiting: processor(ProcessorControl.rdtscExiting),
  movDrExiting: processor(ProcessorControl.movDrExiting),
  descriptorTableExiting: secondary(SecondaryControl.descriptorTableExiting),
  wbinvdExiting: secondary(SecondaryControl.wbinvdExiting),
  rdrandExiting: secondary(SecondaryControl.rdrandExiting),
  rdseedExiting: secondary(SecondaryControl.rdseedExiting),
  crLoadControls: crLoad,
  crStoreControls: crStore,
  lmswControls: lmsw,
  cltsControls: clts,
  ioControls: io,
  // IA32_XSS is 0 and cannot be set, so no bit of the bitmap has an effect.
  xssExitingBitmap: never,
  // The controls that would allow these are not implemented: ENCLS is not advertised, VMFUNC is undefined, VMREAD and VMWRITE exit.
  enclsExiting: never,
  vmFunctionControls: never,
  unlessVmcsShadowing: always,
}

export interface Intercept {
  readonly reason: ExitReasonName
  readonly exits: Judge
  /** Low half of the exit qualification, from the argument slots and `fixed`. */
  readonly qualification: Qualification
  /** Bits of the qualification that the row defines. */
  readonly fixed: number
  /** Further information, for exits that report memory operands. Cold. */
  readonly describe: ((core: Core) => Description) | undefined
}

/** What an exit with operands reports. */
export interface Description {
  readonly qualification: bigint
  readonly information: number
  readonly linearAddress?: bigint
}

/** `fixed`: the bits that the row defines. */
type Qualification = (core: Core, fixed: number) => number
const none: Qualification = () => 0
const STRING_IO = 0x10
const REP_IO = 0x20
const ioQualificationOf: Qualification = (core, fixed) => {
  const repeated = fixed & STRING_IO && core.arg32(2) !== 0 ? REP_IO : 0
  return ((core.arg32(1) - 1) | fixed | repeated | (core.arg32(0) << 16)) >>> 0
}
/** To a register: arguments (number, value, general register); from one: (number, general register). */
const FROM_DR = 0x10
const movDr: Qualification = (core, fixed) =>
  (core.arg32(0) & 7) | fixed | ((core.arg32(fixed & FROM_DR ? 1 : 2) & 15) << 8)

const QUALIFICATIONS: Readonly<Record<string, Qualification>> = {
  crLoadControls: (core) => crAccessQualification(core.arg32(0) & 15, 'movToCr', core.arg32(2) & 15),
  crStoreControls: (core) => crAccessQualification(core.arg32(0) & 15, 'movFromCr', core.arg32(1) & 15),
  cltsControls: () => crAccessQualification(0, 'clts'),
  movDrExiting: movDr,
  // Whether MONITOR has armed the monitor.
  mwaitExiting: (core) => (core.monitors ? 1 : 0),
  ioControls: ioQualificationOf,
}

const INS = 8
const ES = 0
/** INS and OUTS: arguments (port, bytes, repeated, address size, segment of OUTS). */
function describeStringIo(core: Core, fixed: number): Description {
  const size = core.arg32(3)
  const input = (fixed & INS) !== 0
  const segment = input ? ES : core.arg32(4)
  const offset = BigInt.asUintN(size, core.get64(gpr(input ? RDI : RSI)))
  const is64 = (core.get32(S.mode) & MODE.codeSize) === CODE_64
  return {
    qualification: BigInt(ioQualificationOf(core, fixed)),
    information: ((size >>> 5) << 7) | (segment << 15),
    linearAddress: linear(core, segment, offset, is64),
  }
}
const CODE_64 = 2
const LMSW_MEMORY = 0x40n
function describeLmsw(core: Core): Description {
  const qualification = BigInt(crAccessQualification(0, 'lmsw', 0, core.arg32(0) & 0xffff))
  const linearAddress = operandLinearAddress(core)
  return linearAddress === undefined
    ? { qualification, information: 0 }
    : { qualification: qualification | LMSW_MEMORY, information: 0, linearAddress }
}

function describe(reason: ExitReasonName, when: string, fixed: number): Intercept['describe'] {
  if (reason === 'ioInstruction' && fixed & STRING_IO) return (core) => describeStringIo(core, fixed)
  if (when === 'lmswControls') return describeLmsw
  if (reason === 'invlpg') return (core) => ({ qualification: core.arg(0), information: 0 })
  if (!hasInstructionInformation(reason)) return undefined
  return (core) => {
    const { information, displacement } = instructionInformation(core, reason)
    return { information, qualification: displacement }
  }
}

const isReason = (name: string): name is ExitReasonName => name in EXIT_REASONS

/** By the processor's exit number. */
export const INTERCEPTS: readonly (Intercept | undefined)[] = EXIT_CAUSES.map(
  ({ reason, when, qualification: fixed }) => {
    if (reason === '') return undefined
    const exits = when === 'msrBitmaps' ? msr(reason === 'wrmsr') : JUDGES[when]
    if (!isReason(reason) || !exits)
      throw new Error(`the processor has an exit '${reason}' when '${when}' that VMX does not know`)
    const qualify = QUALIFICATIONS[when] ?? none
    return {
      reason,
      exits,
      qualification: qualify,
      fixed,
      describe: describe(reason, when, fixed),
    }
  },
)
