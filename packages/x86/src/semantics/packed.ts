/** Packed integers, on MMX and on XMM registers alike: MMX, SSE2 and SSSE3. (SDM Vol. 2B, "PADDB" and the other pages) */
import { RDI, S } from '../state/layout.ts'
import type { Semantics, SemanticsBuilder, Value } from './builder.ts'
import {
  atMost, binary, every, isMmx, lanes, low64, operation, pair, run, shape, shuffleLanes, splat, unary, widen, window, zero,
  type LaneBits, type Lane2,
} from './vector.ts'
import { startMmx, waitForX87 } from './x87-state.ts'

// ---------------------------------------------------------------------- unpack, pack

const interleave = (bits: LaneBits, high: boolean): Semantics =>
  binary((b, left, right, mmx) => {
    const total = 128 / bits
    const count = mmx ? total / 4 : total / 2
    const first = high ? count : 0
    const order = run(first, count).flatMap((lane) => [lane, total + lane])
    // The upper half of an MMX result is of no concern.
    return shuffleLanes(b, bits, left, right, mmx ? [...order, ...order] : order)
  })

/** Both operands as one vector, the destination's lanes first: for MMX operands their low halves. */
const joined = (b: SemanticsBuilder, left: Value, right: Value): Value => shuffleLanes(b, 64, left, right, [0, 2])

/** wasm narrows two vectors; of two MMX registers side by side the low half of that is wanted. */
const narrow = (name: string): Semantics =>
  binary((b, left, right, mmx) => {
    if (!mmx) return b.op(name, left, right)
    const both = joined(b, left, right)
    return b.op(name, both, both)
  })

// ---------------------------------------------------------------------- arithmetic

/** Upper halves of the 32-bit products of 16-bit lanes. */
const multiplyHigh = (sign: 's' | 'u'): Semantics =>
  binary((b, left, right) => {
    const low = b.op(`i32x4.extmul_low_i16x8_${sign}`, left, right)
    const high = b.op(`i32x4.extmul_high_i16x8_${sign}`, left, right)
    return shuffleLanes(b, 16, low, high, [1, 3, 5, 7, 9, 11, 13, 15])
  })

/** Products of the even 32-bit lanes. */
export const multiplyEven = (sign: 's' | 'u'): Semantics =>
  binary((b, left, right) => {
    const even = (v: Value) => shuffleLanes(b, 32, v, v, [0, 2, 0, 2])
    return b.op(`i64x2.extmul_low_i32x4_${sign}`, even(left), even(right))
  })

/** Sums of absolute differences of eight bytes each. */
const sumOfDifferences: Lane2 = (b, left, right) => {
  const difference = b.op('v128.or', b.op('i8x16.sub_sat_u', left, right), b.op('i8x16.sub_sat_u', right, left))
  const fours = b.op('i32x4.extadd_pairwise_i16x8_u', b.op('i16x8.extadd_pairwise_i8x16_u', difference))
  return b.op('v128.and', b.op('i64x2.add', fours, b.op('i64x2.shr_u', fours, b.i32(32))), every(b, 64, 0xffff_ffff))
}

/** Unsigned bytes of the destination by signed ones of the source, neighbours added with saturation. */
const multiplyAddBytes: Lane2 = (b, left, right) => {
  const eight = b.i32(8)
  const even = b.op('i16x8.mul', b.op('v128.and', left, every(b, 16, 0xff)), b.op('i16x8.shr_s', b.op('i16x8.shl', right, eight), eight))
  const odd = b.op('i16x8.mul', b.op('i16x8.shr_u', left, eight), b.op('i16x8.shr_s', right, eight))
  return b.op('i16x8.add_sat_s', even, odd)
}

/** wasm saturates -1 times -1, the processor wraps. */
const multiplyRound: Lane2 = (b, left, right) => {
  const minimum = every(b, 16, 0x8000)
  const wrapped = b.op('v128.and', b.op('i16x8.eq', left, minimum), b.op('i16x8.eq', right, minimum))
  return b.op('v128.xor', b.op('i16x8.q15mulr_sat_s', left, right), wrapped)
}

