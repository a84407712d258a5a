/** Random encodings of a row: prefixes, registers, addressing and immediates. The decoder confirms every one. */
import { decode } from '../../src/decode/decoder.ts'
import { BASE_RIP, createInstruction, type Instruction } from '../../src/decode/instruction.ts'
import { rows, type Row } from '../../src/rows/index.ts'
import type { Random } from '../float/operands.ts'
import { MIDDLE, SLOT, SLOT_LANDINGS, SLOT_START } from './batch.ts'

export interface Encoded {
  readonly row: Row
  readonly code: Uint8Array
  readonly instruction: Instruction
  /** Linear address of the instruction. */
  readonly address: number
  /** Registers whose values the addressing counts on, by number. */
  readonly fixed: ReadonlyMap<number, number>
}

const PREFIX_BYTE: Record<string, number> = { '66': 0x66, F3: 0xf3, F2: 0xf2 }
const ESCAPE: Record<number, number[]> = { 0: [], 1: [0x0f], 2: [0x0f, 0x38], 3: [0x0f, 0x3a] }
const isBranch = ({ attributes }: Row) => attributes.flow !== undefined && attributes.flow !== 'serialise'

interface Operands {
  modrm: number[]
  rex: number
  fixed: Map<number, number>
}

/** ModRM, SIB and displacement, with the REX bits they need. `room`: how far the displacement may lead from a good address. */
function operands(random: Random, row: Row, long: boolean, ripAfter: (length: number) => number): Operands {
  const { form } = row
  const registers = long ? 16 : 8
  const fixed = new Map<number, number>()
  const reg = form.reg >= 0 ? form.reg : random.below(registers)
  const memory = form.mod === 'memory' || (form.mod === 'any' && random.below(5) < 2)
  let rex = (reg & 8) >> 1
  if (!memory) {
    const rm = form.rm >= 0 ? form.rm : random.below(registers)
    rex |= (rm & 8) >> 3
    return { modrm: [0xc0 | ((reg & 7) << 3) | (rm & 7)], rex, fixed }
  }
  const d32 = (value: number) => [value & 0xff, (value >> 8) & 0xff, (value >> 16) & 0xff, (value >>> 24) & 0xff]
  const regBits = (reg & 7) << 3
  const kind = random.below(8)
  const target = MIDDLE + 64 + 8 * random.below(16)
  if (kind === 0 && long) {
    // RIP-relative: 1 ModRM + 4 displacement bytes, and what comes after is not known yet, so a few bytes off.
    return { modrm: [regBits | 5, ...d32((target - ripAfter(12)) | 0)], rex, fixed }
  }
  if (kind === 1) {
    // No base: an index and an absolute displacement.
    const index = random.below(registers)
    const scale = random.below(4)
    if (index === 4) return { modrm: [regBits | 4, 0x25, ...d32(target)], rex, fixed }
    const value = random.below(2) ? random.below(64) : -random.below(64)
    fixed.set(index, value)
    rex |= (index & 8) >> 2
    return { modrm: [regBits | 4, (scale << 6) | ((index & 7) << 3) | 5, ...d32((target - (value << scale)) | 0)], rex, fixed }
  }
  const base = random.below(registers)
  rex |= (base & 8) >> 3
  const mod = (base & 7) === 5 ? 1 + random.below(2) : random.below(3)
  const displacement = mod === 0 ? [] : mod === 1 ? [random.below(256)] : d32(random.below(3) ? random.below(4096) - 2048 : random.u32())
  let index = 4
  if ((base & 7) !== 4 && kind < 5) return { modrm: [(mod << 6) | regBits | (base & 7), ...displacement], rex, fixed }
  if (kind >= 4) {
    index = random.below(registers)
    if (index === base) index = 4
  }
  rex |= (index & 8) >> 2
  return { modrm: [(mod << 6) | regBits | 4, (random.below(4) << 6) | ((index & 7) << 3) | (base & 7), ...displacement], rex, fixed }
}

