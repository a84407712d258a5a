/** Checks on VMX controls: each member of each set, and both sides of each bound. (SDM Vol. 3C, "Checks on VMX Controls") */
import { describe, expect, it } from 'vitest'
import { ExitControl, PinControl, ProcessorControl, SecondaryControl } from '../../tables/controls.ts'
import { interruptionInfo, InterruptionType } from '../../tables/interruption-info.ts'
import { context, enterable } from '../../testing/enterable.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
import { failedEntryCheck } from './index.ts'

const FIELDS = { pin: 'pinControls', processor: 'processorControls', secondary: 'secondaryProcessorControls', exit: 'exitControls' } as const
type Change = (v: Vmcs) => void
const on = (kind: keyof typeof FIELDS, bits: number): Change => (v) => v.write(FIELDS[kind], (v.read(FIELDS[kind]) | bits) >>> 0)
const off = (kind: keyof typeof FIELDS, bits: number): Change => (v) => v.write(FIELDS[kind], (v.read(FIELDS[kind]) & ~bits) >>> 0)
const set = (field: string, value: number | bigint): Change => (v) => v.write(field as 'guestRip', value as never)

/** What is wrong; undefined: nothing. */
type Row = readonly [what: string, wrong: string | undefined, ...changes: Change[]]
const PAST_MEMORY = 1n << BigInt(context.physicalAddressBits)
const { useTprShadow, useIoBitmaps, useMsrBitmaps, nmiWindowExiting } = ProcessorControl
const { virtualizeApicAccesses, virtualizeX2apicMode, apicRegisterVirtualization, virtualInterruptDelivery, enableEpt, enableVpid, enablePml, useTscScaling } = SecondaryControl
const tprShadow = on('processor', useTprShadow)

const frame = (id: string, field: string, changes: readonly Change[], without: Change): Row[] => [
  [`${field}: frame 1`, undefined, ...changes, set(field, 0x1000n)],
  [`${field}: the last frame`, undefined, ...changes, set(field, PAST_MEMORY - 0x1000n)],
  [`${field}: the frame behind it`, id, ...changes, set(field, PAST_MEMORY)],
  ...[0, 11].map((bit): Row => [`${field}: bit ${bit}`, id, ...changes, set(field, 0x1000n | (1n << BigInt(bit)))]),
  [`${field}: not used`, undefined, ...changes, without, set(field, 0x1001n)],
]
const area = (id: string, count: string, address: string): Row[] => [
  [`${address}: one entry`, undefined, set(count, 1), set(address, 0x10n)],
  [`${address}: not aligned`, id, set(count, 1), set(address, 0x18n)],
  [`${address}: the last entry of memory`, undefined, set(count, 1), set(address, PAST_MEMORY - 16n)],
  [`${address}: an entry past it`, id, set(count, 2), set(address, PAST_MEMORY - 16n)],
  [`${address}: begins past it`, id, set(count, 1), set(address, PAST_MEMORY)],
  [`${address}: empty`, undefined, set(count, 0), set(address, 8n)],
]
const inject = (type: number, vector: number, hasCode = false): Change => set('entryInterruptionInfo', interruptionInfo(type as 0, vector, hasCode))
const { hardwareException, softwareInterrupt, privilegedSoftwareException, softwareException, nmi, otherEvent } = InterruptionType
const CODED = [8, 10, 11, 12, 13, 14, 17, 21]

