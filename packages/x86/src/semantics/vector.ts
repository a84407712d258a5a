/** Words for writing vector semantics: constants, permutations by immediates, MMX registers as halves of vectors. No instruction. */
import { S } from '../state/layout.ts'
import type { Operand, Semantics, SemanticsBuilder, Value } from './builder.ts'
import { startMmx, waitForX87 } from './x87-state.ts'

export type LaneBits = 8 | 16 | 32 | 64

/** A vector constant of equal lanes, lane 0 first. */
export function lanes(b: SemanticsBuilder, bits: LaneBits, values: readonly (number | bigint)[]): Value {
  let all = 0n
  values.forEach((value, i) => (all |= BigInt.asUintN(bits, BigInt(value)) << BigInt(bits * i)))
  return b.const(all, 'v128')
}
/** A vector constant with the same value in every lane. */
export function every(b: SemanticsBuilder, bits: LaneBits, value: number | bigint): Value {
  return lanes(b, bits, Array<number | bigint>(128 / bits).fill(value))
}
export const zero = (b: SemanticsBuilder): Value => b.const(0, 'v128')
export const ones = (b: SemanticsBuilder): Value => b.const(-1, 'v128')

/** `count` numbers from `first` on. */
export const run = (first: number, count: number): number[] => Array.from({ length: count }, (_, i) => first + i)

export const shuffle = (b: SemanticsBuilder, left: Value, right: Value, bytes: readonly number[]): Value =>
  b.lane('i8x16.shuffle', bytes, left, right)

/** Shuffles whole lanes of `bits`: numbers from 128 / bits on name lanes of `right`. */
export function shuffleLanes(b: SemanticsBuilder, bits: LaneBits, left: Value, right: Value, order: readonly number[]): Value {
  const size = bits / 8
  return shuffle(b, left, right, order.flatMap((lane) => run(lane * size, size)))
}

/** The value of an immediate that is known when the code is built: in the compiler, not in a handler. */
export const known = (value: Value): number | undefined => (value.kind === 'const' ? Number(value.value & 0xffn) : undefined)

/** All lanes equal to an i64's low bits. */
export function splat(b: SemanticsBuilder, bits: LaneBits, value: Value): Value {
  if (bits === 64) return b.op('i64x2.splat', value)
  return b.op(`${shape(bits)}.splat`, b.wrap(value))
}

export const shape = (bits: LaneBits): string => `i${bits}x${128 / bits}`

/** Bits of an i64 spread over lanes: lane n is all ones if bit n is set. */
export function maskOfBits(b: SemanticsBuilder, bits: LaneBits, value: Value): Value {
  const each = lanes(b, bits, run(0, 128 / bits).map((n) => 1 << n))
  return b.op(`${shape(bits)}.eq`, b.op('v128.and', splat(b, bits, value), each), each)
}

/**
 * Control for a swizzle by two-bit fields of an immediate: 32-bit lane n takes the dword that field n names, or 16-bit lanes likewise. `fields[n]` is
 * the field of lane n or undefined; `start[n]` is added: the first byte to select from, in every byte.
 */
export function fieldControl(b: SemanticsBuilder, bits: 16 | 32, immediate: Value, fields: readonly (number | undefined)[], start: readonly number[]): Value {
  const size = bits / 8
  // Field n comes to bits 7:6 by a multiplication, which unlike a shift can differ by lane.
  const raised = b.op(`${shape(bits)}.mul`, splat(b, bits, immediate), lanes(b, bits, fields.map((f) => (f === undefined ? 0 : 1 << (6 - 2 * f)))))
  const chosen = b.op('v128.and', b.op(`${shape(bits)}.shr_u`, raised, b.i32(6)), every(b, bits, 3))
  const repeat = bits === 32 ? 0x01010101 : 0x0101
  const scaled = b.op(`${shape(bits)}.mul`, chosen, every(b, bits, size * repeat))
  const offsets = start.flatMap((first) => run(first, size))
  return b.op('i8x16.add', scaled, lanes(b, 8, offsets))
}

/** Bytes of `value` at `offset` .. `offset` + 15, where bytes outside it are zero. `offset` is an i64 within -16..16. */
export function window(b: SemanticsBuilder, value: Value, offset: Value): Value {
  return b.op('i8x16.swizzle', value, b.op('i8x16.add', lanes(b, 8, run(0, 16)), splat(b, 8, offset)))
}

/** The lesser of an immediate and a limit: i64. */
export const atMost = (b: SemanticsBuilder, value: Value, limit: number): Value => b.select(b.gtU(value, limit), limit, value)

export const low64 = (b: SemanticsBuilder, vector: Value): Value => b.lane('i64x2.extract_lane', [0], vector)
export const high64 = (b: SemanticsBuilder, vector: Value): Value => b.lane('i64x2.extract_lane', [1], vector)
/** 64 bits with zeros above. */
export const widen = (b: SemanticsBuilder, value: Value): Value => b.lane('i64x2.replace_lane', [0], zero(b), value)
/** Two 64-bit halves, the low one first. */
export const pair = (b: SemanticsBuilder, low: Value, high: Value): Value => b.lane('i64x2.replace_lane', [1], b.op('i64x2.splat', low), high)

export const isMmx = (operand: Operand): boolean => operand.spec.kind === 'P' || operand.spec.kind === 'N' || operand.spec.kind === 'Q'

/** `mmx`: only the low 64 bits count, of the operands and of the result. */
export type Lane2 = (b: SemanticsBuilder, left: Value, right: Value, mmx: boolean) => Value
export type Lane1 = (b: SemanticsBuilder, source: Value, mmx: boolean) => Value

/** dst = dst op src, on XMM or MMX registers. */
export const binary =
  (lane: Lane2): Semantics =>
  (b, dst, src) => {
    if (!isMmx(dst!)) return dst!.write(lane(b, dst!.read(), src!.read(), false))
    waitForX87(b)
    const right = widen(b, src!.read())
    const result = low64(b, lane(b, widen(b, dst!.read()), right, true))
    startMmx(b)
    dst!.write(result)
  }

/** dst = op src. */
export const unary =
  (lane: Lane1): Semantics =>
  (b, dst, src) => {
    if (!isMmx(dst!)) return dst!.write(lane(b, src!.read(), false))
    waitForX87(b)
    const result = low64(b, lane(b, widen(b, src!.read()), true))
    startMmx(b)
    dst!.write(result)
  }

/** dst = dst op src, by the name of one operation. */
export const operation = (name: string): Semantics => binary((b, left, right) => b.op(name, left, right))

/** Two vectors for a routine that works on memory, and its address: 32 bytes in the vCPU block. */
export function handOver(b: SemanticsBuilder, left: Value, right?: Value): { left: Value; right: Value } {
  b.setSlot(S.temp, left)
  if (right) b.setSlot(S.temp + 16, right)
  return { left: b.add(b.cpu, S.temp), right: b.add(b.cpu, S.temp + 16) }
}