const sign = (bits: 8 | 16 | 32): Semantics =>
  binary((b, left, right) => {
    const negative = b.op(`${shape(bits)}.lt_s`, right, zero(b))
    const signed = b.op(`${shape(bits)}.sub`, b.op('v128.xor', left, negative), negative)
    return b.op('v128.andnot', signed, b.op(`${shape(bits)}.eq`, right, zero(b)))
  })

/** Neighbours combined: the destination's pairs give the lower half. */
const horizontal = (bits: 16 | 32, name: string): Semantics =>
  binary((b, left, right, mmx) => {
    const [first, second] = mmx ? [joined(b, left, right), joined(b, left, right)] : [left, right]
    const total = 128 / bits
    const even = shuffleLanes(b, bits, first, second, run(0, total).map((n) => 2 * n))
    const odd = shuffleLanes(b, bits, first, second, run(0, total).map((n) => 2 * n + 1))
    return b.op(`${shape(bits)}.${name}`, even, odd)
  })

const shuffleBytes: Lane2 = (b, left, right, mmx) => b.op('i8x16.swizzle', left, b.op('v128.and', right, every(b, 8, mmx ? 0x87 : 0x8f)))

// ---------------------------------------------------------------------- shifts

/** The count is 64 bits wide; one beyond the lane shifts everything out. */
const shift =
  (bits: 16 | 32 | 64, name: 'shl' | 'shr_u' | 'shr_s'): Semantics =>
  (b, dst, src) => {
    const mmx = isMmx(dst!)
    if (mmx) waitForX87(b)
    const source = src!.read()
    const count = source.type === 'v128' ? low64(b, source) : source
    const left = mmx ? widen(b, dst!.read()) : dst!.read()
    const by = (amount: Value) => b.op(`${shape(bits)}.${name}`, left, b.wrap(amount))
    const result = name === 'shr_s' ? by(atMost(b, count, bits - 1)) : b.select(b.gtU(count, bits - 1), zero(b), by(count))
    if (mmx) startMmx(b)
    dst!.write(mmx ? low64(b, result) : result)
  }

/** PSLLDQ, PSRLDQ: whole bytes. */
const shiftBytes =
  (direction: 1 | -1): Semantics =>
  (b, dst, src) => {
    const count = atMost(b, src!.read(), 16)
    dst!.write(window(b, dst!.read(), direction > 0 ? count : b.sub(0, count)))
  }

/** Destination and source side by side, the source below, shifted right by bytes. */
const alignRight: Semantics = (b, dst, src, immediate) => {
  const mmx = isMmx(dst!)
  if (mmx) waitForX87(b)
  const source = src!.read()
  const count = atMost(b, immediate!.read(), 32)
  if (mmx) {
    const both = pair(b, source, dst!.read())
    startMmx(b)
    dst!.write(low64(b, window(b, both, atMost(b, count, 16))))
  } else {
    const fromSource = window(b, source, atMost(b, count, 16))
    // Below 0 and above 15 are outside, so a count of 32 gives zero here too.
    dst!.write(b.op('v128.or', fromSource, window(b, dst!.read(), b.sub(count, 16))))
  }
}

// ---------------------------------------------------------------------- single lanes

const moveMask: Semantics = (b, dst, src) => {
  if (!isMmx(src!)) return dst!.write(b.extendU(b.op('i8x16.bitmask', src!.read())))
  waitForX87(b)
  const mask = b.op('i8x16.bitmask', widen(b, src!.read()))
  startMmx(b)
  dst!.write(b.extendU(mask))
}

/** PEXTRW. The lane comes down by a swizzle, its number being known only at run time. */
const extractWord: Semantics = (b, dst, src, immediate) => {
  const mmx = isMmx(src!)
  if (mmx) waitForX87(b)
  const at = b.shl(b.and(immediate!.read(), mmx ? 3 : 7), 1)
  const vector = mmx ? widen(b, src!.read()) : src!.read()
  const value = b.and(low64(b, window(b, vector, at)), 0xffff)
  if (mmx) startMmx(b)
  dst!.write(value)
}

