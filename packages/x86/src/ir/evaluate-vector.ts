/** The meaning of each v128 operation, lane by lane on BigInt. For evaluate.ts. (WebAssembly Core Specification, "Vector Instructions") */
import { EVALUATE } from './evaluate-op.ts'
import { FLOAT } from './evaluate-float.ts'

type Meaning = (args: readonly bigint[], lanes: readonly number[]) => bigint

const u = (bits: number, value: bigint): bigint => BigInt.asUintN(bits, value)
const s = (bits: number, value: bigint): bigint => BigInt.asIntN(bits, value)
const ONES = u(128, -1n)

function split(value: bigint, bits: number): bigint[] {
  return Array.from({ length: 128 / bits }, (_, i) => u(bits, value >> BigInt(i * bits)))
}
function join(lanes: readonly bigint[], bits: number): bigint {
  return lanes.reduce((sum, lane, i) => sum | (u(bits, lane) << BigInt(i * bits)), 0n)
}
const clamp = (value: bigint, low: bigint, high: bigint): bigint => (value < low ? low : value > high ? high : value)
const clampSigned = (bits: number, value: bigint): bigint => clamp(value, -(1n << BigInt(bits - 1)), (1n << BigInt(bits - 1)) - 1n)
const clampUnsigned = (bits: number, value: bigint): bigint => clamp(value, 0n, (1n << BigInt(bits)) - 1n)
const abs = (value: bigint): bigint => (value < 0n ? -value : value)

const table: Record<string, Meaning> = {
  'v128.not': ([a]) => a! ^ ONES,
  'v128.and': ([a, b]) => a! & b!,
  'v128.andnot': ([a, b]) => a! & (b! ^ ONES),
  'v128.or': ([a, b]) => a! | b!,
  'v128.xor': ([a, b]) => a! ^ b!,
  'v128.bitselect': ([a, b, mask]) => (a! & mask!) | (b! & (mask! ^ ONES)),
  'v128.any_true': ([a]) => (a ? 1n : 0n),
  'i8x16.shuffle': ([a, b], lanes) => {
    const bytes = [...split(a!, 8), ...split(b!, 8)]
    return join(lanes.map((n) => bytes[n]!), 8)
  },
  'i8x16.swizzle': ([a, b]) => {
    const bytes = split(a!, 8)
    return join(split(b!, 8).map((n) => bytes[Number(n)] ?? 0n), 8)
  },
  'i16x8.q15mulr_sat_s': ([a, b]) => lanewise(16, (x, y) => clampSigned(16, (s(16, x) * s(16, y) + 0x4000n) >> 15n))([a!, b!], []),
  'i32x4.dot_i16x8_s': ([a, b]) => {
    const [x, y] = [split(a!, 16), split(b!, 16)]
    return join([0, 2, 4, 6].map((i) => s(16, x[i]!) * s(16, y[i]!) + s(16, x[i + 1]!) * s(16, y[i + 1]!)), 32)
  },
}

/** The same on each lane. */
function lanewise(bits: number, f: (a: bigint, b: bigint) => bigint): Meaning {
  return ([a, b]) => {
    const right = split(b ?? 0n, bits)
    return join(split(a!, bits).map((lane, i) => f(lane, right[i]!)), bits)
  }
}

