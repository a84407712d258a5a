/** MOV to and from control and debug registers, LMSW, CLTS. Arguments are described at each routine. (SDM Vol. 2B, "MOV—Move to/from Control Registers") */
import { GuestFault, NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { hasContexts } from '../paging/tlb/contexts.ts'
import { updatePaging } from '../paging/walk.ts'
import { MAX_PHYSICAL_BITS } from '../state/paging-entry.ts'
import { EXIT, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { CR0, CR4, DEFINED, DR6, EFER, FLAG, RIGHTS, VECTOR } from '../state/register-bits.ts'
import { updateBreakpoints, updateMode } from './update-mode.ts'
import { leaveAfter } from './leave.ts'
import { applyControls } from './derive.ts'

/** What CPUID advertises. */
export const CR4_VALID =
  CR4.tsd |
  CR4.de |
  CR4.pse |
  CR4.pae |
  CR4.mce |
  CR4.pge |
  CR4.pce |
  CR4.osfxsr |
  CR4.osxmmexcpt |
  CR4.umip |
  CR4.fsgsbase |
  CR4.pcide |
  CR4.osxsave |
  CR4.smep |
  CR4.smap
const CR0_VALID = BigInt(DEFINED.cr0 >>> 0)

const fail = (): never => {
  throw new GuestFault(VECTOR.GP, 0)
}
const csIsLong = (core: Core): boolean => (core.get32(segment(SEGMENT.cs) + SEG.attributes) & RIGHTS.long) !== 0

/** CR0 with all checks and consequences. (SDM Vol. 3A, "Control Registers") */
export function writeCr0(core: Core, value: bigint): void {
  if (value >> 32n) fail()
  const next = Number(value & CR0_VALID) | CR0.et | 0
  const old = core.get32(S.cr0)
  const changed = old ^ next
  if (next & CR0.pg && !(next & CR0.pe)) fail()
  if (next & CR0.nw && !(next & CR0.cd)) fail()
  const efer = core.get32(S.efer)
  const cr4 = core.get32(S.cr4)
  if (changed & CR0.pg) {
    if (next & CR0.pg) {
      if (efer & EFER.lme && (!(cr4 & CR4.pae) || csIsLong(core))) fail()
    } else if (cr4 & CR4.pcide || (efer & EFER.lma && (core.get32(S.mode) & 3) === 2)) fail()
  }
  core.set32(S.cr0, next)
  core.set32(S.cr0 + 4, 0)
  if (changed & CR0.pg) core.set32(S.efer, next & CR0.pg && efer & EFER.lme ? efer | EFER.lma : efer & ~EFER.lma)
  if (applyControls(core, { cr0: changed })) return
  core.set32(S.cr0, old)
  core.set32(S.efer, efer)
  updatePaging(core)
  fail()
}

/** CR3. Bit 63 with CR4.PCIDE keeps the TLB entries of its PCID. */
export function writeCr3(core: Core, value: bigint): void {
  const old = core.get64(S.cr3)
  const keep = (core.get32(S.cr4) & CR4.pcide) !== 0 && value >> 63n === 1n
  const cr3 = keep ? value & ~(1n << 63n) : value
  if (core.get32(S.efer) & EFER.lma && cr3 >> BigInt(MAX_PHYSICAL_BITS)) fail()
  core.set64(S.cr3, core.get32(S.efer) & EFER.lma ? cr3 : cr3 & 0xffff_ffffn)
  if (applyControls(core, { cr3: keep && (cr3 === old || hasContexts(core.paging)) ? 'keep' : 'load' })) return
  core.set64(S.cr3, old)
  updatePaging(core)
  fail()
}

export function writeCr4(core: Core, value: bigint): void {
  if (value & ~BigInt(CR4_VALID)) fail()
  const next = Number(value)
  const old = core.get32(S.cr4)
  const changed = old ^ next
  const long = (core.get32(S.efer) & EFER.lma) !== 0
  if (long && !(next & CR4.pae)) fail()
  if (changed & CR4.pcide && next & CR4.pcide && (!long || core.get32(S.cr3) & 0xfff)) fail()
  core.set32(S.cr4, next)
  if (applyControls(core, { cr4: changed })) return
  core.set32(S.cr4, old)
  updatePaging(core)
  fail()
}

/** (number, general register) → value slot. */
function movFromControl(core: Core): Outcome {
  const n = core.arg32(0)
  const slot = CONTROL_SLOT[n]
  if (n === 8) core.set64(S.value, BigInt(core.host.readTaskPriority() & 15))
  else if (slot === undefined) throw new GuestFault(VECTOR.UD)
  else core.set64(S.value, core.get64(slot))
  return NEXT
}
const CONTROL_SLOT: readonly (number | undefined)[] = [S.cr0, undefined, S.cr2, S.cr3, S.cr4]

/** (number, value, general register). */
function movToControl(core: Core): Outcome {
  const value = core.arg(1)
  switch (core.arg32(0)) {
    case 0:
      writeCr0(core, value)
      break
    case 2:
      core.set64(S.cr2, value)
      break
    case 3:
      writeCr3(core, value)
      break
    case 4:
      writeCr4(core, value)
      break
    case 8:
      if (value > 15n) fail()
      // A lower priority may allow an interrupt, or exit after this instruction.
      if (core.host.writeTaskPriority(Number(value))) return leaveAfter(core, EXIT.attention)
      if (core.get32(S.flags) & FLAG.IF && core.get32(S.attention)) return leaveAfter(core, EXIT.attention)
      break
    default:
      throw new GuestFault(VECTOR.UD)
  }
  return NEXT
}

/** (value). PE can be set, not cleared; MP, EM and TS are written. */
function lmsw(core: Core): Outcome {
  const old = core.get32(S.cr0)
  const value = core.arg32(0) & 15
  writeCr0(core, BigInt(((old & ~0xe) | value) >>> 0))
  return NEXT
}

function clts(core: Core): Outcome {
  core.set32(S.cr0, core.get32(S.cr0) & ~CR0.ts)
  updateMode(core)
  return NEXT
}

/** DR4 and DR5 are DR6 and DR7 unless CR4.DE is set. */
function debugRegisterExists(core: Core): void {
  const n = core.arg32(0)
  if (n > 7 || ((n === 4 || n === 5) && core.get32(S.cr4) & CR4.de)) throw new GuestFault(VECTOR.UD)
}
/** DR7.GD guards them all. */
function debugSlot(core: Core, n: number): number {
  if (core.get32(S.dr7) & 0x2000) {
    core.pendingDebug |= DR6.generalDetect
    throw new GuestFault(VECTOR.DB)
  }
  return n < 4 ? S.dr0 + 8 * n : n & 1 ? S.dr7 : S.dr6
}

/** (number, general register) → value slot. */
function movFromDebug(core: Core): Outcome {
  core.set64(S.value, core.get64(debugSlot(core, core.arg32(0))))
  return NEXT
}

/** (number, value, general register). */
function movToDebug(core: Core): Outcome {
  const value = core.arg(1)
  const slot = debugSlot(core, core.arg32(0))
  if ((slot === S.dr6 || slot === S.dr7) && value >> 32n) fail()
  if (slot === S.dr6) core.set64(slot, (value & 0xe00fn) | 0xffff_0ff0n)
  else if (slot === S.dr7) core.set64(slot, (value & 0xffff_2bffn) | 0x400n)
  else core.set64(slot, value)
  updateBreakpoints(core)
  return core.debugging ? leaveAfter(core, EXIT.none) : NEXT
}

/** Checks that precede the routines and the exits of their instructions. */
export const controlRegisterConditions: Record<string, (core: Core) => void> = {
  movFromDebug: debugRegisterExists,
  movToDebug: debugRegisterExists,
}

export const controlRegisters: Record<string, SystemRoutine> = {
  movFromControl,
  movToControl,
  lmsw,
  clts,
  movFromDebug,
  movToDebug,
}
