/** The decoded form of one instruction. It contains the location of operands, not their values. */
import type { Row } from '../rows/row.ts'

export type CodeSize = 16 | 32 | 64

/** `base` of a RIP-relative operand: the address of the next instruction. */
export const BASE_RIP = 16

/** Segment registers as ModRM.reg encodes them. */
export const ES = 0
export const CS = 1
export const SS = 2
export const DS = 3
export const FS = 4
export const GS = 5

export interface Instruction {
  row: Row
  /** Bytes, 1 to 15. */
  length: number
  codeSize: CodeSize
  /** Effective operand size: default64 and force64 of the row are applied. Byte operands say so in their OperandSpec. */
  operandSize: 16 | 32 | 64
  addressSize: 16 | 32 | 64
  lock: boolean
  /** The last F2 or F3 prefix, even where it is a mandatory prefix or ignored; 0 none. */
  rep: 0 | 0xf2 | 0xf3
  /** 66 was present (it may have been a mandatory prefix). */
  operandSizePrefix: boolean
  rexPresent: boolean
  /** The REX byte in force (0 none). For VEX the same bits W R X B, as 0x40 is not set. */
  rex: number
  /** VEX encoded. */
  vex: boolean
  /** Register by VEX.vvvv, upright; 0 without VEX. */
  vvvv: number
  /** Opcode byte within the row's map. The low four bits are the condition of Jcc, SETcc and CMOVcc. */
  opcode: number
  /**
   * Segment of the memory operand (ES = 0, CS, SS, DS, FS, GS = 5), the default resolved: SS for bases rSP and rBP, else
   * DS; for string sources likewise. In 64-bit mode overrides other than FS and GS are dropped.
   */
  segment: number
  /** -1 none. In 64-bit mode only FS and GS. */
  segmentOverride: number
  hasModrm: boolean
  mod: number
  /** ModRM.reg with REX.R, which is dropped for segment and MMX registers. */
  reg: number
  /** ModRM.rm with REX.B: the register when `mod` is 3 (likewise dropped for MMX, x87). `+r` rows: the register. */
  rm: number
  /** There is a ModRM memory operand, or a memory offset (`O` operands). Not string operands. */
  isMemory: boolean
  /** -1 none, 0..15, 16 RIP-relative. */
  base: number
  /** -1 none, 0..15. */
  index: number
  /** Shift of the index, 0..3. */
  scale: number
  /** int32: bits 31..0 of the displacement. */
  displacement: number
  /** int32: bits 63..32, the sign extension except for `O` operands. */
  displacementHigh: number
  /** int32: bits 31..0 of the immediate (or relative target, or offset of a far pointer), extended as the row says. */
  immediate: number
  /** int32: bits 63..32 of the same. */
  immediateHigh: number
  /** ENTER's nesting level, a far pointer's selector. */
  immediate2: number
}

/** `row` is a placeholder until the decoder has filled the record. */
export function createInstruction(row: Row): Instruction {
  return {
    row,
    length: 0,
    codeSize: 64,
    operandSize: 32,
    addressSize: 64,
    lock: false,
    rep: 0,
    operandSizePrefix: false,
    rexPresent: false,
    rex: 0,
    vex: false,
    vvvv: 0,
    opcode: 0,
    segment: DS,
    segmentOverride: -1,
    hasModrm: false,
    mod: 0,
    reg: 0,
    rm: 0,
    isMemory: false,
    base: -1,
    index: -1,
    scale: 0,
    displacement: 0,
    displacementHigh: 0,
    immediate: 0,
    immediateHigh: 0,
    immediate2: 0,
  }
}
