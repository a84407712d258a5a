/** Where in the vCPU block the registers are that ModRM selects, by row: computed once for each row, because blocks are decoded by the thousand. */
import type { Instruction } from '../decode/instruction.ts'
import type { Row } from '../rows/index.ts'
import { fpr, gpr, segment, xmm } from '../state/layout.ts'

/** Register files. `byte`: AH, CH, DH and BH without REX. */
type RegisterFile = 'general' | 'byte' | 'xmm' | 'mmx' | 'segment'

export interface OperandFields {
  readonly reg: RegisterFile
  readonly rm: RegisterFile
  /** It has a memory offset (`O`) in place of ModRM. */
  readonly hasOffset: boolean
}

const known: OperandFields[] = []

export function operandFields(row: Row): OperandFields {
  return (known[row.id] ??= {
    reg: fileOf(row, 'GVPSCD'),
    rm: fileOf(row, 'ERZWUQN'),
    hasOffset: row.operands.some(({ kind }) => kind === 'O'),
  })
}

/** By the first operand whose kind is among these. */
function fileOf({ operands }: Row, kinds: string): RegisterFile {
  const operand = operands.find(({ kind }) => kinds.includes(kind))
  switch (operand?.kind) {
    case 'G': case 'E': case 'R': case 'Z':
      return operand.size === 'b' ? 'byte' : 'general'
    case 'V': case 'W': case 'U':
      return 'xmm'
    case 'P': case 'Q': case 'N':
      return 'mmx'
    case 'S':
      return 'segment'
    default:
      return 'general'
  }
}

/** Offset in the vCPU block of register `n` of a file. */
export function registerOffset(file: RegisterFile, n: number, { rexPresent }: Instruction): number {
  switch (file) {
    case 'general':
      return gpr(n)
    case 'byte':
      return !rexPresent && n >= 4 ? gpr(n - 4) + 1 : gpr(n)
    case 'xmm':
      return xmm(n)
    case 'mmx':
      return fpr(n & 7)
    case 'segment':
      return segment(n)
  }
}
