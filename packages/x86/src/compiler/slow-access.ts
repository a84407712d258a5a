/**
 * How compiled code makes an access that the TLB does not answer: one call that takes the linear address, the access and the instruction's position
 * in one number, so that the code around every access stays small. The work is in paging/slow-path.ts.
 */
import { IrBuilder } from '../ir/builder.ts'
import type { Value } from '../ir/nodes.ts'
import { RECORD } from '../interpreter/record.ts'
import type { Built, Signature } from '../lower/function-module.ts'
import { accessInfo } from '../semantics/builder.ts'
import { S } from '../state/layout.ts'

interface SlowAccess extends Signature {
  readonly build: (b: IrBuilder, cpu: Value) => void
}

/** Where the fields of the number lie: offset in the page, length and remaining as in RECORD; log2 of the bytes; segment. */
const LENGTH = 12, REMAINING = 16, BYTES = 24, SEGMENT_NUMBER = 27

export function packAccess(bytes: number, segmentNumber: number, ip: number, length: number, remaining: number): number {
  return ip | (length << LENGTH) | (remaining << REMAINING) | (Math.log2(bytes) << BYTES) | (segmentNumber << SEGMENT_NUMBER)
}

/** Does the access by the import; where that left, notes the position and gives what says so. */
function access(b: IrBuilder, cpu: Value, callee: string, packed: Value, left: number): void {
  const field = (at: number, bits: number): Value => b.and(b.shrU(packed, at), (1 << bits) - 1)
  const info = b.or(b.shl(b.i32(1), field(BYTES, 3)), b.mul(field(SEGMENT_NUMBER, 3), accessInfo(0, 1)))
  b.ifUnlikely(b.call('i32', callee, cpu, info), () => {
    b.setSlot(S.compiledRecord + RECORD.ip, field(0, LENGTH), 16)
    b.setSlot(S.compiledRecord + RECORD.length, field(LENGTH, 4), 8)
    b.setSlot(S.compiledRecord + RECORD.remaining, field(REMAINING, 8), 8)
    b.return(b.i32(left))
  })
}

/**
 * By name. They give a host address or 0 (see SemanticsBuilder), or, the writes, whether they left. Each ends with the tag of the TLB that did not fit, which
 * nobody looks at: V8 loads a value twice that only a comparison uses, and this is a second use off the way.
 */
export const SLOW_ACCESSES: Readonly<Record<string, SlowAccess>> = {
  /** (cpu, linear, access, tag) */
  compiledRead: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowReadOfCompiled', b.param(2), 0)
      b.return(b.add(cpu, S.value))
    },
  },
  compiledModify: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowModifyOfCompiled', b.param(2), 0)
      b.return(b.slot(S.modify, 'i32'))
    },
  },
  /** (cpu, linear, value, access, tag) */
  compiledWrite: {
    params: ['i32', 'i64', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      b.setSlot(S.value, b.param(2, 'i64'))
      access(b, cpu, 'slowWriteOfCompiled', b.param(3), 1)
      b.return(b.i32(0))
    },
  },
  /** (cpu, linear, access, tag): the value is in its slot. */
  compiledWriteVector: {
    params: ['i32', 'i64', 'i32', 'i64'],
    results: ['i32'],
    isRare: true,
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowWriteOfCompiled', b.param(2), 1)
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
