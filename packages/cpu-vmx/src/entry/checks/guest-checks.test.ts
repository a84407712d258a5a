/** Checks on the guest's segments and state: each member of each set, and both sides of each bound. (SDM Vol. 3C, "Checking and Loading Guest State") */
import { describe, expect, it } from 'vitest'
import { EntryControl, PinControl, SecondaryControl } from '../../tables/controls.ts'
import { interruptionInfo, InterruptionType } from '../../tables/interruption-info.ts'
import { context, enterable } from '../../testing/enterable.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
import { failedEntryCheck } from './index.ts'

const SIX = ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const
const DATA = ['Ds', 'Es', 'Fs', 'Gs'] as const
const UNUSABLE = 0x1_0000
const [EXTERNAL, NMI] = [interruptionInfo(InterruptionType.externalInterrupt, 0x30), interruptionInfo(InterruptionType.nmi, 2)]
const exception = (vector: number): number => interruptionInfo(InterruptionType.hardwareException, vector)

/** Fields, written in this order; those of segments as `Cs: [attributes, selector, limit, base]`. */
interface State {
  /** Not a 64-bit guest. */
  readonly legacy?: boolean
  readonly unrestricted?: boolean
  /** In virtual-8086 mode, all segments as they have to be. */
  readonly v86?: boolean
  readonly segments?: Partial<Record<(typeof SIX)[number] | 'Tr' | 'Ldtr', readonly [attributes: number, selector?: number, limit?: number, base?: bigint]>>
  readonly fields?: Readonly<Record<string, number | bigint>>
  readonly entry?: number
  readonly withoutVirtualNmis?: boolean
}
function vmcsOf({ legacy, unrestricted, v86, segments = {}, fields = {}, entry = 0, withoutVirtualNmis }: State): Vmcs {
  const v = enterable()
  if (legacy || v86) {
    v.write('entryControls', (v.read('entryControls') & ~EntryControl.ia32eModeGuest) >>> 0)
    v.write('guestEfer', 0n)
    v.write('guestCsAttributes', 0xc09b)
  }
  v.write('entryControls', (v.read('entryControls') | entry) >>> 0)
  if (unrestricted) v.write('secondaryProcessorControls', v.read('secondaryProcessorControls') | SecondaryControl.unrestrictedGuest)
  if (withoutVirtualNmis) v.write('pinControls', (v.read('pinControls') & ~PinControl.virtualNmis) >>> 0)
  if (v86) v.write('guestRflags', 0x2_0002n)
  const of86 = Object.fromEntries(SIX.map((name, n) => [name, [0xf3, 0x1000 + n, 0xffff, BigInt(0x1_0000 + 16 * n)] as const]))
  for (const [name, [attributes, selector = 0, limit, base = 0n]] of Object.entries({ ...(v86 ? of86 : {}), ...segments })) {
    const key = name as (typeof SIX)[number]
    v.write(`guest${key}Attributes`, attributes)
    v.write(`guest${key}Selector`, selector)
    v.write(`guest${key}Limit`, limit ?? (attributes & 0x8000 ? 0xffff_ffff : 0xffff))
    v.write(`guest${key}Base`, base)
  }
  for (const [name, value] of Object.entries(fields)) v.write(name as 'guestRip', value as never)
  return v
}

/** What is wrong; undefined: nothing. */
type Row = readonly [what: string, wrong: string | undefined, State]
const TYPES = Array.from({ length: 16 }, (_, type) => type)
/** Usable, of DPL 0. */
const sound = (name: (typeof SIX)[number]): number => (name === 'Cs' ? 0xa09b : 0xc093)
const wrongIf = (isWrong: boolean, id: string): string | undefined => (isWrong ? `guest.${id}` : undefined)
const id = (name: string): string => name.toLowerCase()

