/** What is computed stays right where a value is read late, and how many locals that takes. */
import { describe, expect, it } from 'vitest'
import { IrBuilder } from '../ir/builder.ts'
import type { Value, Variable } from '../ir/nodes.ts'
import { exportedModule } from './function-module.ts'
import { lower } from './lower.ts'

interface Case {
  readonly what: string
  /** `x` begins as the parameter, 10; memory at 16 as 7, at 24 as 24 - 8. */
  readonly build: (b: IrBuilder, x: Variable, memory: Value) => void
  readonly result: bigint
  /** Beside x. */
  readonly locals: number
}

const SIGNATURE = { params: ['i32', 'i64'], results: ['i64'] } as const

function run(build: Case['build']): { result: bigint; locals: number } {
  const b = new IrBuilder()
  const memory = b.param(0)
  build(b, b.variable(b.param(1, 'i64'), 'x'), memory)
  const buffer = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
  const view = new DataView(buffer.buffer)
  view.setBigInt64(16, 7n, true)
  view.setBigInt64(24, 16n, true)
  const module = new WebAssembly.Module(exportedModule([{ root: b.root, callees: b.callees, signature: SIGNATURE }], { signatures: {} }))
  const table = new WebAssembly.Table({ element: 'anyfunc', initial: 1 })
  const f = new WebAssembly.Instance(module, { e: { memory: buffer, table } }).exports['0'] as (memory: number, x: bigint) => bigint
  return { result: f(0, 10n), locals: countLocals(build) }
}
/** Lowering counts uses down, so it is built anew. */
function countLocals(build: Case['build']): number {
  const b = new IrBuilder()
  const memory = b.param(0)
  build(b, b.variable(b.param(1, 'i64'), 'x'), memory)
  return lower(b.root, 2).locals.length - 1
}

describe('a variable', () => {
  it.each<Case>([
    { what: 'that does not change is read at each use', build: (b, x) => { const v = b.get(x); b.return(b.add(v, v)) }, result: 20n, locals: 0 },
    { what: 'that a use sets', build: (b, x) => { const v = b.get(x); b.assign(x, b.add(v, 1)); b.return(b.get(x)) }, result: 11n, locals: 0 },
    { what: 'that is set before a use keeps its value', build: (b, x) => { const v = b.get(x); b.assign(x, 1); b.return(b.add(v, b.get(x))) }, result: 11n, locals: 1 },
    {
      what: 'that is set before a use in an expression of one use',
      build: (b, x) => { const v = b.add(b.get(x), 5); b.assign(x, 1); b.return(b.add(v, b.get(x))) },
      result: 16n,
      locals: 1,
    },
    {
      what: 'that is set on one path before a use',
      build: (b, x) => { const v = b.get(x); b.if(b.eq(v, 10), () => b.assign(x, 1)); b.return(b.add(v, b.get(x))) },
      result: 11n,
      locals: 1,
    },
    { what: 'that is set behind the last use', build: (b, x) => { const v = b.get(x); b.rawStore(b.i32(0), 0, 64, v); b.assign(x, 1); b.return(b.get(x)) }, result: 1n, locals: 0 },
    {
      what: 'that a loop sets behind a use, and reads before',
      build: (b, x) => {
        const v = b.get(x)
        const sum = b.variable(b.const(0), 'sum')
        b.loop(() => {
          b.assign(sum, b.add(b.get(sum), v))
          b.assign(x, b.sub(b.get(x), 5))
          b.if(b.eqz(b.get(x)), () => b.break())
        })
        b.return(b.get(sum))
      },
      result: 20n,
      locals: 2,
    },
    {
      what: 'that is read and set in a loop',
      build: (b, x) => {
        b.loop(() => {
          const v = b.get(x)
          b.if(b.ltU(v, 5), () => b.break())
          b.assign(x, b.sub(v, 1))
        })
        b.return(b.get(x))
      },
      result: 4n,
      locals: 0,
    },
  ])('$what', ({ build, result, locals }) => expect(run(build)).toEqual({ result, locals }))
})

describe('memory', () => {
  const at = (b: IrBuilder, offset: number): Value => b.rawLoad('i64', b.param(0), offset, 64)
  it.each<Case>([
    { what: 'is read where it is used, if that is next', build: (b) => b.return(b.add(at(b, 16), 1)), result: 8n, locals: 0 },
    { what: 'is read through memory', build: (b) => b.return(b.rawLoad('i64', b.wrap(at(b, 24)), 0, 64)), result: 7n, locals: 0 },
    { what: 'is read before a write that comes before the use', build: (b, _x, memory) => { const v = at(b, 16); b.rawStore(memory, 16, 64, b.const(1)); b.return(v) }, result: 7n, locals: 1 },
    { what: 'is read before what it writes over', build: (b, _x, memory) => { b.rawStore(memory, 16, 64, b.add(at(b, 16), 1)); b.return(at(b, 16)) }, result: 8n, locals: 0 },
    {
      what: 'is read before a write on one path',
      build: (b, x, memory) => { const v = at(b, 16); b.if(b.eq(b.get(x), 10), () => b.rawStore(memory, 16, 64, b.const(1))); b.return(v) },
      result: 7n,
      locals: 1,
    },
    {
      what: 'is read before a loop that writes it',
      build: (b, x, memory) => {
        const v = at(b, 16)
        b.loop(() => {
          b.assign(x, b.add(b.get(x), v))
          b.rawStore(memory, 16, 64, b.const(100))
          b.if(b.gtU(b.get(x), 20), () => b.break())
        })
        b.return(b.get(x))
      },
      result: 24n,
      locals: 1,
    },
    { what: 'is read once for two uses', build: (b) => { const v = at(b, 16); b.return(b.add(v, v)) }, result: 14n, locals: 1 },
    { what: 'of the vCPU is read where it is used', build: (b) => b.return(b.add(b.slot(16), b.slot(24))), result: 23n, locals: 0 },
    { what: 'of the vCPU is read before a write', build: (b) => { const v = b.slot(16); b.setSlot(16, b.const(1)); b.return(b.add(v, b.slot(16))) }, result: 8n, locals: 1 },
  ])('$what', ({ build, result, locals }) => expect(run(build)).toEqual({ result, locals }))
})
