/**
 * Checks on VM entry, in the SDM's order: a list that names the one that fails. Complete for the controls that `CONTROLS` implements.
 * (SDM Vol. 3C, "Checks on VMX Controls and Host-State Area", "Checking and Loading Guest State")
 */

import { CR0_FIXED0, CR4_FIXED0 } from './capability-msrs.ts'
import { allowed, EntryControl, ExitControl, PinControl, ProcessorControl, SecondaryControl } from './controls.ts'
import type { ControlKind } from './controls.ts'
import {
  ActivityStateCode,
  exceptionHasErrorCode,
  hasInterruptionErrorCode,
  Interruptibility,
  InterruptionType,
  interruptionType,
  interruptionVector,
  isInterruptionValid,
} from './interruption-info.ts'
import type { Vmcs } from './vmcs.ts'
import type { SegmentFieldName, VmcsFieldOf } from './vmcs-fields.ts'

/** `controls` and `host` fail with VMfailValid (errors 7 and 8), `guest` with exit reason 33. */
export type EntryCheckArea = 'controls' | 'host' | 'guest'

/** What the processor adds to the judgement. */
export interface EntryCheckContext {
  /** MAXPHYADDR. */
  readonly physicalAddressBits: number
  /** CR4 bits that the processor knows. */
  readonly cr4Fixed1: bigint
  /** EFER bits that the processor knows. */
  readonly eferMask: bigint
  /**
   * The SDM's rule is true. This processor can do without: its walker takes the hypervisor's tables even while the guest's CR0.PG is 0
   * (x86, `hardwareRoot`), which stands in for the real-mode emulators that shadow paging needed on early chips.
   */
  readonly unrestrictedNeedsEpt?: boolean
  /** The byte of VTPR in a virtual-APIC page. */
  readonly virtualTpr: (address: bigint) => number
  /** VMCS revision behind an address, undefined where there is none: for the link pointer. */
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

type Holds = EntryCheck['holds']
type Narrow = VmcsFieldOf<32>
type Wide = VmcsFieldOf<64 | 'natural'>

const pin = (v: Vmcs, bit: number): boolean => v.has('pinControls', bit)
const processor = (v: Vmcs, bit: number): boolean => v.has('processorControls', bit)
const secondary = (v: Vmcs, bit: number): boolean =>
  processor(v, ProcessorControl.activateSecondaryControls) && v.has('secondaryProcessorControls', bit)
const exit = (v: Vmcs, bit: number): boolean => v.has('exitControls', bit)
const entry = (v: Vmcs, bit: number): boolean => v.has('entryControls', bit)
const guest64 = (v: Vmcs): boolean => entry(v, EntryControl.ia32eModeGuest)
const unrestricted = (v: Vmcs): boolean => secondary(v, SecondaryControl.unrestrictedGuest)

const isCanonical = (address: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, address)) === address
const fits = (address: bigint, { physicalAddressBits }: EntryCheckContext): boolean =>
  address >> BigInt(physicalAddressBits) === 0n
const isFrame = (address: bigint, context: EntryCheckContext): boolean =>
  (address & 0xfffn) === 0n && fits(address, context)
/** Memory types of IA32_PAT: each byte one of UC, WC, WT, WP, WB, UC-. */
const isPat = (value: bigint): boolean => {
  for (let i = 0n; i < 64n; i += 8n) if (![0n, 1n, 4n, 5n, 6n, 7n].includes((value >> i) & 0xffn)) return false
  return true
}

const VALID_CONTROLS = (kind: ControlKind, field: Narrow): Holds => {
  const { mustBeOne, mayBeOne } = allowed(kind)
  return (v) => {
    const value = v.read32(field)
    return (value & mustBeOne) >>> 0 === mustBeOne && (value & ~mayBeOne) === 0
  }
}
const frameIf = (applies: (v: Vmcs) => boolean, field: Wide): Holds => {
  return (v, context) => !applies(v) || isFrame(v.read(field) as bigint, context)
}
/** An MSR area: empty, or 16-byte aligned and within physical memory to its last byte. */
const msrArea = (count: Narrow, address: Wide): Holds => {
  return (v, context) => {
    const entries = v.read32(count)
    const at = v.read(address) as bigint
    return entries === 0 || ((at & 0xfn) === 0n && fits(at, context) && fits(at + BigInt(entries) * 16n - 1n, context))
  }
}

