/** Checks on the guest-state area except segments. (SDM Vol. 3C, "Checking and Loading Guest State") */

import { CR0_64, CR4_64, DEFINED, EFER_64, FLAG_64, FLAGS_FIXED, RIGHTS, VECTOR } from '@nonroot/contracts'
import { EntryControl, PinControl, SecondaryControl } from '../../tables/controls.ts'
import { CR0_FIXED0, CR4_FIXED0 } from '../../tables/capability-msrs.ts'
import { ActivityStateCode, Interruptibility, InterruptionType } from '../../tables/interruption-info.ts'
import {
  pin,
  secondary,
  entry,
  guest64,
  unrestricted,
  isCanonical,
  fits,
  isFrame,
  isPat,
  guest,
  injects,
  injectedType,
  injectedVector,
} from './entry-check.ts'
import { attributes, dpl, virtual8086 } from './guest-segment.ts'
import type { EntryCheck } from './entry-check.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
const GUEST_REGISTERS = 'Checks on Guest Control Registers, Debug Registers, and MSRs'
const GUEST_FLOW = 'Checks on Guest RIP, RFLAGS, and SSP'
const GUEST_OTHER = 'Checks on Guest Non-Register State'
const GUEST_PDPTES = 'Checks on Guest Page-Directory-Pointer-Table Entries'

const DEFINED_FLAGS = BigInt(DEFINED.flags)
const FIXED_FLAGS = BigInt(FLAGS_FIXED)

export const GUEST_REGISTER_CHECKS: readonly EntryCheck[] = [
  guest(GUEST_REGISTERS, 'guest.cr0.fixed', (v) => {
    const free = unrestricted(v) ? CR0_64.pe | CR0_64.pg : 0n
    const fixed = CR0_FIXED0 & ~free
    return (v.read('guestCr0') & fixed) === fixed && v.read('guestCr0') >> 32n === 0n
  }),
  guest(
    GUEST_REGISTERS,
    'guest.cr0.pgWithoutPe',
    (v) => !(v.read('guestCr0') & CR0_64.pg) || (v.read('guestCr0') & CR0_64.pe) !== 0n,
  ),
  guest(GUEST_REGISTERS, 'guest.cr4.fixed', (v, c) => {
    const cr4 = v.read('guestCr4')
    return (cr4 & CR4_FIXED0) === CR4_FIXED0 && (cr4 & ~c.cr4Fixed1) === 0n
  }),
  guest(
    GUEST_REGISTERS,
    'guest.debugctl',
    // LBR 0, BTF 1, FREEZE_WHILE_SMM and others are not implemented: 15:6 and 1:0 as the SDM allows.
    (v) => !entry(v, EntryControl.loadDebugControls) || (v.read('guestDebugctl') & ~0xffc3n) === 0n,
  ),
  guest(
    GUEST_REGISTERS,
    'guest.ia32e.paging',
    (v) => !guest64(v) || ((v.read('guestCr0') & CR0_64.pg) !== 0n && (v.read('guestCr4') & CR4_64.pae) !== 0n),
  ),
  guest(GUEST_REGISTERS, 'guest.ia32e.pcid', (v) => guest64(v) || (v.read('guestCr4') & CR4_64.pcide) === 0n),
  guest(GUEST_REGISTERS, 'guest.cr3', (v, c) => fits(v.read('guestCr3'), c)),
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
    const lma = (efer & EFER_64.lma) !== 0n
    const lme = (efer & EFER_64.lme) !== 0n
    return lma === guest64(v) && (!(v.read('guestCr0') & CR0_64.pg) || lma === lme)
  }),
]

const interruptibility = (v: Vmcs, bit: number): boolean => (v.read('guestInterruptibility') & bit) !== 0
const activity = (v: Vmcs): number => v.read('guestActivityState')
export const GUEST_STATE_CHECKS: readonly EntryCheck[] = [
  guest(GUEST_FLOW, 'guest.rip', (v) => {
    const code64 = guest64(v) && (attributes(v, 'Cs') & RIGHTS.long) !== 0
    return code64 ? isCanonical(v.read('guestRip')) : v.read('guestRip') >> 32n === 0n
  }),
  guest(GUEST_FLOW, 'guest.rflags.reserved', (v) => (v.read('guestRflags') & ~DEFINED_FLAGS) === FIXED_FLAGS),
  guest(
    GUEST_FLOW,
    'guest.rflags.vm',
    (v) => !virtual8086(v) || (!guest64(v) && (v.read('guestCr0') & CR0_64.pe) !== 0n),
  ),
  guest(
    GUEST_FLOW,
    'guest.rflags.if',
    (v) =>
      !injects(v) ||
      injectedType(v) !== InterruptionType.externalInterrupt ||
      (v.read('guestRflags') & FLAG_64.IF) !== 0n,
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
      (type === InterruptionType.hardwareException && (vector === VECTOR.DB || vector === VECTOR.MC))
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
    (v) => !interruptibility(v, Interruptibility.blockingBySti) || (v.read('guestRflags') & FLAG_64.IF) !== 0n,
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
    const stepping = (v.read('guestRflags') & FLAG_64.TF) !== 0n && (v.read('guestDebugctl') & 2n) === 0n
    return ((v.read('guestPendingDebugExceptions') & (1n << 14n)) !== 0n) === stepping
  }),
  guest(GUEST_OTHER, 'guest.vmcsLinkPointer', (v, c) => {
    const link = v.read('vmcsLinkPointer')
    if (link === (1n << 64n) - 1n) return true
    return isFrame(link, c) && c.revisionAt(link) !== undefined
  }),
  guest(GUEST_PDPTES, 'guest.pdptes', (v, c) => {
    // Without EPT they are loaded from memory together with CR3.
    const pae = (v.read('guestCr0') & CR0_64.pg) !== 0n && (v.read('guestCr4') & CR4_64.pae) !== 0n && !guest64(v)
    if (!pae || !secondary(v, SecondaryControl.enableEpt)) return true
    return ([0, 1, 2, 3] as const).every((i) => {
      const pdpte = v.read(`guestPdpte${i}`)
      return (pdpte & 1n) === 0n || ((pdpte & 0x1e6n) === 0n && fits(pdpte, c))
    })
  }),
]
