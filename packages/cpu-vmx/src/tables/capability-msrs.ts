/** The VMX capability MSRs: exactly what is implemented. (SDM Vol. 3D, "VMX Capability Reporting Facility") */

import { CR0_64, CR4_64 } from '@nonroot/contracts'
import { allowed, CONTROLS, type ControlKind } from './controls.ts'
import { VMCS_FIELDS, VMCS_REVISION } from './vmcs-fields.ts'

export const VmxMsr = {
  basic: 0x480,
  pinControls: 0x481,
  processorControls: 0x482,
  exitControls: 0x483,
  entryControls: 0x484,
  misc: 0x485,
  cr0Fixed0: 0x486,
  cr0Fixed1: 0x487,
  cr4Fixed0: 0x488,
  cr4Fixed1: 0x489,
  vmcsEnumeration: 0x48a,
  secondaryProcessorControls: 0x48b,
  eptVpidCapabilities: 0x48c,
  truePinControls: 0x48d,
  trueProcessorControls: 0x48e,
  trueExitControls: 0x48f,
  trueEntryControls: 0x490,
  vmFunctions: 0x491,
  tertiaryProcessorControls: 0x492,
} as const

const FRAME_BYTES = 4096n
const WRITE_BACK = 6n

/** Allowed-0 settings in bits 31:0, allowed-1 settings in 63:32. */
const word = (kind: ControlKind, truly: boolean): bigint => {
  const { default1 } = CONTROLS[kind]
  const { mustBeOne, mayBeOne } = allowed(kind)
  return (BigInt(mayBeOne) << 32n) | BigInt(truly ? mustBeOne : default1 >>> 0)
}

/** CR0: PE, NE and PG must be 1, except PE and PG with unrestricted guest. Bits 63:32 are never 1. */
export const CR0_FIXED0 = CR0_64.pe | CR0_64.ne | CR0_64.pg
export const CR0_FIXED1 = 0xffff_ffffn
export const CR4_FIXED0 = CR4_64.vmxe

/**
 * EPT and VPID capabilities: execute-only 0, 4-level walk 6, write-back 14, 2 MiB 16, 1 GiB 17, INVEPT 20, accessed and dirty 21, INVEPT
 * single 25 and all 26, INVVPID 32 with its four types 43:40.
 */
const EPT_VPID =
  (1n << 0n) |
  (1n << 6n) |
  (1n << 14n) |
  (1n << 16n) |
  (1n << 17n) |
  (1n << 20n) |
  (1n << 21n) |
  (1n << 25n) |
  (1n << 26n) |
  (1n << 32n) |
  (0xfn << 40n)

const highestIndex = Math.max(...Object.values(VMCS_FIELDS).map(({ encoding }) => (encoding >>> 1) & 0x1ff))

/** The preemption timer counts at the TSC's rate divided by 2^n. */
export const PREEMPTION_TIMER_SHIFT = 0

/** @param cr4Fixed1 CR4 bits that the processor supports. */
export function capabilityMsrs(cr4Fixed1: bigint): ReadonlyMap<number, bigint> {
  return new Map<number, bigint>([
    [
      VmxMsr.basic,
      BigInt(VMCS_REVISION) |
        (FRAME_BYTES << 32n) |
        // INS and OUTS report instruction information; the TRUE MSRs exist.
        (WRITE_BACK << 50n) |
        (1n << 54n) |
        (1n << 55n),
    ],
    [VmxMsr.pinControls, word('pin', false)],
    [VmxMsr.processorControls, word('processor', false)],
    [VmxMsr.exitControls, word('exit', false)],
    [VmxMsr.entryControls, word('entry', false)],
    // Activity state HLT, IA-32e mode saved on exit with unrestricted guest, four CR3 targets, injection with an instruction length of 0.
    [VmxMsr.misc, BigInt(PREEMPTION_TIMER_SHIFT) | (1n << 5n) | (1n << 6n) | (4n << 16n) | (1n << 30n)],
    [VmxMsr.cr0Fixed0, CR0_FIXED0],
    [VmxMsr.cr0Fixed1, CR0_FIXED1],
    [VmxMsr.cr4Fixed0, CR4_FIXED0],
    [VmxMsr.cr4Fixed1, cr4Fixed1 | CR4_FIXED0],
    [VmxMsr.vmcsEnumeration, BigInt(highestIndex) << 1n],
    [VmxMsr.secondaryProcessorControls, word('secondary', true)],
    [VmxMsr.eptVpidCapabilities, EPT_VPID],
    [VmxMsr.truePinControls, word('pin', true)],
    [VmxMsr.trueProcessorControls, word('processor', true)],
    [VmxMsr.trueExitControls, word('exit', true)],
    [VmxMsr.trueEntryControls, word('entry', true)],
  ])
}
