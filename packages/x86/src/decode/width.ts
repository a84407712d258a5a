/** The width of an operand in a decoded instruction. */
import type { OperandSize, OperandSpec } from '../rows/row.ts'
import type { Instruction } from './instruction.ts'

const FIXED: Readonly<Partial<Record<OperandSize, number>>> = {
  b: 8,
  w: 16,
  d: 32,
  q: 64,
  x: 128,
  f32: 32,
  f64: 64,
  f80: 80,
  i16: 16,
  i32: 32,
  i64: 64,
  bcd: 80,
  env: 0,
  state: 0,
  fx: 0,
  none: 0,
}

/** Bits; 0 for an operand that is not accessed or has a layout of its own. A `none` register is as wide as an address. */
export function operandBits({ size, kind }: OperandSpec, instruction: Instruction): number {
  const { operandSize, isMemory, codeSize, addressSize } = instruction
  switch (size) {
    case 'v':
      return operandSize
    case 'z':
      return operandSize === 16 ? 16 : 32
    case 'y':
      return operandSize === 64 ? 64 : 32
    case 'c':
      return operandSize === 64 ? 128 : 64
    case 'sreg':
      return isMemory ? 16 : operandSize
    case 'db':
      return isMemory ? 8 : 32
    case 'dw':
      return isMemory ? 16 : 32
    case 'p':
      return operandSize + 16
    case 'a':
      return operandSize * 2
    case 's':
      return codeSize === 64 ? 80 : 48
    case 'none':
      return kind === 'G' || kind === 'R' ? addressSize : 0
    default:
      return FIXED[size] ?? 0
  }
}
