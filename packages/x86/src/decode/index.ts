/** Decoding: bytes to instructions, instructions to text. */
export * from './instruction.ts'
export * from './decoder.ts'
export { DecodeTables } from './tables.ts'
export * from './disassemble.ts'
export { operandBits } from './width.ts'
