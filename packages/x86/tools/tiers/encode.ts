/** Random encodings of a row in any code size: prefixes, registers, addressing, immediates. The decoder confirms each one. */
import { decode } from '../../src/decode/decoder.ts'
import { createInstruction, type Instruction } from '../../src/decode/instruction.ts'
import { rows, type Row } from '../../src/rows/index.ts'
import type { Random } from '../float/operands.ts'
import type { CodeSize } from './world.ts'

/** How a memory operand is addressed. `ripRelative` leaves its displacement to be filled in. */
export type Addressing =
  | { readonly kind: 'absolute'; readonly displacement: number }
  | { readonly kind: 'ripRelative' }
  /** `index` -1: none. */
  | { readonly kind: 'base'; readonly base: number; readonly index: number; readonly scale: number; readonly displacement: number }

export interface EncodeOptions {
  readonly codeSize: CodeSize
  /** Whether ModRM names memory, where it may. Default: by chance. */
  readonly memory?: boolean
  /** Asked for each memory operand. Default: by chance. */
  readonly addressing?: (addressSize: 16 | 32 | 64) => Addressing | undefined
  /** Chooses a register. Default: any. */
  readonly register?: (count: number) => number
  /** No 66, 67, segment or repeat prefixes but those needed. */
  readonly plain?: boolean
}

export interface Encoded {
  readonly code: Uint8Array
  readonly instruction: Instruction
  /** Where the 32-bit displacement of a RIP-relative operand is, or -1. */
  readonly ripAt: number
}

const PREFIX_BYTE: Record<string, number> = { '66': 0x66, F3: 0xf3, F2: 0xf2 }
const ESCAPE: readonly (readonly number[])[] = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]]
const EDGES = [0, 1, 2, 3, 4, 7, 8, 0x0f, 0x10, 0x1f, 0x3f, 0x40, 0x7f, 0x80, 0x81, 0xfe, 0xff]
/** 16-bit addressing: base and index by ModRM.rm. */
export const BASE_16 = [3, 3, 5, 5, 6, 7, 5, 3]

const bytes16 = (value: number): number[] => [value & 0xff, (value >> 8) & 0xff]
const bytes32 = (value: number): number[] => [...bytes16(value), ...bytes16(value >> 16)]

interface Operands {
  readonly bytes: number[]
  /** REX bits X and B. */
  readonly rex: number
  readonly ripAt: number
}

/** ModRM, SIB, displacement for a memory operand. */
function memoryOperand(random: Random, reg: number, addressSize: 16 | 32 | 64, codeSize: CodeSize, wanted: Addressing | undefined): Operands {
  const regBits = (reg & 7) << 3
  if (addressSize === 16) {
    if (wanted?.kind === 'absolute') return { bytes: [regBits | 6, ...bytes16(wanted.displacement)], rex: 0, ripAt: -1 }
    const rm = wanted?.kind === 'base' ? BASE_16.indexOf(wanted.base, wanted.index < 0 ? 4 : 0) : random.below(8)
    const displacement = wanted?.kind === 'base' ? wanted.displacement : random.u32() << 16 >> 16
    const mod = rm === 6 || (displacement << 24) >> 24 !== displacement ? ((displacement << 24) >> 24 === displacement ? 1 : 2) : displacement ? 1 : random.below(2)
    return { bytes: [(mod << 6) | regBits | rm, ...(mod === 1 ? [displacement & 0xff] : mod === 2 ? bytes16(displacement) : [])], rex: 0, ripAt: -1 }
  }
  const form = wanted ?? randomAddressing(random, codeSize)
  if (form.kind === 'ripRelative') return { bytes: [regBits | 5, 0, 0, 0, 0], rex: 0, ripAt: 1 }
  if (form.kind === 'absolute') {
    if (codeSize !== 64 && random.below(2)) return { bytes: [regBits | 5, ...bytes32(form.displacement)], rex: 0, ripAt: -1 }
    return { bytes: [regBits | 4, 0x25, ...bytes32(form.displacement)], rex: 0, ripAt: -1 }
  }
  const { base, index, scale, displacement } = form
  const short = (displacement << 24) >> 24 === displacement
  const mod = !short || random.below(8) === 0 ? 2 : displacement || (base & 7) === 5 || random.below(4) === 0 ? 1 : 0
  const rex = ((base & 8) >> 3) | (index < 0 ? 0 : (index & 8) >> 2)
  const tail = mod === 1 ? [displacement & 0xff] : mod === 2 ? bytes32(displacement) : []
  if (index < 0 && (base & 7) !== 4 && random.below(4)) return { bytes: [(mod << 6) | regBits | (base & 7), ...tail], rex, ripAt: -1 }
  const sib = (scale << 6) | ((index < 0 ? 4 : index & 7) << 3) | (base & 7)
  return { bytes: [(mod << 6) | regBits | 4, sib, ...tail], rex, ripAt: -1 }
}

