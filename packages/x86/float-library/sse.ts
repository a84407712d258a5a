/** SSE as the processor calls it: one operation on values, or a whole instruction on memory. Exact in every state of MXCSR. */
import { ADD, SUBTRACT } from './arithmetic'
import { left32, left64, right32, right64 } from './format'
import {
  arithmetic32,
  arithmetic64,
  compare32,
  compare64,
  EQUAL,
  integerFrom32,
  integerFrom64,
  integerTo32,
  integerTo64,
  integral32,
  integral64,
  LESS,
  narrow,
  relation,
  UNORDERED,
  widen,
} from './lane'
import { FLOAT_EXCEPTION, MXCSR } from './layout'
import { beginLane, masks, PRECOMPUTATION, raised, setEnvironment } from './number'

function enter(cpu: u32): void {
  const mxcsr = load<u32>(cpu, MXCSR)
  setEnvironment(i32(mxcsr >> 13) & 3, i32(mxcsr >> 7) & 63, 0, (mxcsr & 0x8000) != 0, (mxcsr & 0x40) != 0)
}

/** Makes the exceptions sticky and reports the unmasked ones. */
function leave(cpu: u32, flags: i32): i32 {
  const unmasked = flags & ~masks
  store<u32>(cpu, load<u32>(cpu, MXCSR) | u32(flags), MXCSR)
  if (unmasked) store<i32>(cpu, load<i32>(cpu, FLOAT_EXCEPTION) | unmasked, FLOAT_EXCEPTION)
  return unmasked
}

// One operation on values. An unmasked exception is left in the block's `floatException`; the value is void then.

function scalar32(cpu: u32, operation: i32, left: u32, right: u32): u32 {
  enter(cpu)
  const result = arithmetic32(operation, left, right)
  leave(cpu, raised)
  return result
}

function scalar64(cpu: u32, operation: i32, left: u64, right: u64): u64 {
  enter(cpu)
  const result = arithmetic64(operation, left, right)
  leave(cpu, raised)
  return result
}

/** `operation`: 0 add, 1 multiply, 2 minimum, 3 maximum, 4 subtract, 6 divide, 8 square root (of left). */
export function f32_arith(cpu: u32, operation: i32, left: u32, right: u32): u32 {
  return scalar32(cpu, operation, left, right)
}

export function f64_arith(cpu: u32, operation: i32, left: u64, right: u64): u64 {
  return scalar64(cpu, operation, left, right)
}

/** An all-ones or zero mask. */
export function f32_compare(cpu: u32, predicate: u32, left: u32, right: u32): u32 {
  enter(cpu)
  const result = compare32(predicate, left, right)
  leave(cpu, raised)
  return result
}

export function f64_compare(cpu: u32, predicate: u32, left: u64, right: u64): u64 {
  enter(cpu)
  const result = compare64(predicate, left, right)
  leave(cpu, raised)
  return result
}

/** ZF, PF and CF in their places in EFLAGS. (SDM Vol. 2A, "COMISS") */
function orderFlags(order: i32): u32 {
  return order == UNORDERED ? 0x45 : order == EQUAL ? 0x40 : order == LESS ? 1 : 0
}

/** COMISS (signalling) and UCOMISS. */
export function f32_order(cpu: u32, left: u32, right: u32, signalling: bool): u32 {
  enter(cpu)
  left32(left)
  right32(right)
  const flags = orderFlags(relation(signalling))
  leave(cpu, raised)
  return flags
}

export function f64_order(cpu: u32, left: u64, right: u64, signalling: bool): u32 {
  enter(cpu)
  left64(left)
  right64(right)
  const flags = orderFlags(relation(signalling))
  leave(cpu, raised)
  return flags
}

/** ROUNDSS by its immediate. */
export function f32_round(cpu: u32, control: u32, value: u32): u32 {
  enter(cpu)
  const result = integral32(control, value)
  leave(cpu, raised)
  return result
}

export function f64_round(cpu: u32, control: u32, value: u64): u64 {
  enter(cpu)
  const result = integral64(control, value)
  leave(cpu, raised)
  return result
}

