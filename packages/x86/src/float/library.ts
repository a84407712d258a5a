/**
 * Exact x87 and SSE arithmetic over a vCPU's block in shared memory. The functions are wasm (float-library/); this file has their types and
 * instantiates them on a thread.
 *
 * Conventions: `cpu` is the byte address of the vCPU's block; booleans are 0 or 1; single-precision values are passed as i32 bits, double-precision
 * values and integers as i64. All functions make exceptions sticky in MXCSR or the x87 status word.
 */
import { floatBinary } from './module.ts'

/** An address, a small number, a boolean, or the bits of an f32. */
type I32 = number
/** The bits of an f64, or an integer. */
type I64 = bigint

/** Operation numbers of `f32_arith`, `f64_arith`; the last three are for the packed forms only. */
export const SSE_OPERATION = {
  add: 0,
  multiply: 1,
  minimum: 2,
  maximum: 3,
  subtract: 4,
  divide: 6,
  squareRoot: 8,
  addSubtract: 9,
  horizontalAdd: 10,
  horizontalSubtract: 11,
} as const

/** Operation numbers of `x87_arith`: the opcode's reg field. Reversed means source op destination. */
export const X87_OPERATION = {
  add: 0,
  multiply: 1,
  subtract: 4,
  subtractReversed: 5,
  divide: 6,
  divideReversed: 7,
} as const

/** Conversion numbers of `x_convert`. */
export const SSE_CONVERSION = {
  f32ToInteger: 0,
  f32ToIntegerTruncating: 1,
  f64ToInteger: 2,
  f64ToIntegerTruncating: 3,
  integerToF32: 4,
  integerToF64: 5,
  f32ToF64: 6,
  f64ToF32: 7,
} as const

/** Results of the x87 stores: bits. */
export const X87_STORE = { pending: 1, nothingToWrite: 2 } as const

/**
 * SSE, one operation. An unmasked exception is or-ed into the block's `floatException`, the value returned is then void.
 * Square root takes `left`.
 */
export interface SseScalar {
  f32_arith(cpu: I32, operation: I32, left: I32, right: I32): I32
  f64_arith(cpu: I32, operation: I32, left: I64, right: I64): I64
  /** CMPSS: an all-ones or zero mask. Predicates 0 to 31. */
  f32_compare(cpu: I32, predicate: I32, left: I32, right: I32): I32
  f64_compare(cpu: I32, predicate: I32, left: I64, right: I64): I64
  /** COMISS (signalling) and UCOMISS: ZF, PF and CF as in EFLAGS. */
  f32_order(cpu: I32, left: I32, right: I32, signalling: I32): I32
  f64_order(cpu: I32, left: I64, right: I64, signalling: I32): I32
  /** ROUNDSS by its immediate. */
  f32_round(cpu: I32, control: I32, value: I32): I32
  f64_round(cpu: I32, control: I32, value: I64): I64
  /** To a signed integer of 32 or 64 bits, sign-extended. */
  f32_to_integer(cpu: I32, value: I32, bits: I32, truncate: I32): I64
  f64_to_integer(cpu: I32, value: I64, bits: I32, truncate: I32): I64
  f32_from_integer(cpu: I32, value: I64): I32
  f64_from_integer(cpu: I32, value: I64): I64
  f64_from_f32(cpu: I32, value: I32): I64
  f32_from_f64(cpu: I32, value: I64): I32
  /** RCPSS, RSQRTSS: no exceptions, no state. */
  f32_reciprocal(value: I32): I32
  f32_reciprocal_root(value: I32): I32
}

/**
 * SSE, a whole instruction on memory: addresses of up to 16 bytes, which may coincide. The destination is written, for as many lanes
 * as there are, only if no exception was unmasked; the unmasked ones are returned and or-ed into `floatException`.
 */
export interface SsePacked {
  f32x_arith(cpu: I32, operation: I32, destination: I32, left: I32, right: I32, lanes: I32): I32
  f64x_arith(cpu: I32, operation: I32, destination: I32, left: I32, right: I32, lanes: I32): I32
  f32x_compare(cpu: I32, predicate: I32, destination: I32, left: I32, right: I32, lanes: I32): I32
  f64x_compare(cpu: I32, predicate: I32, destination: I32, left: I32, right: I32, lanes: I32): I32
  f32x_round(cpu: I32, control: I32, destination: I32, source: I32, lanes: I32): I32
  f64x_round(cpu: I32, control: I32, destination: I32, source: I32, lanes: I32): I32
  x_convert(cpu: I32, conversion: I32, destination: I32, source: I32, lanes: I32): I32
  /** DPPS, DPPD by their immediate. */
  f32x_dot(cpu: I32, control: I32, destination: I32, left: I32, right: I32): I32
  f64x_dot(cpu: I32, control: I32, destination: I32, left: I32, right: I32): I32
}

