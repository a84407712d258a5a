/** Integer arithmetic, logic and moves. (SDM Vol. 2, the instructions' own pages; flags as in Vol. 1, "EFLAGS Cross-Reference") */
import { gpr, RAX, RBP, RBX, RCX, RDX, RSP, S, SEGMENT } from '../state/layout.ts'
import { multiplyHigh, divide128 } from './wide.ts'
import { type Operand, type Semantics, type SemanticsBuilder, type Value, type Width } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'

/** left + right (+ carry): flags and result. */
export function addition(b: SemanticsBuilder, width: Width, left: Value, right: Value, carry?: Value): Value {
  const sum = b.add(left, right)
  const result = b.truncate(carry ? b.add(sum, b.extendU(carry)) : sum, width)
  b.arithmeticFlags(carry ? 'adc' : 'add', width, left, right, result, carry)
  return result
}

/** left - right (- borrow): flags and result. */
export function subtraction(b: SemanticsBuilder, width: Width, left: Value, right: Value, borrow?: Value): Value {
  const difference = b.sub(left, right)
  const result = b.truncate(borrow ? b.sub(difference, b.extendU(borrow)) : difference, width)
  b.arithmeticFlags(borrow ? 'sbb' : 'sub', width, left, right, result, borrow)
  return result
}

/** Flags of a logical operation. */
export function logic(b: SemanticsBuilder, width: Width, result: Value): Value {
  b.arithmeticFlags('logic', width, result, result, result)
  return result
}

const binary =
  (compute: (b: SemanticsBuilder, width: Width, left: Value, right: Value) => Value): Semantics =>
  (b, dst, src) => {
    const left = dst!.readToWrite()
    dst!.write(compute(b, dst!.width, left, src!.read()))
  }

/** INC and DEC: CF stays. (SDM Vol. 2A, "INC") */
const step =
  (sign: 1 | -1): Semantics =>
  (b, dst) => {
    const { width } = dst!
    const left = dst!.readToWrite()
    const result = b.truncate(b.add(left, sign), width)
    dst!.write(result)
    b.arithmeticFlags(sign === 1 ? 'inc' : 'dec', width, left, b.const(1), result)
  }

/** MUL and IMUL with one operand: rDX:rAX (AX for bytes). */
const multiply =
  (signed: boolean): Semantics =>
  (b, src) => {
    const { width } = src!
    const right = src!.read()
    const left = b.readRegister(RAX, width)
    let high: Value
    let low: Value
    if (width === 64) {
      low = b.mul(left, right)
      high = multiplyHigh(b, left, right, signed)
    } else {
      const extend = (v: Value) => (signed ? b.signExtend(v, width) : v)
      const product = b.mul(extend(left), extend(right))
      low = b.truncate(product, width)
      high = b.truncate(b.shrU(product, width), width)
    }
    if (width === 8) b.writeRegister(RAX, 16, b.or(b.shl(high, 8), low))
    else {
      b.writeRegister(RAX, width, low)
      b.writeRegister(RDX, width, high)
    }
    if (signed) b.arithmeticFlags('imul', width, left, right, low)
    else b.arithmeticFlags('mul', width, low, high, low)
  }

const imulTruncated: Semantics = (b, dst, first, second) => {
  const { width } = dst!
  const left = second ? first!.read() : dst!.read()
  const right = second ? second.read() : first!.read()
  const result = b.truncate(b.mul(left, right), width)
  dst!.write(result)
  b.arithmeticFlags('imul', width, left, right, result)
}

/** Dividend of DIV and IDIV up to 64 bits: AX, DX:AX or EDX:EAX. */
function dividend(b: SemanticsBuilder, width: Width): Value {
  if (width === 8) return b.readRegister(RAX, 16)
  return b.or(b.shl(b.readRegister(RDX, width), width), b.readRegister(RAX, width))
}
function writeQuotient(b: SemanticsBuilder, width: Width, quotient: Value, remainder: Value): void {
  const q = b.truncate(quotient, width)
  const r = b.truncate(remainder, width)
  if (width === 8) return b.writeRegister(RAX, 16, b.or(b.shl(r, 8), q))
  b.writeRegister(RAX, width, q)
  b.writeRegister(RDX, width, r)
}

