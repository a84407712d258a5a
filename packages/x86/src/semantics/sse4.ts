/** SSE4.1 and SSE4.2 on packed integers, blends and single lanes. Arithmetic on floats is in sse-arithmetic.ts, strings in text.ts. */
import type { Semantics, Value } from './builder.ts'
import { insertLane, multiplyEven } from './packed.ts'
import {
  known, lanes, low64, maskOfBits, operation, run, shape, shuffleLanes, widen, window, type LaneBits,
} from './vector.ts'

const plain = {
  pcmpeqq: 'i64x2.eq', pcmpgtq: 'i64x2.gt_s', packusdw: 'i16x8.narrow_i32x4_u', pmulld: 'i32x4.mul',
  pminsb: 'i8x16.min_s', pminsd: 'i32x4.min_s', pminuw: 'i16x8.min_u', pminud: 'i32x4.min_u',
  pmaxsb: 'i8x16.max_s', pmaxsd: 'i32x4.max_s', pmaxuw: 'i16x8.max_u', pmaxud: 'i32x4.max_u',
}

/** PMOVSX, PMOVZX: lanes doubled in width one to three times. */
const extend =
  (from: 8 | 16 | 32, to: 16 | 32 | 64, sign: 's' | 'u'): Semantics =>
  (b, dst, src) => {
    let vector = widen(b, src!.read())
    for (let bits: number = from; bits < to; bits *= 2) {
      const wide = shape((bits * 2) as LaneBits)
      vector = b.op(`${wide}.extend_low_${shape(bits as LaneBits)}_${sign}`, vector)
    }
    dst!.write(vector)
  }

/** The least word and its place. Keys of value and place in one make the first of equals win. */
const phminposuw: Semantics = (b, dst, src) => {
  const source = src!.read()
  const key = (half: 'low' | 'high', first: number) =>
    b.op('v128.or', b.op('i32x4.shl', b.op(`i32x4.extend_${half}_i16x8_u`, source), b.i32(3)), lanes(b, 32, run(first, 4)))
  const four = b.op('i32x4.min_u', key('low', 0), key('high', 4))
  const two = b.op('i32x4.min_u', four, shuffleLanes(b, 32, four, four, [2, 3, 0, 1]))
  const one = b.op('i32x4.min_u', two, shuffleLanes(b, 32, two, two, [1, 0, 3, 2]))
  const least = b.lane('i32x4.extract_lane', [0], one)
  dst!.write(widen(b, b.extendU(b.or(b.shrU(least, 3), b.shl(b.and(least, 7), 16)))))
}

/** Eight sums of four absolute differences: a sliding window of the destination against four bytes of the source. */
const mpsadbw: Semantics = (b, dst, src, immediate) => {
  const right = src!.read()
  const by = immediate!.read()
  const left = window(b, dst!.read(), b.and(by, 4))
  const block = window(b, right, b.shl(b.and(by, 3), 2))
  const difference = (n: number) => {
    const at = n === 0 ? left : window(b, left, b.const(n))
    const byte = b.op('i16x8.splat', b.lane('i8x16.extract_lane_u', [n], block))
    return b.op('i16x8.abs', b.op('i16x8.sub', b.op('i16x8.extend_low_i8x16_u', at), byte))
  }
  dst!.write([1, 2, 3].reduce((sum, n) => b.op('i16x8.add', sum, difference(n)), difference(0)))
}

// ---------------------------------------------------------------------- blends

const blendByImmediate =
  (bits: 16 | 32 | 64): Semantics =>
  (b, dst, src, immediate) => {
    const right = src!.read()
    const left = dst!.read()
    const by = immediate!.read()
    const n = known(by)
    const total = 128 / bits
    if (n !== undefined) return dst!.write(shuffleLanes(b, bits, left, right, run(0, total).map((lane) => lane + ((n >> lane) & 1) * total)))
    dst!.write(b.op('v128.bitselect', right, left, maskOfBits(b, bits, by)))
  }

/** By the sign bits of XMM0. */
const blendBySign =
  (bits: 8 | 32 | 64): Semantics =>
  (b, dst, src) => {
    const right = src!.read()
    const mask = b.op(`${shape(bits)}.shr_s`, b.readVector(0), b.i32(bits - 1))
    dst!.write(b.op('v128.bitselect', right, dst!.read(), mask))
  }

/** ZF: no bit in common; CF: no bit of the source outside the destination. */
const ptest: Semantics = (b, dst, src) => {
  const right = src!.read()
  const left = dst!.read()
  const empty = (v: Value) => b.eqz(b.op('v128.any_true', v))
  b.setFlag('zf', empty(b.op('v128.and', right, left)))
  b.setFlag('cf', empty(b.op('v128.andnot', right, left)))
  b.setFlag('of', 0)
  b.setFlag('af', 0)
  b.setSignParity(b.i32(0), b.i32(0))
}

// ---------------------------------------------------------------------- single lanes

/** PEXTRB, PEXTRD, PEXTRQ, EXTRACTPS. */
const extract =
  (bytes: 1 | 4): Semantics =>
  (b, dst, src, immediate) => {
    const size = bytes === 4 ? dst!.width / 8 : bytes
    const at = b.mul(b.and(immediate!.read(), 16 / size - 1), size)
    const value = b.truncate(low64(b, window(b, src!.read(), at)), size === 8 ? 64 : size === 4 ? 32 : 8)
    dst!.write(value)
  }

const insert =
  (bytes: 1 | 4): Semantics =>
  (b, dst, src, immediate) => {
    const value = src!.read()
    const bits = bytes === 1 ? 8 : (src!.width as 32 | 64)
    const lane = b.and(immediate!.read(), 128 / bits - 1)
    dst!.write(insertLane(b, bits, dst!.read(), value, lane))
  }

/** One single of the source (its first, from memory) to any lane, then lanes cleared. */
const insertps: Semantics = (b, dst, src, immediate) => {
  const by = immediate!.read()
  const value = src!.isMemory ? src!.read() : low64(b, window(b, b.readVector('rm'), b.shl(b.shrU(by, 6), 2)))
  const inserted = insertLane(b, 32, dst!.read(), value, b.and(b.shrU(by, 4), 3))
  dst!.write(b.op('v128.andnot', inserted, maskOfBits(b, 32, by)))
}


const extensions = (['s', 'u'] as const).flatMap((sign): [string, Semantics][] => {
  const name = sign === 's' ? 'pmovsx' : 'pmovzx'
  return [
    [`${name}bw`, extend(8, 16, sign)],
    [`${name}bd`, extend(8, 32, sign)],
    [`${name}bq`, extend(8, 64, sign)],
    [`${name}wd`, extend(16, 32, sign)],
    [`${name}wq`, extend(16, 64, sign)],
    [`${name}dq`, extend(32, 64, sign)],
  ]
})

export const sse4: Record<string, Semantics> = {
  ...Object.fromEntries(Object.entries(plain).map(([name, op]) => [name, operation(op)])),
  ...Object.fromEntries(extensions),
  pmuldq: multiplyEven('s'),
  phminposuw,
  mpsadbw,
  blendps: blendByImmediate(32),
  blendpd: blendByImmediate(64),
  pblendw: blendByImmediate(16),
  pblendvb: blendBySign(8),
  blendvps: blendBySign(32),
  blendvpd: blendBySign(64),
  ptest,
  pextrb: extract(1),
  pextrd: extract(4),
  extractps: extract(4),
  pinsrb: insert(1),
  pinsrd: insert(4),
  insertps,
}
