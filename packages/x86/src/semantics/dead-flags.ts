/** Which flag results nobody can see: overwritten by a later instruction, with nothing in between that reads them or could show them. */
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

export const isQuiet = (instruction: Instruction): boolean => !instruction.isMemory && QUIET.has(instruction.row.semantics)

/** Whether the instruction can be built without its flags. */
export const canDropFlags = ({ row }: Instruction): boolean => WRITES_FLAGS_LAST.has(row.semantics)

/** Shifts and rotates by a constant change their flags, unless it is 0: then none. */
const COUNTED = new Set('shl shr sar rol ror'.split(' '))
function countsSurely({ row, immediate }: Instruction): boolean {
  if (!COUNTED.has(row.semantics) || row.operands.at(-1)!.kind === 'gpr') return false
  // Of 64-bit operands the count has a bit more; that alone is not asked about.
  return (immediate & 31) !== 0
}
const readsFlags = (instruction: Instruction): boolean => instruction.row.flags.reads !== '' && !countsSurely(instruction)

const ONLY_READS = new Set(['cmp', 'test'])
/** Whether it may write over the code behind it, which then may show flags that it would have hidden. */
export const mayWriteCode = ({ isMemory, row }: Instruction): boolean => isMemory && row.operands[0]?.kind === 'E' && !ONLY_READS.has(row.semantics)

/** Flags that the instruction writes in any case. */
function replacedBy({ semantics, flags: { writes, undefined: left, count } }: Row): string {
  // What is called with a count has found that it is not 0; the rotates then write OF, too.
  if (count) return writes
  if (WRITES_FLAGS_LAST.has(semantics) && !LEAVES_UNDEFINED.has(semantics)) return writes
  return [...writes].filter((letter) => !left.includes(letter)).join('')
}

/** Whether `later`, which is quiet, overwrites every flag that `earlier` writes, and reads none. */
export function hidesFlags(later: Instruction, earlier: Instruction): boolean {
  if (readsFlags(later) || (later.row.flags.count && !countsSurely(later))) return false
  const replaced = replacedBy(later.row)
  for (const flag of earlier.row.flags.writes) if (!replaced.includes(flag)) return false
  return true
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
