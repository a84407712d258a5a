/** AES, carry-less multiplication and SHA. (SDM Vol. 2, "AESENC", "PCLMULQDQ", "SHA1RNDS4" and others; FIPS 197, FIPS 180-4) */
import type { Semantics, SemanticsBuilder, Value } from './builder.ts'
import { binary, every, high64, lanes, low64, pair, run, shuffle, shuffleLanes, splat, unary, zero } from './vector.ts'

// ---------------------------------------------------------------------- AES

const xtime = (n: number): number => ((n << 1) ^ (n & 0x80 ? 0x11b : 0)) & 0xff

/** The inverse in GF(2^8), then an affine map. (FIPS 197, "SubBytes") */
const SBOX = ((): readonly number[] => {
  const box = new Array<number>(256).fill(0x63)
  // p runs through the field by its generator 3, q through the inverses.
  let p = 1
  let q = 1
  do {
    p ^= xtime(p)
    for (const shift of [1, 2, 4]) q ^= (q << shift) & 0xff
    if (q & 0x80) q ^= 9
    const rotated = [1, 2, 3, 4].reduce((sum, n) => sum ^ ((q << n) | (q >> (8 - n))), q)
    box[p] = (rotated & 0xff) ^ 0x63
  } while (p !== 1)
  return box
})()
const INVERSE_SBOX = ((): readonly number[] => {
  const box = new Array<number>(256).fill(0)
  SBOX.forEach((value, n) => (box[value] = n))
  return box
})()

/** Sixteen rows of sixteen; an index outside a row gives zero, so that the rows can be combined. */
function substitute(b: SemanticsBuilder, vector: Value, box: readonly number[]): Value {
  const parts = run(0, 16).map((row) => {
    const index = row === 0 ? vector : b.op('v128.xor', vector, every(b, 8, row << 4))
    return b.op('i8x16.swizzle', lanes(b, 8, box.slice(row * 16, row * 16 + 16)), index)
  })
  return parts.reduce((all, part) => b.op('v128.or', all, part))
}

/** Row r of column c is byte r + 4c. */
const ROWS_SHIFTED = run(0, 16).map((n) => (n & 3) + 4 * (((n >> 2) + (n & 3)) & 3))
const ROWS_SHIFTED_BACK = run(0, 16).map((n) => (n & 3) + 4 * (((n >> 2) - (n & 3)) & 3))
/** Byte r takes the place of byte r - by within its column. */
const turned = (by: number) => run(0, 16).map((n) => (n & 12) | ((n + by) & 3))

const permute = (b: SemanticsBuilder, vector: Value, order: readonly number[]) => shuffle(b, vector, vector, order)
const times2 = (b: SemanticsBuilder, v: Value): Value =>
  b.op('v128.xor', b.op('i8x16.add', v, v), b.op('v128.and', b.op('i8x16.lt_s', v, zero(b)), every(b, 8, 0x1b)))
const xor = (b: SemanticsBuilder, ...values: Value[]): Value => values.reduce((all, v) => b.op('v128.xor', all, v))

/** 2a0 + 3a1 + a2 + a3. */
function mixColumns(b: SemanticsBuilder, v: Value): Value {
  const one = permute(b, v, turned(1))
  return xor(b, times2(b, xor(b, v, one)), one, permute(b, v, turned(2)), permute(b, v, turned(3)))
}
/** The inverse is the same after multiplying by the column 5, 0, 4, 0. */
function mixColumnsBack(b: SemanticsBuilder, v: Value): Value {
  const fours = times2(b, times2(b, xor(b, v, permute(b, v, turned(2)))))
  return mixColumns(b, xor(b, v, fours))
}

const round = (last: boolean): Semantics =>
  binary((b, state, key) => {
    const substituted = substitute(b, permute(b, state, ROWS_SHIFTED), SBOX)
    return xor(b, last ? substituted : mixColumns(b, substituted), key)
  })
const roundBack = (last: boolean): Semantics =>
  binary((b, state, key) => {
    const substituted = substitute(b, permute(b, state, ROWS_SHIFTED_BACK), INVERSE_SBOX)
    return xor(b, last ? substituted : mixColumnsBack(b, substituted), key)
  })

/** SubWord of dwords 1 and 3, each as it is and rotated with the round constant. */
const keyAssist: Semantics = (b, dst, src, immediate) => {
  const substituted = substitute(b, src!.read(), SBOX)
  const constant = b.op('v128.and', splat(b, 32, immediate!.read()), lanes(b, 32, [0, 0xff, 0, 0xff]))
  dst!.write(xor(b, permute(b, substituted, [4, 5, 6, 7, 5, 6, 7, 4, 12, 13, 14, 15, 13, 14, 15, 12]), constant))
}

// ---------------------------------------------------------------------- carry-less multiplication

const pclmulqdq: Semantics = (b, dst, src, immediate) => {
  const right = src!.read()
  const left = dst!.read()
  const by = immediate!.read()
  const pick = (vector: Value, bit: number) => b.select(b.wrap(b.and(by, bit)), high64(b, vector), low64(b, vector))
  const multiplicand = pick(left, 1)
  const rest = b.variable(pick(right, 16), 'multiplier')
  const low = b.variable(b.const(0), 'low')
  const high = b.variable(b.const(0), 'high')
  b.loop(() => {
    const bits = b.get(rest)
    b.if(b.eqz(bits), () => b.break())
    const at = b.ctz(bits)
    b.assign(low, b.xor(b.get(low), b.shl(multiplicand, at)))
    b.assign(high, b.xor(b.get(high), b.shrU(b.shrU(multiplicand, 1), b.sub(63, at))))
    b.assign(rest, b.and(bits, b.sub(bits, 1)))
  })
  dst!.write(pair(b, b.get(low), b.get(high)))
}

