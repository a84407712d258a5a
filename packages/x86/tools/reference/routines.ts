/**
 * What system instructions do, by the pages of the manual, in 64-bit mode. Numbered by place in the table. A program that comes to an
 * instruction whose routine is not here ends there, undefined. (SDM Vol. 2, the instructions' own pages)
 */
import { gpr, S, SEG, segment, SEGMENT } from '../../src/state/layout.ts'
import { FLAG } from '../../src/state/register-bits.ts'
import { readDescriptor } from './descriptors.ts'
import { deliverOne, loadCode } from './delivery.ts'
import { Fault, isCanonical, type ReferenceState } from './state.ts'
import { Undefined } from './translation.ts'

/** `jumped`: RIP is set. */
export type RoutineEnd = 'halt' | 'jumped' | undefined

interface Routine {
  readonly name: string
  readonly run: (m: ReferenceState) => RoutineEnd
}

const RAX = gpr(0), RCX = gpr(1), RDX = gpr(2), R11 = gpr(11)
const gp = (code = 0): never => {
  throw new Fault(13, code)
}

// ------------------------------------------------------------------ control registers

const CR0_BITS = 0xe005_003fn
const CR4_BITS = 0x37_0000n | 0xfffn
const PG = 1n << 31n

const NAMES = ['cr0', '', 'cr2', 'cr3', 'cr4'] as const
const controlSlot = (n: number): number => {
  const name = NAMES[n]
  if (!name) throw new Fault(6)
  return S[name]
}

function writeCr0(m: ReferenceState, value: bigint): void {
  if (value >> 32n) gp()
  const next = (value & CR0_BITS) | 0x10n
  if (next & PG && !(next & 1n)) gp()
  if (next & 0x2000_0000n && !(next & 0x4000_0000n)) gp()
  // Paging cannot be switched off in 64-bit mode.
  if (!(next & PG)) gp()
  m.set64(S.cr0, next)
}

/** What MOV to CR3 invalidates is decided by bit 63, where CR4.PCIDE is set. */
function writeCr3(m: ReferenceState, value: bigint): void {
  const pcide = (m.get32(S.cr4) & 0x2_0000) !== 0
  const keeps = pcide && value >> 63n === 1n
  const next = keeps ? value & ~(1n << 63n) : value
  if (next >> 40n) gp()
  m.set64(S.cr3, next)
  if (!keeps) m.translations.invalidatePcid(m.pcid)
}

function writeCr4(m: ReferenceState, value: bigint): void {
  if (value & ~CR4_BITS || value & 0x1000n || value & 0x2000n) gp()
  const old = BigInt(m.get32(S.cr4))
  const changed = old ^ value
  if (!(value & 0x20n)) gp()
  if (changed & 0x2_0000n && value & 0x2_0000n && m.get32(S.cr3) & 0xfff) gp()
  const before = m.pcid
  m.set64(S.cr4, value)
  if (changed & 0x80n || (changed & 0x2_0000n && !(value & 0x2_0000n))) m.translations.invalidateAll(true)
  else if (changed & 0x10_0000n && value & 0x10_0000n) m.translations.invalidateCurrent(before)
}

// ------------------------------------------------------------------ MSRs

const EFER = 0xc000_0080
const MSR_SLOTS: Readonly<Record<number, number>> = {
  [EFER]: S.efer, 0xc000_0081: S.star, 0xc000_0082: S.lstar, 0xc000_0084: S.fmask,
  0xc000_0100: segment(SEGMENT.fs) + SEG.base, 0xc000_0101: segment(SEGMENT.gs) + SEG.base, 0xc000_0102: S.kernelGsBase,
}
const NEEDS_CANONICAL = new Set([0xc000_0082, 0xc000_0100, 0xc000_0101, 0xc000_0102])

function wrmsr(m: ReferenceState): RoutineEnd {
  const index = m.get32(RCX) >>> 0
  const value = (BigInt(m.get32(RDX) >>> 0) << 32n) | BigInt(m.get32(RAX) >>> 0)
  const slot = MSR_SLOTS[index] ?? gp()
  if (NEEDS_CANONICAL.has(index) && !isCanonical(value)) gp()
  if (index === EFER) {
    const old = m.get64(S.efer)
    if (value & ~0xd01n) gp()
    // LME cannot change while paging is on; LMA is the processor's.
    if ((value ^ old) & 0x100n) gp()
    m.set64(S.efer, (value & ~0x400n) | (old & 0x400n))
  } else m.set64(slot, index === 0xc000_0084 ? value & 0xffff_ffffn : value)
  return undefined
}
function rdmsr(m: ReferenceState): RoutineEnd {
  const slot = MSR_SLOTS[m.get32(RCX) >>> 0] ?? gp()
  m.set64(RAX, m.get64(slot) & 0xffff_ffffn)
  m.set64(RDX, m.get64(slot) >> 32n)
  return undefined
}

