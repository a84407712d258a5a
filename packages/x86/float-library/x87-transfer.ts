/** x87 loads, constants, register moves and control, whole instructions. They return 1 when an exception is pending. */
import { denormalStopsUnary, quietLeft } from './arithmetic'
import { left32, left64, leftInteger } from './format'
import { FPU_CONTROL, FPU_STATUS, FPU_TAG } from './layout'
import { copyLeftToResult, IE, leftClass, masks, NEAREST, QNAN, raised, rounding, UP } from './number'
import {
  enter,
  free,
  isEmpty,
  leave,
  leaveKeepingC1,
  pop,
  rotate,
  signExponentOf,
  significandOf,
  stackOverflows,
  stackUnderflow,
  underflowInto,
  writeIndefinite,
  writeResult,
  writeST,
} from './stack'

/** Pushes the left operand, which comes from a narrower format. */
function pushLeft(cpu: u32): i32 {
  if (stackOverflows(cpu)) return leave(cpu)
  if (leftClass >= QNAN) quietLeft()
  else {
    // A denormal is loaded even if that exception is unmasked: the host's processor does so.
    denormalStopsUnary()
    copyLeftToResult()
  }
  if (!(raised & ~masks & IE)) {
    rotate(cpu, -1)
    writeResult(cpu, 0)
  }
  return leave(cpu)
}

/** FLD m32. */
export function x87_load_f32(cpu: u32, bits: u32): i32 {
  enter(cpu)
  left32(bits)
  return pushLeft(cpu)
}

/** FLD m64. */
export function x87_load_f64(cpu: u32, bits: u64): i32 {
  enter(cpu)
  left64(bits)
  return pushLeft(cpu)
}

/** FILD, of any size, sign-extended. */
export function x87_load_integer(cpu: u32, value: i64): i32 {
  enter(cpu)
  leftInteger(value)
  return pushLeft(cpu)
}

function pushBits(cpu: u32, signExponent: u32, significand: u64): i32 {
  if (!stackOverflows(cpu)) {
    rotate(cpu, -1)
    writeST(cpu, 0, signExponent, significand)
  }
  return leave(cpu)
}

/** FLD m80. */
export function x87_load_f80(cpu: u32, significand: u64, signExponent: u32): i32 {
  enter(cpu)
  return pushBits(cpu, signExponent, significand)
}

/** FLD ST(i). */
export function x87_load_st(cpu: u32, index: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, index)) {
    if (stackUnderflow()) {
      rotate(cpu, -1)
      writeIndefinite(cpu, 0)
    }
    return leave(cpu)
  }
  return pushBits(cpu, signExponentOf(cpu, index), significandOf(cpu, index))
}

/** FBLD: 18 digits, two a byte, the sign in bit 79. */
export function x87_load_bcd(cpu: u32, low: u64, high: u32): i32 {
  enter(cpu)
  let value: i64 = 0
  for (let digit = 1; digit >= 0; digit--) value = value * 10 + i64((high >> (digit << 2)) & 15)
  for (let digit = 15; digit >= 0; digit--) value = value * 10 + i64((low >> (digit << 2)) & 15)
  leftInteger(value)
  copyLeftToResult()
  if (stackOverflows(cpu)) return leave(cpu)
  rotate(cpu, -1)
  writeResult(cpu, 0)
  if (high & 0x8000) writeST(cpu, 0, signExponentOf(cpu, 0) | 0x8000, significandOf(cpu, 0))
  return leave(cpu)
}

/** A constant held to 66 bits: its significand truncated, and whether that is below its half. */
function constant(significand: u64, roundsToNext: bool): u64 {
  return significand + u64(rounding == UP || (rounding == NEAREST && roundsToNext))
}

