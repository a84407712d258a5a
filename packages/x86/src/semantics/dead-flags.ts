/** Dead flags: flag results that a later instruction overwrites, with nothing in between that reads them or could expose them. */
import type { Instruction } from '../decode/instruction.ts'
import type { Row } from '../rows/row.ts'

/** The flags' letters as bits, computed once for each row. */
interface FlagFacts {
  readonly reads: number
  readonly writes: number
  /** Written in any case. */
  readonly replaces: number
}
const LETTERS = 'ODITSZAPCLNRVXFGE'
const bitsOf = (letters: Iterable<string>): number => [...letters].reduce((bits, letter) => bits | (1 << LETTERS.indexOf(letter)), 0)

const known: FlagFacts[] = []
const factsOf = (row: Row): FlagFacts => (known[row.id] ??= flagFacts(row))

function flagFacts({ effects, flags }: Row): FlagFacts {
  const { reads, writes, undefined: left, count } = flags
  // Instructions called with a count have found that it is not 0; rotates then write OF, too.
  const replacesAll = count !== undefined || (effects.writesFlagsLast && !effects.leavesUndefined)
  return {
    reads: bitsOf(reads),
    writes: bitsOf(writes),
    replaces: bitsOf(replacesAll ? writes : [...writes].filter((letter) => !left.includes(letter))),
  }
}

export const isQuiet = ({ isMemory, row }: Instruction): boolean => !isMemory && row.effects.isQuiet

/** Whether the instruction can be built without its flags. */
export const canDropFlags = ({ row }: Instruction): boolean => row.effects.writesFlagsLast

/** Whether it may overwrite the code after it, which may then expose flags that would have been dead. */
export const mayWriteCode = ({ isMemory, row }: Instruction): boolean => isMemory && row.operands[0]?.kind === 'E' && !row.effects.readsOnly

/** A shift or rotate by a constant changes its flags, unless the constant is 0: then none. */
const isCounted = ({ effects, operands }: Row): boolean => effects.isCounted && operands.at(-1)!.kind !== 'gpr'
// 64-bit operands have one more bit of count; only that bit is not checked.
const countsSurely = ({ row, immediate }: Instruction): boolean => isCounted(row) && (immediate & 31) !== 0
const readsFlags = (instruction: Instruction): boolean => factsOf(instruction.row).reads !== 0 && !countsSurely(instruction)

/** Whether `later`, which is quiet, overwrites every flag that `earlier` writes, and reads none. */
export function hidesFlags(later: Instruction, earlier: Instruction): boolean {
  const { replaces } = factsOf(later.row)
  if (readsFlags(later) || (later.row.flags.count !== undefined && !countsSurely(later))) return false
  return (factsOf(earlier.row).writes & ~replaces) === 0
}

/** Whether the flags of `instruction` are dead, given what follows it in its basic block. */
export function flagsAreDead(instruction: Instruction, following: Iterable<Instruction>): boolean {
  if (!instruction.row.flags.writes || !canDropFlags(instruction)) return false
  for (const next of following) {
    if (!isQuiet(next) || readsFlags(next)) return false
    if (hidesFlags(next, instruction)) return true
  }
  return false
}
