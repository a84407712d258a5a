/**
 * x87 loads, stores and exchanges done in place where nothing exceptional happens: registers as full or empty as they should be, ordinary
 * numbers. Everything else is the exact library's, which each caller gives as `exact`. No instruction.
 */
import { S } from '../state/layout.ts'
import type { SemanticsBuilder, Value } from './builder.ts'
import { STATUS, top } from './x87-state.ts'

const SIGNIFICAND_TOP = 1n << 63n
/** Differences of exponent biases: double extended less single and double. */
const BIAS = { f32: 0x3f80, f64: 0x3c00 } as const

/** Number of the physical register that is ST(n), n an i32 or a number, i32. */
const physical = (b: SemanticsBuilder, n: Value | number): Value => b.and(b.add(top(b), n), 7)
const address = (b: SemanticsBuilder, register: Value): Value => b.add(b.cpu, b.shl(register, 4))
const full = (b: SemanticsBuilder, register: Value): Value => b.and(b.shrU(b.slot(S.fpuTag, 'i32'), register), 1)
const bit = (b: SemanticsBuilder, register: Value): Value => b.shl(b.i32(1), register)

/** Makes `register` the top and full, C1 clear. */
function pushed(b: SemanticsBuilder, register: Value): void {
  const status = b.and(b.slot(S.fpuStatus, 'i32'), ~(STATUS.top | STATUS.c1))
  b.setSlot(S.fpuStatus, b.or(status, b.shl(register, STATUS.topShift)))
  b.setSlot(S.fpuTag, b.or(b.slot(S.fpuTag, 'i32'), bit(b, register)))
}
/** C1 clear; the top emptied if the instruction pops. */
function stored(b: SemanticsBuilder, pops: boolean, c1: Value | number = 0): void {
  let status = b.or(b.and(b.slot(S.fpuStatus, 'i32'), ~STATUS.c1), c1)
  if (pops) {
    const old = physical(b, 0)
    b.setSlot(S.fpuTag, b.and(b.slot(S.fpuTag, 'i32'), b.not(bit(b, old))))
    status = b.or(b.and(status, ~STATUS.top), b.shl(b.and(b.add(old, 1), 7), STATUS.topShift))
  }
  b.setSlot(S.fpuStatus, status)
}

function write(b: SemanticsBuilder, register: Value, significand: Value, signExponent: Value): void {
  const at = address(b, register)
  b.rawStore(at, S.fpr, 64, significand)
  b.rawStore(at, S.fpr + 8, 16, signExponent)
}

/** FLD m32, FLD m64: zeros and normal numbers. */
export function quickLoad(b: SemanticsBuilder, format: 'f32' | 'f64', bits: Value, exact: () => void): void {
  const wide = b.extendU(bits)
  const [fraction, exponents] = format === 'f32' ? [23, 0xff] : [52, 0x7ff]
  const exponent = b.and(b.wrap(b.shrU(wide, fraction)), exponents)
  const normal = b.ltU(b.sub(exponent, 1), exponents - 1)
  const zero = b.eqz(b.shl(bits, 1))
  const register = physical(b, 7)
  b.ifUnlikely(
    b.eqz(b.and(b.or(normal, zero), b.eqz(full(b, register)))),
    exact,
    () => {
      const sign = b.shl(b.and(b.wrap(b.shrU(wide, fraction + (format === 'f32' ? 8 : 11))), 1), 15)
      const significand = b.or(b.shl(wide, 63 - fraction), SIGNIFICAND_TOP)
      write(b, register, b.select(normal, significand, 0), b.or(sign, b.select(normal, b.add(exponent, BIAS[format]), b.i32(0))))
      pushed(b, register)
    },
  )
}

