/**
 * VM-exit instruction information: the operands of the instruction that exited. Cold: the instruction is decoded again. (SDM Vol. 3C, "Information
 * for VM Exits Due to Instruction Execution")
 */

import { BASE_RIP, gpr, runningInstruction } from '@nonroot/x86'
import type { Core, Instruction } from '@nonroot/x86'
import type { ExitReasonName } from '../tables/exit-reasons.ts'

export interface InstructionInformation {
  readonly information: number
  /** The memory operand's displacement, plus RIP if it is RIP-relative: the exit qualification of the exits that define one. */
  readonly displacement: bigint
}

const NONE: InstructionInformation = { information: 0, displacement: 0n }
const REGISTER_FORM = 1 << 10
const NO_INDEX = 1 << 22
const NO_BASE = 1 << 27

/** 0, 1, 2 for 16, 32 and 64 bits. */
const sizeCode = (bits: number): number => bits >>> 5

/** Scale, address size, segment, index and base of a memory operand, or the register operand. */
function operand(i: Instruction): number {
  if (!i.isMemory) return REGISTER_FORM | (i.rm << 3)
  const index = i.index < 0 ? NO_INDEX : i.index << 18
  const base = i.base < 0 || i.base === BASE_RIP ? NO_BASE : i.base << 23
  return i.scale | (sizeCode(i.addressSize) << 7) | (i.segment << 15) | index | base
}
const identity =
  (...mnemonics: readonly string[]) =>
  (i: Instruction): number =>
    mnemonics.indexOf(i.row.mnemonic) << 28
const secondRegister = (i: Instruction): number => i.reg << 28
const nothing = (): number => 0

/** Bits that individual exit reasons add. */
const FORMATS: Readonly<Partial<Record<ExitReasonName, (i: Instruction) => number>>> = {
  gdtrIdtrAccess: (i) => (i.operandSize === 16 ? 0 : 1 << 11) | identity('SGDT', 'SIDT', 'LGDT', 'LIDT')(i),
  ldtrTrAccess: identity('SLDT', 'STR', 'LLDT', 'LTR'),
  invpcid: secondRegister,
  invept: secondRegister,
  invvpid: secondRegister,
  vmread: secondRegister,
  vmwrite: secondRegister,
  vmclear: nothing,
  vmptrld: nothing,
  vmptrst: nothing,
  vmxon: nothing,
  xsaves: nothing,
  xrstors: nothing,
}
/** RDRAND and RDSEED report only their register and its size. */
const randomInformation = (i: Instruction): number => (i.rm << 3) | (sizeCode(i.operandSize) << 11)

export const hasInstructionInformation = (reason: ExitReasonName): boolean =>
  reason in FORMATS || reason === 'rdrand' || reason === 'rdseed'

export function instructionInformation(core: Core, reason: ExitReasonName): InstructionInformation {
  const i = runningInstruction(core)
  if (!i) return NONE
  if (reason === 'rdrand' || reason === 'rdseed') return { information: randomInformation(i), displacement: 0n }
  const information = (operand(i) | (FORMATS[reason] ?? nothing)(i)) >>> 0
  if (!i.isMemory) return { information, displacement: 0n }
  const displacement = BigInt(i.displacement) + (i.base === BASE_RIP ? core.nextRip() : 0n)
  return { information, displacement: BigInt.asUintN(64, displacement) }
}

/** Linear address of the running instruction's memory operand, undefined if it has none. */
export function operandLinearAddress(core: Core): bigint | undefined {
  const i = runningInstruction(core)
  if (!i?.isMemory) return undefined
  let offset = BigInt(i.displacement)
  if (i.base === BASE_RIP) offset += core.nextRip()
  else if (i.base >= 0) offset += core.get64(gpr(i.base))
  if (i.index >= 0) offset += core.get64(gpr(i.index)) << BigInt(i.scale)
  return linear(core, i.segment, BigInt.asUintN(i.addressSize, offset), i.codeSize === 64)
}

const FS = 4
export function linear(core: Core, segment: number, offset: bigint, is64: boolean): bigint {
  if (is64) return BigInt.asUintN(64, offset + (segment >= FS ? core.segmentBase(segment) : 0n))
  return BigInt.asUintN(32, offset + core.segmentBase(segment))
}
