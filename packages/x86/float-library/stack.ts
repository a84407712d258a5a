/** The x87 register stack and status word in the vCPU block, and how an instruction enters and leaves. */
import { EXTENDED_MAXIMUM, EXTENDED_MINIMUM, left80, resultSignExponent, right80 } from './format'
import { FPR, FPU_CONTROL, FPU_STATUS, FPU_TAG } from './layout'
import {
  IE,
  INDEFINITE,
  masks,
  NORMAL,
  raise,
  raised,
  resultClass,
  resultSignificand,
  roundedUp,
  setEnvironment,
  setRoundedUp,
  stopped,
} from './number'
import { roundResult } from './round'

export const SF: i32 = 0x40
export const ES: i32 = 0x80
export const C0: i32 = 0x100
export const C1: i32 = 0x200
export const C2: i32 = 0x400
export const C3: i32 = 0x4000
const BUSY: i32 = 0x8000
/** What the exponent of an unmasked overflow or underflow is adjusted by. (SDM Vol. 1, "Numeric Overflow Exception") */
const WRAP: i32 = 24576
const INDEFINITE_SIGN_EXPONENT: u32 = 0xffff

let top: u32 = 0
/** Significant bits by the precision control field. */
export let precision: u32 = 64

/** Reads control and status words: the first act of every instruction. */
export function enter(cpu: u32): void {
  const control = load<i32>(cpu, FPU_CONTROL)
  top = (load<u32>(cpu, FPU_STATUS) >> 11) & 7
  const field = (control >> 8) & 3
  precision = field == 3 ? 64 : field == 2 ? 53 : field == 0 ? 24 : 64
  setEnvironment((control >> 10) & 3, control & 63, WRAP, false, false)
}

/** Makes exceptions sticky, sets C1 to the rounding's direction. The last act; returns 1 if an exception is pending. */
export function leave(cpu: u32): i32 {
  return leaveWith(cpu, 0, 0)
}

/** Leaves C1 alone unless there was a stack fault. */
export function leaveKeepingC1(cpu: u32): i32 {
  setRoundedUp(!(raised & SF) && (load<i32>(cpu, FPU_STATUS) & C1) != 0)
  return leave(cpu)
}

/** The same as `leave`, and sets those of the condition codes in `which` to `codes`. */
export function leaveWith(cpu: u32, which: i32, codes: i32): i32 {
  let status = load<i32>(cpu, FPU_STATUS) & ~(C1 | which)
  status |= codes | raised
  if (roundedUp) status |= C1
  if (raised & ~masks & 63) status |= ES | BUSY
  store<i32>(cpu, status, FPU_STATUS)
  return (status >> 7) & 1
}

/** Where ST(index) lies. */
export function at(cpu: u32, index: u32): u32 {
  return cpu + (((top + index) & 7) << 4)
}

export function isEmpty(cpu: u32, index: u32): bool {
  return !((load<u32>(cpu, FPU_TAG) >> ((top + index) & 7)) & 1)
}

function occupy(cpu: u32, index: u32): void {
  store<u32>(cpu, load<u32>(cpu, FPU_TAG) | (1 << ((top + index) & 7)), FPU_TAG)
}

export function free(cpu: u32, index: u32): void {
  store<u32>(cpu, load<u32>(cpu, FPU_TAG) & ~(1 << ((top + index) & 7)), FPU_TAG)
}

/** Adds to TOP; marks nothing. */
export function rotate(cpu: u32, by: i32): void {
  top = (top + by) & 7
  store<u32>(cpu, (load<u32>(cpu, FPU_STATUS) & ~0x3800) | (top << 11), FPU_STATUS)
}

/** Pops where `enter` has not been called. */
export function popTop(cpu: u32): void {
  const status = load<u32>(cpu, FPU_STATUS)
  store<u32>(cpu, load<u32>(cpu, FPU_TAG) & ~(1 << ((status >> 11) & 7)), FPU_TAG)
  store<u32>(cpu, (status & ~0x3800) | ((status + 0x800) & 0x3800), FPU_STATUS)
}

export function pop(cpu: u32): void {
  free(cpu, 0)
  rotate(cpu, 1)
}

export function significandOf(cpu: u32, index: u32): u64 {
  return load<u64>(at(cpu, index), FPR)
}

export function signExponentOf(cpu: u32, index: u32): u32 {
  return load<u16>(at(cpu, index), FPR + 8)
}

export function leftST(cpu: u32, index: u32): void {
  const address = at(cpu, index)
  left80(load<u16>(address, FPR + 8), load<u64>(address, FPR))
}

export function rightST(cpu: u32, index: u32): void {
  const address = at(cpu, index)
  right80(load<u16>(address, FPR + 8), load<u64>(address, FPR))
}

export function writeST(cpu: u32, index: u32, signExponent: u32, significand: u64): void {
  const address = at(cpu, index)
  store<u64>(address, significand, FPR)
  store<u16>(address, signExponent, FPR + 8)
  occupy(cpu, index)
}

export function writeResult(cpu: u32, index: u32): void {
  writeST(cpu, index, resultSignExponent(), resultSignificand)
}

export function writeIndefinite(cpu: u32, index: u32): void {
  writeST(cpu, index, INDEFINITE_SIGN_EXPONENT, INDEFINITE)
}

/** Raises stack underflow; whether the instruction goes on with indefinites. (SDM Vol. 1, "Stack Overflow or Underflow Exception") */
export function stackUnderflow(): bool {
  raise(IE | SF)
  setRoundedUp(false)
  return (masks & IE) != 0
}

/** Whether pushing would overflow; if so it is raised, and the masked response given. C1 tells it from underflow. */
export function stackOverflows(cpu: u32): bool {
  if (isEmpty(cpu, 7)) return false
  raise(IE | SF)
  setRoundedUp(true)
  if (masks & IE) {
    rotate(cpu, -1)
    writeIndefinite(cpu, 0)
  }
  return true
}

/** The response to an empty operand of an instruction whose result goes to ST(index). */
export function underflowInto(cpu: u32, index: u32, pops: bool): i32 {
  if (stackUnderflow()) {
    writeIndefinite(cpu, index)
    if (pops) pop(cpu)
  }
  return leave(cpu)
}

/** Rounds to the full 64 bits whatever the precision control says: it governs FADD, FSUB, FMUL, FDIV and FSQRT only. */
export function roundExtended(): void {
  if (resultClass == NORMAL && !stopped()) roundResult(64, EXTENDED_MINIMUM, EXTENDED_MAXIMUM)
}

/** Stores the result to ST(index) and pops, unless an exception forbids it. */
export function deliver(cpu: u32, index: u32, pops: bool): i32 {
  if (!stopped()) {
    writeResult(cpu, index)
    if (pops) pop(cpu)
  }
  return leave(cpu)
}
