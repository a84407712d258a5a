/**
 * The status flags of arithmetic results as formulas of operands and result, and the condition codes that compare them. Builds IR; independent of where
 * flags are kept: the interpreter stores them (flag-builder.ts), compiled code computes them when they are read (compiler/region-flags.ts).
 * (SDM Vol. 1, "EFLAGS Register", "Condition Codes")
 */
import type { IrBuilder } from '../ir/builder.ts'
import type { Value, Width } from '../ir/nodes.ts'
import { multiplyHigh } from './wide.ts'

export type StatusFlag = 'cf' | 'pf' | 'af' | 'zf' | 'sf' | 'of'

/**
 * Operations whose flags follow from their operands and result. INC and DEC leave CF alone; of shifts `right` is the count, not 0; of `mul` `left` and
 * `result` are the product's low half and `right` is its high half, of `imul` `left` and `right` are the factors.
 */
export type ArithmeticKind = 'add' | 'adc' | 'sub' | 'sbb' | 'logic' | 'inc' | 'dec' | 'shl' | 'shr' | 'sar' | 'mul' | 'imul'

/** `left`, `right` and `result` are cut to `width`. For `adc` and `sbb` `right` is as it was before the carry was added; for `inc` and `dec` it is 1. */
export interface Arithmetic {
  readonly kind: ArithmeticKind
  readonly width: Width
  readonly left: Value
  readonly right: Value
  readonly result: Value
  /** i32: CF before `adc` and `sbb`; CF before and after `inc` and `dec`. */
  readonly carry: Value | undefined
}

const ADDS: ReadonlySet<ArithmeticKind> = new Set(['add', 'adc', 'inc'])
/** Additions and subtractions. For the others AF is undefined and is cleared, as processors do. */
const ADJUSTS: ReadonlySet<ArithmeticKind> = new Set(['add', 'adc', 'sub', 'sbb', 'inc', 'dec'])
export const setsAdjust = (kind: ArithmeticKind): boolean => ADJUSTS.has(kind)

/** CF, i32. */
export function carryFlag(b: IrBuilder, { kind, width, left, right, result, carry }: Arithmetic): Value {
  switch (kind) {
    case 'logic': return b.i32(0)
    case 'add': return b.ltU(result, left)
    case 'adc': return b.or(b.ltU(result, left), b.and(carry!, b.eq(result, left)))
    case 'sub': return b.ltU(left, right)
    case 'sbb': return b.or(b.ltU(left, right), b.and(carry!, b.eq(left, right)))
    case 'inc': case 'dec': return carry!
    case 'shl': return b.and(b.wrap(width === 64 ? b.shrU(left, b.sub(64, right)) : b.shrU(b.shl(left, right), width)), 1)
    case 'shr': return b.and(b.wrap(b.shrU(left, b.sub(right, 1))), 1)
    case 'sar': return b.and(b.wrap(b.shrU(b.signExtend(left, width), b.sub(right, 1))), 1)
    // Of a product: whether it is more than its low half.
    case 'mul': return b.ne(right, 0)
    case 'imul':
      if (width === 64) return b.ne(multiplyHigh(b, left, right, true), b.shrS(result, 63))
      return b.ne(b.mul(b.signExtend(left, width), b.signExtend(right, width)), b.signExtend(result, width))
  }
}

/** OF as bit (width - 1) of an i64; not of products. The shifts' OF is defined for a count of 1 only, and is what that formula gives for the others too. */
export function overflowBit(b: IrBuilder, { kind, width, left, right, result }: Arithmetic, cf: () => Value): Value {
  switch (kind) {
    case 'logic': case 'sar': return b.const(0)
    case 'shr': return left
    case 'shl': return b.xor(result, b.shl(b.extendU(cf()), width - 1))
    default: return b.and(b.xor(left, result), b.xor(ADDS.has(kind) ? result : left, right))
  }
}

/** Bit 4 of it (i64) is AF, for the operations that set AF. */
export const adjustBit = (b: IrBuilder, left: Value, right: Value, result: Value): Value => b.xor(b.xor(left, right), result)

/** PF of the low byte, i32. */
export const parityOf = (b: IrBuilder, value: Value): Value => b.eqz(b.and(b.popcnt(b.and(b.wrap(value), 0xff)), 1))

/** A status flag, i32. */
export function flagOf(b: IrBuilder, name: StatusFlag, a: Arithmetic): Value {
  const { kind, width, left, right, result } = a
  switch (name) {
    case 'zf': return b.eqz(result)
    case 'sf': return b.wrap(b.shrU(b.signExtend(result, width), 63))
    case 'pf': return parityOf(b, result)
    case 'cf': return carryFlag(b, a)
    case 'af': return setsAdjust(kind) ? b.and(b.wrap(b.shrU(adjustBit(b, left, right, result), 4)), 1) : b.i32(0)
    case 'of':
      if (kind === 'logic' || kind === 'sar') return b.i32(0)
      if (kind === 'mul' || kind === 'imul') return carryFlag(b, a)
      if (kind === 'shl') return b.xor(flagOf(b, 'sf', a), carryFlag(b, a))
      return b.and(b.wrap(b.shrU(overflowBit(b, a, () => carryFlag(b, a)), width - 1)), 1)
  }
}

/** A condition code (0..15, as in Jcc's opcode), i32. Compares the operands or the result where that is the same. */
export function conditionOf(b: IrBuilder, code: number, a: Arithmetic): Value {
  const { kind, width, left, right, result } = a
  const signed = (value: Value) => b.signExtend(value, width)
  const flag = (name: StatusFlag) => flagOf(b, name, a)
  const negate = (value: Value) => (code & 1 ? b.eqz(value) : value)
  const pair = code >> 1
  if (kind === 'sub') {
    switch (pair) {
      case 1: return code & 1 ? b.geU(left, right) : b.ltU(left, right)
      case 2: return code & 1 ? b.ne(left, right) : b.eq(left, right)
      case 3: return code & 1 ? b.gtU(left, right) : b.leU(left, right)
      case 6: return code & 1 ? b.geS(signed(left), signed(right)) : b.ltS(signed(left), signed(right))
      case 7: return code & 1 ? b.gtS(signed(left), signed(right)) : b.leS(signed(left), signed(right))
    }
  }
  switch (pair) {
    case 0: return negate(flag('of'))
    case 1: return negate(flag('cf'))
    case 2: return code & 1 ? b.ne(result, 0) : b.eqz(result)
    case 3: return negate(b.or(flag('cf'), flag('zf')))
    case 4: return code & 1 ? b.geS(signed(result), 0) : b.ltS(signed(result), 0)
    case 5: return negate(flag('pf'))
    case 6:
      if (kind === 'logic') return code & 1 ? b.geS(signed(result), 0) : b.ltS(signed(result), 0)
      return negate(b.xor(flag('sf'), flag('of')))
    default:
      if (kind === 'logic') return code & 1 ? b.gtS(signed(result), 0) : b.leS(signed(result), 0)
      return negate(b.or(b.xor(flag('sf'), flag('of')), flag('zf')))
  }
}
