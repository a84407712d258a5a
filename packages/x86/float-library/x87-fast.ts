/**
 * The usual case of FADD, FSUB, FMUL and FDIV: normal operands, a normal result, rounding to nearest, precision exception masked.
 * Everything else is declined, with nothing changed, and takes the exact path.
 */
import { DIVIDE, DIVIDE_REVERSED, MULTIPLY, SUBTRACT, SUBTRACT_REVERSED } from './arithmetic'
import { FPR, FPU_CONTROL, FPU_STATUS } from './layout'
import { INTEGER_BIT, PE } from './number'
import { C1 } from './stack'
import { divideWide, multiplyWide, remainder, upper } from './wide'

/** Rounding control and precision mask. */
const CONTROL_FIELDS: i32 = 0xc20
const CONTROL_USUAL: i32 = 0x20

/**
 * left op right, stored at `target` (a register's address less FPR), C1 and PE in the status word. Returns whether it was done;
 * the operands' sign and exponent words have nothing above bit 15.
 */
export function fastArithmetic(
  cpu: u32,
  operation: i32,
  target: u32,
  leftTop: u32,
  leftSignificand: u64,
  rightTop: u32,
  rightSignificand: u64,
): bool {
  const control = load<i32>(cpu, FPU_CONTROL)
  if ((control & CONTROL_FIELDS) != CONTROL_USUAL) return false
  let top1 = leftTop
  let top2 = rightTop
  let significand1 = leftSignificand
  let significand2 = rightSignificand
  let exponent1 = i32(top1 & 0x7fff)
  let exponent2 = i32(top2 & 0x7fff)
  if (i64(significand1 & significand2) >= 0) return false
  if (u32(exponent1 - 1) >= 0x7ffe || u32(exponent2 - 1) >= 0x7ffe) return false
  let sign: u32
  let exponent: i32
  let significand: u64
  let rest: u64
  if (operation == MULTIPLY) {
    sign = (top1 ^ top2) & 0x8000
    rest = multiplyWide(significand1, significand2)
    significand = upper
    exponent = exponent1 + exponent2 - 16382
    if (i64(significand) >= 0) {
      significand = (significand << 1) | (rest >> 63)
      rest <<= 1
      exponent--
    }
  } else if (operation >= DIVIDE) {
    sign = (top1 ^ top2) & 0x8000
    exponent = exponent1 - exponent2
    if (operation == DIVIDE_REVERSED) {
      exponent = -exponent
      const swapped = significand1
      significand1 = significand2
      significand2 = swapped
    }
    const small = significand1 < significand2
    significand = divideWide(small ? significand1 : significand1 >> 1, small ? 0 : significand1 << 63, significand2)
    exponent += small ? 16382 : 16383
    // Half a divisor left over cannot be: the quotient would have 65 bits exactly, and the product more than the dividend has.
    const over = significand2 - remainder
    rest = remainder == 0 ? 0 : remainder > over ? 0xc000000000000000 : remainder == over ? 0x8000000000000000 : 1
  } else {
    if (operation == SUBTRACT) top2 ^= 0x8000
    else if (operation == SUBTRACT_REVERSED) top1 ^= 0x8000
    let distance = exponent1 - exponent2
    if (distance < 0 || (distance == 0 && significand2 > significand1)) {
      const swappedTop = top1
      top1 = top2
      top2 = swappedTop
      const swapped = significand1
      significand1 = significand2
      significand2 = swapped
      exponent1 = exponent2
      distance = -distance
    }
    if (distance > 63) return false
    const shifted = significand2 >> distance
    rest = distance ? significand2 << (64 - distance) : 0
    sign = top1 & 0x8000
    exponent = exponent1
    if ((top1 ^ top2) & 0x8000) {
      significand = significand1 - shifted - u64(rest != 0)
      rest = u64(0) - rest
      if (i64(significand) >= 0) {
        if (significand == 0) return false
        const zeros = clz(significand)
        significand = (significand << zeros) | (rest >> (64 - zeros))
        rest <<= zeros
        exponent -= i32(zeros)
      }
    } else {
      significand = significand1 + shifted
      if (significand < shifted) {
        rest = (rest >> 1) | (rest & 1) | (significand << 63)
        significand = (significand >> 1) | INTEGER_BIT
        exponent++
      }
    }
  }
  const field = (control >> 8) & 3
  let unit: u64 = 1
  let tail = rest
  if (field != 3) {
    const bits: u64 = field == 0 ? 24 : 53
    if (field == 1) return false
    unit = u64(1) << (64 - bits)
    tail = (significand << bits) | u64(rest != 0)
    significand &= ~(unit - 1)
  }
  const up = u64(tail > INTEGER_BIT || (tail == INTEGER_BIT && (significand & unit) != 0))
  significand += up * unit
  if (i64(significand) >= 0) {
    significand = INTEGER_BIT
    exponent++
  }
  if (u32(exponent - 1) >= 0x7ffe) return false
  store<u64>(target, significand, FPR)
  store<u16>(target, sign | u32(exponent), FPR + 8)
  store<i32>(cpu, (load<i32>(cpu, FPU_STATUS) & ~C1) | (tail != 0 ? PE : 0) | (i32(up) << 9), FPU_STATUS)
  return true
}