/** The low `bits` of an i64 put in the lane that an immediate names. */
export function insertLane(b: SemanticsBuilder, bits: LaneBits, vector: Value, value: Value, lane: Value): Value {
  const here = b.op(`${shape(bits)}.eq`, splat(b, bits, lane), lanes(b, bits, run(0, 128 / bits)))
  return b.op('v128.bitselect', splat(b, bits, value), vector, here)
}

const insertWord: Semantics = (b, dst, src, immediate) => {
  const mmx = isMmx(dst!)
  if (mmx) waitForX87(b)
  const value = src!.read()
  const lane = b.and(immediate!.read(), mmx ? 3 : 7)
  const result = insertLane(b, 16, mmx ? widen(b, dst!.read()) : dst!.read(), value, lane)
  if (mmx) startMmx(b)
  dst!.write(mmx ? low64(b, result) : result)
}

// ---------------------------------------------------------------------- moves between files

/** MOVD, MOVQ between a general register or memory and a vector register: 32 or 64 bits, zeros above. */
const moveDouble: Semantics = (b, dst, src) => {
  const mmx = isMmx(dst!) || isMmx(src!)
  if (mmx) waitForX87(b)
  if (src!.spec.kind === 'E') {
    const value = src!.read()
    if (mmx) startMmx(b)
    return dst!.write(mmx ? value : widen(b, value))
  }
  const vector = src!.read()
  const value = b.truncate(mmx ? vector : low64(b, vector), dst!.width)
  dst!.write(value)
  if (mmx) startMmx(b)
}

/** MOVQ among vector registers and memory. */
const moveQuad: Semantics = (b, dst, src) => {
  const mmx = isMmx(dst!)
  if (mmx) waitForX87(b)
  const value = src!.read()
  if (mmx && !dst!.isMemory) startMmx(b)
  if (mmx || dst!.isMemory) dst!.write(value)
  else b.writeVector(dst!.spec.kind === 'V' ? 'reg' : 'rm', widen(b, value))
  if (mmx && dst!.isMemory) startMmx(b)
}

/** Stores the bytes of `data` (`count` of them) whose bits are set in `mask` (i32) at rDI, in DS unless overridden. */
function storeBytes(b: SemanticsBuilder, data: Value, mask: Value, count: 8 | 16): void {
  const start = b.cut(b.readRegister(RDI, b.addressSize), b.addressSize)
  // All of it must be writable, also where no byte goes. The manual leaves open whether an access of 128 bits raises #AC where it is aligned to less than 8
  // bytes; this one does, as processors do, and never where it is aligned to 8. (SDM Vol. 3A, "Alignment Check Exception (#AC)")
  for (let at = 0; at < count; at += 8) b.modify(b.linear('operand', b.cut(b.add(start, at), b.addressSize), 8, 'write'), 8)
  b.setSlot(S.temp, data)
  const rest = b.variable(mask, 'rest')
  b.loop(() => {
    const left = b.get(rest)
    b.if(b.eqz(left), () => b.break())
    const at = b.ctz(left)
    const byte = b.rawLoad('i64', b.add(b.cpu, at), S.temp, 8)
    const offset = b.cut(b.add(start, b.extendU(at)), b.addressSize)
    b.store(b.linear('operand', offset, 1, 'write'), 1, byte)
    b.assign(rest, b.and(left, b.sub(left, 1)))
  })
}

/** MASKMOVQ, MASKMOVDQU: bytes whose mask has bit 7 set go to DS:rDI. */
const maskedMove: Semantics = (b, src, mask) => {
  const mmx = isMmx(src!)
  if (mmx) waitForX87(b)
  const selector = mmx ? widen(b, mask!.read()) : mask!.read()
  if (mmx) startMmx(b)
  storeBytes(b, mmx ? widen(b, src!.read()) : src!.read(), b.op('i8x16.bitmask', selector), mmx ? 8 : 16)
}

