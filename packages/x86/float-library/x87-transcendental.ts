/**
 * What the transcendental instructions (x87-circular.ts, x87-logarithm.ts, x87-arctangent.ts) share. They are computed to about 110
 * bits and then rounded, so that results are the correctly rounded ones, save that the angle is reduced by pi to 66 bits as the
 * processor's is. Silicon is good to a unit in the last place only, and differs between vendors there.
 */
import { high, low, normalizeFraction } from './fraction'
import { copyLeftToResult, PE, raise, setResult } from './number'
/** Rounds the fraction as a number's significand: the result. It is never exact. */
export function setFromFraction(sign: u32, exponent: i32): void {
  const zeros = i32(normalizeFraction())
  setResult(sign, exponent - zeros, high, low | 1)
}

/** What the host's processor answers where the manual leaves the result undefined: ST(0), said to be inexact. */
export function outOfRange(): void {
  raise(PE)
  copyLeftToResult()
}