const segments: Row[] = [
  ...TYPES.flatMap((type): Row[] => [
    [`CS of type ${type}`, wrongIf(![9, 11, 13, 15].includes(type), 'cs.type'), { segments: { Cs: [0xa090 | type] } }],
    [`CS of type ${type}, unrestricted`, wrongIf(![3, 9, 11, 13, 15].includes(type), 'cs.type'), { unrestricted: true, segments: { Cs: [0xa090 | type] } }],
    [`SS of type ${type}`, wrongIf(![3, 7].includes(type), 'ss.type'), { segments: { Ss: [0xc090 | type] } }],
    [`unusable SS of type ${type}`, undefined, { segments: { Ss: [UNUSABLE | type] } }],
    ...DATA.flatMap((name): Row[] => [
      [`${name} of type ${type}`, wrongIf(![1, 3, 5, 7, 11, 15].includes(type), `${id(name)}.type`), { segments: { [name]: [0xc090 | type] } }],
      [`unusable ${name} of type ${type}`, undefined, { segments: { [name]: [UNUSABLE | type] } }],
    ]),
    [`TR of type ${type}`, wrongIf(type !== 11, 'tr.type'), { segments: { Tr: [0x80 | type, 8, 0x67] } }],
    [`TR of type ${type}, not in IA-32e mode`, wrongIf(type !== 3 && type !== 11, 'tr.type'), { legacy: true, segments: { Tr: [0x80 | type, 8, 0x67] } }],
    [`LDTR of type ${type}`, wrongIf(type !== 2, 'ldtr.attributes'), { segments: { Ldtr: [0x80 | type] } }],
    [`unusable LDTR of type ${type}`, undefined, { segments: { Ldtr: [UNUSABLE | type] } }],
  ]),
  ...SIX.flatMap((name): Row[] => {
    const rights = sound(name)
    const but = (change: number): State => ({ segments: { [name]: [rights ^ change] } })
    const limited = (granular: boolean, limit: number): State => ({ segments: { [name]: [granular ? rights | 0x8000 : rights & ~0x8000, 0, limit] } })
    const limits = (wrong: boolean) => wrongIf(wrong, `${id(name)}.granularity`)
    return [
      [`${name}, a system descriptor`, `guest.${id(name)}.s`, but(0x10)],
      [`${name}, not present`, `guest.${id(name)}.present`, but(0x80)],
      ...[8, 9, 10, 11, 17, 31].map((bit): Row => [`${name}, bit ${bit} of its rights`, `guest.${id(name)}.reserved`, { segments: { [name]: [(rights | (1 << bit)) >>> 0] } }]),
      [`${name}, bit 12 of its rights`, undefined, but(0x1000)],
      [`${name}: a limit of 0xfffff bytes`, limits(false), limited(false, 0xf_ffff)],
      [`${name}: a limit of 0x100000 bytes`, limits(true), limited(false, 0x10_0000)],
      [`${name}: a limit of 0xfff in pages`, limits(false), limited(true, 0xfff)],
      [`${name}: a limit of 0xffe in pages`, limits(true), limited(true, 0xffe)],
      [`${name}: a limit of 0xfffff7ff in pages`, limits(true), limited(true, 0xffff_f7ff)],
      ...(name === 'Fs' || name === 'Gs' ? [] : [[`${name}: base 4 GiB`, `guest.${id(name)}.base`, { segments: { [name]: [rights, 0, undefined, 1n << 32n] } }], [`${name}: the last base`, undefined, { segments: { [name]: [rights, 0, undefined, 0xffff_ffffn] } }]] as Row[]),
      ...(name === 'Cs' ? [] : [[`${name}, unusable, with all else wrong`, undefined, { segments: { [name]: [UNUSABLE | 0xf0f, 0, 1 << 20] } }]] as Row[]),
      [`${name} in virtual-8086 mode: another base`, `guest.${id(name)}.v86.base`, { v86: true, segments: { [name]: [0xf3, 0x1000, 0xffff, 0x1_0001n] } }],
      [`${name} in virtual-8086 mode: another limit`, `guest.${id(name)}.v86.limit`, { v86: true, segments: { [name]: [0xf3, 0x1000, 0xfffe, 0x1_0000n] } }],
      [`${name} in virtual-8086 mode: other rights`, `guest.${id(name)}.v86.attributes`, { v86: true, segments: { [name]: [0xf2, 0x1000, 0xffff, 0x1_0000n] } }],
    ]
  }),
  ['virtual-8086 mode', undefined, { v86: true }],
  ...(['Ss', 'Ds', 'Es'] as const).map((name): Row => [`unusable ${name}: base 4 GiB`, undefined, { segments: { [name]: [UNUSABLE, 0, 0, 1n << 32n] } }]),
  ...(['Fs', 'Gs', 'Tr'] as const).flatMap((name): Row[] => {
    const rights = name === 'Tr' ? 0x8b : UNUSABLE
    return [
      [`${name}: the last base of the lower half`, undefined, { segments: { [name]: [rights, 0, 0x67, (1n << 47n) - 1n] } }],
      [`${name}: a base that is not canonical`, `guest.${id(name)}.base`, { segments: { [name]: [rights, 0, 0x67, 1n << 47n] } }],
    ]
  }),
  ['LDTR: a base that is not canonical', 'guest.ldtr.base', { segments: { Ldtr: [0x82, 0, 0, 1n << 47n] } }],
  ['unusable LDTR: a base that is not canonical', undefined, { segments: { Ldtr: [UNUSABLE, 0, 0, 1n << 47n] } }],
  ['TR in the LDT', 'guest.tr.selector', { segments: { Tr: [0x8b, 4, 0x67] } }],
  ['LDTR in the LDT', 'guest.ldtr.selector', { segments: { Ldtr: [0x82, 4] } }],
  ['unusable LDTR in the LDT', undefined, { segments: { Ldtr: [UNUSABLE, 4] } }],
  ...([['a segment', 0x10], ['not present', 0x80], ['unusable', UNUSABLE], ...[8, 9, 10, 11, 17, 31].map((bit) => [`bit ${bit}`, 1 << bit] as const)] as const).map(([what, bits]): Row => [`TR: ${what}`, 'guest.tr.attributes', { segments: { Tr: [(0x8b ^ bits) >>> 0, 8, 0x67] } }]),
  ...([['a segment', 0x10], ['not present', 0x80], ...[8, 9, 10, 11, 17, 31].map((bit) => [`bit ${bit}`, 1 << bit] as const)] as const).map(([what, bits]): Row => [`LDTR: ${what}`, 'guest.ldtr.attributes', { segments: { Ldtr: [(0x82 ^ bits) >>> 0] } }]),
  ['TR: a limit of 0x100000 bytes', 'guest.tr.granularity', { segments: { Tr: [0x8b, 8, 0x10_0000] } }],
  ['TR: a limit of 0x67 in pages', 'guest.tr.granularity', { segments: { Tr: [0x808b, 8, 0x67] } }],
  ['TR: a limit of 0xfff in pages', undefined, { segments: { Tr: [0x808b, 8, 0xfff] } }],
  ['LDTR: a limit of 0x100000 bytes', 'guest.ldtr.granularity', { segments: { Ldtr: [0x82, 8, 0x10_0000] } }],
  ['unusable LDTR: a limit of 0x100000 bytes', undefined, { segments: { Ldtr: [UNUSABLE, 8, 0x10_0000] } }],

  ['CS of DPL 3, SS of DPL 0', 'guest.cs.dpl', { segments: { Cs: [0xa0fb] } }],
  ['CS of DPL 0, SS of DPL 3', 'guest.cs.dpl', { segments: { Cs: [0xa09b, 3], Ss: [0xc0f3, 3] } }],
  ['CS and SS of DPL 3', undefined, { segments: { Cs: [0xa0fb, 3], Ss: [0xc0f3, 3] } }],
  ['conforming CS of DPL 1, SS of DPL 0', 'guest.cs.dpl', { segments: { Cs: [0xa0bf] } }],
  ['conforming CS of DPL 0, SS of DPL 3', undefined, { segments: { Cs: [0xa09f, 3], Ss: [0xc0f3, 3] } }],
  ['conforming CS of DPL 3, SS of DPL 3', undefined, { segments: { Cs: [0xa0fd, 3], Ss: [0xc0f3, 3] } }],
  ['SS of DPL 3 with RPL 0', 'guest.ss.dpl', { segments: { Cs: [0xa09f], Ss: [0xc0f3] } }],
  ['SS of DPL 3 with RPL 0, unrestricted', undefined, { unrestricted: true, segments: { Cs: [0xa09f], Ss: [0xc0f3] } }],
  ['RPLs of CS and SS that differ', 'guest.ss.rpl', { segments: { Cs: [0xa09f, 1], Ss: [0xc0f3, 3] } }],
  ['RPLs of CS and SS that differ, unrestricted', undefined, { unrestricted: true, segments: { Cs: [0xa09f, 1], Ss: [0xc0f3, 3] } }],
  ['CS of data of DPL 3', 'guest.cs.dpl', { unrestricted: true, segments: { Cs: [0xa0f3], Ss: [0xc093] } }],
  ['CS of data, SS of DPL 3', 'guest.ss.dpl', { unrestricted: true, segments: { Cs: [0xa093], Ss: [0xc0f3] } }],
  ['real mode, SS of DPL 3', 'guest.ss.dpl', { legacy: true, unrestricted: true, fields: { guestCr0: 0x20n }, segments: { Cs: [0xc09f], Ss: [0xc0f3] } }],
  ['real mode, SS of DPL 0', undefined, { legacy: true, unrestricted: true, fields: { guestCr0: 0x20n }, segments: { Cs: [0xc09f], Ss: [0xc093] } }],
  ...DATA.flatMap((name): Row[] => [
    [`${name} of DPL 0 with RPL 1`, `guest.${id(name)}.dpl`, { segments: { [name]: [0xc093, 1] } }],
    [`${name} of DPL 2 with RPL 3`, `guest.${id(name)}.dpl`, { segments: { [name]: [0xc0d3, 3] } }],
    [`${name} of DPL 3 with RPL 3`, undefined, { segments: { [name]: [0xc0f3, 3] } }],
    [`${name} of DPL 3 with RPL 2`, undefined, { segments: { [name]: [0xc0f3, 2] } }],
    [`${name} of code of DPL 0 with RPL 3`, `guest.${id(name)}.dpl`, { segments: { [name]: [0xc09b, 3] } }],
    [`${name} of conforming code of DPL 0 with RPL 3`, undefined, { segments: { [name]: [0xc09f, 3] } }],
    [`${name} of DPL 0 with RPL 3, unrestricted`, undefined, { unrestricted: true, segments: { [name]: [0xc093, 3] } }],
    [`unusable ${name} of DPL 0 with RPL 3`, undefined, { segments: { [name]: [UNUSABLE, 3] } }],
  ]),
  ['64-bit code with D', 'guest.cs.d', { segments: { Cs: [0xe09b] } }],
  ['32-bit code with D', undefined, { segments: { Cs: [0xc09b] } }],
  ['code with L and D, not in IA-32e mode', undefined, { legacy: true, segments: { Cs: [0xe09b] } }],
]