const EXECUTION = 'VM-Execution Control Fields'
const EXIT = 'VM-Exit Control Fields'
const ENTRY = 'VM-Entry Control Fields'
const HOST_REGISTERS = 'Checks on Host Control Registers, MSRs, and SSP'
const HOST_SEGMENTS = 'Checks on Host Segment and Descriptor-Table Registers'
const HOST_SIZE = 'Checks Related to Address-Space Size'
const GUEST_REGISTERS = 'Checks on Guest Control Registers, Debug Registers, and MSRs'
const GUEST_SEGMENTS = 'Checks on Guest Segment Registers'
const GUEST_TABLES = 'Checks on Guest Descriptor-Table Registers'
const GUEST_FLOW = 'Checks on Guest RIP, RFLAGS, and SSP'
const GUEST_OTHER = 'Checks on Guest Non-Register State'
const GUEST_PDPTES = 'Checks on Guest Page-Directory-Pointer-Table Entries'

const control = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'controls', sdm, holds })
const host = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'host', sdm, holds })
const guest = (sdm: string, id: string, holds: Holds): EntryCheck => ({ id, area: 'guest', sdm, holds })

const EXECUTION_CHECKS: readonly EntryCheck[] = [
  control(EXECUTION, 'pin.reserved', VALID_CONTROLS('pin', 'pinControls')),
  control(EXECUTION, 'processor.reserved', VALID_CONTROLS('processor', 'processorControls')),
  control(
    EXECUTION,
    'secondary.reserved',
    (v, c) =>
      !processor(v, ProcessorControl.activateSecondaryControls) ||
      VALID_CONTROLS('secondary', 'secondaryProcessorControls')(v, c),
  ),
  control(EXECUTION, 'cr3TargetCount', (v) => v.read32('cr3TargetCount') <= 4),
  control(
    EXECUTION,
    'ioBitmapA',
    frameIf((v) => processor(v, ProcessorControl.useIoBitmaps), 'ioBitmapA'),
  ),
  control(
    EXECUTION,
    'ioBitmapB',
    frameIf((v) => processor(v, ProcessorControl.useIoBitmaps), 'ioBitmapB'),
  ),
  control(
    EXECUTION,
    'msrBitmaps',
    frameIf((v) => processor(v, ProcessorControl.useMsrBitmaps), 'msrBitmaps'),
  ),
  control(
    EXECUTION,
    'tprShadow.address',
    frameIf((v) => processor(v, ProcessorControl.useTprShadow), 'virtualApicAddress'),
  ),
  control(
    EXECUTION,
    'tprShadow.threshold',
    (v) => !processor(v, ProcessorControl.useTprShadow) || v.read32('tprThreshold') >>> 4 === 0,
  ),
  control(EXECUTION, 'tprShadow.vtpr', (v, c) => {
    // Asked where nothing else would act on it.
    const asked =
      processor(v, ProcessorControl.useTprShadow) &&
      !secondary(v, SecondaryControl.virtualizeApicAccesses) &&
      !secondary(v, SecondaryControl.virtualInterruptDelivery)
    return !asked || v.read32('tprThreshold') <= c.virtualTpr(v.read('virtualApicAddress')) >>> 4
  }),
  control(EXECUTION, 'nmiExiting.virtualNmis', (v) => pin(v, PinControl.nmiExiting) || !pin(v, PinControl.virtualNmis)),
  control(
    EXECUTION,
    'virtualNmis.nmiWindow',
    (v) => pin(v, PinControl.virtualNmis) || !processor(v, ProcessorControl.nmiWindowExiting),
  ),
  control(
    EXECUTION,
    'virtualizeApicAccesses.address',
    frameIf((v) => secondary(v, SecondaryControl.virtualizeApicAccesses), 'apicAccessAddress'),
  ),
  control(
    EXECUTION,
    'tprShadow.required',
    (v) =>
      processor(v, ProcessorControl.useTprShadow) ||
      !(
        secondary(v, SecondaryControl.virtualizeX2apicMode) ||
        secondary(v, SecondaryControl.apicRegisterVirtualization) ||
        secondary(v, SecondaryControl.virtualInterruptDelivery)
      ),
  ),
  control(
    EXECUTION,
    'virtualizeX2apicMode.apicAccesses',
    (v) =>
      !secondary(v, SecondaryControl.virtualizeX2apicMode) || !secondary(v, SecondaryControl.virtualizeApicAccesses),
  ),
  control(
    EXECUTION,
    'virtualInterruptDelivery.externalInterruptExiting',
    (v) => !secondary(v, SecondaryControl.virtualInterruptDelivery) || pin(v, PinControl.externalInterruptExiting),
  ),
  control(
    EXECUTION,
    'postedInterrupts',
    (v, c) =>
      !pin(v, PinControl.processPostedInterrupts) ||
      (secondary(v, SecondaryControl.virtualInterruptDelivery) &&
        exit(v, ExitControl.acknowledgeInterruptOnExit) &&
        v.read('postedInterruptNotificationVector') < 256 &&
        (v.read('postedInterruptDescriptorAddress') & 0x3fn) === 0n &&
        fits(v.read('postedInterruptDescriptorAddress'), c)),
  ),
  control(EXECUTION, 'vpid', (v) => !secondary(v, SecondaryControl.enableVpid) || v.read('vpid') !== 0),
  control(EXECUTION, 'eptPointer', (v, c) => {
    if (!secondary(v, SecondaryControl.enableEpt)) return true
    const pointer = v.read('eptPointer')
    const type = pointer & 7n
    return (type === 0n || type === 6n) && (pointer & 0x38n) === 0x18n && (pointer & 0xf80n) === 0n && fits(pointer, c)
  }),
  control(
    EXECUTION,
    'pml',
    (v, c) =>
      !secondary(v, SecondaryControl.enablePml) ||
      (secondary(v, SecondaryControl.enableEpt) && isFrame(v.read('pmlAddress'), c)),
  ),
  control(
    EXECUTION,
    'unrestrictedGuest.ept',
    (v, c) => c.unrestrictedNeedsEpt === false || !unrestricted(v) || secondary(v, SecondaryControl.enableEpt),
  ),
  control(
    EXECUTION,
    'modeBasedExecuteControl.ept',
    (v) => !secondary(v, SecondaryControl.modeBasedExecuteControl) || secondary(v, SecondaryControl.enableEpt),
  ),
  control(
    EXECUTION,
    'tscScaling.multiplier',
    (v) => !secondary(v, SecondaryControl.useTscScaling) || v.read('tscMultiplier') !== 0n,
  ),
]

