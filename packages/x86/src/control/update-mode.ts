/** Updates what is derived from the mode: mode key, TLB bank, code base, alignment check. */
import type { Core } from '../state/core.ts'
import { bankAddress, flushAll } from '../paging/tlb/tlb.ts'
import { quickFillOf } from '../paging/tlb/quick-fill.ts'
import { forgetUserBank } from '../paging/access/slow-path.ts'
import { BREAK_ON, breakpointEnabled, breakpointKind } from '../paging/access/watch.ts'
import { QUICK_FILL, S, SEG, segment, SEGMENT, TLB_BANK } from '../state/layout.ts'
import { CR0, CR4, EFER, FLAG, RIGHTS } from '../state/register-bits.ts'
import { MODE } from '../state/mode.ts'

const CS = segment(SEGMENT.cs)
const SS = segment(SEGMENT.ss)

/** After a change of CR0, CR4, EFER, CS, SS, CPL or of the flags VM, AC, TF. Cheap: no BigInt. */
export function updateMode(core: Core): void {
  const cr0 = core.get32(S.cr0)
  const cr4 = core.get32(S.cr4)
  const flags = core.get32(S.flags)
  const cs = core.get32(CS + SEG.attributes)
  const long = (core.get32(S.efer) & EFER.lma) !== 0
  const v86 = (flags & FLAG.VM) !== 0 && (cr0 & CR0.pe) !== 0
  const cpl = core.get32(S.cpl)

  const code = long && cs & RIGHTS.long ? 2 : cs & RIGHTS.big ? 1 : 0
  let mode: number = code
  if (code !== 2 && core.get32(SS + SEG.attributes) & RIGHTS.big) mode |= MODE.stack32
  if (v86) mode |= MODE.v86
  else if (cr0 & CR0.pe) mode |= MODE.protectedMode
  if (cpl !== 0) mode |= MODE.user
  if (long) mode |= MODE.longMode
  if (cr0 & (CR0.em | CR0.ts)) mode |= MODE.noX87
  if (cr0 & (CR0.em | CR0.ts) || !(cr4 & CR4.osfxsr)) mode |= MODE.noSse
  const limit = core.get32(CS + SEG.limit) >>> 0
  if (code === 1 ? limit !== 0xffff_ffff : code === 0 && limit < 0xffff) mode |= MODE.csLimited
  if (core.get32(S.shadow)) mode |= MODE.shadow
  if (core.paging.root === 1) mode |= MODE.secondRoot
  core.set32(S.mode, mode)

  core.set32(S.csBase, code === 2 ? 0 : core.get32(CS + SEG.base))
  core.set32(S.csBase + 4, 0)
  updateBank(core)

  const alignment = cpl === 3 && (flags & FLAG.AC) !== 0 && (cr0 & CR0.am) !== 0
  if (alignment !== core.paging.alignmentCheck) {
    core.paging.alignmentCheck = alignment
    core.set32(QUICK_FILL, quickFillOf(core))
    if (alignment) forgetUserBank(core)
  }
  core.debugging = (core.get32(S.dr7) & 0xff) !== 0
}

/** The TLB bank that CPL, CR4.SMAP and EFLAGS.AC select. */
export function updateBank(core: Core): void {
  const smap = (core.get32(S.cr4) & CR4.smap) !== 0 && !(core.get32(S.flags) & FLAG.AC)
  const bank = core.get32(S.cpl) === 3 ? TLB_BANK.user : smap ? TLB_BANK.supervisor : TLB_BANK.supervisorUserAllowed
  core.set32(S.tlb, bankAddress(core, bank))
}

/** After a write to DR7 (or DR0 to DR3 while armed). */
export function updateBreakpoints(core: Core): void {
  const dr7 = core.get32(S.dr7)
  let watches = 0
  for (let n = 0; n < 4; n++) {
    if (breakpointEnabled(dr7, n) && breakpointKind(dr7, n) & BREAK_ON.write) watches |= 1 << n
  }
  core.paging.watches = watches
  core.set32(QUICK_FILL, quickFillOf(core))
  if (watches) flushAll(core)
  core.debugging = (dr7 & 0xff) !== 0
}