/** FILD: every integer is exact. */
export function quickLoadInteger(b: SemanticsBuilder, value: Value, exact: () => void): void {
  const register = physical(b, 7)
  b.ifUnlikely(full(b, register), exact, () => {
    const negative = b.ltS(value, 0)
    const size = b.select(negative, b.sub(0, value), value)
    const shift = b.clz(size)
    const exponent = b.sub(0x3fff + 63, b.wrap(shift))
    const signExponent = b.select(b.eqz(value), b.i32(0), b.or(exponent, b.shl(negative, 15)))
    write(b, register, b.shl(size, shift), signExponent)
    pushed(b, register)
  })
}

/** FLD ST(i). */
export function quickLoadRegister(b: SemanticsBuilder, index: Value, exact: () => void): void {
  const from = physical(b, index), to = physical(b, 7)
  b.ifUnlikely(b.eqz(b.and(full(b, from), b.xor(full(b, to), 1))), exact, () => {
    b.rawStore(address(b, to), S.fpr, 128, b.rawLoad('v128', address(b, from), S.fpr, 128))
    pushed(b, to)
  })
}

/** FST ST(i), FSTP ST(i). */
export function quickStoreRegister(b: SemanticsBuilder, index: Value, pops: boolean, exact: () => void): void {
  const from = physical(b, 0), to = physical(b, index)
  b.ifUnlikely(b.eqz(full(b, from)), exact, () => {
    b.rawStore(address(b, to), S.fpr, 128, b.rawLoad('v128', address(b, from), S.fpr, 128))
    b.setSlot(S.fpuTag, b.or(b.slot(S.fpuTag, 'i32'), bit(b, to)))
    stored(b, pops)
  })
}

/** FXCH. */
export function quickExchange(b: SemanticsBuilder, index: Value, exact: () => void): void {
  const first = physical(b, 0), second = physical(b, index)
  b.ifUnlikely(b.eqz(b.and(full(b, first), full(b, second))), exact, () => {
    const left = b.rawLoad('v128', address(b, first), S.fpr, 128), right = b.rawLoad('v128', address(b, second), S.fpr, 128)
    b.rawStore(address(b, first), S.fpr, 128, right)
    b.rawStore(address(b, second), S.fpr, 128, left)
    stored(b, false)
  })
}

/** Round to nearest with the precision exception masked, and PE already set: an inexact result changes only C1. */
const CONTROL_NEAREST = { mask: 0x0c20, value: 0x0020 } as const
const PE = 0x20

/** FST m64, FSTP m64 of numbers that stay normal: rounds 64 bits of significand to 53. The value goes to `use` before anything changes. */
export function quickStoreDouble(b: SemanticsBuilder, pops: boolean, use: (bits: Value) => void, exact: () => void): void {
  const register = physical(b, 0)
  const at = address(b, register)
  const significand = b.rawLoad('i64', at, S.fpr, 64)
  const signExponent = b.rawLoad('i32', at, S.fpr + 8, 16)
  const exponent = b.sub(b.and(signExponent, 0x7fff), BIAS.f64)
  const rest = b.and(significand, 0x7ff)
  const control = b.eq(b.and(b.slot(S.fpuControl, 'i32'), CONTROL_NEAREST.mask), CONTROL_NEAREST.value)
  const quiet = b.or(b.eqz(rest), b.and(control, b.ne(b.and(b.slot(S.fpuStatus, 'i32'), PE), 0)))
  // One exponent is kept in hand at either end: rounding up may carry into it.
  const within = b.and(b.ltU(b.sub(exponent, 1), 0x7fd), b.ltS(significand, 0))
  b.ifUnlikely(
    b.eqz(b.and(b.and(full(b, register), within), quiet)),
    exact,
    () => {
      const kept = b.shrU(significand, 11)
      const up = b.extendU(b.gtU(b.add(rest, b.and(kept, 1)), 0x400))
      // The significand's own top bit adds the one that is missing from the exponent, a carry one more.
      const number = b.add(b.shl(b.extendU(b.sub(exponent, 1)), 52), b.add(kept, up))
      use(b.or(number, b.shl(b.extendU(b.shrU(signExponent, 15)), 63)))
      stored(b, pops, b.shl(b.wrap(up), 9))
    },
  )
}
