/** Checks on the VM-execution, VM-exit and VM-entry control fields. (SDM Vol. 3C, "Checks on VMX Controls and Host-State Area") */

import {
  allowed,
  EntryControl,
  ExitControl,
  PinControl,
  ProcessorControl,
  SecondaryControl,
} from '../../tables/controls.ts'
import type { ControlKind } from '../../tables/controls.ts'
import { exceptionHasErrorCode, hasInterruptionErrorCode, InterruptionType } from '../../tables/interruption-info.ts'
import {
  pin,
  processor,
  secondary,
  exit,
  entry,
  unrestricted,
  fits,
  isFrame,
  control,
  injects,
  injectedType,
  injectedVector,
} from './entry-check.ts'
import type { Holds, Narrow, Wide, EntryCheck } from './entry-check.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
const EXECUTION = 'VM-Execution Control Fields'
const EXIT = 'VM-Exit Control Fields'
const ENTRY = 'VM-Entry Control Fields'

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

export const CONTROL_CHECKS: readonly EntryCheck[] = [...EXECUTION_CHECKS, ...EXIT_CHECKS, ...ENTRY_CHECKS_OF_CONTROLS]
