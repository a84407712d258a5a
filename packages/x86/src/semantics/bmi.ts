/** Bit counts, BMI1, BMI2, ADX, MOVBE and CRC32 on general registers. (SDM Vol. 2, the instructions' own pages) */
import { RDX } from '../state/layout.ts'
import type { Semantics, SemanticsBuilder, Value, Width } from './builder.ts'
import { lanes, run } from './vector.ts'
import { multiplyHigh } from './wide.ts'

/** OF, SF, AF and PF, for instructions that clear them. */
function clearFlags(b: SemanticsBuilder): void {
  b.setFlag('of', 0)
  b.setFlag('af', 0)
  b.setSignParity(b.i32(0), b.i32(0))
}

// ---------------------------------------------------------------------- counts

const popcnt: Semantics = (b, dst, src) => {
  const value = src!.read()
  dst!.write(b.popcnt(value))
  clearFlags(b)
  b.setFlag('cf', 0)
  b.setFlag('zf', b.eqz(value))
}

/** TZCNT, LZCNT: the operand size where no bit is set. */
const count =
  (find: (b: SemanticsBuilder, value: Value, width: Width) => Value): Semantics =>
  (b, dst, src) => {
    const value = src!.read()
    const result = find(b, value, dst!.width)
    dst!.write(result)
    clearFlags(b)
    b.setFlag('cf', b.eqz(value))
    b.setFlag('zf', b.eqz(result))
  }

// ---------------------------------------------------------------------- BMI1

/** SF and ZF by the result, OF clear, CF as given. */
function logicalFlags(b: SemanticsBuilder, result: Value, width: Width, carry: Value | number): void {
  b.setResult(result, width)
  b.setFlag('cf', carry)
  b.setFlag('of', 0)
  b.setFlag('af', 0)
}

const andn: Semantics = (b, dst, first, second) => {
  const right = second!.read()
  const result = b.truncate(b.and(b.not(first!.read()), right), dst!.width)
  dst!.write(result)
  logicalFlags(b, result, dst!.width, 0)
}

/** BLSR, BLSMSK, BLSI: something of the lowest set bit. */
const lowestBit =
  (compute: (b: SemanticsBuilder, value: Value) => Value, carryWhen: 'zero' | 'notZero'): Semantics =>
  (b, dst, src) => {
    const value = src!.read()
    const result = b.truncate(compute(b, value), dst!.width)
    dst!.write(result)
    logicalFlags(b, result, dst!.width, carryWhen === 'zero' ? b.eqz(value) : b.ne(value, 0))
  }

/** The low `count` bits set; a count from 64 on sets all. */
const lowMask = (b: SemanticsBuilder, count: Value): Value => b.select(b.gtU(count, 63), -1, b.sub(b.shl(1, count), 1))

const bextr: Semantics = (b, dst, src, control) => {
  const value = src!.read()
  const word = control!.read()
  const start = b.and(word, 0xff)
  const shifted = b.select(b.gtU(start, 63), 0, b.shrU(value, start))
  const result = b.and(shifted, lowMask(b, b.and(b.shrU(word, 8), 0xff)))
  dst!.write(result)
  logicalFlags(b, result, dst!.width, 0)
}

// ---------------------------------------------------------------------- BMI2

const bzhi: Semantics = (b, dst, src, control) => {
  const value = src!.read()
  const from = b.and(control!.read(), 0xff)
  const result = b.and(value, lowMask(b, from))
  dst!.write(result)
  logicalFlags(b, result, dst!.width, b.gtU(from, dst!.width - 1))
}

/** The high half goes last: where both destinations are one register it is what stays. */
const mulx: Semantics = (b, high, low, src) => {
  const { width } = high!
  const right = src!.read()
  const left = b.readRegister(RDX, width)
  const product = b.mul(left, right)
  const upper = width === 64 ? multiplyHigh(b, left, right, false) : b.shrU(product, 32)
  low!.write(b.truncate(product, width))
  high!.write(upper)
}

/** Walks the set bits of a mask from the lowest: `step` gets the bit (alone) and its ordinal as a bit. */
function eachBit(b: SemanticsBuilder, mask: Value, step: (bit: Value, ordinal: Value) => void): void {
  const rest = b.variable(mask, 'rest')
  const ordinal = b.variable(b.const(1), 'ordinal')
  b.loop(() => {
    const left = b.get(rest)
    b.if(b.eqz(left), () => b.break())
    const at = b.get(ordinal)
    step(b.and(left, b.sub(0, left)), at)
    b.assign(rest, b.and(left, b.sub(left, 1)))
    b.assign(ordinal, b.shl(at, 1))
  })
}

/** PDEP (`scatter`) and PEXT: bits between the low end and the places that a mask marks. */
const depositExtract =
  (scatter: boolean): Semantics =>
  (b, dst, src, maskOperand) => {
    const mask = maskOperand!.read()
    const value = src!.read()
    const result = b.variable(b.const(0), 'result')
    eachBit(b, mask, (bit, ordinal) => {
      const [from, to] = scatter ? [ordinal, bit] : [bit, ordinal]
      b.assign(result, b.or(b.get(result), b.select(b.ne(b.and(value, from), 0), to, 0)))
    })
    dst!.write(b.get(result))
  }