/** To a signed integer of `size` bits (32 or 64), sign-extended. */
export function f32_to_integer(cpu: u32, value: u32, size: u32, truncate: bool): i64 {
  enter(cpu)
  const result = integerFrom32(value, size, truncate)
  leave(cpu, raised)
  return result
}

export function f64_to_integer(cpu: u32, value: u64, size: u32, truncate: bool): i64 {
  enter(cpu)
  const result = integerFrom64(value, size, truncate)
  leave(cpu, raised)
  return result
}

/** From a signed integer; one of 32 bits comes sign-extended. */
export function f32_from_integer(cpu: u32, value: i64): u32 {
  enter(cpu)
  const result = integerTo32(value)
  leave(cpu, raised)
  return result
}

export function f64_from_integer(cpu: u32, value: i64): u64 {
  enter(cpu)
  const result = integerTo64(value)
  leave(cpu, raised)
  return result
}

export function f64_from_f32(cpu: u32, value: u32): u64 {
  enter(cpu)
  const result = widen(value)
  leave(cpu, raised)
  return result
}

export function f32_from_f64(cpu: u32, value: u64): u32 {
  enter(cpu)
  const result = narrow(value)
  leave(cpu, raised)
  return result
}

// Whole instructions on memory: `destination`, `left` and `right` are addresses of up to 16 bytes and may be the same. The
// destination is written only if there was no unmasked exception, which is what they return.

const ADD_SUBTRACT: i32 = 9
const HORIZONTAL_ADD: i32 = 10
const HORIZONTAL_SUBTRACT: i32 = 11

let out0: u64 = 0
let out1: u64 = 0
let flags: i32 = 0
/** Exceptions of the steps before, in instructions of several steps. */
let settled: i32 = 0

function begin(cpu: u32): void {
  enter(cpu)
  out0 = 0
  out1 = 0
  flags = 0
  settled = 0
}

function put64(lane: u32, value: u64): void {
  flags |= raised
  if (lane) out1 = value
  else out0 = value
}

function put32(lane: u32, value: u32): void {
  flags |= raised
  const shifted = u64(value) << ((lane & 1) << 5)
  if (lane >> 1) out1 |= shifted
  else out0 |= shifted
}

function finish(cpu: u32, destination: u32, bytes: u32): i32 {
  // One element stopped before its computation stops all others before theirs. (SDM Vol. 1, "SIMD Floating-Point Exception Conditions")
  if (flags & ~masks & PRECOMPUTATION) flags &= PRECOMPUTATION
  const unmasked = leave(cpu, flags | settled)
  if (unmasked) return unmasked
  if (bytes == 4) store<u32>(destination, u32(out0))
  else {
    store<u64>(destination, out0)
    if (bytes == 16) store<u64>(destination, out1, 8)
  }
  return 0
}

function isHorizontal(operation: i32): bool {
  return operation == HORIZONTAL_ADD || operation == HORIZONTAL_SUBTRACT
}

export function f32x_arith(cpu: u32, operation: i32, destination: u32, left: u32, right: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) {
    const at = lane << 2
    if (isHorizontal(operation)) {
      const source = (lane & 2 ? right : left) + ((lane & 1) << 3)
      put32(lane, arithmetic32(operation == HORIZONTAL_ADD ? ADD : SUBTRACT, load<u32>(source), load<u32>(source, 4)))
    } else {
      const each = operation == ADD_SUBTRACT ? (lane & 1 ? ADD : SUBTRACT) : operation
      put32(lane, arithmetic32(each, load<u32>(left + at), load<u32>(right + at)))
    }
  }
  return finish(cpu, destination, lanes << 2)
}

export function f64x_arith(cpu: u32, operation: i32, destination: u32, left: u32, right: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) {
    const at = lane << 3
    if (isHorizontal(operation)) {
      const source = lane ? right : left
      put64(lane, arithmetic64(operation == HORIZONTAL_ADD ? ADD : SUBTRACT, load<u64>(source), load<u64>(source, 8)))
    } else {
      const each = operation == ADD_SUBTRACT ? (lane & 1 ? ADD : SUBTRACT) : operation
      put64(lane, arithmetic64(each, load<u64>(left + at), load<u64>(right + at)))
    }
  }
  return finish(cpu, destination, lanes << 3)
}