const EXIT_CHECKS: readonly EntryCheck[] = [
  control(EXIT, 'exit.reserved', VALID_CONTROLS('exit', 'exitControls')),
  control(
    EXIT,
    'exit.preemptionTimer',
    (v) => pin(v, PinControl.activatePreemptionTimer) || !exit(v, ExitControl.savePreemptionTimer),
  ),
  control(EXIT, 'exit.msrStore', msrArea('exitMsrStoreCount', 'exitMsrStoreAddress')),
  control(EXIT, 'exit.msrLoad', msrArea('exitMsrLoadCount', 'exitMsrLoadAddress')),
]

const injects = (v: Vmcs): boolean => isInterruptionValid(v.read32('entryInterruptionInfo'))
const injectedType = (v: Vmcs): InterruptionType => interruptionType(v.read32('entryInterruptionInfo'))
const injectedVector = (v: Vmcs): number => interruptionVector(v.read32('entryInterruptionInfo'))
const ENTRY_CHECKS_OF_CONTROLS: readonly EntryCheck[] = [
  control(ENTRY, 'entry.reserved', VALID_CONTROLS('entry', 'entryControls')),
  control(ENTRY, 'entry.interruption.type', (v) => {
    // Type 1 is reserved. 7 (other event) is there as the monitor trap flag is.
    return !injects(v) || (injectedType(v) as number) !== 1
  }),
  control(ENTRY, 'entry.interruption.vector', (v) => {
    if (!injects(v)) return true
    const vector = injectedVector(v)
    if (injectedType(v) === InterruptionType.nmi) return vector === 2
    if (injectedType(v) === InterruptionType.otherEvent) return vector === 0
    return injectedType(v) !== InterruptionType.hardwareException || vector <= 31
  }),
  control(ENTRY, 'entry.interruption.errorCode', (v) => {
    if (!injects(v)) return true
    const protectedMode = !unrestricted(v) || (v.read('guestCr0') & 1n) !== 0n
    const expected =
      protectedMode &&
      injectedType(v) === InterruptionType.hardwareException &&
      exceptionHasErrorCode(injectedVector(v))
    return hasInterruptionErrorCode(v.read32('entryInterruptionInfo')) === expected
  }),
  control(
    ENTRY,
    'entry.interruption.reserved',
    (v) => !injects(v) || (v.read32('entryInterruptionInfo') & 0x7fff_f000) === 0,
  ),
  control(
    ENTRY,
    'entry.errorCode.reserved',
    (v) =>
      !injects(v) ||
      !hasInterruptionErrorCode(v.read32('entryInterruptionInfo')) ||
      v.read32('entryExceptionErrorCode') >>> 16 === 0,
  ),
  control(ENTRY, 'entry.instructionLength', (v) => {
    if (!injects(v)) return true
    const type = injectedType(v)
    const software =
      type === InterruptionType.softwareInterrupt ||
      type === InterruptionType.privilegedSoftwareException ||
      type === InterruptionType.softwareException
    const length = v.read32('entryInstructionLength')
    // Length 0 is allowed: IA32_VMX_MISC says so.
    return !software || length <= 15
  }),
  control(ENTRY, 'entry.msrLoad', msrArea('entryMsrLoadCount', 'entryMsrLoadAddress')),
  control(
    ENTRY,
    'entry.smm',
    (v) => !entry(v, EntryControl.entryToSmm) && !entry(v, EntryControl.deactivateDualMonitor),
  ),
]