// ------------------------------------------------------------------ invalidation

function invpcid(m: ReferenceState): RoutineEnd {
  const type = m.arg(0)
  const pcid = m.read(m.arg(1), 8)
  const linear = m.read(m.arg(1) + 8n, 8)
  if (type > 3n || pcid >> 12n) gp()
  if (type === 0n && !isCanonical(linear)) gp()
  if (type < 2n && pcid && !(m.get32(S.cr4) & 0x2_0000)) gp()
  if (type === 0n) m.translations.invalidateAddress(linear, Number(pcid))
  else if (type === 1n) m.translations.invalidatePcid(Number(pcid))
  else m.translations.invalidateAll(type === 2n)
  return undefined
}

// ------------------------------------------------------------------ segments

function loadSegmentRegister(m: ReferenceState): RoutineEnd {
  const n = Number(m.arg(0))
  const selector = Number(m.arg(1) & 0xffffn)
  const cpl = m.cpl
  if (n === SEGMENT.cs) throw new Fault(6)
  if ((selector & 0xfffc) === 0) {
    if (n === SEGMENT.ss && (cpl === 3 || (selector & 3) !== cpl)) gp()
    m.setSegment(n, selector, 0n, 0, n === SEGMENT.ss ? 0x1_0000 | (cpl << 5) : 0x1_0000)
  } else {
    const code = selector & 0xfffc
    const d = readDescriptor(m, selector) ?? gp(code)
    const rpl = selector & 3
    if (n === SEGMENT.ss) {
      if (rpl !== cpl || !d.writable || d.dpl !== cpl) gp(code)
      if (!d.present) throw new Fault(12, code)
    } else {
      if (d.isSystem || (d.isCode && !d.readable)) gp(code)
      if (!(d.isCode && d.conforming) && (rpl > d.dpl || cpl > d.dpl)) gp(code)
      if (!d.present) throw new Fault(11, code)
    }
    if (!d.accessed) m.write(d.at, 8, d.raw | (1n << 40n), true)
    m.setSegment(n, selector, d.base, d.limit, d.rights | 1)
  }
  if (n === SEGMENT.ss) m.set32(S.shadow, 2)
  return undefined
}

// ------------------------------------------------------------------ events and returns

const CHANGED_BY_RETURN = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.TF | FLAG.DF | FLAG.OF | FLAG.NT | FLAG.AC | FLAG.ID

/** INT n: what is saved is the RIP behind it. */
const softwareInterrupt = (vector: (m: ReferenceState) => number) => (m: ReferenceState): RoutineEnd => {
  const rip = m.get64(S.rip)
  m.set64(S.rip, rip + BigInt(m.length))
  try {
    deliverOne(m, { kind: 'software', vector: vector(m) })
  } catch (fault) {
    m.set64(S.rip, rip)
    throw fault
  }
  return 'jumped'
}

/** IRETQ among 64-bit code segments. */
function iret(m: ReferenceState): RoutineEnd {
  if (Number(m.arg(0)) !== 8) throw new Undefined('the reference machine knows IRETQ only')
  if (m.get32(S.flags) & FLAG.NT) gp()
  const [rip, cs, flags, rsp, ss] = [0, 1, 2, 3, 4].map((n) => {
    const at = BigInt.asUintN(64, m.rsp + BigInt(8 * n))
    if (!isCanonical(at)) throw new Fault(12, 0)
    return m.read(at, 8)
  }) as [bigint, bigint, bigint, bigint, bigint]
  const selector = Number(cs & 0xffffn)
  const cpl = m.cpl
  if ((selector & 0xfffc) === 0) gp()
  const rpl = selector & 3
  const code = readDescriptor(m, selector) ?? gp(selector & 0xfffc)
  if (!code.isCode || rpl < cpl || (code.conforming ? code.dpl > rpl : code.dpl !== rpl)) gp(selector & 0xfffc)
  if (!code.present) throw new Fault(11, selector & 0xfffc)
  if (!code.long || code.big) throw new Undefined('the reference machine runs 64-bit code only')
  const stackSelector = Number(ss & 0xffffn)
  let stack: ReturnType<typeof readDescriptor>
  if ((stackSelector & 0xfffc) === 0) {
    if (rpl === 3 || (stackSelector & 3) !== rpl) gp()
  } else {
    stack = readDescriptor(m, stackSelector) ?? gp(stackSelector & 0xfffc)
    if ((stackSelector & 3) !== rpl || !stack!.writable || stack!.dpl !== rpl) gp(stackSelector & 0xfffc)
    if (!stack!.present) throw new Fault(12, stackSelector & 0xfffc)
  }
  if (!isCanonical(rip)) gp()
  const old = m.flags
  let mask = CHANGED_BY_RETURN | FLAG.RF
  if (cpl <= ((old >>> 12) & 3)) mask |= FLAG.IF
  if (cpl === 0) mask |= FLAG.IOPL | FLAG.VIF | FLAG.VIP
  loadCode(m, selector, code, rpl)
  if (stack) {
    if (!stack.accessed) m.write(stack.at, 8, stack.raw | (1n << 40n), true)
    m.setSegment(SEGMENT.ss, stackSelector, stack.base, stack.limit, stack.rights | 1)
  } else m.setSegment(SEGMENT.ss, stackSelector, 0n, 0, 0x1_0000 | (rpl << 5))
  m.flags = (old & ~mask) | (Number(flags & 0xffff_ffffn) & mask)
  m.rsp = rsp
  m.set64(S.rip, rip)
  m.set32(S.nmiBlocked, 0)
  if (rpl > cpl) dropPrivilegedSegments(m, rpl)
  return 'jumped'
}