function randomAddressing(random: Random, codeSize: CodeSize): Addressing {
  const registers = codeSize === 64 ? 16 : 8
  const kind = random.below(8)
  if (kind === 0 && codeSize === 64) return { kind: 'ripRelative' }
  if (kind === 1) return { kind: 'absolute', displacement: random.u32() | 0 }
  let index = kind < 5 ? -1 : random.below(registers)
  if (index === 4) index = -1
  const displacement = random.below(2) ? random.below(256) - 128 : random.below(0x2_0000) - 0x1_0000
  return { kind: 'base', base: random.below(registers), index, scale: random.below(4), displacement }
}

/** One random encoding, or undefined where the row has none in this mode or chance made another row. */
export function encode(random: Random, row: Row, options: EncodeOptions): Encoded | undefined {
  const { form, attributes } = row
  const { codeSize, plain } = options
  const long = codeSize === 64
  if (long ? attributes.not64 : attributes.only64) return undefined
  const register = options.register ?? ((count: number) => random.below(count))
  const count = long ? 16 : 8
  const branch = row.operands.some(({ kind }) => kind === 'J')
  const prefixes: number[] = []
  let other = false
  if (!form.vex) {
    const free = form.prefix === 'any' || form.prefix === 'NFx'
    const sized = row.operands.some(({ size }) => 'vzya'.includes(size)) || row.operands.length === 0 || attributes.rep !== undefined
    if (free && !branch && !plain && random.below(sized ? 3 : 40) === 0) prefixes.push(0x66)
    other = !plain && random.below(16) === 0
    if (other) prefixes.push(0x67)
    if (!plain && random.below(20) === 0) prefixes.push(random.pick([0x64, 0x65, 0x36, 0x3e, 0x26, 0x2e]))
    if (attributes.rep && random.below(5) < 3) prefixes.push(random.pick([0xf2, 0xf3]))
    if (attributes.lock && random.below(6) === 0) prefixes.push(0xf0)
    const required = PREFIX_BYTE[form.prefix]
    if (required !== undefined) prefixes.push(required)
    for (let n = prefixes.length - 1; n > 0; n--) {
      const m = random.below(n + 1)
      ;[prefixes[n], prefixes[m]] = [prefixes[m]!, prefixes[n]!]
    }
  }
  const addressSize = long ? (other ? 32 : 64) : (codeSize === 16) === other ? 32 : 16
  const w = !long && !form.vex ? 0 : form.w >= 0 ? form.w : long && random.below(3) === 0 ? 1 : 0
  let { opcode } = form
  let rex = 0
  let operands: Operands = { bytes: [], rex: 0, ripAt: -1 }
  if (form.hasModrm) {
    const reg = form.reg >= 0 ? form.reg : register(count)
    rex |= (reg & 8) >> 1
    const memory = form.mod === 'memory' || (form.mod === 'any' && (options.memory ?? random.below(5) < 2))
    if (memory) operands = memoryOperand(random, reg, addressSize, codeSize, options.addressing?.(addressSize))
    else {
      const rm = form.rm >= 0 ? form.rm : register(count)
      operands = { bytes: [0xc0 | ((reg & 7) << 3) | (rm & 7)], rex: (rm & 8) >> 3, ripAt: -1 }
    }
    rex |= operands.rex
  } else if (form.plusRegister) {
    const number = register(count)
    opcode |= number & 7
    rex |= number >> 3
  }
  const bytes = [...prefixes]
  if (form.vex) {
    const vvvv = row.operands.some(({ kind }) => kind === 'B') ? register(count) : 0
    const pp = { NP: 0, '66': 1, F3: 2, F2: 3 }[form.prefix as string] ?? 0
    bytes.push(0xc4, ((~rex & 7) << 5) | (form.map - 3), (w << 7) | ((~vvvv & 15) << 3) | (form.l === 1 ? 4 : 0) | pp)
  } else {
    const whole = rex | (w << 3)
    if (whole && !long) return undefined
    if (long && (whole || random.below(6) === 0)) bytes.push(0x40 | whole)
    bytes.push(...ESCAPE[form.map]!)
  }
  bytes.push(opcode)
  const ripAt = operands.ripAt < 0 ? -1 : bytes.length + operands.ripAt
  bytes.push(...operands.bytes)
  for (let n = 0; n < 10; n++) bytes.push(random.below(2) ? random.below(256) : random.pick(EDGES))
  const code = Uint8Array.from(bytes)
  const instruction = createInstruction(rows[0]!)
  if (decode(code, 0, Math.min(code.length, 15), { codeSize, protectedMode: true }, instruction) !== 'ok' || instruction.row !== row) return undefined
  return { code: code.slice(0, instruction.length), instruction, ripAt }
}
