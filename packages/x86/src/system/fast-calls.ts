/** SYSCALL, SYSRET, SYSENTER, SYSEXIT: transfers between fixed flat segments. The usual SYSCALL and SYSRET are in IR (semantics/system.ts). (SDM Vol. 2B) */
import { GuestFault, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { readFlags, SYSRET_FLAGS, writeFlags } from '../state/flags.ts'
import { gpr, RCX, RDX, RSP, S, SEGMENT } from '../state/layout.ts'
import { CR0, EFER, FLAG, FLAGS_FIXED, VECTOR } from '../state/register-bits.ts'
import { dpl, FLAT, NO_RPL } from '../state/selectors.ts'
import { isCanonical } from '../control/msrs.ts'
import { isLong, setSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'
import { goOn } from './transfer.ts'

const R11 = 11

const fail = (): never => {
  throw new GuestFault(VECTOR.GP, 0)
}
function flatCode(core: Core, selector: number, rights: number, cpl: number): void {
  setSegment(core, SEGMENT.cs, (selector & NO_RPL) | cpl, 0, 0, -1, rights | dpl(cpl))
}
function flatStack(core: Core, selector: number, cpl: number): void {
  setSegment(core, SEGMENT.ss, (selector & NO_RPL) | cpl, 0, 0, -1, FLAT.data | dpl(cpl))
}

function syscall(core: Core): Outcome {
  if (!(core.get32(S.efer) & EFER.sce)) throw new GuestFault(VECTOR.UD)
  const flags = readFlags(core)
  core.set64(gpr(RCX), core.nextRip())
  core.set64(gpr(R11), BigInt(flags & ~FLAG.RF))
  const star = core.get32(S.star + 4)
  writeFlags(core, flags & ~core.get32(S.fmask) & ~FLAG.RF)
  flatCode(core, star & 0xffff, FLAT.code64, 0)
  setSegment(core, SEGMENT.ss, (star & NO_RPL) + 8, 0, 0, -1, FLAT.data)
  core.set32(S.cpl, 0)
  core.set64(S.rip, core.get64(S.lstar))
  updateMode(core)
  return goOn(core)
}

/** (operand size). */
function sysret(core: Core): Outcome {
  if (!(core.get32(S.efer) & EFER.sce)) throw new GuestFault(VECTOR.UD)
  const to64 = core.arg32(0) === 64
  const rcx = core.get64(gpr(RCX))
  if (to64 && !isCanonical(core, rcx)) fail()
  const star = core.get32(S.star + 4) >>> 16
  writeFlags(core, (core.get32(gpr(R11)) & SYSRET_FLAGS) | FLAGS_FIXED)
  flatCode(core, star + (to64 ? 16 : 0), to64 ? FLAT.code64 : FLAT.code32, 3)
  flatStack(core, star + 8, 3)
  core.set32(S.cpl, 3)
  core.set64(S.rip, to64 ? rcx : rcx & 0xffff_ffffn)
  updateMode(core)
  return goOn(core)
}

function sysenter(core: Core): Outcome {
  const cs = core.get32(S.sysenterCs)
  if (!(core.get32(S.cr0) & CR0.pe) || (cs & NO_RPL) === 0) fail()
  const long = isLong(core)
  core.set32(S.flags, core.get32(S.flags) & ~(FLAG.VM | FLAG.IF | FLAG.RF))
  flatCode(core, cs, long ? FLAT.code64 : FLAT.code32, 0)
  flatStack(core, cs + 8, 0)
  core.set32(S.cpl, 0)
  const mask = long ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn
  core.set64(gpr(RSP), core.get64(S.sysenterEsp) & mask)
  core.set64(S.rip, core.get64(S.sysenterEip) & mask)
  updateMode(core)
  return goOn(core)
}

/** (operand size). */
function sysexit(core: Core): Outcome {
  const cs = core.get32(S.sysenterCs)
  if (!(core.get32(S.cr0) & CR0.pe) || (cs & NO_RPL) === 0) fail()
  const to64 = core.arg32(0) === 64
  const rip = core.get64(gpr(RDX))
  const rsp = core.get64(gpr(RCX))
  if (to64 && !(isCanonical(core, rip) && isCanonical(core, rsp))) fail()
  flatCode(core, cs + (to64 ? 32 : 16), to64 ? FLAT.code64 : FLAT.code32, 3)
  flatStack(core, cs + (to64 ? 40 : 24), 3)
  core.set32(S.cpl, 3)
  core.set64(gpr(RSP), to64 ? rsp : rsp & 0xffff_ffffn)
  core.set64(S.rip, to64 ? rip : rip & 0xffff_ffffn)
  updateMode(core)
  return goOn(core)
}

export const fastCalls: Record<string, SystemRoutine> = { syscall, sysret, sysenter, sysexit }