const rorx: Semantics = (b, dst, src, immediate) => {
  const { width } = dst!
  const value = src!.read()
  const by = b.and(immediate!.read(), width - 1)
  dst!.write(width === 64 ? b.rotr(value, by) : b.extendU(b.rotr(b.wrap(value), b.wrap(by))))
}

/** SARX, SHLX, SHRX. */
const shift =
  (compute: (b: SemanticsBuilder, value: Value, by: Value, width: Width) => Value): Semantics =>
  (b, dst, src, countOperand) => {
    const value = src!.read()
    const by = b.and(countOperand!.read(), dst!.width - 1)
    dst!.write(b.truncate(compute(b, value, by, dst!.width), dst!.width))
  }

// ---------------------------------------------------------------------- ADX, MOVBE, CRC32

/** ADCX, ADOX: carries in and out of one flag, the others stay. */
const addCarry =
  (name: 'cf' | 'of'): Semantics =>
  (b, dst, src) => {
    const { width } = dst!
    const right = src!.read()
    const left = dst!.read()
    const carry = b.extendU(b.flag(name))
    const partial = b.add(left, right)
    const sum = b.add(partial, carry)
    dst!.write(b.truncate(sum, width))
    const carried = width === 64 ? b.or(b.ltU(partial, left), b.ltU(sum, partial)) : b.wrap(b.shrU(sum, 32))
    b.setFlag(name, carried)
  }

function reverseBytes(b: SemanticsBuilder, value: Value, width: Width): Value {
  let result = value
  for (let bits = 8; bits < width; bits *= 2) {
    const low = width === 16 ? 0xffn : maskOfHalves(bits)
    result = b.or(b.shl(b.and(result, low), bits), b.and(b.shrU(result, bits), low))
  }
  return b.truncate(result, width)
}
/** 64 bits of which every second group of `bits` is ones, the lowest included. */
function maskOfHalves(bits: number): bigint {
  let mask = 0n
  for (let at = 0n; at < 64n; at += 2n * BigInt(bits)) mask |= ((1n << BigInt(bits)) - 1n) << at
  return mask
}
const movbe: Semantics = (b, dst, src) => dst!.write(reverseBytes(b, src!.read(), dst!.width))

/** CRC-32C, bit-reflected: the polynomial 11EDC6F41H mirrored. (SDM Vol. 2A, "CRC32") */
const POLYNOMIAL = 0x82f6_3b78

/** Value of the register after `steps` bits, starting from `value`. */
function divided(value: number, steps: number): number {
  let crc = value
  for (let n = 0; n < steps; n++) crc = (crc >>> 1) ^ (crc & 1 ? POLYNOMIAL : 0)
  return crc >>> 0
}

/** Divides `bits` bits out of the register. That is linear: each of its low bits has a part in the result, taken four at a time. */
function divideOut(b: SemanticsBuilder, value: Value, bits: number): Value {
  const all = b.op('i32x4.splat', value)
  const parts = run(0, bits / 4).map((group) => {
    const four = run(4 * group, 4)
    const each = lanes(b, 32, four.map((n) => 2 ** n))
    const set = b.op('i32x4.eq', b.op('v128.and', all, each), each)
    return b.op('v128.and', set, lanes(b, 32, four.map((n) => divided(2 ** n, bits))))
  })
  const sum = parts.reduce((left, right) => b.op('v128.xor', left, right))
  const half = b.xor(b.lane('i64x2.extract_lane', [0], sum), b.lane('i64x2.extract_lane', [1], sum))
  const result = b.xor(b.wrap(half), b.wrap(b.shrU(half, 32)))
  return bits === 32 ? result : b.xor(result, b.shrU(value, bits))
}

const crc32: Semantics = (b, dst, src) => {
  const { width } = src!
  const data = src!.read()
  let crc = b.wrap(dst!.read())
  for (let at = 0; at < width; at += 32) crc = divideOut(b, b.xor(crc, b.wrap(b.shrU(data, at))), Math.min(width, 32))
  dst!.write(b.extendU(crc))
}

export const bmi: Record<string, Semantics> = {
  popcnt,
  tzcnt: count((b, value, width) => b.ctz(width === 64 ? value : b.or(value, 1n << BigInt(width)))),
  lzcnt: count((b, value, width) => b.sub(b.clz(value), 64 - width)),
  andn,
  bextr,
  blsr: lowestBit((b, value) => b.and(value, b.sub(value, 1)), 'zero'),
  blsmsk: lowestBit((b, value) => b.xor(value, b.sub(value, 1)), 'zero'),
  blsi: lowestBit((b, value) => b.and(value, b.sub(0, value)), 'notZero'),
  bzhi,
  mulx,
  pdep: depositExtract(true),
  pext: depositExtract(false),
  rorx,
  sarx: shift((b, value, by, width) => b.shrS(b.signExtend(value, width), by)),
  shlx: shift((b, value, by) => b.shl(value, by)),
  shrx: shift((b, value, by) => b.shrU(value, by)),
  adcx: addCarry('cf'),
  adox: addCarry('of'),
  movbe,
  crc32,
}
