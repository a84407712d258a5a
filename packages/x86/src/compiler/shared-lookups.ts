/**
 * Accesses of straight-line code through one register: stack slots, fields of a structure. They are mostly on one page, and then need one TLB lookup.
 * An estimate: a wrong one only costs time.
 */
import { FS, type Instruction } from '../decode/instruction.ts'
import { widthOf } from '../semantics/builder.ts'
import { RSP } from '../state/layout.ts'
import type { Placed } from './region.ts'

/** Range of bytes, as offsets from the register's value before the first instruction. */
export interface Reach {
  readonly min: number
  readonly max: number
  readonly writes: boolean
}

/** A larger range would often span two pages. */
const FARTHEST = 1024

const MEMORY: ReadonlySet<string> = new Set(['E', 'M', 'W', 'Q'])

/** From instruction number `from` to the point where the register gets an unrelated value. Undefined if there is only one access. */
export function reachOf(instructions: readonly Placed[], from: number, register: number): Reach | undefined {
  let [min, max, count, writes] = [Infinity, -Infinity, 0, false]
  let value = 0
  const note = (at: number, bytes: number, isWrite: boolean): void => {
    if (Math.max(max, at + bytes) - Math.min(min, at) > FARTHEST) return
    min = Math.min(min, at)
    max = Math.max(max, at + bytes)
    writes ||= isWrite
    count++
  }
  for (let n = from; n < instructions.length; n++) {
    const { instruction } = instructions[n]!
    const { semantics, operands, effects } = instruction.row
    const memory = instruction.isMemory && !effects.addressOnly ? operands.findIndex(({ kind }) => MEMORY.has(kind)) : -1
    if (memory >= 0 && isPlainly(instruction, register))
      note(value + instruction.displacement, widthOf(operands[memory]!, instruction) / 8, memory === 0 && !effects.readsOnly)
    if (register === RSP) {
      const bytes = instruction.operandSize / 8
      if (semantics === 'push' || semantics === 'call' || semantics === 'callIndirect') note((value -= bytes), bytes, true)
      else if (semantics === 'pop' || semantics === 'ret') {
        note(value, bytes, false)
        value += bytes
      }
    }
    if (!writesRegister(instruction, register)) continue
    const moved = movement(instruction, register)
    if (moved === undefined) break
    value += moved
  }
  return count > 1 ? { min, max, writes } : undefined
}

/** [register + displacement], in a segment with base 0. */
function isPlainly({ base, index, segment, addressSize }: Instruction, register: number): boolean {
  return base === register && index < 0 && segment < FS && addressSize === 64
}

function writesRegister(instruction: Instruction, register: number): boolean {
  const { operands, effects } = instruction.row
  const first = operands[0]
  if (!first || effects.readsOnly) return false
  switch (first.kind) {
    case 'G': return instruction.reg === register
    case 'E': return !instruction.isMemory && instruction.rm === register
    case 'R': case 'Z': return instruction.rm === register
    case 'gpr': return first.register === register
    default: return false
  }
}

/** By how much an instruction changes the register. Undefined if not known. */
function movement(instruction: Instruction, register: number): number | undefined {
  const { row: { semantics, operands }, immediate, base, index, displacement, operandSize } = instruction
  if (operandSize !== 64) return undefined
  if (operands[1]?.kind === 'I') {
    if (semantics === 'add') return immediate
    if (semantics === 'sub') return -immediate
  }
  return semantics === 'lea' && base === register && index < 0 ? displacement : undefined
}
