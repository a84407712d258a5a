/** Conversions between integers, single and double precision: SSE and SSE2. (SDM Vol. 2A, "CVTDQ2PD" to "CVTTSS2SI") */
import { SSE_CONVERSION } from '../float/library.ts'
import type { Operand, Semantics, SemanticsBuilder, Value } from './builder.ts'
import {
  all, anyOf, asBits, asFloat, bitsOf, denormals, DOUBLE, exactUnary, isZero, nans, none, notDenormal, notNaN, raiseUnmasked, SINGLE,
  usual, withLowLane, type Format,
} from './sse-number.ts'
import { every, low64, widen, zero } from './vector.ts'
import { startMmx, waitForX87 } from './x87-state.ts'

/** Doubles between these, exclusive, give normal singles however they are rounded. */
const SINGLE_RANGE = { above: 0x3820_0000_0000_0000n, below: 0x47ef_ffff_e000_0000n } // 2^-125, largest single
/** Magnitudes below these convert to integers of 32 and 64 bits however they are rounded. */
const INTEGER_RANGE = {
  32: { f32: 0x4f00_0000n, f64: 0x41df_ffff_ffc0_0000n }, // 2^31, 2^31 - 1
  64: { f32: 0x5f00_0000n, f64: 0x43e0_0000_0000_0000n }, // 2^63
} as const

// ---------------------------------------------------------------------- vectors

interface Conversion {
  /** Number in the exact library, and how many lanes it converts. */
  readonly number: number
  readonly count: number
  /** wasm's result and whether it may stand, i32. */
  readonly quick: (b: SemanticsBuilder, source: Value) => { result: Value; holds: Value }
}

function convert(b: SemanticsBuilder, conversion: Conversion, source: Value, use: (result: Value) => void): void {
  const { result, holds } = conversion.quick(b, source)
  b.ifUnlikely(
    b.eqz(holds),
    () => use(exactUnary(b, 'x_convert', conversion.number, source, conversion.count)),
    () => use(result),
  )
}

const toIntegers = (f: Format, truncate: boolean): Conversion => ({
  number: f === SINGLE ? (truncate ? SSE_CONVERSION.f32ToIntegerTruncating : SSE_CONVERSION.f32ToInteger)
    : truncate ? SSE_CONVERSION.f64ToIntegerTruncating : SSE_CONVERSION.f64ToInteger,
  count: f.count,
  quick: (b, source) => {
    const rounded = truncate ? source : b.op(`${f.floats}.nearest`, source)
    const result = b.op(f === SINGLE ? 'i32x4.trunc_sat_f32x4_s' : 'i32x4.trunc_sat_f64x2_s_zero', rounded)
    const within = b.op(`${f.floats}.lt`, b.op(`${f.floats}.abs`, source), every(b, f.bits, INTEGER_RANGE[32][f.float]))
    return { result, holds: b.and(b.op(`${f.ints}.all_true`, within), usual(b)) }
  },
})
const INTEGERS_TO_SINGLES: Conversion = {
  number: SSE_CONVERSION.integerToF32, count: 4,
  quick: (b, source) => ({ result: b.op('f32x4.convert_i32x4_s', source), holds: usual(b) }),
}
const SINGLES_TO_DOUBLES: Conversion = {
  number: SSE_CONVERSION.f32ToF64, count: 2,
  quick: (b, source) => ({
    result: b.op('f64x2.promote_low_f32x4', source),
    holds: none(b, anyOf(b, denormals(b, SINGLE, source), nans(b, SINGLE, source))),
  }),
}
const DOUBLES_TO_SINGLES: Conversion = {
  number: SSE_CONVERSION.f64ToF32, count: 2,
  quick: (b, source) => {
    const size = b.op('f64x2.abs', source)
    const within = b.op('v128.and', b.op('f64x2.gt', size, every(b, 64, SINGLE_RANGE.above)), b.op('f64x2.lt', size, every(b, 64, SINGLE_RANGE.below)))
    const fits = b.op('v128.or', within, b.op('f64x2.eq', source, zero(b)))
    return { result: b.op('f32x4.demote_f64x2_zero', source), holds: b.and(b.op('i64x2.all_true', fits), usual(b)) }
  },
}

/** Whole registers; a 64-bit source has zeros above. */
const vector =
  (conversion: Conversion): Semantics =>
  (b, dst, src) => {
    const value = src!.read()
    convert(b, conversion, value.type === 'v128' ? value : widen(b, value), (result) => dst!.write(result))
  }

/** CVTPS2PI and similar: to an MMX register. */
const vectorToMmx =
  (f: Format, truncate: boolean): Semantics =>
  (b, dst, src) => {
    waitForX87(b)
    const value = src!.read()
    startMmx(b)
    convert(b, { ...toIntegers(f, truncate), count: 2 }, value.type === 'v128' ? value : widen(b, value), (result) => dst!.write(low64(b, result)))
  }

const cvtdq2pd: Semantics = (b, dst, src) => dst!.write(b.op('f64x2.convert_low_i32x4_s', widen(b, src!.read())))

/** Two integers from an MMX register. With a memory operand the instruction does not use MMX state. */
function mmxSource(b: SemanticsBuilder, src: Operand): Value {
  if (src.isMemory) return widen(b, src.read())
  waitForX87(b)
  const source = widen(b, src.read())
  startMmx(b)
  return source
}

