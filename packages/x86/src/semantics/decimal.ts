/** Decimal adjustment: DAA, DAS, AAA, AAS, AAM, AAD. Not in 64-bit mode. (SDM Vol. 2A, the instructions' own pages) */
import { RAX } from '../state/layout.ts'
import { type Semantics, type SemanticsBuilder, type Value } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'

/** The low digit is not a decimal digit, or a carry out of it occurred. */
const adjusts = (b: SemanticsBuilder, al: Value): Value => b.or(b.gtU(b.and(al, 15), 9), b.flag('af'))

/** DAA (`sign` 1) and DAS (-1): the sum or difference of two packed pairs of digits. */
const packed =
  (sign: 1 | -1): Semantics =>
  (b) => {
    const al = b.readRegister(RAX, 8)
    const low = adjusts(b, al)
    const high = b.or(b.gtU(al, 0x99), b.flag('cf'))
    const by = b.add(b.select(low, b.const(6), 0), b.select(high, b.const(0x60), 0))
    const result = b.truncate(sign > 0 ? b.add(al, by) : b.sub(al, by), 8)
    // DAS keeps the borrow of its first step.
    const carry = sign > 0 ? high : b.or(high, b.and(low, b.ltU(al, 6)))
    b.writeRegister(RAX, 8, result)
    b.setResult(result, 8)
    b.setFlag('af', low)
    b.setFlag('cf', carry)
    b.setFlag('of', 0)
  }

/** AAA (`sign` 1) and AAS (-1): one digit in AL, the carry goes to AH. */
const unpacked =
  (sign: 1 | -1): Semantics =>
  (b) => {
    const ax = b.readRegister(RAX, 16)
    const adjust = adjusts(b, ax)
    const by = b.select(adjust, b.const(0x106), 0)
    b.writeRegister(RAX, 16, b.and(sign > 0 ? b.add(ax, by) : b.sub(ax, by), 0xff0f))
    b.setFlag('af', adjust)
    b.setFlag('cf', adjust)
  }

const aam: Semantics = (b, base) => {
  const divisor = base!.read()
  b.raiseIf(b.eqz(divisor), VECTOR.DE)
  const al = b.readRegister(RAX, 8)
  const digit = b.remU(al, divisor)
  b.writeRegister(RAX, 16, b.or(b.shl(b.divU(al, divisor), 8), digit))
  b.setResult(digit, 8)
}

const aad: Semantics = (b, base) => {
  const ax = b.readRegister(RAX, 16)
  const result = b.and(b.add(ax, b.mul(b.shrU(ax, 8), base!.read())), 0xff)
  b.writeRegister(RAX, 16, result)
  b.setResult(result, 8)
}

export const decimal: Record<string, Semantics> = { daa: packed(1), das: packed(-1), aaa: unpacked(1), aas: unpacked(-1), aam, aad }