const HOST_CHECKS: readonly EntryCheck[] = [
  host(
    HOST_REGISTERS,
    'host.cr0',
    (v) => (v.read('hostCr0') & CR0_FIXED0) === CR0_FIXED0 && v.read('hostCr0') >> 32n === 0n,
  ),
  host(
    HOST_REGISTERS,
    'host.cr4',
    (v, c) => (v.read('hostCr4') & CR4_FIXED0) === CR4_FIXED0 && (v.read('hostCr4') & ~c.cr4Fixed1) === 0n,
  ),
  host(HOST_REGISTERS, 'host.cr3', (v, c) => fits(v.read('hostCr3') & ((1n << 62n) - 1n), c)),
  host(
    HOST_REGISTERS,
    'host.sysenter',
    (v) => isCanonical(v.read('hostSysenterEsp')) && isCanonical(v.read('hostSysenterEip')),
  ),
  host(HOST_REGISTERS, 'host.pat', (v) => !exit(v, ExitControl.loadPat) || isPat(v.read('hostPat'))),
  host(HOST_REGISTERS, 'host.efer', (v, c) => {
    if (!exit(v, ExitControl.loadEfer)) return true
    const efer = v.read('hostEfer')
    const size = exit(v, ExitControl.hostAddressSpaceSize) ? 0x500n : 0n
    return (efer & ~c.eferMask) === 0n && (efer & 0x500n) === size
  }),
  ...(['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Tr'] as const).map((name) =>
    host(HOST_SEGMENTS, `host.${name.toLowerCase()}.selector`, (v) => (v.read(`host${name}Selector`) & 7) === 0),
  ),
  host(HOST_SEGMENTS, 'host.cs.null', (v) => v.read('hostCsSelector') !== 0),
  host(HOST_SEGMENTS, 'host.tr.null', (v) => v.read('hostTrSelector') !== 0),
  host(
    HOST_SEGMENTS,
    'host.ss.null',
    (v) => exit(v, ExitControl.hostAddressSpaceSize) || v.read('hostSsSelector') !== 0,
  ),
  ...(['hostFsBase', 'hostGsBase', 'hostGdtrBase', 'hostIdtrBase', 'hostTrBase'] as const).map((name) =>
    host(HOST_SEGMENTS, `host.${name}.canonical`, (v) => isCanonical(v.read(name))),
  ),
  // The processor enters from 64-bit mode only: ours is the host.
  host(HOST_SIZE, 'host.addressSpaceSize', (v) => exit(v, ExitControl.hostAddressSpaceSize)),
  host(HOST_SIZE, 'host.cr4.pae', (v) => (v.read('hostCr4') & 0x20n) !== 0n),
  host(HOST_SIZE, 'host.rip.canonical', (v) => isCanonical(v.read('hostRip'))),
]

