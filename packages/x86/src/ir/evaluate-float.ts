/** The meaning of each scalar floating-point operation, on bit patterns. NaNs produced by arithmetic are those of the host. For evaluate.ts. */

type Meaning = (a: bigint, b: bigint) => bigint

/** Conversion of one format to JavaScript numbers and back. Rounding a sum, product, quotient or root of two singles twice is harmless. */
interface Format {
  readonly bits: number
  readonly number: (bits: bigint) => number
  readonly of: (number: number) => bigint
  readonly sign: bigint
}
const view = new DataView(new ArrayBuffer(8))
const single: Format = {
  bits: 32,
  number: (bits) => (view.setUint32(0, Number(bits)), view.getFloat32(0)),
  of: (number) => (view.setFloat32(0, number), BigInt(view.getUint32(0))),
  sign: 1n << 31n,
}
const double: Format = {
  bits: 64,
  number: (bits) => (view.setBigUint64(0, bits), view.getFloat64(0)),
  of: (number) => (view.setFloat64(0, number), view.getBigUint64(0)),
  sign: 1n << 63n,
}

/** To an integer, ties to even, the sign of zero kept. */
function nearest(x: number): number {
  if (!Number.isFinite(x) || Number.isInteger(x)) return x
  const floor = Math.floor(x)
  const above = x - floor
  const rounded = above < 0.5 || (above === 0.5 && floor % 2 === 0) ? floor : floor + 1
  return rounded === 0 && x < 0 ? -0 : rounded
}
const UNARY: Record<string, (a: number) => number> = { ceil: Math.ceil, floor: Math.floor, trunc: Math.trunc, nearest, sqrt: Math.sqrt }
const BINARY: Record<string, (a: number, b: number) => number> = {
  add: (a, b) => a + b, sub: (a, b) => a - b, mul: (a, b) => a * b, div: (a, b) => a / b, min: Math.min, max: Math.max,
}
const COMPARE: Record<string, (a: number, b: number) => boolean> = {
  eq: (a, b) => a === b, ne: (a, b) => a !== b, lt: (a, b) => a < b, gt: (a, b) => a > b, le: (a, b) => a <= b, ge: (a, b) => a >= b,
}

/** Float to signed integer, saturating; NaN gives 0. */
function saturate(x: number, bits: number): bigint {
  if (Number.isNaN(x)) return 0n
  const limit = 2n ** BigInt(bits - 1)
  const whole = Number.isFinite(x) ? BigInt(Math.trunc(x)) : x < 0 ? -limit : limit
  return BigInt.asUintN(bits, whole < -limit ? -limit : whole >= limit ? limit - 1n : whole)
}
/** A 64-bit integer to single, rounded once: bits beyond a double are kept as a sticky bit. */
function single64(bits: bigint): bigint {
  const value = BigInt.asIntN(64, bits)
  const magnitude = value < 0n ? -value : value
  const sticky = magnitude >> 53n ? ((magnitude >> 16n) << 16n) | (magnitude & 0xffffn ? 1n << 16n : 0n) : magnitude
  return single.of(Number(value < 0n ? -sticky : sticky))
}

const table: Record<string, Meaning> = {}
for (const [type, format] of [['f32', single], ['f64', double]] as const) {
  const { number, of, sign } = format
  for (const [name, f] of Object.entries(UNARY)) table[`${type}.${name}`] = (a) => of(f(number(a)))
  for (const [name, f] of Object.entries(BINARY)) table[`${type}.${name}`] = (a, b) => of(f(number(a), number(b)))
  for (const [name, f] of Object.entries(COMPARE)) table[`${type}.${name}`] = (a, b) => (f(number(a), number(b)) ? 1n : 0n)
  // On bits: a NaN's payload is not touched.
  table[`${type}.abs`] = (a) => a & ~sign
  table[`${type}.neg`] = (a) => a ^ sign
  table[`${type}.copysign`] = (a, b) => (a & ~sign) | (b & sign)
  table[`${type}.pmin`] = (a, b) => (number(b) < number(a) ? b : a)
  table[`${type}.pmax`] = (a, b) => (number(a) < number(b) ? b : a)
  table[`i32.trunc_sat_${type}_s`] = (a) => saturate(number(a), 32)
  table[`i64.trunc_sat_${type}_s`] = (a) => saturate(number(a), 64)
  table[`${type}.convert_i32_s`] = (a) => of(Number(BigInt.asIntN(32, a)))
}
const same: Meaning = (a) => a
Object.assign(table, {
  'f32.convert_i64_s': single64,
  'f64.convert_i64_s': (a) => double.of(Number(BigInt.asIntN(64, a))),
  'f32.demote_f64': (a) => single.of(double.number(a)),
  'f64.promote_f32': (a) => double.of(single.number(a)),
  'f32.reinterpret_i32': same,
  'f64.reinterpret_i64': same,
  'i32.reinterpret_f32': same,
  'i64.reinterpret_f64': same,
} satisfies Record<string, Meaning>)

/** By WebAssembly's names; `pmin` and `pmax` exist for vectors only and are here for them. */
export const FLOAT: Readonly<Record<string, (...args: readonly bigint[]) => bigint>> = table as Record<string, (...args: readonly bigint[]) => bigint>
