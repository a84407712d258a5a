/** The type of a VM-entry check, and helpers that checks are written with. (SDM Vol. 3C, "VM Entries") */

import { EntryControl, ProcessorControl, SecondaryControl } from '../../tables/controls.ts'
import {
  interruptionType,
  interruptionVector,
  isInterruptionValid,
  type InterruptionType,
} from '../../tables/interruption-info.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
import type { VmcsFieldOf } from '../../tables/vmcs-fields.ts'

/** `controls` and `host` fail with VMfailValid (errors 7 and 8), `guest` with exit reason 33. */
export type EntryCheckArea = 'controls' | 'host' | 'guest'

/** Properties of the processor that checks depend on. */
export interface EntryCheckContext {
  /** MAXPHYADDR. */
  readonly physicalAddressBits: number
  /** CR4 bits that the processor supports. */
  readonly cr4Fixed1: bigint
  /** EFER bits that the processor supports. */
  readonly eferMask: bigint
  /**
   * True: the SDM's rule. This processor does not need it, because its walker uses the hypervisor's tables even while the guest's CR0.PG is 0 (x86,
   * `hardwareRoot`). That replaces the real-mode emulator that shadow paging needed on early processors.
   */
  readonly unrestrictedNeedsEpt?: boolean
  /** The byte of VTPR in a virtual-APIC page. */
  readonly virtualTpr: (address: bigint) => number
  /** VMCS revision at an address, undefined if there is none: for the link pointer. */
  readonly revisionAt: (address: bigint) => number | undefined
}

export interface EntryCheck {
  /** `host.cr0.fixed` */
  readonly id: string
  readonly area: EntryCheckArea
  /** Title of the SDM's section. */
  readonly sdm: string
  readonly holds: (vmcs: Vmcs, context: EntryCheckContext) => boolean
}

export type Holds = EntryCheck['holds']
export type Narrow = VmcsFieldOf<32>
export type Wide = VmcsFieldOf<64 | 'natural'>

export const pin = (v: Vmcs, bit: number): boolean => v.has('pinControls', bit)
export const processor = (v: Vmcs, bit: number): boolean => v.has('processorControls', bit)
export const secondary = (v: Vmcs, bit: number): boolean =>
  processor(v, ProcessorControl.activateSecondaryControls) && v.has('secondaryProcessorControls', bit)
export const exit = (v: Vmcs, bit: number): boolean => v.has('exitControls', bit)
export const entry = (v: Vmcs, bit: number): boolean => v.has('entryControls', bit)
export const guest64 = (v: Vmcs): boolean => entry(v, EntryControl.ia32eModeGuest)
export const unrestricted = (v: Vmcs): boolean => secondary(v, SecondaryControl.unrestrictedGuest)

export const isCanonical = (address: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, address)) === address
export const fits = (address: bigint, { physicalAddressBits }: EntryCheckContext): boolean =>
  address >> BigInt(physicalAddressBits) === 0n
export const isFrame = (address: bigint, context: EntryCheckContext): boolean =>
  (address & 0xfffn) === 0n && fits(address, context)
/** Memory types of IA32_PAT: each byte one of UC, WC, WT, WP, WB, UC-. */
export const isPat = (value: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) if (![0n, 1n, 4n, 5n, 6n, 7n].includes((value >> i) & 0xffn)) return false
  return true
}

export const control = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'controls', sdm, holds })
export const host = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'host', sdm, holds })
export const guest = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'guest', sdm, holds })

export const injects = (v: Vmcs): boolean => isInterruptionValid(v.read32('entryInterruptionInfo'))
export const injectedType = (v: Vmcs): InterruptionType => interruptionType(v.read32('entryInterruptionInfo'))
export const injectedVector = (v: Vmcs): number => interruptionVector(v.read32('entryInterruptionInfo'))
