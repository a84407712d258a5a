import { describe, expect, it } from 'vitest'
import { IrBuilder } from './builder.ts'
import type { Value } from './nodes.ts'

/** Whether cutting to 32 bits gives the value itself back. */
function isShort(build: (b: IrBuilder, unknown: Value) => Value): boolean {
  const b = new IrBuilder()
  const value = build(b, b.slot(0))
  return b.truncate(value, 32) === value
}

describe('a value that is short already is not cut again', () => {
  it.each<{ what: string; build: (b: IrBuilder, unknown: Value) => Value; short: boolean }>([
    { what: 'a register', build: (_, x) => x, short: false },
    { what: 'a load of 32 bits', build: (b) => b.rawLoad('i64', b.param(0), 0, 32), short: true },
    { what: 'a signed load', build: (b) => b.rawLoad('i64', b.param(0), 0, 32, { signed: true }), short: false },
    { what: 'a cut value', build: (b, x) => b.truncate(x, 32), short: true },
    { what: 'a value cut longer', build: (b, x) => b.and(x, 0x1_ffff_ffff), short: false },
    { what: 'XOR of cut values', build: (b, x) => b.xor(b.truncate(x, 32), b.truncate(x, 16)), short: true },
    { what: 'XOR with a whole one', build: (b, x) => b.xor(b.truncate(x, 32), x), short: false },
    { what: 'AND with a cut value', build: (b, x) => b.and(x, b.truncate(b.slot(8), 32)), short: true },
    { what: 'a sum', build: (b, x) => b.add(b.truncate(x, 32), b.truncate(x, 32)), short: false },
    { what: 'the high half', build: (b, x) => b.shrU(x, 32), short: true },
    { what: 'shifted by one less', build: (b, x) => b.shrU(x, 31), short: false },
    { what: 'a byte shifted up', build: (b, x) => b.shl(b.truncate(x, 8), 24), short: true },
    { what: 'a byte shifted out', build: (b, x) => b.shl(b.truncate(x, 8), 25), short: false },
    { what: 'an i32, extended', build: (b, x) => b.extendU(b.wrap(x)), short: true },
    { what: 'an i32, sign-extended', build: (b, x) => b.extendS(b.wrap(x)), short: false },
    { what: 'a choice of short ones', build: (b, x) => b.select(b.eqz(x), b.truncate(x, 32), 7), short: true },
    { what: 'a choice', build: (b, x) => b.select(b.eqz(x), x, 7), short: false },
    { what: 'a comparison', build: (b, x) => b.extendU(b.ltU(x, 5)), short: true },
  ])('$what: $short', ({ build, short }) => expect(isShort(build)).toBe(short))

  it('extending and wrapping are undone', () => {
    const b = new IrBuilder()
    const value = b.param(0)
    expect(b.wrap(b.extendU(value))).toBe(value)
    expect(b.wrap(b.extendS(value))).toBe(value)
  })
})
