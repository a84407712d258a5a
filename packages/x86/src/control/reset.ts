/** State after power-up, RESET and INIT. (SDM Vol. 3A, "IA-32 and Intel 64 Processor States Following Power-up, Reset, or INIT") */
import type { Core } from '../state/core.ts'
import { forgetSecondStage } from '../paging/tlb/tlb.ts'
import { writeFlags } from '../state/flags.ts'
import { gpr, RDX, S, SEGMENT } from '../state/layout.ts'
import { setSegment } from '../state/segments.ts'
import { SIGNATURE } from './cpuid.ts'
import { updateBreakpoints } from './update-mode.ts'
import { ALL_CONTROLS, applyControls } from './derive.ts'
import { CR0, FLAGS_FIXED } from '../state/register-bits.ts'

const DATA = 0x93
/** PAT as after reset: WB WT UC- UC, twice. */
const PAT_AFTER_RESET = 0x0007_0406_0007_0406n
/** MISC_ENABLE: fast strings, no branch-trace, no PEBS. */
const MISC_ENABLE_AFTER_RESET = 0x1801n

/** `powerUp` clears all; `init` keeps FPU, SSE, MSRs, MTRRs and CR0.CD and NW. */
export function resetProcessor(core: Core, kind: 'powerUp' | 'init' = 'powerUp'): void {
  const caching = kind === 'init' ? core.get32(S.cr0) & (CR0.cd | CR0.nw) : CR0.cd | CR0.nw
  for (let n = 0; n < 16; n++) core.set64(gpr(n), 0n)
  core.set64(gpr(RDX), BigInt(SIGNATURE))
  writeFlags(core, FLAGS_FIXED)
  core.set64(S.rip, 0xfff0n)
  core.set32(S.cpl, 0)
  core.set64(S.cr0, BigInt(CR0.et | caching))
  for (const slot of [S.cr2, S.cr3, S.cr4, S.cr8, S.efer, S.dr0, S.dr1, S.dr2, S.dr3]) core.set64(slot, 0n)
  core.set64(S.dr6, 0xffff_0ff0n)
  core.set64(S.dr7, 0x400n)
  for (let n = 0; n <= SEGMENT.gs; n++) setSegment(core, n, 0, 0, 0, 0xffff, DATA)
  setSegment(core, SEGMENT.cs, 0xf000, 0xffff_0000 | 0, 0, 0xffff, 0x9b)
  setSegment(core, SEGMENT.gdtr, 0, 0, 0, 0xffff, 0)
  setSegment(core, SEGMENT.idtr, 0, 0, 0, 0xffff, 0)
  setSegment(core, SEGMENT.ldtr, 0, 0, 0, 0xffff, 0x82)
  setSegment(core, SEGMENT.tr, 0, 0, 0, 0xffff, 0x8b)
  for (const slot of [S.shadow, S.attention, S.exit, S.nmiBlocked]) core.set32(slot, 0)
  core.pendingDebug = 0
  core.delivering = undefined
  if (kind === 'powerUp') powerUp(core)
  applyControls(core, ALL_CONTROLS)
  updateBreakpoints(core)
  if (kind === 'powerUp') forgetSecondStage(core)
}

function powerUp(core: Core): void {
  for (const slot of [
    S.star,
    S.lstar,
    S.cstar,
    S.fmask,
    S.kernelGsBase,
    S.sysenterCs,
    S.sysenterEsp,
    S.sysenterEip,
    S.tscAux,
    S.tscOffset,
    S.xss,
  ]) {
    core.set64(slot, 0n)
  }
  core.set64(S.xcr0, 1n)
  core.set64(S.pat, PAT_AFTER_RESET)
  core.set64(S.miscEnable, MISC_ENABLE_AFTER_RESET)
  core.set64(S.apicBase, 0xfee0_0900n)
  core.msrs.clear()
  const { u8, base } = core
  u8.fill(0, base + S.fpr, base + S.fpr + 128)
  u8.fill(0, base + S.xmm, base + S.xmm + 512)
  // x87 after RESET is not as after FINIT: control word 40H, all registers +0 and valid.
  core.set32(S.fpuControl, 0x40)
  core.set32(S.fpuStatus, 0)
  core.set32(S.fpuTag, 0xff)
  core.set32(S.fpuOpcode, 0)
  core.set64(S.fpuIp, 0n)
  core.set64(S.fpuDp, 0n)
  core.set32(S.fpuSelectors, 0)
  core.set32(S.mxcsr, 0x1f80)
  core.set32(S.floatException, 0)
}