export function f32x_compare(cpu: u32, predicate: u32, destination: u32, left: u32, right: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) {
    const at = lane << 2
    put32(lane, compare32(predicate, load<u32>(left + at), load<u32>(right + at)))
  }
  return finish(cpu, destination, lanes << 2)
}

export function f64x_compare(cpu: u32, predicate: u32, destination: u32, left: u32, right: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) {
    const at = lane << 3
    put64(lane, compare64(predicate, load<u64>(left + at), load<u64>(right + at)))
  }
  return finish(cpu, destination, lanes << 3)
}

export function f32x_round(cpu: u32, control: u32, destination: u32, source: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) put32(lane, integral32(control, load<u32>(source + (lane << 2))))
  return finish(cpu, destination, lanes << 2)
}

export function f64x_round(cpu: u32, control: u32, destination: u32, source: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) put64(lane, integral64(control, load<u64>(source + (lane << 3))))
  return finish(cpu, destination, lanes << 3)
}

/**
 * Packed conversions; the destination is written for as many lanes as there are, no further.
 * 0 f32 to i32, 1 the same truncating, 2 f64 to i32, 3 the same truncating, 4 i32 to f32, 5 i32 to f64, 6 f32 to f64, 7 f64 to f32.
 */
export function x_convert(cpu: u32, conversion: u32, destination: u32, source: u32, lanes: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < lanes; lane++) {
    const at32 = source + (lane << 2)
    const at64 = source + (lane << 3)
    if (conversion < 2) put32(lane, u32(integerFrom32(load<u32>(at32), 32, conversion == 1)))
    else if (conversion < 4) put32(lane, u32(integerFrom64(load<u64>(at64), 32, conversion == 3)))
    else if (conversion == 4) put32(lane, integerTo32(load<i32>(at32)))
    else if (conversion == 5) put64(lane, integerTo64(load<i32>(at32)))
    else if (conversion == 6) put64(lane, widen(load<u32>(at32)))
    else put32(lane, narrow(load<u64>(at64)))
  }
  return finish(cpu, destination, conversion == 5 || conversion == 6 ? lanes << 3 : lanes << 2)
}

/** Ends a step; whether an unmasked exception came up in it. */
function broken(): bool {
  if (flags & ~masks) return true
  settled |= flags
  flags = 0
  return false
}

/** DPPS: an unmasked exception in one step keeps the next from being taken. (SDM Vol. 2A, "DPPS") */
export function f32x_dot(cpu: u32, control: u32, destination: u32, left: u32, right: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < 4; lane++) {
    beginLane()
    const at = lane << 2
    put32(lane, (control >> (lane + 4)) & 1 ? arithmetic32(1, load<u32>(left + at), load<u32>(right + at)) : 0)
  }
  if (broken()) return finish(cpu, destination, 16)
  const low = arithmetic32(ADD, u32(out0), u32(out0 >> 32))
  flags |= raised
  const high = arithmetic32(ADD, u32(out1), u32(out1 >> 32))
  flags |= raised
  if (broken()) return finish(cpu, destination, 16)
  const sum = arithmetic32(ADD, low, high)
  out0 = 0
  out1 = 0
  for (let lane: u32 = 0; lane < 4; lane++) put32(lane, (control >> lane) & 1 ? sum : 0)
  return finish(cpu, destination, 16)
}

/** DPPD. */
export function f64x_dot(cpu: u32, control: u32, destination: u32, left: u32, right: u32): i32 {
  begin(cpu)
  for (let lane: u32 = 0; lane < 2; lane++) {
    beginLane()
    const at = lane << 3
    put64(lane, (control >> (lane + 4)) & 1 ? arithmetic64(1, load<u64>(left + at), load<u64>(right + at)) : 0)
  }
  if (broken()) return finish(cpu, destination, 16)
  const sum = arithmetic64(ADD, out0, out1)
  put64(0, control & 1 ? sum : 0)
  put64(1, control & 2 ? sum : 0)
  return finish(cpu, destination, 16)
}
