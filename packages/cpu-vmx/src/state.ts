/** The whole architectural state of a vCPU, to and from the contracts' form. Cold. (SDM Vol. 1, "Managing State Using the XSAVE Feature Set") */

import { GENERAL_REGISTERS } from '@nonroot/contracts'
import type { ActivityState, SegmentState, VcpuState, VcpuStatePatch } from '@nonroot/contracts'
import {
  flushAll,
  fpr,
  gpr,
  loadPdptes,
  MSRS,
  readFlags,
  readMsr,
  S,
  SEG,
  segment,
  SEGMENT,
  setAllBounds,
  updateBreakpoints,
  updateMode,
  updatePaging,
  writeFlags,
  xmm,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'

const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs', 'ldtr', 'tr'] as const
const DEBUG_SLOTS = [S.dr0, S.dr1, S.dr2, S.dr3, S.dr6, S.dr7] as const
const EFER = 0xc000_0080
const TSC = 0x10
/** The legacy region and the header of an XSAVE area. */
export const XSAVE_BYTES = 576
const CR0_PE = 1
const FLAG_VM = 1 << 17

const readSegment = (core: Core, n: number): SegmentState => ({
  selector: core.segmentSelector(n),
  base: core.segmentBase(n),
  limit: core.segmentLimit(n),
  attributes: core.segmentAttributes(n),
})
function writeSegment(core: Core, n: number, { selector, base, limit, attributes }: SegmentState): void {
  const at = segment(n)
  core.set32(at + SEG.selector, selector)
  core.set64(at + SEG.base, base)
  core.set32(at + SEG.limit, limit | 0)
  core.set32(at + SEG.attributes, attributes)
}

/** x87 and SSE state in the standard form. */
export function readXsave(core: Core): Uint8Array {
  const image = new Uint8Array(XSAVE_BYTES)
  const view = new DataView(image.buffer)
  const status = core.get32(S.fpuStatus)
  const top = (status >>> 11) & 7
  view.setUint16(0, core.get32(S.fpuControl), true)
  view.setUint16(2, status, true)
  view.setUint8(4, core.get32(S.fpuTag))
  view.setUint16(6, core.get32(S.fpuOpcode), true)
  view.setBigUint64(8, core.get64(S.fpuIp), true)
  view.setBigUint64(16, core.get64(S.fpuDp), true)
  view.setUint32(24, core.get32(S.mxcsr), true)
  view.setUint32(28, 0xffff, true)
  for (let i = 0; i < 8; i++) {
    const from = core.base + fpr((top + i) & 7)
    image.set(core.u8.subarray(from, from + 10), 32 + i * 16)
  }
  image.set(core.u8.subarray(core.base + xmm(0), core.base + xmm(16)), 160)
  view.setBigUint64(512, 3n, true)
  return image
}

export function writeXsave(core: Core, image: Uint8Array): void {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const present = image.length >= 520 ? view.getBigUint64(512, true) : 3n
  if (present & 1n) {
    const status = view.getUint16(2, true)
    const top = (status >>> 11) & 7
    core.set32(S.fpuControl, view.getUint16(0, true))
    core.set32(S.fpuStatus, status)
    core.set32(S.fpuTag, view.getUint8(4))
    core.set32(S.fpuOpcode, view.getUint16(6, true))
    core.set64(S.fpuIp, view.getBigUint64(8, true))
    core.set64(S.fpuDp, view.getBigUint64(16, true))
    for (let i = 0; i < 8; i++) {
      core.u8.set(image.subarray(32 + i * 16, 42 + i * 16), core.base + fpr((top + i) & 7))
    }
  }
  if (present & 2n) {
    core.set32(S.mxcsr, view.getUint32(24, true))
    core.u8.set(image.subarray(160, 416), core.base + xmm(0))
  }
}

export function readState(core: Core, activity: ActivityState): VcpuState {
  const msrs = new Map<number, bigint>()
  for (const index of MSRS.keys()) {
    const value = index === EFER || index === TSC ? undefined : readMsr(core, index)
    if (value !== undefined) msrs.set(index, value)
  }
  const shadow = core.get32(S.shadow)
  const general = Object.fromEntries(GENERAL_REGISTERS.map((name, n) => [name, core.get64(gpr(n))]))
  const segments = Object.fromEntries(SEGMENTS.map((name) => [name, readSegment(core, SEGMENT[name])]))
  const table = (n: number) => ({ base: core.segmentBase(n), limit: core.segmentLimit(n) })
  return {
    ...general,
    ...segments,
    rip: core.get64(S.rip),
    rflags: BigInt(readFlags(core) >>> 0),
    gdtr: table(SEGMENT.gdtr),
    idtr: table(SEGMENT.idtr),
    cr0: core.get64(S.cr0),
    cr2: core.get64(S.cr2),
    cr3: core.get64(S.cr3),
    cr4: core.get64(S.cr4),
    efer: core.get64(S.efer),
    xcr0: core.get64(S.xcr0),
    dr: DEBUG_SLOTS.map((slot) => core.get64(slot)) as unknown as VcpuState['dr'],
    msrs,
    xsave: readXsave(core),
    activity,
    interruptShadow: shadow === 1 ? 'sti' : shadow === 2 ? 'movSs' : 'none',
    nmiBlocked: core.get32(S.nmiBlocked) !== 0,
  } as unknown as VcpuState
}

/** Everything but `activity`, which is the vCPU's. */
export function writeState(core: Core, patch: VcpuStatePatch): void {
  GENERAL_REGISTERS.forEach((name, n) => {
    const value = patch[name]
    if (value !== undefined) core.set64(gpr(n), value)
  })
  for (const name of SEGMENTS) {
    const value = patch[name]
    if (value) writeSegment(core, SEGMENT[name], value)
  }
  for (const name of ['gdtr', 'idtr'] as const) {
    const value = patch[name]
    if (!value) continue
    core.set64(segment(SEGMENT[name]) + SEG.base, value.base)
    core.set32(segment(SEGMENT[name]) + SEG.limit, value.limit)
  }
  for (const name of ['rip', 'cr0', 'cr2', 'cr3', 'cr4', 'efer', 'xcr0'] as const) {
    const value = patch[name]
    if (value !== undefined) core.set64(S[name], value)
  }
  if (patch.rflags !== undefined) writeFlags(core, Number(BigInt.asIntN(32, patch.rflags)))
  patch.dr?.forEach((value, n) => core.set64(DEBUG_SLOTS[n]!, value))
  for (const [index, value] of patch.msrs ?? []) writeMsrValue(core, index, value)
  if (patch.xsave) writeXsave(core, patch.xsave)
  if (patch.interruptShadow) core.set32(S.shadow, { none: 0, sti: 1, movSs: 2 }[patch.interruptShadow])
  if (patch.nmiBlocked !== undefined) core.set32(S.nmiBlocked, patch.nmiBlocked ? 1 : 0)
  settle(core)
}

/** Straight into its place: what a snapshot holds was judged when the guest wrote it. */
function writeMsrValue(core: Core, index: number, value: bigint): void {
  const row = MSRS.get(index)
  if (!row || row.readOnly) return
  if (row.slot !== undefined) core.set64(row.slot, value)
  else core.msrs.set(index, value)
}

/** What follows from the registers. */
function settle(core: Core): void {
  const real = !(core.get32(S.cr0) & CR0_PE)
  const v86 = (core.get32(S.flags) & FLAG_VM) !== 0
  core.set32(S.cpl, real ? 0 : v86 ? 3 : (core.segmentAttributes(SEGMENT.ss) >>> 5) & 3)
  updatePaging(core)
  setAllBounds(core)
  updateBreakpoints(core)
  updateMode(core)
  flushAll(core)
  loadPdptes(core)
}