for (const bits of [8, 16, 32, 64]) {
  const shape = `i${bits}x${128 / bits}`
  const define = (name: string, meaning: Meaning) => (table[`${shape}.${name}`] = meaning)
  const lane = (name: string, f: (a: bigint, b: bigint) => bigint) => define(name, lanewise(bits, f))
  const signed = (value: bigint) => s(bits, value)
  const COMPARE: Record<string, (a: bigint, b: bigint) => boolean> = {
    eq: (a, b) => a === b, ne: (a, b) => a !== b,
    lt_s: (a, b) => signed(a) < signed(b), lt_u: (a, b) => a < b, gt_s: (a, b) => signed(a) > signed(b), gt_u: (a, b) => a > b,
    le_s: (a, b) => signed(a) <= signed(b), le_u: (a, b) => a <= b, ge_s: (a, b) => signed(a) >= signed(b), ge_u: (a, b) => a >= b,
  }
  for (const [name, f] of Object.entries(COMPARE)) lane(name, (a, b) => (f(a, b) ? -1n : 0n))
  lane('add', (a, b) => a + b)
  lane('sub', (a, b) => a - b)
  lane('mul', (a, b) => a * b)
  lane('add_sat_s', (a, b) => clampSigned(bits, signed(a) + signed(b)))
  lane('add_sat_u', (a, b) => clampUnsigned(bits, a + b))
  lane('sub_sat_s', (a, b) => clampSigned(bits, signed(a) - signed(b)))
  lane('sub_sat_u', (a, b) => clampUnsigned(bits, a - b))
  lane('min_s', (a, b) => (signed(a) < signed(b) ? a : b))
  lane('min_u', (a, b) => (a < b ? a : b))
  lane('max_s', (a, b) => (signed(a) > signed(b) ? a : b))
  lane('max_u', (a, b) => (a > b ? a : b))
  lane('avgr_u', (a, b) => (a + b + 1n) >> 1n)
  lane('abs', (a) => abs(signed(a)))
  lane('neg', (a) => -a)
  lane('popcnt', (a) => EVALUATE['i64.popcnt']!(a, 0n))
  const shift = (name: string, f: (a: bigint, count: bigint) => bigint) =>
    define(name, ([a, count]) => lanewise(bits, (x) => f(x, count! % BigInt(bits)))([a!], []))
  shift('shl', (a, count) => a << count)
  shift('shr_s', (a, count) => signed(a) >> count)
  shift('shr_u', (a, count) => a >> count)
  define('splat', ([a]) => join(Array.from({ length: 128 / bits }, () => a!), bits))
  define('all_true', ([a]) => (split(a!, bits).every((x) => x) ? 1n : 0n))
  define('bitmask', ([a]) => split(a!, bits).reduce((sum, x, i) => sum | ((x >> BigInt(bits - 1)) << BigInt(i)), 0n))
  define('extract_lane', ([a], [n]) => split(a!, bits)[n!]!)
  define('extract_lane_u', ([a], [n]) => split(a!, bits)[n!]!)
  define('extract_lane_s', ([a], [n]) => u(32, signed(split(a!, bits)[n!]!)))
  define('replace_lane', ([a, value], [n]) => join(split(a!, bits).with(n!, value!), bits))

  if (bits === 8) continue
  // From lanes of half the width.
  const half = bits / 2
  const narrow = `i${half}x${128 / half}`
  const count = 128 / bits
  for (const [sign, extend] of [['s', (v: bigint) => s(half, v)], ['u', (v: bigint) => v]] as const) {
    for (const [name, from] of [['low', 0], ['high', count]] as const) {
      const part = (a: bigint) => split(a, half).slice(from, from + count).map(extend)
      define(`extend_${name}_${narrow}_${sign}`, ([a]) => join(part(a!), bits))
      define(`extmul_${name}_${narrow}_${sign}`, ([a, b]) => {
        const right = part(b!)
        return join(part(a!).map((x, i) => x * right[i]!), bits)
      })
    }
    define(`extadd_pairwise_${narrow}_${sign}`, ([a]) => {
      const all = split(a!, half).map(extend)
      return join(Array.from({ length: count }, (_, i) => all[2 * i]! + all[2 * i + 1]!), bits)
    })
    const cut = sign === 's' ? clampSigned : clampUnsigned
    table[`${narrow}.narrow_${shape}_${sign}`] = ([a, b]) => join([...split(a!, bits), ...split(b!, bits)].map((x) => cut(half, s(bits, x))), half)
  }
}

for (const [type, bits] of [['f32', 32], ['f64', 64]] as const) {
  const shape = `${type}x${128 / bits}`
  for (const name of ['add', 'sub', 'mul', 'div', 'min', 'max', 'pmin', 'pmax', 'abs', 'neg', 'sqrt', 'ceil', 'floor', 'trunc', 'nearest'])
    table[`${shape}.${name}`] = lanewise(bits, (a, b) => FLOAT[`${type}.${name}`]!(a, b))
  for (const name of ['eq', 'ne', 'lt', 'gt', 'le', 'ge'])
    table[`${shape}.${name}`] = lanewise(bits, (a, b) => (FLOAT[`${type}.${name}`]!(a, b) ? -1n : 0n))
  for (const name of ['splat', 'extract_lane', 'replace_lane']) table[`${shape}.${name}`] = table[`i${bits}x${128 / bits}.${name}`]!
}

/** Lane by lane through a scalar conversion; lanes that the result has and the operand lacks are 0. */
function convert(from: number, to: number, name: string): Meaning {
  return ([a]) => join(split(a!, from).slice(0, 128 / to).map((x) => FLOAT[name]!(x)), to)
}
Object.assign(table, {
  'f32x4.demote_f64x2_zero': convert(64, 32, 'f32.demote_f64'),
  'f64x2.promote_low_f32x4': convert(32, 64, 'f64.promote_f32'),
  'i32x4.trunc_sat_f32x4_s': convert(32, 32, 'i32.trunc_sat_f32_s'),
  'i32x4.trunc_sat_f64x2_s_zero': convert(64, 32, 'i32.trunc_sat_f64_s'),
  'f32x4.convert_i32x4_s': convert(32, 32, 'f32.convert_i32_s'),
  'f64x2.convert_low_i32x4_s': convert(32, 64, 'f64.convert_i32_s'),
} satisfies Record<string, Meaning>)

/** By WebAssembly's names; holds more shapes of an operation than WebAssembly has. */
export const VECTOR: Readonly<Record<string, Meaning>> = table