const div: Semantics = (b, src) => {
  const { width } = src!
  const divisor = src!.read()
  b.raiseIf(b.eqz(divisor), VECTOR.DE)
  if (width < 64) {
    const from = dividend(b, width)
    const quotient = b.divU(from, divisor)
    b.raiseIf(b.ne(b.shrU(quotient, width), 0), VECTOR.DE)
    return writeQuotient(b, width, quotient, b.remU(from, divisor))
  }
  const high = b.slot(gpr(RDX))
  const low = b.slot(gpr(RAX))
  b.raiseIf(b.geU(high, divisor), VECTOR.DE)
  b.if(
    b.eqz(high),
    () => writeQuotient(b, 64, b.divU(low, divisor), b.remU(low, divisor)),
    () => {
      const { quotient, remainder } = divide128(b, high, low, divisor)
      writeQuotient(b, 64, quotient, remainder)
    },
  )
}

const idiv: Semantics = (b, src) => {
  const { width } = src!
  const divisor = b.signExtend(src!.read(), width)
  b.raiseIf(b.eqz(divisor), VECTOR.DE)
  if (width < 64) {
    const from = width === 32 ? dividend(b, 32) : b.signExtend(dividend(b, width), width === 8 ? 16 : 32)
    // The one division that wasm traps on overflows here as well.
    if (width === 32) b.raiseIf(b.and(b.eq(from, 1n << 63n), b.eq(divisor, -1)), VECTOR.DE)
    const quotient = b.divS(from, divisor)
    b.raiseIf(b.ne(b.signExtend(quotient, width), quotient), VECTOR.DE)
    return writeQuotient(b, width, quotient, b.remS(from, divisor))
  }
  const high = b.slot(gpr(RDX))
  const low = b.slot(gpr(RAX))
  b.if(
    b.eq(high, b.shrS(low, 63)),
    () => {
      b.raiseIf(b.and(b.eq(low, 1n << 63n), b.eq(divisor, -1)), VECTOR.DE)
      writeQuotient(b, 64, b.divS(low, divisor), b.remS(low, divisor))
    },
    () => {
      // On magnitudes, signs put back: the quotient's is that of both, the remainder's that of the dividend.
      const negative = b.ltS(high, 0)
      const lowMagnitude = b.select(negative, b.sub(0, low), low)
      const highMagnitude = b.select(negative, b.sub(b.not(high), b.extendU(b.ne(low, 0))), high)
      const magnitude = b.select(negative, b.add(highMagnitude, 1), highMagnitude)
      const divisorMagnitude = b.select(b.ltS(divisor, 0), b.sub(0, divisor), divisor)
      b.raiseIf(b.geU(magnitude, divisorMagnitude), VECTOR.DE)
      const { quotient, remainder } = divide128(b, magnitude, lowMagnitude, divisorMagnitude)
      const opposite = b.ltS(b.xor(high, divisor), 0)
      b.raiseIf(b.gtU(quotient, b.add(b.extendU(opposite), 0x7fff_ffff_ffff_ffffn)), VECTOR.DE)
      writeQuotient(b, 64, b.select(opposite, b.sub(0, quotient), quotient), b.select(negative, b.sub(0, remainder), remainder))
    },
  )
}

/** CMPXCHG: the destination is written in either case. (SDM Vol. 2A, "CMPXCHG") */
const cmpxchg: Semantics = (b, dst, src) => {
  const { width } = dst!
  const found = dst!.readToWrite()
  const expected = b.readRegister(RAX, width)
  const replacement = src!.read()
  const equal = b.eq(found, expected)
  if (dst!.isMemory) dst!.write(b.select(equal, replacement, found))
  else b.if(equal, () => dst!.write(replacement))
  b.if(b.eqz(equal), () => b.writeRegister(RAX, width, found))
  subtraction(b, width, expected, found)
}

