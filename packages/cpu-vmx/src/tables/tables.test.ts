import { createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { capabilityMsrs, VmxMsr } from './capability-msrs.ts'
import {
  allowed,
  CONTROLS,
  EntryControl,
  ExitControl,
  PinControl,
  ProcessorControl,
  SecondaryControl,
} from './controls.ts'
import type { ControlKind } from './controls.ts'
import { ENTRY_CHECKS, failedEntryCheck } from '../entry/checks/index.ts'
import { decodeExit, ioQualification } from '../exit/exit-qualification.ts'
import { recordExit } from '../exit/record-exit.ts'
import { EXIT_REASON_NAMES, EXIT_REASONS, exitReasonName } from './exit-reasons.ts'
import { InterruptionType, interruptionInfo } from './interruption-info.ts'
import { portExits, setPortExits } from './io-bitmap.ts'
import { msrExits, setMsrExits } from './msr-bitmap.ts'
import { VMCS_FIELDS, fieldByEncoding, type VmcsFieldName } from './vmcs-fields.ts'
import { context, enterable } from '../testing/enterable.ts'
import { Vmcs } from '../vmcs/vmcs.ts'

describe('VMCS fields', () => {
  it('lie in one frame and do not overlap', () => {
    const taken = new Set<number>()
    for (const { offset, width } of Object.values(VMCS_FIELDS)) {
      const bytes = width === 'natural' ? 8 : width / 8
      expect(offset).toBeGreaterThanOrEqual(16)
      expect(offset + bytes).toBeLessThanOrEqual(4096)
      for (let i = offset; i < offset + bytes; i++) {
        expect(taken.has(i)).toBe(false)
        taken.add(i)
      }
    }
  })
  it('are found by encoding, the upper half too', () => {
    expect(fieldByEncoding(0x6820)).toBe('guestRflags')
    expect(fieldByEncoding(0x2011)).toBe('tscOffset')
    expect(fieldByEncoding(0x7fff)).toBe(undefined)
  })
  it('keep what is written, cut to their width', () => {
    const v = Vmcs.create(createTestHostMemory(4))
    for (const [name, { width }] of Object.entries(VMCS_FIELDS)) {
      const bits = width === 'natural' ? 64 : width
      v.store(name as VmcsFieldName, 0x1234_5678_9abc_def0n)
      expect(v.stored(name as VmcsFieldName)).toBe(BigInt.asUintN(bits, 0x1234_5678_9abc_def0n))
    }
    expect(v.read('guestRip')).toBe(0x1234_5678_9abc_def0n)
    expect(v.read('vpid')).toBe(0xdef0)
  })
})

describe('controls', () => {
  it.each(Object.keys(CONTROLS) as ControlKind[])('%s: what must be 1 may be 1', (kind) => {
    const { mustBeOne, mayBeOne } = allowed(kind)
    expect(mustBeOne & ~mayBeOne).toBe(0)
  })
  it('are what the capability MSRs say', () => {
    const msrs = capabilityMsrs(0x77_ffffn)
    const processor = msrs.get(VmxMsr.trueProcessorControls)!
    expect(Number(processor & 0xffff_ffffn) & ProcessorControl.cr3LoadExiting).toBe(0)
    expect(Number(msrs.get(VmxMsr.processorControls)! & 0xffff_ffffn) & ProcessorControl.cr3LoadExiting).not.toBe(0)
    expect(Number(processor >> 32n) & ProcessorControl.activateTertiaryControls).toBe(0)
    expect(msrs.get(VmxMsr.basic)! >> 55n).toBe(1n)
  })
})

describe('exits', () => {
  it('have one name a number', () => {
    expect(new Set(Object.values(EXIT_REASONS)).size).toBe(EXIT_REASON_NAMES.length)
    expect(exitReasonName(48)).toBe('eptViolation')
    expect(exitReasonName(35)).toBe(undefined)
  })
  it('are decoded with their own qualification', () => {
    const v = enterable()
    const io = { size: 2, direction: 'in', string: true, rep: true, immediate: false, port: 0x1f0 } as const
    recordExit(v, 'ioInstruction', ioQualification(io), 0, 2)
    expect(decodeExit(v)).toEqual({ reason: 'ioInstruction', ...io })
    recordExit(v, 'invlpg', 0x1000, 0xffff_8000, 3)
    expect(decodeExit(v)).toEqual({ reason: 'invlpg', address: 0xffff_8000_0000_1000n })
    recordExit(v, 'cpuid', 0, 0, 2)
    expect(decodeExit(v)).toEqual({ reason: 'cpuid' })
  })
})

describe('bitmaps', () => {
  const bytes = new Uint8Array(0x3000)
  it('cover all ports, and an access past the last exits', () => {
    setPortExits(bytes, 0, 0x1000, 0x7fff, 2, true)
    expect([0x7ffe, 0x7fff, 0x8000, 0x8001].map((port) => portExits(bytes, 0, 0x1000, port, 1))).toEqual([
      false,
      true,
      true,
      false,
    ])
    expect(portExits(bytes, 0, 0x1000, 0x7ffe, 2)).toBe(true)
    expect(portExits(bytes, 0, 0x1000, 0xfffe, 4)).toBe(true)
  })
  it('cover the low and the high MSRs', () => {
    for (const msr of [0, 0x10, 0x1fff, 0xc000_0080, 0xc000_1fff]) {
      expect(msrExits(bytes, 0x2000, msr, true)).toBe(false)
      expect(setMsrExits(bytes, 0x2000, msr, true, true)).toBe(true)
      expect(msrExits(bytes, 0x2000, msr, true)).toBe(true)
      expect(msrExits(bytes, 0x2000, msr, false)).toBe(false)
    }
    expect(msrExits(bytes, 0x2000, 0x4000_0000, false)).toBe(true)
    expect(setMsrExits(bytes, 0x2000, 0x2000, false, false)).toBe(false)
  })
})

describe('entry checks', () => {
  it('let a sound VMCS in, and have ids of their own', () => {
    expect(failedEntryCheck(enterable(), context)).toBe(undefined)
    expect(new Set(ENTRY_CHECKS.map(({ id }) => id)).size).toBe(ENTRY_CHECKS.length)
  })
  it('come in the order of the manual: controls, host, guest', () => {
    const order = ENTRY_CHECKS.map(({ area }) => ['controls', 'host', 'guest'].indexOf(area))
    expect(order).toEqual([...order].sort())
  })

  const secondary = (v: Vmcs, bits: number) =>
    v.write('secondaryProcessorControls', v.read('secondaryProcessorControls') | bits)
  const failures: [string, (v: Vmcs) => void][] = [
    ['pin.reserved', (v) => v.write('pinControls', 0)],
    [
      'processor.reserved',
      (v) =>
        v.write('processorControls', (v.read('processorControls') | ProcessorControl.activateTertiaryControls) >>> 0),
    ],
    ['secondary.reserved', (v) => secondary(v, SecondaryControl.vmcsShadowing)],
    ['cr3TargetCount', (v) => v.write('cr3TargetCount', 5)],
    ['nmiExiting.virtualNmis', (v) => v.write('pinControls', 0x16 | PinControl.virtualNmis)],
    ['vpid', (v) => v.write('vpid', 0)],
    ['eptPointer', (v) => v.write('eptPointer', 0x5000n | 0x1cn)],
    ['unrestrictedGuest.ept', (v) => v.write('secondaryProcessorControls', SecondaryControl.unrestrictedGuest)],
    ['exit.reserved', (v) => v.write('exitControls', 0)],
    [
      'exit.preemptionTimer',
      (v) => v.write('exitControls', (v.read('exitControls') | ExitControl.savePreemptionTimer) >>> 0),
    ],
    ['exit.msrStore', (v) => (v.write('exitMsrStoreCount', 1), v.write('exitMsrStoreAddress', 8n))],
    ['entry.interruption.type', (v) => v.write('entryInterruptionInfo', 0x8000_0120)],
    ['entry.interruption.vector', (v) => v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.nmi, 3))],
    [
      'entry.interruption.errorCode',
      (v) => v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.hardwareException, 14)),
    ],
    [
      'entry.errorCode.reserved',
      (v) => (
        v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.hardwareException, 14, true)),
        v.write('entryExceptionErrorCode', 0x1_0000)
      ),
    ],
    [
      'entry.instructionLength',
      (v) => (
        v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.softwareInterrupt, 0x80)),
        v.write('entryInstructionLength', 16)
      ),
    ],
    ['host.cr0', (v) => v.write('hostCr0', 1n)],
    ['host.cs.selector', (v) => v.write('hostCsSelector', 0xb)],
    ['host.tr.null', (v) => v.write('hostTrSelector', 0)],
    ['host.hostGsBase.canonical', (v) => v.write('hostGsBase', 1n << 60n)],
    ['guest.cr0.fixed', (v) => v.write('guestCr0', 0x33n)],
    ['guest.cr4.fixed', (v) => v.write('guestCr4', 0x20n)],
    ['guest.ia32e.paging', (v) => v.write('guestCr4', 0x2000n)],
    ['guest.cr3', (v) => v.write('guestCr3', 1n << 41n)],
    ['guest.efer.reserved', (v) => v.write('guestEfer', 0x502n)],
    ['guest.efer.lma', (v) => v.write('guestEfer', 0n)],
    ['guest.ss.rpl', (v) => v.write('guestSsSelector', 3)],
    ['guest.gs.base', (v) => v.write('guestGsBase', 1n << 50n)],
    ['guest.cs.base', (v) => v.write('guestCsBase', 1n << 33n)],
    ['guest.cs.type', (v) => v.write('guestCsAttributes', 0xa093)],
    ['guest.cs.d', (v) => v.write('guestCsAttributes', 0xe09b)],
    ['guest.cs.granularity', (v) => v.write('guestCsLimit', 0x1000)],
    ['guest.ds.present', (v) => v.write('guestDsAttributes', 0x13)],
    ['guest.tr.type', (v) => v.write('guestTrAttributes', 0x83)],
    ['guest.idtr.limit', (v) => v.write('guestIdtrLimit', 0x1_0000)],
    ['guest.rip', (v) => v.write('guestRip', 1n << 50n)],
    ['guest.rflags.reserved', (v) => v.write('guestRflags', 0n)],
    [
      'guest.rflags.vm',
      (v) => {
        v.write('guestRflags', 0x2_0002n)
        for (const name of ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const) {
          v.write(`guest${name}Attributes`, 0xf3)
          v.write(`guest${name}Limit`, 0xffff)
        }
      },
    ],
    [
      'guest.rflags.if',
      (v) => v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.externalInterrupt, 0x30)),
    ],
    ['guest.activity', (v) => v.write('guestActivityState', 2)],
    ['guest.interruptibility.stiWithoutIf', (v) => v.write('guestInterruptibility', 1)],
    [
      'guest.interruptibility.nmi',
      (v) => (
        v.write('guestInterruptibility', 2),
        v.write('entryInterruptionInfo', interruptionInfo(InterruptionType.nmi, 2))
      ),
    ],
    ['guest.vmcsLinkPointer', (v) => v.write('vmcsLinkPointer', 0n)],
  ]
  it.each(failures)('%s', (id, spoil) => {
    const v = enterable()
    spoil(v)
    expect(failedEntryCheck(v, context)?.id).toBe(id)
  })
})

