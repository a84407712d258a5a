/**
 * What becomes of each exception: a call of the kernel's, an instruction to carry out for it, or a bounce to the handler it registered. By vector;
 * RIP is that of the instruction. (Xen, "xen/arch/x86/traps.c")
 */

import { PageFaultCode } from '@nonroot/contracts'
import { CR0, gpr, RCX, runningInstruction, S, updateMode, VECTOR } from '@nonroot/x86'
import { emulatePrefixedCpuid, emulatePrivileged } from './emulation/privileged.ts'
import type { Deprivileged } from './deprivileged.ts'

const IDT_CODE = 2
const INT_LENGTH = 2n
const DR6_MASK = 0xe00f

const moveRip = (vcpu: Deprivileged, by: bigint): void => vcpu.core.set64(S.rip, vcpu.core.get64(S.rip) + by)

function undefinedOpcode(vcpu: Deprivileged): void {
  if (emulatePrefixedCpuid(vcpu)) return vcpu.countEmulated('cpuid')
  bounce(vcpu, VECTOR.UD, 0)
}

function generalProtection(vcpu: Deprivileged, code: number): void {
  if (code & IDT_CODE) return softwareInterrupt(vcpu, code)
  if (code === 0) {
    const name = emulatePrivileged(vcpu)
    if (name !== undefined) return vcpu.countEmulated(name)
    if (isSysenter(vcpu)) return sysenter(vcpu)
  }
  bounce(vcpu, VECTOR.GP, code)
}

/** INT n: the hardware's table has no entry at all, and the error code says which one was wanted. */
function softwareInterrupt(vcpu: Deprivileged, code: number): void {
  const { state, frames } = vcpu
  const vector = (code >>> 3) & 0xff
  const handler = state.traps[vector]!
  if (handler.address === 0n || handler.privilege < (state.inKernel ? 1 : 3)) return bounce(vcpu, VECTOR.GP, code)
  moveRip(vcpu, INT_LENGTH)
  vcpu.count('int')
  frames.bounce(handler, undefined, `no handler for INT ${vector}`)
}

const isSysenter = ({ core, state }: Deprivileged): boolean =>
  !state.inKernel && core.recordRip() === core.get64(S.rip) && runningInstruction(core)?.row.mnemonic === 'SYSENTER'

/** Nothing of where it came from is left: RIP 0. (Xen, "sysenter_entry") */
function sysenter(vcpu: Deprivileged): void {
  const handler = vcpu.state.callbacks.sysenter
  if (handler.address === 0n) return bounce(vcpu, VECTOR.GP, 0)
  vcpu.core.set64(S.rip, 0n)
  vcpu.core.set64(gpr(RCX), 0n)
  vcpu.count('sysenter')
  vcpu.frames.bounce(handler, undefined, 'no handler for SYSENTER')
}

function pageFault(vcpu: Deprivileged, code: number): void {
  const { core, state, tables } = vcpu
  const address = BigInt.asUintN(64, (BigInt(core.paging.faultHigh) << 32n) | BigInt(core.paging.faultLow >>> 0))
  const isStore =
    (code & (PageFaultCode.present | PageFaultCode.write)) === (PageFaultCode.present | PageFaultCode.write)
  if (isStore && state.inKernel) {
    const machine = tables.tableEntryAt(vcpu.index, address)
    if (machine !== undefined) {
      if (vcpu.storeToTable(address, machine)) return
    }
  }
  vcpu.writeFaultAddress(address)
  bounce(vcpu, VECTOR.PF, code)
}

/** One #NM; the FPU is usable afterwards. */
function noFpu(vcpu: Deprivileged): void {
  const { core } = vcpu
  core.set32(S.cr0, core.get32(S.cr0) & ~CR0.ts)
  updateMode(core)
  bounce(vcpu, VECTOR.NM, 0)
}

function debug(vcpu: Deprivileged): void {
  const { core } = vcpu
  core.set32(S.dr6, (core.get32(S.dr6) & ~0xf) | (core.pendingDebug & DR6_MASK))
  core.pendingDebug = 0
  bounce(vcpu, VECTOR.DB, 0)
}

const bounce = (vcpu: Deprivileged, vector: number, code: number): void => {
  vcpu.countException(vector)
  vcpu.frames.exception(vector, code)
}

/** `length`: RIP goes behind the instruction, which asked for the exception. */
export function handleException(vcpu: Deprivileged, vector: number, code: number, length: number): void {
  if (length) moveRip(vcpu, BigInt(length))
  switch (vector) {
    case VECTOR.UD:
      return undefinedOpcode(vcpu)
    case VECTOR.GP:
      return generalProtection(vcpu, code)
    case VECTOR.PF:
      return pageFault(vcpu, code)
    case VECTOR.NM:
      return noFpu(vcpu)
    case VECTOR.DB:
      return debug(vcpu)
    default:
      return bounce(vcpu, vector, code)
  }
}