const cmpxchg8b: Semantics = (b, dst) => {
  const half: Width = dst!.width === 128 ? 64 : 32
  const bytes = dst!.width / 8
  const linear = b.linear('operand', dst!.address(), bytes, 'write')
  if (half === 64) b.raiseIf(b.ne(b.and(linear, 15), 0), VECTOR.GP)
  const place = b.modify(linear, bytes)
  const low = half === 64 ? b.lane('i64x2.extract_lane', [0], place.value) : b.and(place.value, 0xffff_ffff)
  const high = half === 64 ? b.lane('i64x2.extract_lane', [1], place.value) : b.shrU(place.value, 32)
  const equal = b.and(b.eq(low, b.readRegister(RAX, half)), b.eq(high, b.readRegister(RDX, half)))
  const join = (l: Value, h: Value) =>
    half === 64 ? b.lane('i64x2.replace_lane', [1], b.op('i64x2.splat', l), h) : b.or(l, b.shl(h, 32))
  const newLow = b.select(equal, b.readRegister(RBX, half), low)
  const newHigh = b.select(equal, b.readRegister(RCX, half), high)
  place.write(join(newLow, newHigh))
  b.if(b.eqz(equal), () => {
    b.writeRegister(RAX, half, low)
    b.writeRegister(RDX, half, high)
  })
  b.setFlag('zf', equal)
}

const xchg: Semantics = (_b, dst, src) => {
  const left = dst!.readToWrite()
  const right = src!.read()
  dst!.write(right)
  src!.write(left)
}

const xadd: Semantics = (b, dst, src) => {
  const left = dst!.readToWrite()
  const sum = addition(b, dst!.width, left, src!.read())
  // A memory destination has passed its checks; for two equal registers the sum comes last and stays.
  src!.write(left)
  dst!.write(sum)
}

const push: Semantics = (b, src) => {
  b.push(b.truncate(src!.read(), b.operandSize), b.operandSize / 8)
}

/** POP: the address of a memory destination based on rSP counts from the pointer after the pop. (SDM Vol. 2B, "POP") */
const pop: Semantics = (b, dst) => {
  const bytes = b.operandSize / 8
  const { value, pointerAfter } = b.top(bytes)
  if (!dst!.isMemory) {
    b.setStackPointer(pointerAfter)
    return dst!.write(value)
  }
  const fromStack = b.instruction.base === RSP
  const offset = fromStack ? b.cut(b.add(dst!.address(), bytes), b.addressSize) : dst!.address()
  b.store(b.linear('operand', offset, bytes, 'write'), bytes, value)
  b.setStackPointer(pointerAfter)
}

/** All eight at once: a fault anywhere must leave every register as it was, so the far end of the area is probed first. */
const pusha: Semantics = (b) => {
  const bytes = b.operandSize / 8
  const base = b.cut(b.sub(b.stackPointer(), 8 * bytes), b.stackSize)
  const place = (n: number) => b.linear(SEGMENT.ss, b.cut(b.add(base, n * bytes), b.stackSize), bytes, 'write')
  for (let n = 0; n < 8; n++) b.modify(place(n), bytes, SEGMENT.ss)
  for (let n = 0; n < 8; n++) b.store(place(n), bytes, b.slot(gpr(7 - n), 'i64', b.operandSize), SEGMENT.ss)
  b.setStackPointer(base)
}
const popa: Semantics = (b) => {
  const bytes = b.operandSize / 8
  const top = b.stackPointer()
  const values = [7, 6, 5, 4, 3, 2, 1, 0].map((n, i) => ({
    n,
    value: b.load(b.linear(SEGMENT.ss, b.cut(b.add(top, i * bytes), b.stackSize), bytes, 'read'), bytes, SEGMENT.ss),
  }))
  for (const { n, value } of values) if (n !== RSP) b.writeRegister(n, b.operandSize, value)
  b.setStackPointer(b.cut(b.add(top, 8 * bytes), b.stackSize))
}

