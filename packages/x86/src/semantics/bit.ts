/** Shifts, rotates and bit tests. (SDM Vol. 2, the instructions' own pages) */
import { RCX } from '../state/layout.ts'
import type { Operand, Semantics, SemanticsBuilder, Value, Width } from './builder.ts'

/** The count, masked to 5 bits (6 for 64-bit operands), i64. */
function countOf(b: SemanticsBuilder, operand: Operand, width: Width): Value {
  const value = operand.spec.kind === 'gpr' ? b.readRegister(RCX, 8) : operand.read()
  return b.and(value, width === 64 ? 63 : 31)
}

const bitOf = (b: SemanticsBuilder, value: Value, at: Value): Value => b.and(b.wrap(b.shrU(value, at)), 1)
const signBit = (b: SemanticsBuilder, value: Value, width: Width): Value => bitOf(b, value, b.const(width - 1))

/** `apply` is only valid for a count that is not 0; with 0 the operand is written back and no flag changes. */
const counted =
  (apply: (b: SemanticsBuilder, dst: Operand, left: Value, count: Value) => void): Semantics =>
  (b, dst, source) => {
    const left = dst!.readToWrite()
    const count = countOf(b, source!, dst!.width)
    if (source!.spec.kind === 'one') return apply(b, dst!, left, count)
    b.if(b.ne(count, 0), () => apply(b, dst!, left, count), () => dst!.write(left))
  }

const shift = (kind: 'shl' | 'shr' | 'sar'): Semantics =>
  counted((b, dst, left, count) => {
    const { width } = dst
    const result =
      kind === 'shl' ? b.truncate(b.shl(left, count), width)
      : kind === 'shr' ? b.shrU(left, count)
      : b.truncate(b.shrS(b.signExtend(left, width), count), width)
    dst.write(result)
    b.arithmeticFlags(kind, width, left, count, result)
  })

interface Rotated {
  readonly result: Value
  /** i32 0 or 1. */
  readonly cf: Value
  /** OF in bit (width - 1). */
  readonly of: Value
}
const rotate = (compute: (b: SemanticsBuilder, width: Width, left: Value, count: Value) => Rotated): Semantics =>
  counted((b, dst, left, count) => {
    const { result, cf, of } = compute(b, dst.width, left, count)
    dst.write(result)
    b.setFlag('cf', cf)
    b.setOverflowBit(of, dst.width)
  })

/** left rotated left by `count` (already below `width`). */
function rotateLeft(b: SemanticsBuilder, width: Width, left: Value, count: Value): Value {
  if (width === 64) return b.rotl(left, count)
  if (width === 32) return b.extendU(b.rotl(b.wrap(left), b.wrap(count)))
  return b.truncate(b.or(b.shl(left, count), b.shrU(left, b.sub(width, count))), width)
}

const rol = rotate((b, width, left, count) => {
  const result = rotateLeft(b, width, left, b.and(count, width - 1))
  const cf = b.and(b.wrap(result), 1)
  return { result, cf, of: b.xor(result, b.shl(b.extendU(cf), width - 1)) }
})

const ror = rotate((b, width, left, count) => {
  const result = rotateLeft(b, width, left, b.and(b.sub(width, count), width - 1))
  return { result, cf: signBit(b, result, width), of: b.xor(result, b.shl(result, 1)) }
})

/** Rotates through CF turn width + 1 bits, so counts of 8- and 16-bit operands are taken modulo 9 and 17. */
function carryCount(b: SemanticsBuilder, width: Width, count: Value): Value {
  return width < 32 ? b.remU(count, width + 1) : count
}

function rotateCarryLeft(b: SemanticsBuilder, width: Width, left: Value, count: Value): { result: Value; cf: Value } {
  const carry = b.extendU(b.flag('cf'))
  if (width < 64) {
    const wide = b.or(left, b.shl(carry, width))
    // A count of 0 (of 9 or 17) shifts the second part out beyond bit width: width + 1 <= 33.
    const turned = b.or(b.shl(wide, count), b.shrU(wide, b.sub(width + 1, count)))
    return { result: b.truncate(turned, width), cf: bitOf(b, turned, b.const(width)) }
  }
  const turned = b.or(b.or(b.shl(left, count), b.shl(carry, b.sub(count, 1))), b.shrU(b.shrU(left, 1), b.sub(64, count)))
  return { result: turned, cf: bitOf(b, left, b.sub(64, count)) }
}

const rcl = rotate((b, width, left, masked) => {
  const { result, cf } = rotateCarryLeft(b, width, left, carryCount(b, width, masked))
  return { result, cf, of: b.xor(result, b.shl(b.extendU(cf), width - 1)) }
})

