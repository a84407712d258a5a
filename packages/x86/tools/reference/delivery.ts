/** Interrupts and exceptions through a 64-bit IDT, by the manual's tables. (SDM Vol. 3A, "Exception and Interrupt Handling in 64-bit Mode") */
import { S, SEGMENT } from '../../src/state/layout.ts'
import { FLAG } from '../../src/state/register-bits.ts'
import { readDescriptor, type Descriptor } from './descriptors.ts'
import { Fault, isCanonical, type ReferenceState } from './state.ts'

export interface Event {
  /** `software`: INT n, INT3, INTO; the privilege of the gate counts, and EXT stays clear. */
  readonly kind: 'exception' | 'external' | 'nmi' | 'software'
  readonly vector: number
  readonly code?: number | undefined
}

/** How a run ends that goes no further. */
export type End = 'halt' | 'shutdown'

const BENIGN = 0, CONTRIBUTORY = 1, PAGE_FAULT = 2
/** (SDM Vol. 3A, "Interrupt and Exception Classes") */
const classOf = (vector: number): number => ([0, 10, 11, 12, 13].includes(vector) ? CONTRIBUTORY : vector === 14 ? PAGE_FAULT : BENIGN)
/** By the classes of the first and the second: whether they make a double fault. (SDM Vol. 3A, "Conditions for Generating a Double Fault") */
const DOUBLE: readonly (readonly boolean[])[] = [
  [false, false, false],
  [false, true, false],
  [false, true, true],
]

/** Delivers an event, and the faults that come of it. */
export function deliver(m: ReferenceState, event: Event): End | undefined {
  for (let current = event; ; ) {
    if (current.kind === 'nmi') m.set32(S.nmiBlocked, 1)
    try {
      deliverOne(m, current)
      m.set32(S.shadow, 0)
      return undefined
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      if (current.kind !== 'exception') current = { kind: 'exception', vector: fault.vector, code: fault.code }
      else if (current.vector === 8) {
        // A contributory fault or a page fault while the double fault is delivered: shutdown.
        if (classOf(fault.vector) !== BENIGN) return 'shutdown'
        current = { kind: 'exception', vector: fault.vector, code: fault.code }
      } else if (DOUBLE[classOf(current.vector)]![classOf(fault.vector)]) current = { kind: 'exception', vector: 8, code: 0 }
      else current = { kind: 'exception', vector: fault.vector, code: fault.code }
    }
  }
}

/** What a call of `deliverOne` checks before it changes anything. */
export function deliverOne(m: ReferenceState, { kind, vector, code }: Event): void {
  const ext = kind === 'software' ? 0 : 1
  const own = vector * 8 + 2 + ext
  if (vector * 16 + 15 > m.limit(SEGMENT.idtr)) throw new Fault(13, own)
  const at = m.base(SEGMENT.idtr) + BigInt(vector * 16)
  const low = m.read(at, 8, true)
  const high = m.read(at + 8n, 8, true)
  const type = Number((low >> 40n) & 31n)
  if (type !== 14 && type !== 15) throw new Fault(13, own)
  if ((high >> 40n) & 31n) throw new Fault(13, own)
  if (kind === 'software' && Number((low >> 45n) & 3n) < m.cpl) throw new Fault(13, own)
  if (!((low >> 47n) & 1n)) throw new Fault(11, own)

  const selector = Number((low >> 16n) & 0xffffn)
  const target = (low & 0xffffn) | ((low >> 32n) & 0xffff_0000n) | ((high & 0xffff_ffffn) << 32n)
  if ((selector & 0xfffc) === 0) throw new Fault(13, ext)
  const cs = readDescriptor(m, selector)
  if (!cs) throw new Fault(13, (selector & 0xfffc) | ext)
  if (!cs.isCode || !cs.long || cs.big || cs.dpl > m.cpl) throw new Fault(13, (selector & 0xfffc) | ext)
  if (!cs.present) throw new Fault(11, (selector & 0xfffc) | ext)
  const cpl = cs.conforming ? m.cpl : cs.dpl
  const ist = Number((low >> 32n) & 7n)
  let rsp = m.rsp
  if (ist) rsp = stackFromTss(m, 0x24 + 8 * (ist - 1), ext)
  else if (cpl < m.cpl) rsp = stackFromTss(m, 4 + 8 * cpl, ext)
  if (!isCanonical(target)) throw new Fault(13, ext)

  const frame = [BigInt(m.selector(SEGMENT.ss)), m.rsp, BigInt(m.flags | (isFault(kind, vector) ? FLAG.RF : 0)), BigInt(m.selector(SEGMENT.cs)), m.get64(S.rip)]
  if (code !== undefined && kind === 'exception') frame.push(BigInt(code))
  rsp &= ~15n
  const before = m.cpl
  m.set32(S.cpl, cpl)
  try {
    for (const word of frame) {
      rsp = BigInt.asUintN(64, rsp - 8n)
      if (!isCanonical(rsp)) throw new Fault(12, ext)
      m.write(rsp, 8, word)
    }
  } catch (fault) {
    m.set32(S.cpl, before)
    throw fault
  }
  m.rsp = rsp
  if (cpl < before) m.setSegment(SEGMENT.ss, cpl, 0n, 0, 0x1_0000 | (cpl << 5))
  loadCode(m, (selector & 0xfffc) | cpl, cs, cpl)
  m.set64(S.rip, target)
  m.set32(S.flags, m.get32(S.flags) & ~(FLAG.TF | FLAG.NT | FLAG.RF | FLAG.VM | (type === 14 ? FLAG.IF : 0)))
}

/** Faults save RF set, so that their instruction can run again under an instruction breakpoint; traps and the rest do not. */
const FAULTS = new Set([0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19])
const isFault = (kind: Event['kind'], vector: number): boolean => kind === 'exception' && FAULTS.has(vector)

function stackFromTss(m: ReferenceState, offset: number, ext: number): bigint {
  const tss = m.selector(SEGMENT.tr) & 0xfffc
  if (offset + 7 > m.limit(SEGMENT.tr)) throw new Fault(10, tss | ext)
  const rsp = m.read(m.base(SEGMENT.tr) + BigInt(offset), 8, true)
  if (!isCanonical(rsp)) throw new Fault(12, ext)
  return rsp
}

/** CS with its hidden part, as a transfer in 64-bit mode loads it. */
export function loadCode(m: ReferenceState, selector: number, descriptor: Descriptor, cpl: number): void {
  if (!descriptor.accessed) m.write(descriptor.at, 8, descriptor.raw | (1n << 40n), true)
  m.setSegment(SEGMENT.cs, selector, descriptor.base, descriptor.limit, descriptor.rights | 1)
  m.set32(S.cpl, cpl)
}