/** ENTER: frames of the nesting levels are copied one by one; registers change last. (SDM Vol. 2A, "ENTER") */
const enter: Semantics = (b, size) => {
  const bytes = b.operandSize / 8
  const level = b.and(b.immediate2(), 31)
  const top = b.variable(b.stackPointer(), 'top')
  const frame = b.variable(b.slot(gpr(RBP), 'i64', b.stackSize), 'frame')
  const pushValue = (value: Value) => {
    b.assign(top, b.cut(b.sub(b.get(top), bytes), b.stackSize))
    b.store(b.linear(SEGMENT.ss, b.get(top), bytes, 'write'), bytes, value, SEGMENT.ss)
  }
  pushValue(b.readRegister(RBP, b.operandSize))
  // On a 16-bit stack the upper half of ESP goes along.
  const newFrame = b.stackSize === 16 ? b.or(b.and(b.slot(gpr(RSP)), 0xffff_0000), b.get(top)) : b.get(top)
  const left = b.variable(level, 'level')
  b.if(b.ne(level, 0), () => {
    b.loop(() => {
      b.assign(left, b.sub(b.get(left), 1))
      b.if(b.eqz(b.get(left)), () => b.break())
      b.assign(frame, b.cut(b.sub(b.get(frame), bytes), b.stackSize))
      pushValue(b.load(b.linear(SEGMENT.ss, b.get(frame), bytes, 'read'), bytes, SEGMENT.ss))
    })
    pushValue(b.truncate(newFrame, b.operandSize))
  })
  const end = b.cut(b.sub(b.get(top), size!.read()), b.stackSize)
  // The final stack pointer must be writable. (SDM: "if a page fault would occur at the new pointer")
  b.modify(b.linear(SEGMENT.ss, end, bytes, 'write'), bytes, SEGMENT.ss)
  b.writeRegister(RBP, b.operandSize, b.truncate(newFrame, b.operandSize))
  b.setStackPointer(end)
}
const leave: Semantics = (b) => {
  const bytes = b.operandSize / 8
  const frame = b.slot(gpr(RBP), 'i64', b.stackSize)
  const value = b.load(b.linear(SEGMENT.ss, frame, bytes, 'read'), bytes, SEGMENT.ss)
  b.setStackPointer(b.cut(b.add(frame, bytes), b.stackSize))
  b.writeRegister(RBP, b.operandSize, value)
}

const conditionOf = (b: SemanticsBuilder): Value => b.condition(b.instruction.row.form.opcode & 15)

/** CBW, CWDE, CDQE by operand size. */
const cbw: Semantics = (b) => {
  const half = (b.operandSize / 2) as Width
  b.writeRegister(RAX, b.operandSize, b.truncate(b.signExtend(b.readRegister(RAX, half), half), b.operandSize))
}
/** CWD, CDQ, CQO. */
const cwd: Semantics = (b) => {
  const sign = b.shrS(b.signExtend(b.readRegister(RAX, b.operandSize), b.operandSize), 63)
  b.writeRegister(RDX, b.operandSize, b.truncate(sign, b.operandSize))
}

const bswap: Semantics = (b, dst) => {
  const value = dst!.read()
  // 16 bits: undefined in the manual; processors give zero.
  if (dst!.width === 16) return dst!.write(b.const(0))
  const swapBytes = (v: Value) => b.or(b.and(b.shrU(v, 8), 0x00ff00ff00ff00ffn), b.shl(b.and(v, 0x00ff00ff00ff00ffn), 8))
  const swapWords = (v: Value) => b.or(b.and(b.shrU(v, 16), 0x0000ffff0000ffffn), b.shl(b.and(v, 0x0000ffff0000ffffn), 16))
  const swapped = b.rotl(swapWords(swapBytes(value)), 32)
  dst!.write(dst!.width === 64 ? swapped : b.shrU(swapped, 32))
}

