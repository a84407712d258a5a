/**
 * Accesses of compiled code that miss the TLB: one call that takes the linear address, and the access and the instruction's position in one number,
 * so that the code at every access stays small. The work is in paging/access/slow-path.ts.
 */
import { IrBuilder } from '../ir/builder.ts'
import type { Value } from '../ir/nodes.ts'
import { RECORD } from '../state/record.ts'
import type { Built, Signature } from '../ir/function.ts'
import { ACCESS } from '../state/paging-state.ts'
import { tlbEntry, tlbHost, tlbTag } from '../paging/tlb/entry.ts'
import { accessInfo } from '../semantics/builder.ts'
import { S } from '../state/layout.ts'

interface SlowAccess extends Signature {
  readonly build: (b: IrBuilder, cpu: Value) => void
}

/** Bit positions of the number's fields: offset in the page, length and remaining as in RECORD; log2 of the bytes; segment. */
const LENGTH = 12, REMAINING = 16, BYTES = 24, SEGMENT_NUMBER = 27

export function packAccess(bytes: number, segmentNumber: number, ip: number, length: number, remaining: number): number {
  return ip | (length << LENGTH) | (remaining << REMAINING) | (Math.log2(bytes) << BYTES) | (segmentNumber << SEGMENT_NUMBER)
}

const field = (b: IrBuilder, packed: Value, at: number, bits: number): Value => b.and(b.shrU(packed, at), (1 << bits) - 1)

/** Makes the access by the import. If that left, stores the position and returns `left`. */
function access(b: IrBuilder, cpu: Value, callee: string, packed: Value, left: number): void {
  const info = b.or(b.shl(b.i32(1), field(b, packed, BYTES, 3)), b.mul(field(b, packed, SEGMENT_NUMBER, 3), accessInfo(0, 1)))
  b.ifUnlikely(b.call('i32', callee, cpu, info), () => {
    b.setSlot(S.compiledRecord + RECORD.ip, field(b, packed, 0, LENGTH), 16)
    b.setSlot(S.compiledRecord + RECORD.length, field(b, packed, LENGTH, 4), 8)
    b.setSlot(S.compiledRecord + RECORD.remaining, field(b, packed, REMAINING, 8), 8)
    b.return(b.i32(left))
  })
}

/**
 * Uses a TLB hit for these bytes alone, since a shared lookup covers a range that may span two pages (region-operands.ts); otherwise tries a quick
 * fill.
 */
function ifKnown(b: IrBuilder, cpu: Value, tag: 'read' | 'write', linear: Value, packed: Value, use: (host: Value) => void): void {
  const entry = tlbEntry(b, linear)
  const bytes = b.shl(b.i32(1), field(b, packed, BYTES, 3))
  const last = b.add(linear, b.extendU(b.sub(bytes, 1)))
  b.if(b.eq(tlbTag(b, entry, tag), b.and(last, -4096)), () => use(tlbHost(b, linear, entry)))
  const filled = b.call('i32', 'quickFill', cpu, linear, b.i32(ACCESS[tag]), bytes)
  b.if(filled, () => use(filled))
}

/**
 * By name. They return a host address or 0 (see SemanticsBuilder); writes return whether they left. Each takes the TLB tag that did not match as its
 * last parameter, without using it: V8 loads a value twice if only a comparison uses it, and this is a second use on the rare path.
 */
export const SLOW_ACCESSES: Readonly<Record<string, SlowAccess>> = {
  /** (cpu, linear, access, tag) */
  compiledRead: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      const linear = b.param(1, 'i64'), packed = b.param(2)
      ifKnown(b, cpu, 'read', linear, packed, (host) => b.return(host))
      b.setSlot(S.address, linear)
      access(b, cpu, 'slowReadOfCompiled', packed, 0)
      b.return(b.add(cpu, S.value))
    },
  },
  compiledModify: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      const linear = b.param(1, 'i64'), packed = b.param(2)
      ifKnown(b, cpu, 'write', linear, packed, (host) => b.return(host))
      b.setSlot(S.address, linear)
      access(b, cpu, 'slowModifyOfCompiled', packed, 0)
      b.return(b.slot(S.modify, 'i32'))
    },
  },
  /** (cpu, linear, value, access, tag) */
  compiledWrite: {
    params: ['i32', 'i64', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      const linear = b.param(1, 'i64'), value = b.param(2, 'i64'), packed = b.param(3)
      ifKnown(b, cpu, 'write', linear, packed, (host) => {
        for (const [log2, width] of ([8, 16, 32, 64] as const).entries())
          b.if(b.eq(field(b, packed, BYTES, 3), log2), () => b.rawStore(host, 0, width, value))
        b.return(b.i32(0))
      })
      b.setSlot(S.address, linear)
      b.setSlot(S.value, value)
      access(b, cpu, 'slowWriteOfCompiled', packed, 1)
      b.return(b.i32(0))
    },
  },
  /** (cpu, linear, access, tag): the value is in its slot. */
  compiledWriteVector: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      const linear = b.param(1, 'i64'), packed = b.param(2)
      ifKnown(b, cpu, 'write', linear, packed, (host) => {
        b.rawStore(host, 0, 128, b.slot(S.value, 'v128'))
        b.return(b.i32(0))
      })
      b.setSlot(S.address, linear)
      access(b, cpu, 'slowWriteOfCompiled', packed, 1)
      b.return(b.i32(0))
    },
  },
}

export function slowAccessBodies(): [string, Built][] {
  return Object.entries(SLOW_ACCESSES).map(([name, { params, results, build }]) => {
    const b = new IrBuilder()
    build(b, b.param(0))
    return [name, { root: b.root, callees: b.callees, signature: { params, results } }]
  })
}
