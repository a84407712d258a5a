/** `Instruction` to text in Intel syntax, as GNU objdump prints with `-M intel`, without symbols. */
import { BASE_RIP, type Instruction } from './instruction.ts'
import type { OperandSpec } from '../rows/row.ts'
import { operandBits } from './width.ts'

const LEGACY = ['ax', 'cx', 'dx', 'bx', 'sp', 'bp', 'si', 'di']
const BYTES = ['al', 'cl', 'dl', 'bl', 'ah', 'ch', 'dh', 'bh']
const BYTES_REX = ['al', 'cl', 'dl', 'bl', 'spl', 'bpl', 'sil', 'dil']
const SEGMENTS = ['es', 'cs', 'ss', 'ds', 'fs', 'gs', '?', '?']

/** Name of a general register of 8, 16, 32 or 64 bits. `rex`: any REX prefix, which replaces AH to BH by SPL to DIL. */
export function registerName(number: number, bits: number, rex: boolean): string {
  if (number >= 8) return `r${number}${bits === 64 ? '' : bits === 32 ? 'd' : bits === 16 ? 'w' : 'b'}`
  if (bits === 8) return (rex ? BYTES_REX : BYTES)[number] ?? '?'
  return (bits === 64 ? 'r' : bits === 32 ? 'e' : '') + (LEGACY[number] ?? '?')
}

const POINTER: Readonly<Record<number, string>> = {
  8: 'BYTE',
  16: 'WORD',
  32: 'DWORD',
  48: 'FWORD',
  64: 'QWORD',
  80: 'TBYTE',
  128: 'XMMWORD',
}

const hex = (value: bigint, bits: number): string => `0x${BigInt.asUintN(bits, value).toString(16)}`
const wide = (low: number, high: number): bigint => (BigInt(high) << 32n) | BigInt(low >>> 0)

function memoryPrefix(bits: number, { size }: OperandSpec, { row }: Instruction): string {
  // Descriptors have no name of their own.
  if (size === 's' || (size === 'x' && row.attributes.unit !== 'sse')) return ''
  const name = size === 'c' && bits === 128 ? 'OWORD' : POINTER[bits]
  return name ? `${name} PTR ` : ''
}

function signedHex(displacement: number, base: number): string {
  if (base === BASE_RIP) return `+${hex(BigInt(displacement), 64)}`
  return displacement < 0 ? `-0x${(-displacement).toString(16)}` : `+0x${displacement.toString(16)}`
}

/** The address part of a ModRM or offset operand. */
export function addressText(instruction: Instruction): string {
  const { base, index, scale, displacement, displacementHigh, addressSize, segmentOverride, mod } = instruction
  const register = (number: number) => registerName(number, addressSize, true)
  const segment = segmentOverride >= 0 ? `${SEGMENTS[segmentOverride]}:` : ''
  if (base < 0 && index < 0) {
    const bits = addressSize === 16 ? 16 : addressSize === 32 ? 32 : 64
    return `${segment === '' ? 'ds:' : segment}${hex(wide(displacement, displacementHigh), bits)}`
  }
  let text = ''
  if (base === BASE_RIP) text = addressSize === 64 ? 'rip' : 'eip'
  else if (base >= 0) text = register(base)
  // 16-bit forms have no scale to print.
  if (index >= 0) text += `${text === '' ? '' : '+'}${register(index)}${addressSize === 16 ? '' : `*${1 << scale}`}`
  if (mod !== 0 || base < 0 || base === BASE_RIP || displacement !== 0) text += signedHex(displacement, base)
  return `${segment}[${text}]`
}

function stringOperand(spec: OperandSpec, instruction: Instruction, bits: number): string {
  const { addressSize, segmentOverride } = instruction
  const segment = spec.kind === 'Y' ? 'es' : segmentOverride >= 0 ? SEGMENTS[segmentOverride] : 'ds'
  return `${memoryPrefix(bits, spec, instruction)}${segment}:[${registerName(spec.kind === 'Y' ? 7 : 6, addressSize, false)}]`
}