/** FLD1, FLDL2T, FLDL2E, FLDPI, FLDLG2, FLDLN2, FLDZ by the low three bits of the opcode. */
export function x87_load_constant(cpu: u32, index: u32): i32 {
  enter(cpu)
  switch (index) {
    case 0:
      return pushBits(cpu, 0x3fff, 0x8000000000000000)
    case 1:
      return pushBits(cpu, 0x4000, constant(0xd49a784bcd1b8afe, false))
    case 2:
      return pushBits(cpu, 0x3fff, constant(0xb8aa3b295c17f0bb, true))
    case 3:
      return pushBits(cpu, 0x4000, constant(0xc90fdaa22168c234, true))
    case 4:
      return pushBits(cpu, 0x3ffd, constant(0x9a209a84fbcff798, true))
    case 5:
      return pushBits(cpu, 0x3ffe, constant(0xb17217f7d1cf79ab, true))
    default:
      return pushBits(cpu, 0, 0)
  }
}

/** FST ST(i), FSTP ST(i). */
export function x87_store_st(cpu: u32, index: u32, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, index, pops)
  writeST(cpu, index, signExponentOf(cpu, 0), significandOf(cpu, 0))
  if (pops) pop(cpu)
  return leave(cpu)
}

/** FXCH. */
export function x87_exchange(cpu: u32, index: u32): i32 {
  enter(cpu)
  const empty = isEmpty(cpu, 0)
  const otherEmpty = isEmpty(cpu, index)
  if (empty || otherEmpty) {
    if (!stackUnderflow()) return leave(cpu)
    if (empty) writeIndefinite(cpu, 0)
    if (otherEmpty) writeIndefinite(cpu, index)
  }
  const signExponent = signExponentOf(cpu, 0)
  const significand = significandOf(cpu, 0)
  writeST(cpu, 0, signExponentOf(cpu, index), significandOf(cpu, index))
  writeST(cpu, index, signExponent, significand)
  return leave(cpu)
}

/** FCMOVcc: ST(0) = ST(index) if the condition holds; empty operands are looked at either way. */
export function x87_move(cpu: u32, index: u32, condition: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, index)) return underflowInto(cpu, 0, false)
  if (condition) writeST(cpu, 0, signExponentOf(cpu, index), significandOf(cpu, index))
  return leaveKeepingC1(cpu)
}

/** FFREE ST(i). */
export function x87_free(cpu: u32, index: u32): void {
  enter(cpu)
  free(cpu, index)
  leave(cpu)
}

/** FINCSTP (1), FDECSTP (-1). */
export function x87_rotate(cpu: u32, by: i32): i32 {
  enter(cpu)
  rotate(cpu, by)
  return leave(cpu)
}

/** FNINIT's effect on control, status and tags. */
export function x87_initialize(cpu: u32): void {
  store<u32>(cpu, 0x37f, FPU_CONTROL)
  store<u32>(cpu, 0, FPU_STATUS)
  store<u32>(cpu, 0, FPU_TAG)
}

/** FNCLEX. */
export function x87_clear_exceptions(cpu: u32): void {
  store<u32>(cpu, load<u32>(cpu, FPU_STATUS) & 0x7f00, FPU_STATUS)
}

/** FLDCW: exceptions unmasked by it become pending, those masked cease to be. */
export function x87_load_control(cpu: u32, control: u32): i32 {
  store<u32>(cpu, (control & 0x1f3f) | 0x40, FPU_CONTROL)
  return x87_update_pending(cpu)
}

/** Sets ES and B as status and control words demand, after both were loaded (FLDENV, FRSTOR, FXRSTOR). */
export function x87_update_pending(cpu: u32): i32 {
  const control = load<u32>(cpu, FPU_CONTROL)
  const before = load<u32>(cpu, FPU_STATUS)
  const status = before & 0x7f7f
  const pending = (status & ~control & 63) != 0
  // Above the status word is whether FERR# is asserted: it goes with the exception.
  store<u32>(cpu, pending ? status | 0x8080 | (before & 0x10000) : status, FPU_STATUS)
  return i32(pending)
}