const CR0 = { pe: 1n, nw: 1n << 29n, cd: 1n << 30n, pg: 1n << 31n } as const
const REGISTER_CHECKS: readonly EntryCheck[] = [
  guest(GUEST_REGISTERS, 'guest.cr0.fixed', (v) => {
    const free = unrestricted(v) ? CR0.pe | CR0.pg : 0n
    const fixed = CR0_FIXED0 & ~free
    return (v.read('guestCr0') & fixed) === fixed && v.read('guestCr0') >> 32n === 0n
  }),
  guest(
    GUEST_REGISTERS,
    'guest.cr0.pgWithoutPe',
    (v) => !(v.read('guestCr0') & CR0.pg) || (v.read('guestCr0') & CR0.pe) !== 0n,
  ),
  guest(GUEST_REGISTERS, 'guest.cr4.fixed', (v, c) => {
    const cr4 = v.read('guestCr4')
    return (cr4 & CR4_FIXED0) === CR4_FIXED0 && (cr4 & ~c.cr4Fixed1) === 0n
  }),
  guest(
    GUEST_REGISTERS,
    'guest.debugctl',
    // LBR 0, BTF 1, FREEZE_WHILE_SMM and the like are not there: 15:6 and 1:0 as the SDM leaves them.
    (v) => !entry(v, EntryControl.loadDebugControls) || (v.read('guestDebugctl') & ~0xffc3n) === 0n,
  ),
  guest(
    GUEST_REGISTERS,
    'guest.ia32e.paging',
    (v) => !guest64(v) || ((v.read('guestCr0') & CR0.pg) !== 0n && (v.read('guestCr4') & 0x20n) !== 0n),
  ),
  guest(GUEST_REGISTERS, 'guest.ia32e.pcid', (v) => guest64(v) || (v.read('guestCr4') & (1n << 17n)) === 0n),
  guest(GUEST_REGISTERS, 'guest.cr3', (v, c) => fits(v.read('guestCr3') & ((1n << 62n) - 1n), c)),
  guest(
    GUEST_REGISTERS,
    'guest.dr7',
    (v) => !entry(v, EntryControl.loadDebugControls) || v.read('guestDr7') >> 32n === 0n,
  ),
  guest(
    GUEST_REGISTERS,
    'guest.sysenter',
    (v) => isCanonical(v.read('guestSysenterEsp')) && isCanonical(v.read('guestSysenterEip')),
  ),
  guest(GUEST_REGISTERS, 'guest.pat', (v) => !entry(v, EntryControl.loadPat) || isPat(v.read('guestPat'))),
  guest(GUEST_REGISTERS, 'guest.efer.reserved', (v, c) => {
    return !entry(v, EntryControl.loadEfer) || (v.read('guestEfer') & ~c.eferMask) === 0n
  }),
  guest(GUEST_REGISTERS, 'guest.efer.lma', (v) => {
    if (!entry(v, EntryControl.loadEfer)) return true
    const efer = v.read('guestEfer')
    const lma = (efer & 0x400n) !== 0n
    const lme = (efer & 0x100n) !== 0n
    return lma === guest64(v) && (!(v.read('guestCr0') & CR0.pg) || lma === lme)
  }),
]