/** Each member of a set of fields or bits, and both sides of a bound: the check that fails, or none. */
describe('each member of a VM-entry check', () => {
  type Row = [string, string | undefined, (v: Vmcs) => void]
  const ADDRESS_BITS = context.physicalAddressBits
  const pae = (v: Vmcs): void => {
    v.write('entryControls', (v.read('entryControls') & ~EntryControl.ia32eModeGuest) >>> 0)
    v.write('guestEfer', 0n)
    v.write('guestCsAttributes', 0xc09b)
    v.write('guestRip', 0x1000n)
  }
  const rows: Row[] = [
    ...([0, 1, 2, 3] as const).flatMap((n): Row[] => [
      ...[1, 2, 5, 6, 7, 8, ADDRESS_BITS, 51, 52, 63].map((bit): Row => [
        `PDPTE ${n}, bit ${bit}`,
        'guest.pdptes',
        (v) => (pae(v), v.write(`guestPdpte${n}`, 1n | (1n << BigInt(bit)))),
      ]),
      ...[3, 4, 9, 11, 12, ADDRESS_BITS - 1].map((bit): Row => [
        `PDPTE ${n}, bit ${bit}`,
        undefined,
        (v) => (pae(v), v.write(`guestPdpte${n}`, 1n | (1n << BigInt(bit)))),
      ]),
      [`PDPTE ${n}, not present`, undefined, (v) => (pae(v), v.write(`guestPdpte${n}`, ~1n & ((1n << 64n) - 1n)))],
      [`PDPTE ${n} without PAE paging`, undefined, (v) => v.write(`guestPdpte${n}`, 0x1e7n)],
    ]),
    ...(['guestCr3', 'hostCr3'] as const).flatMap((name): Row[] => [
      ...[ADDRESS_BITS, 51, 52, 61, 62, 63].map((bit): Row => [
        `${name}, bit ${bit}`,
        name === 'guestCr3' ? 'guest.cr3' : 'host.cr3',
        (v) => v.write(name, 1n << BigInt(bit)),
      ]),
      ...[0, 3, 12, ADDRESS_BITS - 1].map((bit): Row => [
        `${name}, bit ${bit}`,
        undefined,
        (v) => v.write(name, 1n << BigInt(bit)),
      ]),
    ]),
    ...(['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Tr'] as const).flatMap((name): Row[] => [
      ...[1, 2, 4].map((bit): Row => [
        `host ${name}, bit ${bit}`,
        `host.${name.toLowerCase()}.selector`,
        (v) => v.write(`host${name}Selector`, 0x40 | bit),
      ]),
      [`host ${name}`, undefined, (v) => v.write(`host${name}Selector`, 0xfff8)],
    ]),
    ...(['hostFsBase', 'hostGsBase', 'hostGdtrBase', 'hostIdtrBase', 'hostTrBase'] as const).flatMap((name): Row[] => [
      [`${name}: first not canonical`, `host.${name}.canonical`, (v) => v.write(name, 1n << 47n)],
      [`${name}: last not canonical`, `host.${name}.canonical`, (v) => v.write(name, 0xffff_7fff_ffff_ffffn)],
      [`${name}: last of the lower half`, undefined, (v) => v.write(name, (1n << 47n) - 1n)],
      [`${name}: first of the upper half`, undefined, (v) => v.write(name, 0xffff_8000_0000_0000n)],
    ]),
    ...(['Sysenter'] as const).flatMap((): Row[] =>
      (['Esp', 'Eip'] as const).flatMap((part): Row[] => [
        [`host SYSENTER_${part}`, 'host.sysenter', (v) => v.write(`hostSysenter${part}`, 1n << 47n)],
        [`guest SYSENTER_${part}`, 'guest.sysenter', (v) => v.write(`guestSysenter${part}`, 1n << 47n)],
      ]),
    ),
    ...(['Gdtr', 'Idtr'] as const).flatMap((name): Row[] => [
      [`guest ${name} limit`, `guest.${name.toLowerCase()}.limit`, (v) => v.write(`guest${name}Limit`, 0x1_0000)],
      [`guest ${name} limit, the last`, undefined, (v) => v.write(`guest${name}Limit`, 0xffff)],
      [`guest ${name} base`, `guest.${name.toLowerCase()}.base`, (v) => v.write(`guest${name}Base`, 1n << 47n)],
    ]),
    ...(['guestPat', 'hostPat'] as const).flatMap((name): Row[] =>
      [0, 1, 2, 3, 4, 5, 6, 7].flatMap((byte) =>
        [0, 1, 2, 3, 4, 5, 6, 7, 8].map((type): Row => [
          `${name}, byte ${byte} of type ${type}`,
          [2, 3, 8].includes(type) ? (name === 'guestPat' ? 'guest.pat' : 'host.pat') : undefined,
          (v) => {
            v.write('entryControls', (v.read('entryControls') | EntryControl.loadPat) >>> 0)
            v.write('exitControls', (v.read('exitControls') | ExitControl.loadPat) >>> 0)
            v.write(name, BigInt(type) << BigInt(8 * byte))
          },
        ]),
      ),
    ),
    ...[0, 1, 2, 3, 4].map((state): Row => [
      `activity state ${state}`,
      state < 2 ? undefined : 'guest.activity',
      (v) => v.write('guestActivityState', state),
    ]),
  ]
  it.each(rows)('%s: %s', (_name, id, spoil) => {
    const v = enterable()
    spoil(v)
    expect(failedEntryCheck(v, context)?.id).toBe(id)
  })
})
