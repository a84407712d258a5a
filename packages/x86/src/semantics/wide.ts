/** 64 × 64 → 128 multiplication and 128 / 64 division out of 64-bit operations. */
import type { IrBuilder } from '../ir/builder.ts'
import type { Value } from '../ir/nodes.ts'

const LOW = 0xffff_ffffn

/** High 64 bits of the product: schoolbook on 32-bit halves, then corrected for signs. */
export function multiplyHigh(b: IrBuilder, left: Value, right: Value, signed: boolean): Value {
  const leftLow = b.and(left, LOW), leftHigh = b.shrU(left, 32)
  const rightLow = b.and(right, LOW), rightHigh = b.shrU(right, 32)
  const middle = b.add(b.mul(leftHigh, rightLow), b.shrU(b.mul(leftLow, rightLow), 32))
  const cross = b.add(b.mul(leftLow, rightHigh), b.and(middle, LOW))
  const high = b.add(b.add(b.mul(leftHigh, rightHigh), b.shrU(middle, 32)), b.shrU(cross, 32))
  if (!signed) return high
  const correction = b.add(b.and(b.shrS(left, 63), right), b.and(b.shrS(right, 63), left))
  return b.sub(high, correction)
}

/**
 * (high:low) / divisor, unsigned, where high < divisor (so the quotient fits). Two digits of base 2^32, each estimated from
 * the divisor's high digit and corrected at most twice. (Knuth, TAOCP vol. 2, Algorithm D)
 */
export function divide128(b: IrBuilder, high: Value, low: Value, divisor: Value): { quotient: Value; remainder: Value } {
  const shift = b.clz(divisor)
  const d = b.shl(divisor, shift)
  const dHigh = b.shrU(d, 32), dLow = b.and(d, LOW)
  // A shift by 64 - 0 must give 0, so it goes in two steps.
  const spill = b.shrU(b.shrU(low, 1), b.sub(63, shift))
  const upper = b.or(b.shl(high, shift), spill)
  const lower = b.shl(low, shift)

  const digit = (from: Value, next: Value): { q: Value; rest: Value } => {
    const q = b.variable(b.divU(from, dHigh), 'digit')
    const r = b.variable(b.remU(from, dHigh), 'rest')
    b.loop(() => {
      const tooLarge = b.or(
        b.ne(b.shrU(b.get(q), 32), 0),
        b.gtU(b.mul(b.get(q), dLow), b.or(b.shl(b.get(r), 32), next)),
      )
      b.if(b.eqz(tooLarge), () => b.break())
      b.assign(q, b.sub(b.get(q), 1))
      b.assign(r, b.add(b.get(r), dHigh))
      b.if(b.ne(b.shrU(b.get(r), 32), 0), () => b.break())
    })
    const quotient = b.get(q)
    return { q: quotient, rest: b.sub(b.or(b.shl(from, 32), next), b.mul(quotient, d)) }
  }
  const first = digit(upper, b.shrU(lower, 32))
  const second = digit(first.rest, b.and(lower, LOW))
  return { quotient: b.or(b.shl(first.q, 32), b.and(second.q, LOW)), remainder: b.shrU(second.rest, shift) }
}