// ---------------------------------------------------------------------- SHA

/** Dwords of a vector, the highest first, as the manual lists them. */
const words = (b: SemanticsBuilder, v: Value): [Value, Value, Value, Value] =>
  [3, 2, 1, 0].map((n) => b.lane('i32x4.extract_lane', [n], v)) as [Value, Value, Value, Value]
const vectorOf = (b: SemanticsBuilder, high: readonly Value[]): Value =>
  [2, 1, 0].reduce((v, n, i) => b.lane('i32x4.replace_lane', [n], v, high[i + 1]!), b.op('i32x4.splat', high[0]!))
const sum = (b: SemanticsBuilder, ...values: Value[]): Value => values.reduce((all, v) => b.add(all, v))

const SHA1_CONSTANTS = [0x5a82_7999, 0x6ed9_eba1, 0x8f1b_bcdc, 0xca62_c1d6]

/** Choose, parity and majority. */
const choose = (b: SemanticsBuilder, x: Value, y: Value, z: Value): Value => b.xor(z, b.and(x, b.xor(y, z)))
const majority = (b: SemanticsBuilder, x: Value, y: Value, z: Value): Value => b.or(b.and(x, y), b.and(z, b.or(x, y)))
const parity = (b: SemanticsBuilder, x: Value, y: Value, z: Value): Value => b.xor(b.xor(x, y), z)

const sha1rnds4: Semantics = (b, dst, src, immediate) => {
  const w = words(b, src!.read())
  let [a, second, c, d] = words(b, dst!.read())
  const which = b.wrap(b.and(immediate!.read(), 3))
  const [k0, k1, k2, k3] = SHA1_CONSTANTS.map((k) => b.i32(k)) as [Value, Value, Value, Value]
  const odd = b.and(which, 1)
  const k = b.select(b.shrU(which, 1), b.select(odd, k3, k2), b.select(odd, k1, k0))
  let e: Value | undefined
  for (const word of w) {
    const mixed = b.select(odd, parity(b, second, c, d), b.select(which, majority(b, second, c, d), choose(b, second, c, d)))
    const next = sum(b, mixed, b.rotl(a, 5), word, k, ...(e ? [e] : []))
    e = d
    d = c
    c = b.rotl(second, 30)
    second = a
    a = next
  }
  dst!.write(vectorOf(b, [a, second, c, d]))
}

const sha1nexte = binary((b, left, right) => {
  const e = b.rotl(b.lane('i32x4.extract_lane', [3], left), 30)
  return b.lane('i32x4.replace_lane', [3], right, b.add(b.lane('i32x4.extract_lane', [3], right), e))
})
const sha1msg1 = binary((b, left, right) => b.op('v128.xor', left, shuffleLanes(b, 64, left, right, [3, 0])))
const sha1msg2 = binary((b, left, right) => {
  const [x0, x1, x2, x3] = words(b, left)
  const [, w13, w14, w15] = words(b, right)
  const w16 = b.rotl(b.xor(x0, w13), 1)
  return vectorOf(b, [w16, b.rotl(b.xor(x1, w14), 1), b.rotl(b.xor(x2, w15), 1), b.rotl(b.xor(x3, w16), 1)])
})

const rotations = (b: SemanticsBuilder, x: Value, first: number, second: number, third: number): Value =>
  parity(b, b.rotr(x, first), b.rotr(x, second), b.rotr(x, third))
const sigma0 = (b: SemanticsBuilder, x: Value): Value => parity(b, b.rotr(x, 7), b.rotr(x, 18), b.shrU(x, 3))
const sigma1 = (b: SemanticsBuilder, x: Value): Value => parity(b, b.rotr(x, 17), b.rotr(x, 19), b.shrU(x, 10))

const sha256rnds2: Semantics = (b, dst, src) => {
  let [a, bb, e, f] = words(b, src!.read())
  let [c, d, g, h] = words(b, dst!.read())
  const [, , second, first] = words(b, b.readVector(0))
  for (const wk of [first, second]) {
    const common = sum(b, choose(b, e, f, g), rotations(b, e, 6, 11, 25), wk, h)
    const next = sum(b, common, majority(b, a, bb, c), rotations(b, a, 2, 13, 22))
    ;[h, g, f, e] = [g, f, e, b.add(common, d)]
    ;[d, c, bb, a] = [c, bb, a, next]
  }
  dst!.write(vectorOf(b, [a, bb, e, f]))
}
const sha256msg1 = binary((b, left, right) => {
  const [w3, w2, w1, w0] = words(b, left)
  const w4 = b.lane('i32x4.extract_lane', [0], right)
  return vectorOf(b, [b.add(w3, sigma0(b, w4)), b.add(w2, sigma0(b, w3)), b.add(w1, sigma0(b, w2)), b.add(w0, sigma0(b, w1))])
})
const sha256msg2 = binary((b, left, right) => {
  const [x3, x2, x1, x0] = words(b, left)
  const [w15, w14] = words(b, right)
  const w16 = b.add(x0, sigma1(b, w14)), w17 = b.add(x1, sigma1(b, w15))
  return vectorOf(b, [b.add(x3, sigma1(b, w17)), b.add(x2, sigma1(b, w16)), w17, w16])
})

export const crypto: Record<string, Semantics> = {
  aesenc: round(false),
  aesenclast: round(true),
  aesdec: roundBack(false),
  aesdeclast: roundBack(true),
  aesimc: unary(mixColumnsBack),
  aeskeygenassist: keyAssist,
  pclmulqdq,
  sha1rnds4,
  sha1nexte,
  sha1msg1,
  sha1msg2,
  sha256rnds2,
  sha256msg1,
  sha256msg2,
}