const cvtpi2pd: Semantics = (b, dst, src) => dst!.write(b.op('f64x2.convert_low_i32x4_s', mmxSource(b, src!)))

/** Two singles; the upper half of the destination stays. */
const cvtpi2ps: Semantics = (b, _dst, src) => {
  convert(b, { ...INTEGERS_TO_SINGLES, count: 2 }, mmxSource(b, src!), (result) => {
    b.writeVector('reg', b.lane('i64x2.replace_lane', [0], b.readVector('reg'), low64(b, result)))
  })
}

// ---------------------------------------------------------------------- scalars

const toInteger =
  (f: Format, truncate: boolean): Semantics =>
  (b, dst, src) => {
    const width = dst!.width as 32 | 64
    const bits = bitsOf(b, f, src!)
    const x = asFloat(b, f, bits)
    const value = b.op(`i64.trunc_sat_${f.float}_s`, truncate ? x : b.op(`${f.float}.nearest`, x))
    const within = b.op(`${f.float}.lt`, b.op(`${f.float}.abs`, x), b.const(INTEGER_RANGE[width][f.float], f.float))
    const exactly = b.op(`${f.float}.eq`, b.op(`${f.float}.convert_i64_s`, value), x)
    b.ifUnlikely(
      b.eqz(b.and(within, b.or(usual(b), exactly))),
      () => {
        const result = b.call('i64', `${f.float}_to_integer`, b.cpu, bits, b.i32(width), b.i32(truncate ? 1 : 0))
        raiseUnmasked(b)
        dst!.write(b.truncate(result, width))
      },
      () => dst!.write(b.truncate(value, width)),
    )
  }

const fromInteger =
  (f: Format): Semantics =>
  (b, _dst, src) => {
    const value = b.signExtend(src!.read(), src!.width)
    const write = (bits: Value) => b.writeVector('reg', withLowLane(b, f, b.readVector('reg'), bits))
    const result = asBits(b, f, b.op(`${f.float}.convert_i64_s`, value))
    if (f === DOUBLE && src!.width === 32) return write(result)
    b.ifUnlikely(
      b.eqz(usual(b)),
      () => {
        const exact = b.call(f.int, `${f.float}_from_integer`, b.cpu, value)
        raiseUnmasked(b)
        write(exact)
      },
      () => write(result),
    )
  }

const cvtss2sd: Semantics = (b, _dst, src) => {
  const bits = bitsOf(b, SINGLE, src!)
  const write = (result: Value) => b.writeVector('reg', withLowLane(b, DOUBLE, b.readVector('reg'), result))
  b.ifUnlikely(
    b.eqz(all(b, notDenormal(b, SINGLE, bits), notNaN(b, SINGLE, bits))),
    () => {
      const exact = b.call('i64', 'f64_from_f32', b.cpu, bits)
      raiseUnmasked(b)
      write(exact)
    },
    () => write(asBits(b, DOUBLE, b.op('f64.promote_f32', asFloat(b, SINGLE, bits)))),
  )
}

const cvtsd2ss: Semantics = (b, _dst, src) => {
  const bits = bitsOf(b, DOUBLE, src!)
  const write = (result: Value) => b.writeVector('reg', withLowLane(b, SINGLE, b.readVector('reg'), result))
  const { above, below } = SINGLE_RANGE
  const fits = b.ltU(b.sub(b.shl(bits, 1), 2n * above + 1n), 2n * (below - above) - 1n)
  b.ifUnlikely(
    b.eqz(b.and(b.or(fits, isZero(b, bits)), usual(b))),
    () => {
      const exact = b.call('i32', 'f32_from_f64', b.cpu, bits)
      raiseUnmasked(b)
      write(exact)
    },
    () => write(asBits(b, SINGLE, b.op('f32.demote_f64', asFloat(b, DOUBLE, bits)))),
  )
}

export const sseConvert: Record<string, Semantics> = {
  cvtpi2ps,
  cvtpi2pd,
  cvtsi2ss: fromInteger(SINGLE),
  cvtsi2sd: fromInteger(DOUBLE),
  cvtps2pi: vectorToMmx(SINGLE, false),
  cvttps2pi: vectorToMmx(SINGLE, true),
  cvtpd2pi: vectorToMmx(DOUBLE, false),
  cvttpd2pi: vectorToMmx(DOUBLE, true),
  cvtss2si: toInteger(SINGLE, false),
  cvttss2si: toInteger(SINGLE, true),
  cvtsd2si: toInteger(DOUBLE, false),
  cvttsd2si: toInteger(DOUBLE, true),
  cvtps2pd: vector(SINGLES_TO_DOUBLES),
  cvtpd2ps: vector(DOUBLES_TO_SINGLES),
  cvtss2sd,
  cvtsd2ss,
  cvtdq2ps: vector(INTEGERS_TO_SINGLES),
  cvtps2dq: vector(toIntegers(SINGLE, false)),
  cvttps2dq: vector(toIntegers(SINGLE, true)),
  cvtpd2dq: vector(toIntegers(DOUBLE, false)),
  cvttpd2dq: vector(toIntegers(DOUBLE, true)),
  cvtdq2pd,
}
