/**
 * The number every format is taken apart into, the two operands and the result of the operation in progress, and its exceptions.
 * Globals, because a function here can return one value only and nothing may be kept in the guest's memory.
 * A finite number is (-1)^sign * significand / 2^63 * 2^exponent, bit 63 of the significand being set.
 */

/** Ordered so that comparisons serve: everything from QNAN on is not a number. */
export const ZERO: i32 = 0
export const NORMAL: i32 = 1
export const INFINITY: i32 = 2
export const QNAN: i32 = 3
export const SNAN: i32 = 4
/** Pseudo-NaN, pseudo-infinity, unnormal: what an 80387 and later reject. (SDM Vol. 1, "Unsupported Double Extended-Precision") */
export const UNSUPPORTED: i32 = 5

/** Exception flags, as in the x87 status word and MXCSR. */
export const IE: i32 = 1
export const DE: i32 = 2
export const ZE: i32 = 4
export const OE: i32 = 8
export const UE: i32 = 16
export const PE: i32 = 32
/** The exceptions found before anything is computed. */
export const PRECOMPUTATION: i32 = IE | DE | ZE

/** Rounding control, as in the x87 control word and MXCSR. */
export const NEAREST: i32 = 0
export const DOWN: i32 = 1
export const UP: i32 = 2
export const TRUNCATE: i32 = 3

export const INTEGER_BIT: u64 = 0x8000000000000000
export const QUIET_BIT: u64 = 0x4000000000000000
/** The significand of the QNaN floating-point indefinite. */
export const INDEFINITE: u64 = 0xc000000000000000

// The environment: what MXCSR or the x87 control word say.
export let rounding: i32 = 0
/** Bit set: the exception is masked. */
export let masks: i32 = 0
export let flushToZero: bool = false
export let denormalsAreZero: bool = false
/** What is added to the exponent of an unmasked underflow's result, subtracted on overflow; 0 when nothing is stored then. */
export let wrap: i32 = 0

// What the operation has come to.
export let raised: i32 = 0
/** The significand was rounded up: C1. */
export let roundedUp: bool = false

export let leftClass: i32 = 0
export let leftSign: u32 = 0
export let leftExponent: i32 = 0
export let leftSignificand: u64 = 0
export let leftDenormal: bool = false

export let rightClass: i32 = 0
export let rightSign: u32 = 0
export let rightExponent: i32 = 0
export let rightSignificand: u64 = 0
export let rightDenormal: bool = false

export let resultClass: i32 = 0
export let resultSign: u32 = 0
export let resultExponent: i32 = 0
export let resultSignificand: u64 = 0
/** The 64 bits below the significand, bit 0 sticky. */
export let resultRest: u64 = 0

export function setEnvironment(mode: i32, masked: i32, wrapAmount: i32, ftz: bool, daz: bool): void {
  rounding = mode
  masks = masked
  wrap = wrapAmount
  flushToZero = ftz
  denormalsAreZero = daz
  raised = 0
  roundedUp = false
}

export function raise(flags: i32): void {
  raised |= flags
}

/** Whether an exception found before the computation stops it. */
export function stopped(): bool {
  return (raised & ~masks & PRECOMPUTATION) != 0
}

export function setRoundedUp(up: bool): void {
  roundedUp = up
}

export function setRounding(mode: i32): void {
  rounding = mode
}

export function setLeft(kind: i32, sign: u32, exponent: i32, significand: u64, denormal: bool): void {
  leftClass = kind
  leftSign = sign
  leftExponent = exponent
  leftSignificand = significand
  leftDenormal = denormal
}

export function setRight(kind: i32, sign: u32, exponent: i32, significand: u64, denormal: bool): void {
  rightClass = kind
  rightSign = sign
  rightExponent = exponent
  rightSignificand = significand
  rightDenormal = denormal
}

export function swapOperands(): void {
  const kind = leftClass
  const sign = leftSign
  const exponent = leftExponent
  const significand = leftSignificand
  const denormal = leftDenormal
  setLeft(rightClass, rightSign, rightExponent, rightSignificand, rightDenormal)
  setRight(kind, sign, exponent, significand, denormal)
}

/** A result still to be rounded. */
export function setResult(sign: u32, exponent: i32, significand: u64, rest: u64): void {
  resultClass = NORMAL
  resultSign = sign
  resultExponent = exponent
  resultSignificand = significand
  resultRest = rest
}

export function setZero(sign: u32): void {
  resultClass = ZERO
  resultSign = sign
  resultSignificand = 0
}

export function setInfinity(sign: u32): void {
  resultClass = INFINITY
  resultSign = sign
  resultSignificand = INTEGER_BIT
}

export function setNaN(sign: u32, significand: u64): void {
  resultClass = QNAN
  resultSign = sign
  resultSignificand = significand | QUIET_BIT
}

/** The masked response to an invalid operation. */
export function setInvalid(): void {
  raised |= IE
  setNaN(1, INDEFINITE)
}

export function copyLeftToResult(): void {
  resultClass = leftClass
  resultSign = leftSign
  resultExponent = leftExponent
  resultSignificand = leftSignificand
  resultRest = 0
}

/** Takes back what rounding a result reported that is not delivered. */
export function dropPrecision(): void {
  raised &= ~PE
  roundedUp = false
}

/** Starts the next lane under the same environment. */
export function beginLane(): void {
  raised = 0
}