const rcr = rotate((b, width, left, masked) => {
  const count = carryCount(b, width, masked)
  if (width === 64) {
    const carry = b.extendU(b.flag('cf'))
    const result = b.or(b.or(b.shrU(left, count), b.shl(carry, b.sub(64, count))), b.shl(b.shl(left, 1), b.sub(64, count)))
    return { result, cf: bitOf(b, left, b.sub(count, 1)), of: b.xor(result, b.shl(result, 1)) }
  }
  // To the right by c is to the left by width + 1 - c.
  const back = b.sub(width + 1, count)
  const carry = b.extendU(b.flag('cf'))
  const wide = b.or(left, b.shl(carry, width))
  const turned = b.or(b.shrU(wide, count), b.shl(wide, back))
  const result = b.truncate(turned, width)
  return { result, cf: bitOf(b, turned, b.const(width)), of: b.xor(result, b.shl(result, 1)) }
})

/** SHLD and SHRD. With 16-bit operands counts above 16 are undefined; here the bits of the destination are repeated. */
const doubleShift =
  (direction: 'left' | 'right'): Semantics =>
  (b, dst, filler, source) => {
    const { width } = dst!
    const left = dst!.readToWrite()
    const right = filler!.read()
    const count = countOf(b, source!, width)
    b.if(
      b.ne(count, 0),
      () => {
        let result: Value
        let cf: Value
        if (direction === 'left') {
          cf = width === 16 ? bitOf(b, b.or(b.or(b.shl(left, 32), b.shl(right, 16)), left), b.sub(48, count)) : bitOf(b, left, b.sub(width, count))
          if (width === 16) result = b.truncate(b.shrU(b.shl(b.or(b.or(b.shl(left, 32), b.shl(right, 16)), left), count), 32), 16)
          else if (width === 32) result = b.shrU(b.shl(b.or(b.shl(left, 32), right), count), 32)
          else result = b.or(b.shl(left, count), b.shrU(b.shrU(right, 1), b.sub(63, count)))
        } else {
          const triple = () => b.or(b.or(b.shl(left, 32), b.shl(right, 16)), left)
          cf = bitOf(b, width === 16 ? triple() : left, b.sub(count, 1))
          if (width === 16) result = b.truncate(b.shrU(triple(), count), 16)
          else if (width === 32) result = b.truncate(b.shrU(b.or(b.shl(right, 32), left), count), 32)
          else result = b.or(b.shrU(left, count), b.shl(b.shl(right, 1), b.sub(63, count)))
        }
        dst!.write(result)
        b.setFlag('cf', cf)
        b.setOverflowBit(b.xor(left, result), width)
        b.setResult(result, width)
        b.setFlag('af', 0)
      },
      () => dst!.write(left),
    )
  }

/** BT and similar: a register offset may address bits outside the memory operand, as a signed bit number. (SDM Vol. 2A, "BT") */
const bitTest =
  (change: ((b: SemanticsBuilder, value: Value, mask: Value) => Value) | undefined): Semantics =>
  (b, dst, offset) => {
    const { width } = dst!
    const bytes = width / 8
    const far = dst!.isMemory && offset!.spec.kind === 'G'
    const number = offset!.read()
    let write: ((value: Value) => void) | undefined
    let value: Value
    if (far) {
      const units = b.shrS(b.signExtend(number, width), Math.log2(width))
      const at = b.cut(b.add(dst!.address(), b.mul(units, bytes)), b.addressSize)
      const linear = b.linear('operand', at, bytes, change ? 'write' : 'read')
      if (change) {
        const place = b.modify(linear, bytes)
        value = place.value
        write = place.write
      } else value = b.load(linear, bytes)
    } else if (change) {
      value = dst!.readToWrite()
      write = (v) => dst!.write(v)
    } else value = dst!.read()
    const bit = b.and(number, width - 1)
    const cf = bitOf(b, value, bit)
    write?.(change!(b, value, b.shl(1, bit)))
    b.setFlag('cf', cf)
  }

/** BSF and BSR: a zero source sets ZF and leaves the destination. */
const scan =
  (find: (b: SemanticsBuilder, value: Value) => Value): Semantics =>
  (b, dst, src) => {
    const value = src!.read()
    b.if(b.ne(value, 0), () => dst!.write(find(b, value)))
    b.setFlag('zf', b.eqz(value))
  }

export const bit: Record<string, Semantics> = {
  shl: shift('shl'),
  shr: shift('shr'),
  sar: shift('sar'),
  rol,
  ror,
  rcl,
  rcr,
  shld: doubleShift('left'),
  shrd: doubleShift('right'),
  bt: bitTest(undefined),
  bts: bitTest((b, value, mask) => b.or(value, mask)),
  btr: bitTest((b, value, mask) => b.and(value, b.not(mask))),
  btc: bitTest((b, value, mask) => b.xor(value, mask)),
  bsf: scan((b, value) => b.ctz(value)),
  bsr: scan((b, value) => b.sub(63, b.clz(value))),
}