const plain = {
  paddb: 'i8x16.add', paddw: 'i16x8.add', paddd: 'i32x4.add', paddq: 'i64x2.add',
  paddsb: 'i8x16.add_sat_s', paddsw: 'i16x8.add_sat_s', paddusb: 'i8x16.add_sat_u', paddusw: 'i16x8.add_sat_u',
  psubb: 'i8x16.sub', psubw: 'i16x8.sub', psubd: 'i32x4.sub', psubq: 'i64x2.sub',
  psubsb: 'i8x16.sub_sat_s', psubsw: 'i16x8.sub_sat_s', psubusb: 'i8x16.sub_sat_u', psubusw: 'i16x8.sub_sat_u',
  pcmpeqb: 'i8x16.eq', pcmpeqw: 'i16x8.eq', pcmpeqd: 'i32x4.eq', pcmpgtb: 'i8x16.gt_s', pcmpgtw: 'i16x8.gt_s', pcmpgtd: 'i32x4.gt_s',
  pminub: 'i8x16.min_u', pmaxub: 'i8x16.max_u', pminsw: 'i16x8.min_s', pmaxsw: 'i16x8.max_s', pavgb: 'i8x16.avgr_u', pavgw: 'i16x8.avgr_u',
  pmullw: 'i16x8.mul', pmaddwd: 'i32x4.dot_i16x8_s', pand: 'v128.and', por: 'v128.or', pxor: 'v128.xor',
}

export const packed: Record<string, Semantics> = {
  ...Object.fromEntries(Object.entries(plain).map(([name, op]) => [name, operation(op)])),
  pandn: binary((b, left, right) => b.op('v128.andnot', right, left)),
  punpcklbw: interleave(8, false),
  punpcklwd: interleave(16, false),
  punpckldq: interleave(32, false),
  punpckhbw: interleave(8, true),
  punpckhwd: interleave(16, true),
  punpckhdq: interleave(32, true),
  packsswb: narrow('i8x16.narrow_i16x8_s'),
  packuswb: narrow('i8x16.narrow_i16x8_u'),
  packssdw: narrow('i16x8.narrow_i32x4_s'),
  pmulhw: multiplyHigh('s'),
  pmulhuw: multiplyHigh('u'),
  pmuludq: multiplyEven('u'),
  psadbw: binary(sumOfDifferences),
  psllw: shift(16, 'shl'),
  pslld: shift(32, 'shl'),
  psllq: shift(64, 'shl'),
  psrlw: shift(16, 'shr_u'),
  psrld: shift(32, 'shr_u'),
  psrlq: shift(64, 'shr_u'),
  psraw: shift(16, 'shr_s'),
  psrad: shift(32, 'shr_s'),
  pslldq: shiftBytes(-1),
  psrldq: shiftBytes(1),
  pmovmskb: moveMask,
  pinsrw: insertWord,
  pextrw: extractWord,
  movd: moveDouble,
  movq: moveQuad,
  maskmovq: maskedMove,
  maskmovdqu: maskedMove,

  // SSSE3
  pshufb: binary(shuffleBytes),
  phaddw: horizontal(16, 'add'),
  phaddd: horizontal(32, 'add'),
  phaddsw: horizontal(16, 'add_sat_s'),
  phsubw: horizontal(16, 'sub'),
  phsubd: horizontal(32, 'sub'),
  phsubsw: horizontal(16, 'sub_sat_s'),
  pmaddubsw: binary(multiplyAddBytes),
  pmulhrsw: binary(multiplyRound),
  psignb: sign(8),
  psignw: sign(16),
  psignd: sign(32),
  pabsb: unary((b, source) => b.op('i8x16.abs', source)),
  pabsw: unary((b, source) => b.op('i16x8.abs', source)),
  pabsd: unary((b, source) => b.op('i32x4.abs', source)),
  palignr: alignRight,
}
