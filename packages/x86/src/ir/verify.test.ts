import { describe, expect, it } from 'vitest'
import { IrBuilder } from './builder.ts'
import type { Value, Variable } from './nodes.ts'
import { verify } from './verify.ts'

const OPTIONS = { params: 2, signature: (name: string) => (name === 'known' ? ({ params: ['i32'], results: ['i64'] } as const) : undefined) }

/** What is wrong with a body; it is ended properly if it does not do that itself. */
function problems(build: (b: IrBuilder) => void, end = true): string[] {
  const b = new IrBuilder()
  build(b)
  if (end) b.return()
  return verify(b.root, OPTIONS)
}

describe('the verifier', () => {
  it('has nothing to say of a sound body', () => {
    expect(
      problems((b) => {
        const v = b.variable(b.const(1))
        b.loop(() => {
          b.if(b.eqz(b.get(v)), () => b.break())
          b.assign(v, b.call('i64', 'known', b.param(1)))
        })
        b.setSlot(8, b.get(v), 16)
        b.tail(b.i32(1), b.param(0), b.param(1))
      }),
    ).toEqual([])
  })

  const wrong: [string, RegExp, (b: IrBuilder) => void][] = [
    ['operand types', /i32.add.*|of type i64 where i32/, (b) => {
      const sum = b.op('i32.add', b.param(0), b.param(1)) as Extract<Value, { kind: 'op' }>
      ;(sum.args as Value[])[0] = b.slot(8)
      sum.args[0]!.uses++
    }],
    ['a value used outside its list', /outside the list/, (b) => {
      let inner!: Value
      b.if(b.param(0), () => (inner = b.slot(8)))
      b.setSlot(16, inner)
    }],
    ['a value used before its place', /before its place/, (b) => {
      const list = b.root
      b.setSlot(16, b.slot(8))
      list.reverse()
    }],
    ['a variable that may not be set', /'late' is read where it may not be set/, (b) => {
      const late: Variable = { type: 'i64', name: 'late', local: -1 }
      b.if(b.param(0), () => b.assign(late, 1))
      b.setSlot(8, b.get(late))
    }],
    ['a label that is not open', /break with a label that is not open/, (b) => b.break({})],
    ['a block continued', /continue with the label of a block/, (b) => {
      const label = {}
      b.block(() => b.continue(label), label)
    }],
    ['a width that no store has', /no store of 8 bits as f64/, (b) => b.setSlot(8, b.const(0, 'f64'), 8)],
    ['code behind an end', /setSlot is never reached/, (b) => {
      b.return()
      b.setSlot(8, b.const(1))
    }],
    ['a constant out of range', /is not a bit pattern of i32/, (b) => {
      b.setSlot(8, { ...b.i32(0), value: -1n } as Value, 32)
    }],
    ['an unknown callee', /unknown is not imported/, (b) => b.run('unknown')],
    ['arguments', /known takes 1 arguments, not 0/, (b) => b.call('i64', 'known')],
    ['results', /known yields i64, not nothing/, (b) => b.run('known', b.param(0))],
    ['lanes', /has no lane 16/, (b) => b.lane('i8x16.extract_lane_u', [16], b.slot(8, 'v128'))],
    ['uses that are not counted', /says 0 uses and has 1/, (b) => {
      const value = b.slot(8)
      b.setSlot(16, value)
      value.uses = 0
    }],
  ]
  for (const [name, message, build] of wrong) it(`finds ${name}`, () => expect(problems(build).join('\n')).toMatch(message))

  it('finds an end that is no end', () => {
    expect(problems((b) => b.setSlot(8, b.const(1)), false).join()).toMatch(/without a return/)
  })
})
