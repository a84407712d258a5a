/** Decoding: bytes to instructions, instructions to text. */
export * from './instruction.ts'
export * from './decoder.ts'
export { buildTables, type DecodeTables } from './tables.ts'
export * from './disassemble.ts'
export { operandBits } from './width.ts'