// Access rights. (SDM Vol. 3C, "Guest Register State")
const TYPE = 0xf
const S = 0x10
const P = 0x80
const RESERVED = 0xf00
const L = 0x2000
const D = 0x4000
const G = 0x8000
const UNUSABLE = 0x1_0000
const dpl = (attributes: number): number => (attributes >>> 5) & 3

const selector = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Selector`)
const attributes = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Attributes`)
const limit = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Limit`)
const base = (v: Vmcs, name: SegmentFieldName): bigint => v.read(`guest${name}Base`)
const usable = (v: Vmcs, name: SegmentFieldName): boolean => !(attributes(v, name) & UNUSABLE)
const virtual8086 = (v: Vmcs): boolean => (v.read('guestRflags') & (1n << 17n)) !== 0n
/** Of a limit: where bits 11:0 are not all ones G must be 0; where bits 31:20 are not all zero it must be 1. */
const granularity = (v: Vmcs, name: SegmentFieldName): boolean => {
  const bytes = limit(v, name)
  const big = (attributes(v, name) & G) !== 0
  return big ? (bytes & 0xfff) === 0xfff : bytes >>> 20 === 0
}

const CODE_AND_DATA = ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const
const DATA = ['Ds', 'Es', 'Fs', 'Gs'] as const
const segment = (name: SegmentFieldName, what: string, holds: Holds): EntryCheck =>
  guest(GUEST_SEGMENTS, `guest.${name.toLowerCase()}.${what}`, holds)

const SEGMENT_CHECKS: readonly EntryCheck[] = [
  segment('Tr', 'selector', (v) => (selector(v, 'Tr') & 4) === 0),
  segment('Ldtr', 'selector', (v) => !usable(v, 'Ldtr') || (selector(v, 'Ldtr') & 4) === 0),
  segment('Ss', 'rpl', (v) => virtual8086(v) || unrestricted(v) || (selector(v, 'Ss') & 3) === (selector(v, 'Cs') & 3)),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'v86.base', (v) => !virtual8086(v) || base(v, name) === BigInt(selector(v, name)) << 4n),
  ),
  ...(['Tr', 'Fs', 'Gs'] as const).map((name) => segment(name, 'base', (v) => isCanonical(base(v, name)))),
  segment('Ldtr', 'base', (v) => !usable(v, 'Ldtr') || isCanonical(base(v, 'Ldtr'))),
  segment('Cs', 'base', (v) => base(v, 'Cs') >> 32n === 0n),
  ...(['Ss', 'Ds', 'Es'] as const).map((name) =>
    segment(name, 'base', (v) => !usable(v, name) || base(v, name) >> 32n === 0n),
  ),
  ...CODE_AND_DATA.map((name) => segment(name, 'v86.limit', (v) => !virtual8086(v) || limit(v, name) === 0xffff)),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'v86.attributes', (v) => !virtual8086(v) || attributes(v, name) === 0xf3),
  ),
  segment('Cs', 'type', (v) => {
    if (virtual8086(v)) return true
    const type = attributes(v, 'Cs') & TYPE
    return type === 9 || type === 11 || type === 13 || type === 15 || (type === 3 && unrestricted(v))
  }),
  segment('Ss', 'type', (v) => {
    const type = attributes(v, 'Ss') & TYPE
    return virtual8086(v) || !usable(v, 'Ss') || type === 3 || type === 7
  }),
  ...DATA.map((name) =>
    segment(name, 'type', (v) => {
      if (virtual8086(v) || !usable(v, name)) return true
      const type = attributes(v, name) & TYPE
      // Accessed; and readable where it is code.
      return (type & 1) !== 0 && (!(type & 8) || (type & 2) !== 0)
    }),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 's', (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & S) !== 0),
  ),
  segment('Cs', 'dpl', (v) => {
    if (virtual8086(v)) return true
    const type = attributes(v, 'Cs') & TYPE
    const cs = dpl(attributes(v, 'Cs'))
    const ss = dpl(attributes(v, 'Ss'))
    if (type === 3) return cs === 0
    return type === 9 || type === 11 ? cs === ss : cs <= ss
  }),
  segment('Ss', 'dpl', (v) => {
    if (virtual8086(v)) return true
    const ss = dpl(attributes(v, 'Ss'))
    if (!unrestricted(v) && ss !== (selector(v, 'Ss') & 3)) return false
    const real = !(v.read('guestCr0') & CR0.pe)
    return (attributes(v, 'Cs') & TYPE) === 3 || real ? ss === 0 : true
  }),
  ...DATA.map((name) =>
    segment(name, 'dpl', (v) => {
      if (virtual8086(v) || unrestricted(v) || !usable(v, name)) return true
      const rights = attributes(v, name)
      return (rights & TYPE) > 11 || dpl(rights) >= (selector(v, name) & 3)
    }),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(
      name,
      'present',
      (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & P) !== 0,
    ),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(
      name,
      'reserved',
      (v) =>
        virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & (RESERVED | 0xfffe_0000)) === 0,
    ),
  ),
  segment('Cs', 'd', (v) => virtual8086(v) || !(guest64(v) && attributes(v, 'Cs') & L) || !(attributes(v, 'Cs') & D)),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'granularity', (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || granularity(v, name)),
  ),
  segment('Tr', 'type', (v) => {
    const type = attributes(v, 'Tr') & TYPE
    return type === 11 || (type === 3 && !guest64(v))
  }),
  segment('Tr', 'attributes', (v) => (attributes(v, 'Tr') & (S | P | RESERVED | UNUSABLE | 0xfffe_0000)) === P),
  segment('Tr', 'granularity', (v) => granularity(v, 'Tr')),
  segment('Ldtr', 'attributes', (v) => {
    return !usable(v, 'Ldtr') || (attributes(v, 'Ldtr') & (TYPE | S | P | RESERVED | 0xfffe_0000)) === (2 | P)
  }),
  segment('Ldtr', 'granularity', (v) => !usable(v, 'Ldtr') || granularity(v, 'Ldtr')),
  ...(['Gdtr', 'Idtr'] as const).flatMap((name) => [
    guest(GUEST_TABLES, `guest.${name.toLowerCase()}.base`, (v) => isCanonical(v.read(`guest${name}Base`))),
    guest(GUEST_TABLES, `guest.${name.toLowerCase()}.limit`, (v) => v.read(`guest${name}Limit`) >>> 16 === 0),
  ]),
]

const interruptibility = (v: Vmcs, bit: number): boolean => (v.read('guestInterruptibility') & bit) !== 0
const activity = (v: Vmcs): number => v.read('guestActivityState')
const FLOW_AND_STATE_CHECKS: readonly EntryCheck[] = [
  guest(GUEST_FLOW, 'guest.rip', (v) => {
    const code64 = guest64(v) && (attributes(v, 'Cs') & L) !== 0
    return code64 ? isCanonical(v.read('guestRip')) : v.read('guestRip') >> 32n === 0n
  }),
  guest(GUEST_FLOW, 'guest.rflags.reserved', (v) => (v.read('guestRflags') & ~0x3f_7fd5n) === 2n),
  guest(GUEST_FLOW, 'guest.rflags.vm', (v) => !virtual8086(v) || (!guest64(v) && (v.read('guestCr0') & CR0.pe) !== 0n)),
  guest(
    GUEST_FLOW,
    'guest.rflags.if',
    (v) =>
      !injects(v) || injectedType(v) !== InterruptionType.externalInterrupt || (v.read('guestRflags') & 0x200n) !== 0n,
  ),
  guest(GUEST_OTHER, 'guest.activity', (v) => activity(v) <= ActivityStateCode.hlt),
  guest(
    GUEST_OTHER,
    'guest.activity.hltDpl',
    (v) => activity(v) !== ActivityStateCode.hlt || dpl(attributes(v, 'Ss')) === 0,
  ),
  guest(
    GUEST_OTHER,
    'guest.activity.blocking',
    (v) =>
      activity(v) === ActivityStateCode.active ||
      !interruptibility(v, Interruptibility.blockingBySti | Interruptibility.blockingByMovSs),
  ),
  guest(GUEST_OTHER, 'guest.activity.injection', (v) => {
    if (!injects(v) || activity(v) !== ActivityStateCode.hlt) return true
    const type = injectedType(v)
    const vector = injectedVector(v)
    return (
      type === InterruptionType.externalInterrupt ||
      type === InterruptionType.nmi ||
      (type === InterruptionType.hardwareException && (vector === 1 || vector === 18))
    )
  }),
  guest(GUEST_OTHER, 'guest.interruptibility.reserved', (v) => v.read('guestInterruptibility') >>> 5 === 0),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.stiAndMovSs',
    (v) =>
      !(interruptibility(v, Interruptibility.blockingBySti) && interruptibility(v, Interruptibility.blockingByMovSs)),
  ),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.stiWithoutIf',
    (v) => !interruptibility(v, Interruptibility.blockingBySti) || (v.read('guestRflags') & 0x200n) !== 0n,
  ),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.interrupt',
    (v) =>
      !injects(v) ||
      injectedType(v) !== InterruptionType.externalInterrupt ||
      !interruptibility(v, Interruptibility.blockingBySti | Interruptibility.blockingByMovSs),
  ),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.nmi',
    (v) =>
      !injects(v) || injectedType(v) !== InterruptionType.nmi || !interruptibility(v, Interruptibility.blockingByMovSs),
  ),
  guest(GUEST_OTHER, 'guest.interruptibility.smi', (v) => !interruptibility(v, Interruptibility.blockingBySmi)),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.virtualNmi',
    (v) =>
      !pin(v, PinControl.virtualNmis) ||
      !injects(v) ||
      injectedType(v) !== InterruptionType.nmi ||
      !interruptibility(v, Interruptibility.blockingByNmi),
  ),
  guest(
    GUEST_OTHER,
    'guest.interruptibility.enclave',
    (v) => !interruptibility(v, Interruptibility.enclaveInterruption),
  ),
  guest(GUEST_OTHER, 'guest.pendingDebug.reserved', (v) => (v.read('guestPendingDebugExceptions') & ~0x1_500fn) === 0n),
  guest(GUEST_OTHER, 'guest.pendingDebug.bs', (v) => {
    const blocked =
      interruptibility(v, Interruptibility.blockingBySti | Interruptibility.blockingByMovSs) ||
      activity(v) === ActivityStateCode.hlt
    if (!blocked) return true
    const stepping = (v.read('guestRflags') & 0x100n) !== 0n && (v.read('guestDebugctl') & 2n) === 0n
    return ((v.read('guestPendingDebugExceptions') & (1n << 14n)) !== 0n) === stepping
  }),
  guest(GUEST_OTHER, 'guest.vmcsLinkPointer', (v, c) => {
    const link = v.read('vmcsLinkPointer')
    if (link === (1n << 64n) - 1n) return true
    return isFrame(link, c) && c.revisionAt(link) !== undefined
  }),
  guest(GUEST_PDPTES, 'guest.pdptes', (v, c) => {
    // Without EPT they come from memory when CR3 is loaded.
    const pae = (v.read('guestCr0') & CR0.pg) !== 0n && (v.read('guestCr4') & 0x20n) !== 0n && !guest64(v)
    if (!pae || !secondary(v, SecondaryControl.enableEpt)) return true
    return ([0, 1, 2, 3] as const).every((i) => {
      const pdpte = v.read(`guestPdpte${i}`)
      return (pdpte & 1n) === 0n || ((pdpte & 0x1e6n) === 0n && fits(pdpte, c))
    })
  }),
]

/** Every check, in the order that they are made. */
export const ENTRY_CHECKS: readonly EntryCheck[] = [
  ...EXECUTION_CHECKS,
  ...EXIT_CHECKS,
  ...ENTRY_CHECKS_OF_CONTROLS,
  ...HOST_CHECKS,
  ...REGISTER_CHECKS,
  ...SEGMENT_CHECKS,
  ...FLOW_AND_STATE_CHECKS,
]

/** The first check that does not hold, if any. */
export const failedEntryCheck = (vmcs: Vmcs, context: EntryCheckContext): EntryCheck | undefined =>
  ENTRY_CHECKS.find((check) => !check.holds(vmcs, context))
