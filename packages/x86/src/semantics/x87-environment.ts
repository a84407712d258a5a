/**
 * FNSTENV, FLDENV, FNSAVE, FRSTOR: the x87 environment in memory in its four formats.
 * (SDM Vol. 1, "Saving the x87 FPU's State with FSTENV/FNSTENV and FSAVE/FNSAVE")
 */
import { S } from '../state/layout.ts'
import { FLAG } from '../state/register-bits.ts'
import type { Semantics, SemanticsBuilder, Value } from './builder.ts'
import { top, waitForX87 } from './x87-state.ts'
import { fninit } from './x87.ts'

const REGISTER_BYTES = 10
const RESERVED = 0xffff_0000

/** Seven fields of two or four bytes. */
const fieldBytes = (b: SemanticsBuilder): 2 | 4 => (b.operandSize === 16 ? 2 : 4)
const environmentBytes = (b: SemanticsBuilder): number => 7 * fieldBytes(b)

/** Whether pointers are selector and offset; else 20- or 32-bit addresses, the opcode in the second half of the first. */
function protectedFormat(b: SemanticsBuilder): Value {
  if (b.codeSize === 64) return b.i32(1)
  const real = b.or(b.eqz(b.and(b.slot(S.cr0, 'i32'), 1)), b.ne(b.and(b.slot(S.flags, 'i32'), FLAG.VM), 0))
  return b.eqz(real)
}

/** Linear address of an area that is known to be accessible in whole: its two ends are touched now. */
function area(b: SemanticsBuilder, bytes: number, access: 'read' | 'write'): Value {
  const linear = b.linear('operand', b.address(), bytes, access)
  const last = b.add(linear, bytes - 1)
  if (access === 'write') {
    b.modify(linear, fieldBytes(b))
    b.modify(last, 1)
  } else {
    b.load(linear, fieldBytes(b))
    b.load(last, 1)
  }
  return linear
}

/** The tag word as it would be, every register classified: 0 valid, 1 zero, 2 special, 3 empty. */
function tagWord(b: SemanticsBuilder): Value {
  const tag = b.slot(S.fpuTag, 'i32')
  return Array.from({ length: 8 }, (_, n) => {
    const significand = b.slot(S.fpr + n * 16)
    const exponent = b.and(b.slot(S.fpr + n * 16 + 8, 'i32', 16), 0x7fff)
    const valid = b.and(b.ltU(b.sub(exponent, 1), 0x7ffe), b.ltS(significand, 0))
    const zero = b.and(b.eqz(exponent), b.eqz(significand))
    const kind = b.select(valid, b.i32(0), b.select(zero, b.i32(1), b.i32(2)))
    return b.shl(b.select(b.and(b.shrU(tag, n), 1), kind, b.i32(3)), 2 * n)
  }).reduce((all, one) => b.or(all, one))
}

/** FCS in bits 15:0, FDS in 31:16; real mode's segments are bases. */
const pointer = (b: SemanticsBuilder, offset: number, selector: Value): { linear: Value; offset: Value } => {
  const value = b.wrap(b.slot(offset))
  return { offset: value, linear: b.add(value, b.shl(selector, 4)) }
}

function storeEnvironment(b: SemanticsBuilder, linear: Value): void {
  const bytes = fieldBytes(b)
  const wide = bytes === 4
  const put = (n: number, value: Value) => b.store(b.add(linear, n * bytes), bytes, b.extendU(wide ? value : b.and(value, 0xffff)))
  const filled = (value: Value) => b.or(value, wide ? RESERVED : 0)
  const selectors = b.slot(S.fpuSelectors, 'i32')
  const codeSelector = b.and(selectors, 0xffff), dataSelector = b.shrU(selectors, 16)
  const code = pointer(b, S.fpuIp, codeSelector), data = pointer(b, S.fpuDp, dataSelector)
  const opcode = b.slot(S.fpuOpcode, 'i32')
  put(0, filled(b.slot(S.fpuControl, 'i32')))
  put(1, filled(b.slot(S.fpuStatus, 'i32')))
  put(2, filled(tagWord(b)))
  b.if(
    protectedFormat(b),
    () => {
      put(3, code.offset)
      put(4, wide ? b.or(codeSelector, b.shl(opcode, 16)) : codeSelector)
      put(5, data.offset)
      put(6, filled(dataSelector))
    },
    () => {
      const high = (value: Value) => b.and(b.shrU(value, 4), wide ? 0x0fff_f000 : 0xf000)
      put(3, b.and(code.linear, 0xffff))
      put(4, b.or(high(code.linear), opcode))
      put(5, b.and(data.linear, 0xffff))
      put(6, high(data.linear))
    },
  )
}

