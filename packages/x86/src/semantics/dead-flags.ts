/** Dead flags: flag results that a later instruction overwrites, with nothing in between that reads them or could expose them. */
import type { Instruction } from '../decode/instruction.ts'
import type { Row } from '../rows/row.ts'

/** Instructions that, without a memory operand, can neither fault nor leave. */
const QUIET = new Set(
  ('add or adc sbb and sub xor cmp test not neg inc dec mov movzx movsx lea bswap setcc cmovcc cbw cwd imulTruncated mul imul ' +
    'shl shr sar rol ror rcl rcr shld shrd bt bts btr btc bsf bsr popcnt lzcnt tzcnt nop clc stc cmc').split(' '),
)
/** Those whose semantics honour `flagsDead`, a memory operand or not: their own fault comes before any flag. */
const WRITES_FLAGS_LAST = new Set('add or adc sbb and sub xor cmp test neg inc dec shl shr sar rol ror imulTruncated mul imul'.split(' '))
/** Of these, some leave flags as they were that the manual calls undefined. */
const LEAVES_UNDEFINED = new Set(['rol', 'ror'])

/** Shifts and rotates by a constant change their flags, unless it is 0: then none. */
const COUNTED = new Set('shl shr sar rol ror'.split(' '))
const ONLY_READS = new Set(['cmp', 'test'])

/** Properties of every decoded instruction, computed once for each row. Flags are bits. */
interface FlagFacts {
  readonly isQuiet: boolean
  readonly canDrop: boolean
  /** Writes memory, if its operand is memory. */
  readonly writesOperand: boolean
  /** By a constant, that is. */
  readonly isCounted: boolean
  readonly hasCount: boolean
  readonly reads: number
  readonly writes: number
  /** Written in any case. */
  readonly replaces: number
}
const LETTERS = 'ODITSZAPCLNRVXFGE'
const bitsOf = (letters: Iterable<string>): number => [...letters].reduce((bits, letter) => bits | (1 << LETTERS.indexOf(letter)), 0)

const known: FlagFacts[] = []
const factsOf = (row: Row): FlagFacts => (known[row.id] ??= flagFacts(row))

function flagFacts({ semantics, operands, flags }: Row): FlagFacts {
  const { reads, writes, undefined: left, count } = flags
  // Instructions called with a count have found that it is not 0; rotates then write OF, too.
  const replacesAll = count !== undefined || (WRITES_FLAGS_LAST.has(semantics) && !LEAVES_UNDEFINED.has(semantics))
  return {
    isQuiet: QUIET.has(semantics),
    canDrop: WRITES_FLAGS_LAST.has(semantics),
    writesOperand: operands[0]?.kind === 'E' && !ONLY_READS.has(semantics),
    isCounted: COUNTED.has(semantics) && operands.at(-1)!.kind !== 'gpr',
    hasCount: count !== undefined,
    reads: bitsOf(reads),
    writes: bitsOf(writes),
    replaces: bitsOf(replacesAll ? writes : [...writes].filter((letter) => !left.includes(letter))),
  }
}

export const isQuiet = ({ isMemory, row }: Instruction): boolean => !isMemory && factsOf(row).isQuiet

/** Whether the instruction can be built without its flags. */
export const canDropFlags = ({ row }: Instruction): boolean => factsOf(row).canDrop

/** Whether it may overwrite the code after it, which may then expose flags that would have been dead. */
export const mayWriteCode = ({ isMemory, row }: Instruction): boolean => isMemory && factsOf(row).writesOperand

// 64-bit operands have one more bit of count; only that bit is not checked.
const countsSurely = ({ row, immediate }: Instruction): boolean => factsOf(row).isCounted && (immediate & 31) !== 0
const readsFlags = (instruction: Instruction): boolean => factsOf(instruction.row).reads !== 0 && !countsSurely(instruction)

/** Whether `later`, which is quiet, overwrites every flag that `earlier` writes, and reads none. */
export function hidesFlags(later: Instruction, earlier: Instruction): boolean {
  const { hasCount, replaces } = factsOf(later.row)
  if (readsFlags(later) || (hasCount && !countsSurely(later))) return false
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