/** x87 instructions whose result stays on the register stack. They return 1 when an exception is pending (ES), else 0. */
export interface X87Arithmetic {
  /** ST(destination) = ST(destination) op ST(source). */
  x87_arith(cpu: I32, operation: I32, destination: I32, source: I32, pops: I32): I32
  x87_arith_f32(cpu: I32, operation: I32, bits: I32): I32
  x87_arith_f64(cpu: I32, operation: I32, bits: I64): I32
  x87_arith_integer(cpu: I32, operation: I32, value: I64): I32
  x87_sqrt(cpu: I32): I32
  x87_negate(cpu: I32): I32
  x87_absolute(cpu: I32): I32
  x87_round(cpu: I32): I32
  x87_scale(cpu: I32): I32
  x87_extract(cpu: I32): I32
  /** FPREM (0), FPREM1 (1). */
  x87_remainder(cpu: I32, nearest: I32): I32
  x87_compare(cpu: I32, index: I32, signalling: I32, pops: I32): I32
  x87_compare_f32(cpu: I32, bits: I32, pops: I32): I32
  x87_compare_f64(cpu: I32, bits: I64, pops: I32): I32
  x87_compare_integer(cpu: I32, value: I64, pops: I32): I32
  x87_test(cpu: I32): I32
  /** FCOMI and similar: stores ZF, PF and CF as in EFLAGS in the block's `value` slot (i32). */
  x87_order(cpu: I32, index: I32, signalling: I32, pops: I32): I32
  x87_examine(cpu: I32): void
}

/** x87 instructions accurate to a unit in the last place, as on real processors. They return 1 when an exception is pending. */
export interface X87Transcendental {
  /** FSIN, FCOS, FSINCOS, FPTAN: C2 reports that the angle is too large. */
  x87_sine(cpu: I32): I32
  x87_cosine(cpu: I32): I32
  x87_sine_cosine(cpu: I32): I32
  x87_tangent(cpu: I32): I32
  /** FPATAN */
  x87_arc_tangent(cpu: I32): I32
  /** F2XM1 */
  x87_exponential(cpu: I32): I32
  /** FYL2X */
  x87_logarithm(cpu: I32): I32
  /** FYL2XP1 */
  x87_logarithm_plus_one(cpu: I32): I32
}

/** x87 loads, stores and control. Stores leave the value in the block's `value` slot and return bits of X87_STORE. */
export interface X87Transfer {
  x87_load_f32(cpu: I32, bits: I32): I32
  x87_load_f64(cpu: I32, bits: I64): I32
  x87_load_f80(cpu: I32, significand: I64, signExponent: I32): I32
  x87_load_integer(cpu: I32, value: I64): I32
  x87_load_bcd(cpu: I32, low: I64, high: I32): I32
  x87_load_st(cpu: I32, index: I32): I32
  /** FLD1 (0), FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ (6). */
  x87_load_constant(cpu: I32, index: I32): I32
  x87_store_f32(cpu: I32, pops: I32): I32
  x87_store_f64(cpu: I32, pops: I32): I32
  x87_store_f80(cpu: I32): I32
  /** FIST, FISTP, FISTTP (truncating) to 16, 32 or 64 bits. */
  x87_store_integer(cpu: I32, bits: I32, truncate: I32, pops: I32): I32
  x87_store_bcd(cpu: I32): I32
  x87_store_st(cpu: I32, index: I32, pops: I32): I32
  x87_exchange(cpu: I32, index: I32): I32
  /** FCMOVcc with its condition evaluated. */
  x87_move(cpu: I32, index: I32, condition: I32): I32
  x87_free(cpu: I32, index: I32): void
  /** FINCSTP (1), FDECSTP (-1). */
  x87_rotate(cpu: I32, by: I32): I32
  x87_initialize(cpu: I32): void
  x87_clear_exceptions(cpu: I32): void
  x87_load_control(cpu: I32, control: I32): I32
  /** Sets ES and B as status and control words demand, after both were loaded. */
  x87_update_pending(cpu: I32): I32
  /** The full tag word, two bits a register, as FNSTENV and FNSAVE store it. */
  x87_tag_word(cpu: I32): I32
}

export type FloatLibrary = SseScalar & SsePacked & X87Arithmetic & X87Transcendental & X87Transfer

/** The compiled module: compile once, share between threads. */
export function compileFloat(): WebAssembly.Module {
  return new WebAssembly.Module(floatBinary())
}

/** The library over the processor's memory. */
export function createFloatLibrary(module: WebAssembly.Module, memory: WebAssembly.Memory): FloatLibrary {
  return new WebAssembly.Instance(module, { env: { memory } }).exports as unknown as FloatLibrary
}