const xlat: Semantics = (b) => {
  const offset = b.cut(b.add(b.slot(gpr(RBX)), b.readRegister(RAX, 8)), b.addressSize)
  b.writeRegister(RAX, 8, b.load(b.linear('operand', offset, 1, 'read'), 1))
}

const move: Semantics = (_b, dst, src) => dst!.write(src!.read())
const flip = (b: SemanticsBuilder, set: Value) => b.setFlag('cf', set)
const direction = (b: SemanticsBuilder, set: boolean) =>
  b.setSlot(S.flags, set ? b.or(b.slot(S.flags, 'i32'), 0x400) : b.and(b.slot(S.flags, 'i32'), ~0x400))
const readOnly =
  (compute: (b: SemanticsBuilder, width: Width, left: Value, right: Value) => unknown): Semantics =>
  (b, left: Operand | undefined, right) => {
    const l = left!.read()
    compute(b, left!.width, l, right!.read())
  }

export const integer: Record<string, Semantics> = {
  add: binary((b, w, l, r) => addition(b, w, l, r)),
  adc: binary((b, w, l, r) => addition(b, w, l, r, b.flag('cf'))),
  sub: binary((b, w, l, r) => subtraction(b, w, l, r)),
  sbb: binary((b, w, l, r) => subtraction(b, w, l, r, b.flag('cf'))),
  and: binary((b, w, l, r) => logic(b, w, b.and(l, r))),
  or: binary((b, w, l, r) => logic(b, w, b.or(l, r))),
  xor: binary((b, w, l, r) => logic(b, w, b.xor(l, r))),
  cmp: readOnly(subtraction),
  test: readOnly((b, w, l, r) => logic(b, w, b.and(l, r))),
  not: (b, dst) => dst!.write(b.truncate(b.not(dst!.readToWrite()), dst!.width)),
  neg: (b, dst) => {
    const value = dst!.readToWrite()
    dst!.write(subtraction(b, dst!.width, b.const(0), value))
  },
  mul: multiply(false),
  imul: multiply(true),
  imulTruncated,
  div,
  idiv,
  inc: step(1),
  dec: step(-1),
  mov: move,
  movzx: move,
  movsx: (b, dst, src) => dst!.write(b.truncate(b.signExtend(src!.read(), src!.width), dst!.width)),
  movnti: move,
  movdiri: move,
  lea: (b, dst, src) => dst!.write(b.truncate(src!.address(), dst!.width)),
  bswap,
  xlat,
  xchg,
  xadd,
  cmpxchg,
  cmpxchg8b,
  cbw,
  cwd,
  push,
  pop,
  pusha,
  popa,
  enter,
  leave,
  sahf: (b) => b.setStatusFlags(b.readRegister(4, 8), false),
  lahf: (b) => b.writeRegister(4, 8, b.or(b.and(b.statusFlags(), 0xd5), 2)),
  cmc: (b) => flip(b, b.xor(b.flag('cf'), 1)),
  clc: (b) => flip(b, b.i32(0)),
  stc: (b) => flip(b, b.i32(1)),
  cld: (b) => direction(b, false),
  std: (b) => direction(b, true),
  salc: (b) => b.writeRegister(RAX, 8, b.truncate(b.sub(0, b.extendU(b.flag('cf'))), 8)),
  setcc: (b, dst) => dst!.write(b.extendU(conditionOf(b))),
  // The load happens, and a 32-bit destination is cleared above, whether or not the condition holds. (SDM Vol. 2A, "CMOVcc")
  cmovcc: (b, dst, src) => dst!.write(b.select(conditionOf(b), src!.read(), dst!.read())),
}