/** Data segments that the outer level may not use become null. */
function dropPrivilegedSegments(m: ReferenceState, cpl: number): void {
  for (const n of [SEGMENT.es, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs]) {
    const rights = m.get32(segment(n) + SEG.attributes)
    const conforming = (rights & 0x1c) === 0x1c
    if (!(rights & 0x1_0000) && !conforming && ((rights >>> 5) & 3) < cpl) {
      m.set32(segment(n) + SEG.selector, 0)
      m.set32(segment(n) + SEG.attributes, rights | 0x1_0000)
    }
  }
}

/** SYSCALL and SYSRET in their usual form are in the semantics; this is what those leave to a routine. */
function syscall(m: ReferenceState): RoutineEnd {
  if (!(m.get32(S.efer) & 1)) throw new Fault(6)
  throw new Undefined('the reference machine knows no single steps')
}
function sysret(m: ReferenceState): RoutineEnd {
  if (!(m.get32(S.efer) & 1)) throw new Fault(6)
  if (!isCanonical(m.get64(RCX))) gp()
  const flags = m.get32(R11)
  m.flags = (flags & 0x3c_7fd7 & ~FLAG.RF) | 2
  const star = Number(m.get64(S.star) >> 48n)
  m.setSegment(SEGMENT.cs, ((star + 16) & 0xfffc) | 3, 0n, -1, 0xa0fb)
  m.setSegment(SEGMENT.ss, ((star + 8) & 0xfffc) | 3, 0n, -1, 0xc0f3)
  m.set32(S.cpl, 3)
  m.set64(S.rip, m.get64(RCX))
  return 'jumped'
}

export const ROUTINES: readonly Routine[] = [
  { name: 'movFromControl', run: (m) => void m.set64(S.value, m.get64(controlSlot(Number(m.arg(0))))) },
  {
    name: 'movToControl',
    run: (m) => {
      const n = Number(m.arg(0))
      if (n === 0) writeCr0(m, m.arg(1))
      else if (n === 2) m.set64(S.cr2, m.arg(1))
      else if (n === 3) writeCr3(m, m.arg(1))
      else if (n === 4) writeCr4(m, m.arg(1))
      else throw new Fault(6)
      return undefined
    },
  },
  { name: 'wrmsr', run: wrmsr },
  { name: 'rdmsr', run: rdmsr },
  { name: 'invlpg', run: (m) => (isCanonical(m.arg(0)) ? void m.translations.invalidatePage(m.arg(0), m.pcid) : undefined) },
  { name: 'invpcid', run: invpcid },
  { name: 'loadSegmentRegister', run: loadSegmentRegister },
  { name: 'int', run: softwareInterrupt((m) => Number(m.arg(0) & 0xffn)) },
  { name: 'int3', run: softwareInterrupt(() => 3) },
  { name: 'iret', run: iret },
  { name: 'syscall', run: syscall },
  { name: 'sysret', run: sysret },
  { name: 'hlt', run: () => 'halt' },
  { name: 'nothing', run: () => undefined },
  { name: 'flagsChanged', run: () => undefined },
]

export function routineNumber(name: string): number {
  const number = ROUTINES.findIndex((routine) => routine.name === name)
  if (number < 0) throw new Undefined(`the reference machine has no routine '${name}'`)
  return number
}