function loadEnvironment(b: SemanticsBuilder, linear: Value): void {
  const bytes = fieldBytes(b)
  const get = (n: number) => b.wrap(b.load(b.add(linear, n * bytes), bytes))
  const control = get(0), status = get(1), tag = get(2), third = get(3), fourth = get(4), fifth = get(5), sixth = get(6)
  b.setSlot(S.fpuStatus, b.and(status, 0xffff))
  b.setSlot(S.fpuTag, notEmpty(b, tag))
  b.call('i32', 'x87_load_control', b.cpu, control)
  b.if(
    protectedFormat(b),
    () => {
      b.setSlot(S.fpuIp, b.extendU(third))
      b.setSlot(S.fpuDp, b.extendU(fifth))
      b.setSlot(S.fpuSelectors, b.or(b.and(fourth, 0xffff), b.shl(sixth, 16)))
      if (bytes === 4) b.setSlot(S.fpuOpcode, b.and(b.shrU(fourth, 16), 0x7ff))
    },
    () => {
      const join = (low: Value, high: Value) => b.extendU(b.or(b.and(low, 0xffff), b.and(b.shl(high, 4), RESERVED)))
      b.setSlot(S.fpuIp, join(third, fourth))
      b.setSlot(S.fpuDp, join(fifth, sixth))
      b.setSlot(S.fpuSelectors, b.i32(0))
      b.setSlot(S.fpuOpcode, b.and(fourth, 0x7ff))
    },
  )
}

/** Two bits a register, 3 = empty, to one bit, 1 = not empty. */
function notEmpty(b: SemanticsBuilder, tag: Value): Value {
  let bits = b.and(b.not(b.and(tag, b.shrU(tag, 1))), 0x5555)
  for (const [shift, mask] of [[1, 0x3333], [2, 0x0f0f], [4, 0x00ff]] as const) bits = b.and(b.or(bits, b.shrU(bits, shift)), mask)
  return bits
}

/**
 * Registers are 10 bytes each and lie as they come. Alignment is the image's, to its fields of two or four bytes: `area` has checked it, and words, of which
 * the registers are made, are aligned where that is. (SDM Vol. 3A, "Alignment Check Exception (#AC)")
 *
 * Runs `body` for ST(0) to ST(7) with the address of the register in the vCPU block (less S.fpr) and its place in memory. */
function eachRegister(b: SemanticsBuilder, linear: Value, body: (register: Value, at: Value) => void): void {
  const n = b.variable(b.i32(0), 'register')
  b.loop(() => {
    const i = b.get(n)
    const register = b.add(b.cpu, b.shl(b.and(b.add(top(b), i), 7), 4))
    body(register, b.add(linear, b.extendU(b.add(b.mul(i, REGISTER_BYTES), environmentBytes(b)))))
    b.assign(n, b.add(i, 1))
    b.if(b.eq(b.get(n), 8), () => b.break())
  })
}

/** Storing masks all exceptions. */
const fnstenv: Semantics = (b) => {
  const linear = area(b, environmentBytes(b), 'write')
  storeEnvironment(b, linear)
  b.call('i32', 'x87_load_control', b.cpu, b.or(b.slot(S.fpuControl, 'i32'), 0x3f))
}

const fldenv: Semantics = (b) => {
  waitForX87(b)
  loadEnvironment(b, area(b, environmentBytes(b), 'read'))
}

const fnsave: Semantics = (b) => {
  const linear = area(b, environmentBytes(b) + 8 * REGISTER_BYTES, 'write')
  storeEnvironment(b, linear)
  eachRegister(b, linear, (register, at) => {
    for (let n = 0; n < REGISTER_BYTES; n += 2) b.store(b.add(at, n), 2, b.rawLoad('i64', register, S.fpr + n, 16))
  })
  fninit(b)
}

const frstor: Semantics = (b) => {
  waitForX87(b)
  const linear = area(b, environmentBytes(b) + 8 * REGISTER_BYTES, 'read')
  loadEnvironment(b, linear)
  eachRegister(b, linear, (register, at) => {
    for (let n = 0; n < REGISTER_BYTES; n += 2) b.rawStore(register, S.fpr + n, 16, b.load(b.add(at, n), 2))
  })
}

export const x87Environment: Record<string, Semantics> = { fnstenv, fldenv, fnsave, frstor }