/** One random encoding, or undefined where chance made something that is another row or none. */
export function encode(random: Random, row: Row, address: number, codeSize: 32 | 64): Encoded | undefined {
  const { form, attributes } = row
  const long = codeSize === 64
  const prefixes: number[] = []
  const free = form.prefix === 'any' || form.prefix === 'NFx'
  const branch = isBranch(row)
  const sized = row.operands.some(({ size }) => 'vzy'.includes(size)) || attributes.rep || row.operands.length === 0
  if (!form.vex) {
    if (free && !branch && random.below(sized ? 4 : 40) === 0) prefixes.push(0x66)
    if (random.below(24) === 0) prefixes.push(0x67)
    if (random.below(40) === 0) prefixes.push(random.pick([0x3e, 0x26, 0x65, 0x2e]))
    if (attributes.rep && random.below(5) < 3) prefixes.push(random.pick([0xf2, 0xf3]))
    if (attributes.lock && random.below(5) === 0) prefixes.push(0xf0)
    const required = PREFIX_BYTE[form.prefix]
    if (required !== undefined) prefixes.push(required)
    for (let n = prefixes.length - 1; n > 0; n--) {
      const m = random.below(n + 1)
      ;[prefixes[n], prefixes[m]] = [prefixes[m]!, prefixes[n]!]
    }
  }
  let w = form.w >= 0 ? form.w : long && random.below(3) === 0 ? 1 : 0
  if (!long && !form.vex) w = 0
  let opcode = form.opcode
  let parts: Operands = { modrm: [], rex: 0, fixed: new Map() }
  if (form.hasModrm) parts = operands(random, row, long, (length) => address + length)
  else if (form.plusRegister) {
    const register = random.below(long ? 16 : 8)
    opcode |= register & 7
    parts.rex = register >> 3
  }
  const bytes = [...prefixes]
  if (form.vex) {
    const vvvv = row.operands.some(({ kind }) => kind === 'B') ? random.below(long ? 16 : 8) : 0
    const pp = { NP: 0, '66': 1, F3: 2, F2: 3 }[form.prefix as string] ?? 0
    const l = form.l === 1 ? 4 : 0
    bytes.push(0xc4, ((~parts.rex & 7) << 5) | (form.map - 3), (w << 7) | ((~vvvv & 15) << 3) | l | pp)
  } else {
    const rex = parts.rex | (w << 3)
    if (long && (rex || random.below(6) === 0)) bytes.push(0x40 | rex)
    bytes.push(...ESCAPE[form.map]!)
  }
  bytes.push(opcode, ...parts.modrm)
  const start = bytes.length
  for (let n = 0; n < 10; n++) bytes.push(random.below(3) ? random.below(256) : random.pick([0, 1, 0x7f, 0x80, 0xff]))
  const code = Uint8Array.from(bytes)
  const instruction = createInstruction(rows[0]!)
  const mode = { codeSize, protectedMode: true } as const
  if (decode(code, 0, code.length, mode, instruction) !== 'ok' || instruction.row !== row) return undefined
  const { length } = instruction
  if (row.operands.some(({ kind }) => kind === 'J')) {
    // The branch lands inside its own slot.
    const relative = random.pick(SLOT_LANDINGS) - SLOT_START - length
    const size = length - start
    for (let n = 0; n < size; n++) code[start + n] = (relative >> (8 * n)) & 0xff
  }
  if (attributes.semantics === 'enter' || row.mnemonic === 'ENTER') {
    code[start + 1] = random.below(8) ? 0 : code[start + 1]!
    code[start + 2] = random.below(8) ? random.below(4) : code[start + 2]!
  }
  if (decode(code, 0, length, mode, instruction) !== 'ok' || length > 15 || SLOT_START + length + 14 > SLOT) return undefined
  return { row, code: code.slice(0, length), instruction, address, fixed: parts.fixed }
}

/** An encoding as a recording keeps it, decoded again; undefined where the bytes no longer are an instruction. */
export function decodeAgain(code: Uint8Array, fixed: ReadonlyMap<number, number>, address: number, codeSize: 32 | 64): Encoded | undefined {
  const instruction = createInstruction(rows[0]!)
  if (decode(code, 0, code.length, { codeSize, protectedMode: true }, instruction) !== 'ok') return undefined
  return { row: instruction.row, code, instruction, address, fixed }
}

/** What a memory operand's address adds up from; the base is left for the state to choose. */
export const hasFreeBase = (i: Instruction): boolean => i.isMemory && i.base >= 0 && i.base !== BASE_RIP