const rows: Row[] = [
  ['4 CR3 targets', undefined, set('cr3TargetCount', 4)],
  ['5 CR3 targets', 'cr3TargetCount', set('cr3TargetCount', 5)],
  ...frame('ioBitmapA', 'ioBitmapA', [on('processor', useIoBitmaps)], off('processor', useIoBitmaps)),
  ...frame('ioBitmapB', 'ioBitmapB', [on('processor', useIoBitmaps)], off('processor', useIoBitmaps)),
  ...frame('msrBitmaps', 'msrBitmaps', [on('processor', useMsrBitmaps)], off('processor', useMsrBitmaps)),
  ...frame('tprShadow.address', 'virtualApicAddress', [tprShadow], off('processor', useTprShadow)),
  ...frame('pml', 'pmlAddress', [on('secondary', enablePml)], off('secondary', enablePml)),
  ['a TPR threshold of 3, as VTPR is', undefined, tprShadow, set('tprThreshold', 3)],
  ['a TPR threshold above VTPR', 'tprShadow.vtpr', tprShadow, set('tprThreshold', 4)],
  ['a TPR threshold above VTPR, without TPR shadow', undefined, set('tprThreshold', 4)],
  ...[4, 5, 31].map((bit): Row => [`a TPR threshold with bit ${bit}`, 'tprShadow.threshold', tprShadow, set('tprThreshold', (1 << bit) >>> 0)]),
  ['a TPR threshold with bit 4, without TPR shadow', undefined, set('tprThreshold', 16)],
  ['no NMI exiting, no virtual NMIs', undefined, off('pin', PinControl.nmiExiting | PinControl.virtualNmis)],
  ['NMI-window exiting', undefined, on('processor', nmiWindowExiting)],
  ['NMI-window exiting without virtual NMIs', 'virtualNmis.nmiWindow', off('pin', PinControl.virtualNmis), on('processor', nmiWindowExiting)],
  ['x2APIC mode without TPR shadow', 'tprShadow.required', on('secondary', virtualizeX2apicMode)],
  ['x2APIC mode with TPR shadow', undefined, tprShadow, on('secondary', virtualizeX2apicMode)],
  // The virtual APIC is not there: what else is asked of its controls is not reached.
  ...[virtualizeApicAccesses, apicRegisterVirtualization, virtualInterruptDelivery].map((bit): Row => [`secondary control ${bit}`, 'secondary.reserved', tprShadow, on('secondary', bit)]),
  ['posted interrupts', 'pin.reserved', on('pin', PinControl.processPostedInterrupts)],
  ['VPID 0, not used', undefined, off('secondary', enableVpid), set('vpid', 0)],
  ...[0, 1, 2, 3, 4, 5, 6, 7].map((type): Row => [`EPT of type ${type}`, type === 0 || type === 6 ? undefined : 'eptPointer', set('eptPointer', BigInt(0x5018 | type))]),
  ...[0, 1, 2, 4, 5, 6, 7].map((length): Row => [`EPT of ${length + 1} levels`, 'eptPointer', set('eptPointer', BigInt(0x5006 | (length << 3)))]),
  ['EPT with accessed and dirty flags', undefined, set('eptPointer', 0x505en)],
  ...[7, 8, 11].map((bit): Row => [`EPTP, bit ${bit}`, 'eptPointer', set('eptPointer', 0x501en | (1n << BigInt(bit)))]),
  ['EPT past memory', 'eptPointer', set('eptPointer', PAST_MEMORY | 0x1en)],
  ['EPTP, not used', undefined, off('secondary', enableEpt), set('eptPointer', 0n)],
  ['PML without EPT', 'pml', off('secondary', enableEpt), on('secondary', enablePml), set('pmlAddress', 0x1000n)],
  ['a TSC multiplier of 0', 'tscScaling.multiplier', on('secondary', useTscScaling), set('tscMultiplier', 0n)],
  ['a TSC multiplier of 1', undefined, on('secondary', useTscScaling), set('tscMultiplier', 1n)],
  ['a TSC multiplier of 0, not used', undefined, set('tscMultiplier', 0n)],
  ['the preemption timer saved', undefined, on('pin', PinControl.activatePreemptionTimer), on('exit', ExitControl.savePreemptionTimer)],
  ...area('exit.msrStore', 'exitMsrStoreCount', 'exitMsrStoreAddress'),
  ...area('exit.msrLoad', 'exitMsrLoadCount', 'exitMsrLoadAddress'),
  ...area('entry.msrLoad', 'entryMsrLoadCount', 'entryMsrLoadAddress'),

  ...[0, 2, 3, 4, 5, 6, 7].map((type): Row => [`an event of type ${type}`, undefined, set('guestRflags', 0x202n), inject(type, type === nmi ? 2 : type === otherEvent ? 0 : 3)]),
  ['an event of type 1', 'entry.interruption.type', inject(1, 3)],
  ['exception 31', undefined, inject(hardwareException, 31)],
  ['exception 32', 'entry.interruption.vector', inject(hardwareException, 32)],
  ['NMI of vector 1', 'entry.interruption.vector', inject(nmi, 1)],
  ['another event of vector 1', 'entry.interruption.vector', inject(otherEvent, 1)],
  ['INT 0xff', undefined, inject(softwareInterrupt, 255)],
  ...Array.from({ length: 32 }, (_, vector) => vector).flatMap((vector): Row[] => [
    [`exception ${vector} with an error code`, CODED.includes(vector) ? undefined : 'entry.interruption.errorCode', inject(hardwareException, vector, true)],
    [`exception ${vector} without one`, CODED.includes(vector) ? 'entry.interruption.errorCode' : undefined, inject(hardwareException, vector)],
  ]),
  ['INT 14 with an error code', 'entry.interruption.errorCode', inject(softwareInterrupt, 14, true)],
  ['exception 14 with an error code in real mode', 'entry.interruption.errorCode', on('secondary', SecondaryControl.unrestrictedGuest), set('guestCr0', 0x20n), inject(hardwareException, 14, true)],
  ...[12, 13, 30].map((bit): Row => [`event information, bit ${bit}`, 'entry.interruption.reserved', set('entryInterruptionInfo', (interruptionInfo(hardwareException, 6) | (1 << bit)) >>> 0)]),
  ['event information, bit 12, not valid', undefined, set('entryInterruptionInfo', 0x1306)],
  ['an error code of 16 bits', undefined, inject(hardwareException, 14, true), set('entryExceptionErrorCode', 0xffff)],
  ['an error code of 17 bits', 'entry.errorCode.reserved', inject(hardwareException, 14, true), set('entryExceptionErrorCode', 0x1_0000)],
  ['an error code of 17 bits, not used', undefined, inject(hardwareException, 6), set('entryExceptionErrorCode', 0x1_0000)],
  ...[softwareInterrupt, privilegedSoftwareException, softwareException].flatMap((type): Row[] => [
    [`an instruction of 15 bytes, type ${type}`, undefined, inject(type, 3), set('entryInstructionLength', 15)],
    [`an instruction of 16 bytes, type ${type}`, 'entry.instructionLength', inject(type, 3), set('entryInstructionLength', 16)],
  ]),
  ['an instruction of 16 bytes, not used', undefined, inject(hardwareException, 6), set('entryInstructionLength', 16)],
]

describe('controls', () => {
  it.each(rows)('%s: %s', (_what, wrong, ...changes) => {
    const v = enterable()
    for (const change of changes as readonly Change[]) change(v)
    expect(failedEntryCheck(v, context)?.id).toBe(wrong)
  })
})
