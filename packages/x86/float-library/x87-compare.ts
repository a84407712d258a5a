/** x87 comparisons and classification, whole instructions. They return 1 when an exception is pending. */
import { right32, right64, rightInteger } from './format'
import { EQUAL, LESS, relation, UNORDERED } from './lane'
import { FPR, FPU_TAG, VALUE } from './layout'
import { INFINITY, leftClass, leftDenormal, NORMAL, stopped, UNSUPPORTED, ZERO } from './number'
import {
  C0,
  C1,
  C2,
  C3,
  enter,
  isEmpty,
  leave,
  leaveKeepingC1,
  leaveWith,
  leftST,
  pop,
  rightST,
  signExponentOf,
  stackUnderflow,
} from './stack'

const CODES: i32 = C0 | C2 | C3

function codesOf(order: i32): i32 {
  return order == UNORDERED ? CODES : order == EQUAL ? C3 : order == LESS ? C0 : 0
}

function popMany(cpu: u32, pops: u32): void {
  for (let index: u32 = 0; index < pops; index++) pop(cpu)
}

function compareLoaded(cpu: u32, signalling: bool, pops: u32): i32 {
  const codes = codesOf(relation(signalling))
  if (!stopped()) popMany(cpu, pops)
  return leaveWith(cpu, CODES, codes)
}

function compareEmpty(cpu: u32, pops: u32): i32 {
  if (stackUnderflow()) popMany(cpu, pops)
  return leaveWith(cpu, CODES, CODES)
}

/** FCOM, FCOMP, FCOMPP (signalling), FUCOM, FUCOMP, FUCOMPP; `pops` is 0 to 2. */
export function x87_compare(cpu: u32, index: u32, signalling: bool, pops: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, index)) return compareEmpty(cpu, pops)
  leftST(cpu, 0)
  rightST(cpu, index)
  return compareLoaded(cpu, signalling, pops)
}

export function x87_compare_f32(cpu: u32, bits: u32, pops: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return compareEmpty(cpu, pops)
  leftST(cpu, 0)
  right32(bits)
  return compareLoaded(cpu, true, pops)
}

export function x87_compare_f64(cpu: u32, bits: u64, pops: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return compareEmpty(cpu, pops)
  leftST(cpu, 0)
  right64(bits)
  return compareLoaded(cpu, true, pops)
}

/** FICOM, FICOMP. */
export function x87_compare_integer(cpu: u32, value: i64, pops: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return compareEmpty(cpu, pops)
  leftST(cpu, 0)
  rightInteger(value)
  return compareLoaded(cpu, true, pops)
}

/** FTST. */
export function x87_test(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return compareEmpty(cpu, 0)
  leftST(cpu, 0)
  rightInteger(0)
  return compareLoaded(cpu, true, 0)
}

/** FCOMI, FCOMIP (signalling), FUCOMI, FUCOMIP: ZF, PF and CF in their places in EFLAGS go to the block's `value` slot (i32). */
export function x87_order(cpu: u32, index: u32, signalling: bool, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, index)) {
    store<u32>(cpu, 0x45, VALUE)
    if (stackUnderflow() && pops) pop(cpu)
    return leave(cpu)
  }
  leftST(cpu, 0)
  rightST(cpu, index)
  const order = relation(signalling)
  store<u32>(cpu, order == UNORDERED ? 0x45 : order == EQUAL ? 0x40 : order == LESS ? 1 : 0, VALUE)
  if (!stopped() && pops) pop(cpu)
  return leaveKeepingC1(cpu)
}

/** FXAM. C1 is the sign, of an empty register too. */
export function x87_examine(cpu: u32): void {
  enter(cpu)
  const empty = isEmpty(cpu, 0)
  leftST(cpu, 0)
  let codes: i32
  if (empty) codes = C3 | C0
  else if (leftClass == UNSUPPORTED) codes = 0
  else if (leftClass == ZERO) codes = C3
  else if (leftClass == INFINITY) codes = C2 | C0
  else if (leftClass == NORMAL) codes = leftDenormal ? C3 | C2 : C2
  else codes = C0
  if (signExponentOf(cpu, 0) & 0x8000) codes |= C1
  leaveWith(cpu, CODES, codes)
}

/** The full tag word by physical register: 0 valid, 1 zero, 2 special, 3 empty. (SDM Vol. 1, "x87 FPU Tag Word") */
export function x87_tag_word(cpu: u32): u32 {
  const tags = load<u32>(cpu, FPU_TAG)
  let word: u32 = 0
  for (let register: u32 = 0; register < 8; register++) {
    const address = cpu + (register << 4)
    const significand = load<u64>(address, FPR)
    const exponent = u32(load<u16>(address, FPR + 8)) & 0x7fff
    let tag: u32
    if (!((tags >> register) & 1)) tag = 3
    else if (exponent == 0 && significand == 0) tag = 1
    else if (exponent == 0 || exponent == 0x7fff || i64(significand) >= 0) tag = 2
    else tag = 0
    word |= tag << (register << 1)
  }
  return word
}