const [IF, TF, BS] = [0x202n, 0x102n, 1n << 14n]
const [STI, MOV_SS] = [1, 2]
const state: Row[] = [
  ['RIP, the last of the lower half', undefined, { fields: { guestRip: (1n << 47n) - 1n } }],
  ['RIP, not canonical', 'guest.rip', { fields: { guestRip: 1n << 47n } }],
  ['RIP of 33 bits in compatibility mode', 'guest.rip', { segments: { Cs: [0xc09b] }, fields: { guestRip: 1n << 32n } }],
  ['RIP of 33 bits, L set, not in IA-32e mode', 'guest.rip', { legacy: true, segments: { Cs: [0xa09b] }, fields: { guestRip: 1n << 32n } }],
  ['RIP, the last of 32 bits', undefined, { legacy: true, fields: { guestRip: 0xffff_ffffn } }],
  ...[3, 5, 15, 22, 31, 32, 63].map((bit): Row => [`RFLAGS, bit ${bit}`, 'guest.rflags.reserved', { fields: { guestRflags: 2n | (1n << BigInt(bit)) } }]),
  ...[0, 2, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 19, 20, 21].map((bit): Row => [`RFLAGS, bit ${bit}`, undefined, { fields: { guestRflags: 2n | (1n << BigInt(bit)) } }]),
  ['RFLAGS without bit 1', 'guest.rflags.reserved', { fields: { guestRflags: 0n } }],
  ['virtual-8086 mode in real mode', 'guest.rflags.vm', { v86: true, unrestricted: true, fields: { guestCr0: 0x20n } }],

  ['PG without PE', 'guest.cr0.pgWithoutPe', { legacy: true, unrestricted: true, fields: { guestCr0: 0x8000_0020n } }],
  ['neither PG nor PE, not unrestricted', 'guest.cr0.fixed', { legacy: true, fields: { guestCr0: 0x20n } }],
  ['CR0, bit 32', 'guest.cr0.fixed', { fields: { guestCr0: 0x1_8000_0033n } }],
  ['CR4.PCIDE, not in IA-32e mode', 'guest.ia32e.pcid', { legacy: true, fields: { guestCr4: 0x2_2020n } }],
  ['CR4.PCIDE in IA-32e mode', undefined, { fields: { guestCr4: 0x2_2020n } }],
  ['IA-32e mode without PAE', 'guest.ia32e.paging', { fields: { guestCr4: 0x2000n } }],
  ['IA-32e mode without paging', 'guest.ia32e.paging', { unrestricted: true, fields: { guestCr0: 0x33n } }],
  ['DR7, bit 32', 'guest.dr7', { entry: EntryControl.loadDebugControls, fields: { guestDr7: 1n << 32n } }],
  ['DR7, bit 31', undefined, { entry: EntryControl.loadDebugControls, fields: { guestDr7: 1n << 31n } }],
  ...[2, 3, 4, 5, 16, 63].map((bit): Row => [`DEBUGCTL, bit ${bit}`, 'guest.debugctl', { entry: EntryControl.loadDebugControls, fields: { guestDebugctl: 1n << BigInt(bit) } }]),
  ...[0, 1, 6, 15].map((bit): Row => [`DEBUGCTL, bit ${bit}`, undefined, { entry: EntryControl.loadDebugControls, fields: { guestDebugctl: 1n << BigInt(bit) } }]),
  ['LMA, not in IA-32e mode', 'guest.efer.lma', { legacy: true, fields: { guestEfer: 0x500n } }],
  ['LMA without LME', 'guest.efer.lma', { fields: { guestEfer: 0x400n } }],
  ['LME without paging', undefined, { legacy: true, unrestricted: true, fields: { guestCr0: 0x21n, guestEfer: 0x100n } }],
  ['LME with paging, without LMA', 'guest.efer.lma', { legacy: true, fields: { guestEfer: 0x100n } }],

  ['halted at CPL 3', 'guest.activity.hltDpl', { segments: { Cs: [0xa0fb, 3], Ss: [0xc0f3, 3] }, fields: { guestActivityState: 1 } }],
  ['halted behind STI', 'guest.activity.blocking', { fields: { guestActivityState: 1, guestRflags: IF, guestInterruptibility: STI } }],
  ['halted behind MOV SS', 'guest.activity.blocking', { fields: { guestActivityState: 1, guestInterruptibility: MOV_SS } }],
  ['active behind MOV SS', undefined, { fields: { guestInterruptibility: MOV_SS } }],
  ['halted, an interrupt', undefined, { fields: { guestActivityState: 1, guestRflags: IF, entryInterruptionInfo: EXTERNAL } }],
  ['halted, an NMI', undefined, { fields: { guestActivityState: 1, entryInterruptionInfo: NMI } }],
  ...[[1, false], [18, false], [6, true], [0, true], [16, true]].map(([vector, wrong]): Row => [`halted, exception ${vector}`, wrongIf(wrong as boolean, 'activity.injection'), { fields: { guestActivityState: 1, entryInterruptionInfo: exception(vector as number) } }]),
  ['active, exception 6', undefined, { fields: { entryInterruptionInfo: exception(6) } }],
  ['an interrupt, IF clear', 'guest.rflags.if', { fields: { entryInterruptionInfo: EXTERNAL } }],
  ['an interrupt that is not valid, IF clear', undefined, { fields: { entryInterruptionInfo: EXTERNAL & 0x7fff_ffff } }],
  ['an NMI, IF clear', undefined, { fields: { entryInterruptionInfo: NMI } }],

  ...[5, 6, 31].map((bit): Row => [`interruptibility, bit ${bit}`, 'guest.interruptibility.reserved', { fields: { guestInterruptibility: (1 << bit) >>> 0 } }]),
  ['behind STI and MOV SS', 'guest.interruptibility.stiAndMovSs', { fields: { guestRflags: IF, guestInterruptibility: STI | MOV_SS } }],
  ['behind STI, IF set', undefined, { fields: { guestRflags: IF, guestInterruptibility: STI } }],
  ['blocked by an SMI', 'guest.interruptibility.smi', { fields: { guestInterruptibility: 4 } }],
  ['interrupted in an enclave', 'guest.interruptibility.enclave', { fields: { guestInterruptibility: 16 } }],
  ['an interrupt behind STI', 'guest.interruptibility.interrupt', { fields: { guestRflags: IF, guestInterruptibility: STI, entryInterruptionInfo: EXTERNAL } }],
  ['an interrupt behind MOV SS', 'guest.interruptibility.interrupt', { fields: { guestRflags: IF, guestInterruptibility: MOV_SS, entryInterruptionInfo: EXTERNAL } }],
  ['an NMI behind STI', undefined, { fields: { guestRflags: IF, guestInterruptibility: STI, entryInterruptionInfo: NMI } }],
  ['an NMI behind MOV SS', 'guest.interruptibility.nmi', { fields: { guestInterruptibility: MOV_SS, entryInterruptionInfo: NMI } }],
  ['an NMI while NMIs are blocked', 'guest.interruptibility.virtualNmi', { fields: { guestInterruptibility: 8, entryInterruptionInfo: NMI } }],
  ['an NMI while NMIs are blocked, without virtual NMIs', undefined, { withoutVirtualNmis: true, fields: { guestInterruptibility: 8, entryInterruptionInfo: NMI } }],
  ['an exception while NMIs are blocked', undefined, { fields: { guestInterruptibility: 8, entryInterruptionInfo: exception(6) } }],
  ['NMIs blocked', undefined, { fields: { guestInterruptibility: 8 } }],

  ...[4, 5, 11, 13, 15, 17, 63].map((bit): Row => [`pending debug exceptions, bit ${bit}`, 'guest.pendingDebug.reserved', { fields: { guestPendingDebugExceptions: 1n << BigInt(bit) } }]),
  ...[0, 1, 2, 3, 12, 14, 16].map((bit): Row => [`pending debug exceptions, bit ${bit}`, undefined, { fields: { guestPendingDebugExceptions: 1n << BigInt(bit) } }]),
  ...([['STI', { guestInterruptibility: STI }, 0x200n], ['MOV SS', { guestInterruptibility: MOV_SS }, 0n], ['HLT', { guestActivityState: 1 }, 0n]] as const).flatMap(([what, blocking, flags]): Row[] => {
    const row = (name: string, wrong: boolean, fields: Record<string, bigint>): Row => [`behind ${what}, ${name}`, wrongIf(wrong, 'pendingDebug.bs'), { fields: { ...blocking, ...fields } }]
    const [calm, stepping] = [2n | flags, TF | flags]
    return [
      row('no step is pending', false, { guestRflags: calm }),
      row('a step is pending without TF', true, { guestRflags: calm, guestPendingDebugExceptions: BS }),
      row('TF without a step pending', true, { guestRflags: stepping }),
      row('TF with a step pending', false, { guestRflags: stepping, guestPendingDebugExceptions: BS }),
      row('TF and BTF without a step pending', false, { guestRflags: stepping, guestDebugctl: 2n }),
      row('TF and BTF with a step pending', true, { guestRflags: stepping, guestDebugctl: 2n, guestPendingDebugExceptions: BS }),
    ]
  }),
  ['TF without a step pending, nothing blocked', undefined, { fields: { guestRflags: TF } }],
]

describe.each([
  ['segments', segments],
  ['registers and state', state],
])('a guest that enters: %s', (_what, rows) => {
  it.each(rows)('%s: %s', (_name, wrong, of) => {
    expect(failedEntryCheck(vmcsOf(of), context)?.id).toBe(wrong)
  })
})
