/**
 * How compiled code makes an access that the TLB does not answer: one call that takes the linear address and the instruction's position, so that
 * the code around every access stays small. The work is in paging/slow-path.ts.
 */
import { IrBuilder } from '../ir/builder.ts'
import type { Value } from '../ir/nodes.ts'
import { RECORD } from '../interpreter/record.ts'
import type { Built, Signature } from '../lower/function-module.ts'
import { S } from '../state/layout.ts'

interface SlowAccess extends Signature {
  readonly build: (b: IrBuilder, cpu: Value) => void
}

/** Does the access by the import; where that left, notes the position and gives what says so. */
function access(b: IrBuilder, cpu: Value, callee: string, info: Value, position: Value, left: number): void {
  b.ifUnlikely(b.call('i32', callee, cpu, info), () => {
    b.setSlot(S.compiledRecord + RECORD.ip, position)
    b.return(b.i32(left))
  })
}

/** By name. They give a host address or 0 (see SemanticsBuilder), or, the writes, whether they left. */
export const SLOW_ACCESSES: Readonly<Record<string, SlowAccess>> = {
  /** (cpu, linear, info, position) */
  compiledRead: {
    params: ['i32', 'i64', 'i32', 'i32'],
    results: ['i32'],
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowReadOfCompiled', b.param(2), b.param(3), 0)
      b.return(b.add(cpu, S.value))
    },
  },
  compiledModify: {
    params: ['i32', 'i64', 'i32', 'i32'],
    results: ['i32'],
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowModifyOfCompiled', b.param(2), b.param(3), 0)
      b.return(b.slot(S.modify, 'i32'))
    },
  },
  /** (cpu, linear, value, info, position) */
  compiledWrite: {
    params: ['i32', 'i64', 'i64', 'i32', 'i32'],
    results: ['i32'],
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      b.setSlot(S.value, b.param(2, 'i64'))
      access(b, cpu, 'slowWriteOfCompiled', b.param(3), b.param(4), 1)
      b.return(b.i32(0))
    },
  },
  /** (cpu, linear, info, position): the value is in its slot. */
  compiledWriteVector: {
    params: ['i32', 'i64', 'i32', 'i32'],
    results: ['i32'],
    build(b, cpu) {
      b.setSlot(S.address, b.param(1, 'i64'))
      access(b, cpu, 'slowWriteOfCompiled', b.param(2), b.param(3), 1)
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
