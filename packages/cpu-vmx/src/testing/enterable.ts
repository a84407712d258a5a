/** A VMCS that passes all checks of VM entry, for tests that spoil it. */
import { createTestHostMemory } from '@nonroot/testkit'
import type { EntryCheckContext } from '../entry/checks/index.ts'
import { allowed, CONTROLS, EntryControl, ExitControl, PinControl, ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import { SEGMENT_FIELDS } from '../tables/vmcs-fields.ts'
import { Vmcs } from '../vmcs/vmcs.ts'

export const context: EntryCheckContext = {
  physicalAddressBits: 40,
  cr4Fixed1: 0x77_ffffn,
  eferMask: 0xd01n,
  virtualTpr: () => 0x30,
  revisionAt: () => undefined,
}

/** A 64-bit guest that may be entered. */
export function enterable(): Vmcs {
  const v = Vmcs.create(createTestHostMemory(16))
  for (const kind of ['pin', 'processor', 'secondary', 'exit', 'entry'] as const) {
    v.write(CONTROLS[kind].field as 'pinControls', allowed(kind).mustBeOne)
  }
  const set = (
    field: 'pinControls' | 'processorControls' | 'secondaryProcessorControls' | 'exitControls' | 'entryControls',
    bits: number,
  ) => v.write(field, (v.read(field) | bits) >>> 0)
  set('pinControls', PinControl.externalInterruptExiting | PinControl.nmiExiting | PinControl.virtualNmis)
  set('processorControls', ProcessorControl.activateSecondaryControls | ProcessorControl.hltExiting)
  set('secondaryProcessorControls', SecondaryControl.enableEpt | SecondaryControl.enableVpid)
  set('exitControls', ExitControl.hostAddressSpaceSize)
  set('entryControls', EntryControl.ia32eModeGuest | EntryControl.loadEfer)
  v.write('vpid', 1)
  v.write('eptPointer', 0x5000n | 0x5en)
  v.write('hostCr0', 0x8000_0033n)
  v.write('hostCr4', 0x2020n)
  v.write('hostCsSelector', 8)
  v.write('hostTrSelector', 0x40)
  v.write('guestCr0', 0x8000_0033n)
  v.write('guestCr4', 0x2020n)
  v.write('guestEfer', 0x500n)
  v.write('guestRflags', 2n)
  v.write('vmcsLinkPointer', (1n << 64n) - 1n)
  for (const name of SEGMENT_FIELDS) v.write(`guest${name}Attributes`, 0x1_0000)
  v.write('guestCsAttributes', 0xa09b)
  v.write('guestCsLimit', 0xffff_ffff)
  v.write('guestSsAttributes', 0xc093)
  v.write('guestSsLimit', 0xffff_ffff)
  v.write('guestTrAttributes', 0x8b)
  v.write('guestTrLimit', 0x67)
  return v
}