function immediateText(spec: OperandSpec, instruction: Instruction): string {
  const { immediate, immediateHigh, immediate2, operandSize, row } = instruction
  if (row.form.map === 0 && row.form.opcode === 0xc8 && spec.size === 'b') return hex(BigInt(immediate2), 8)
  const first = row.operands[0]
  const peer = first && first !== spec ? operandBits(first, instruction) : operandSize
  const bits = spec.signed ? Math.min(peer, 64) : spec.size === 'b' ? 8 : spec.size === 'w' ? 16 : operandSize
  return hex(wide(immediate, immediateHigh), bits)
}

function branchTarget(instruction: Instruction, address: bigint): string {
  const { immediate, immediateHigh, length, operandSize } = instruction
  const target = address + BigInt(length) + wide(immediate, immediateHigh)
  return hex(target, operandSize).slice(2)
}

/** Selectors in registers are named at operand size although 16 bits are read. */
const SELECTOR_SOURCES = ['lar', 'lsl', 'movToSegment']

const stack = (number: number): string => (number === 0 ? 'st(0)' : `st(${number})`)

function operandText(spec: OperandSpec, instruction: Instruction, address: bigint): string {
  const { reg, rm, mod, vvvv, rexPresent, isMemory } = instruction
  const bits = operandBits(spec, instruction)
  const memory = () => memoryPrefix(bits, spec, instruction) + addressText(instruction)
  const general = (number: number) => registerName(number, bits === 0 ? instruction.operandSize : bits, rexPresent)
  switch (spec.kind) {
    case 'E':
      if (isMemory) return memory()
      return SELECTOR_SOURCES.includes(instruction.row.semantics)
        ? registerName(rm, instruction.operandSize, rexPresent)
        : general(rm)
    case 'M':
      return memory()
    case 'O':
      return addressText(instruction)
    case 'R':
    case 'Z':
      return general(rm)
    case 'G':
      return general(reg)
    case 'B':
      return general(vvvv)
    case 'gpr':
      return registerName(spec.register, bits, rexPresent)
    case 'segment':
      return SEGMENTS[spec.register] ?? '?'
    case 'S':
      return SEGMENTS[reg] ?? '?'
    case 'C':
      return `cr${reg}`
    case 'D':
      return `dr${reg}`
    case 'P':
      return `mm${reg}`
    case 'N':
    case 'Q':
      return mod === 3 ? `mm${rm}` : memory()
    case 'V':
      return `xmm${reg}`
    case 'U':
    case 'W':
      return mod === 3 ? `xmm${rm}` : memory()
    case 'xmm0':
      return 'xmm0'
    case 'ST0':
      return 'st'
    case 'STi':
      return stack(rm)
    case 'one':
      return '1'
    case 'X':
    case 'Y':
      return stringOperand(spec, instruction, bits)
    case 'I':
      return immediateText(spec, instruction)
    case 'J':
      return branchTarget(instruction, address)
    case 'A':
      return `0x${(instruction.immediate2 & 0xffff).toString(16)}:0x${(instruction.immediate >>> 0).toString(16)}`
  }
}

/** The manual's mnemonic in lower case; by operand or address size where the manual has separate names. */
export function mnemonicOf(instruction: Instruction): string {
  const { row, operandSize, addressSize } = instruction
  const { names, namesBy } = row.attributes
  if (names === undefined) return row.mnemonic.toLowerCase()
  const size = namesBy === 'addressSize' ? addressSize : operandSize
  return (names.split(' ')[size === 16 ? 0 : size === 32 ? 1 : 2] ?? row.mnemonic).toLowerCase()
}

function prefixText({ lock, rep, row }: Instruction): string {
  const repeat = row.attributes.rep
  if (lock) return 'lock '
  if (!repeat || rep === 0) return ''
  if (repeat === 'string') return rep === 0xf3 ? 'rep ' : 'repnz '
  return rep === 0xf3 ? 'repz ' : 'repnz '
}

/** `address`: of the instruction, for the targets of relative branches. */
export function disassemble(instruction: Instruction, address = 0n): string {
  const operands = instruction.row.operands.map((spec) => operandText(spec, instruction, address)).join(',')
  return `${prefixText(instruction)}${mnemonicOf(instruction)}${operands === '' ? '' : ` ${operands}`}`
}
