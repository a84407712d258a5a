/**
 * The encoding column of a row, parsed: `F3 0F B8 /r`, `0F 01 F8`, `VEX.L0.F2.0F38.W1 F7 /r`. (SDM Vol. 2A, "Instruction Format".) Immediates are
 * described by the operands.
 */
import type { OperandSpec } from './operand.ts'

/** Opcode maps as the decoder numbers them; VEX maps are apart because no legacy encoding reaches them. */
export const MAP = { ONE_BYTE: 0, 0x0f: 1, '0F38': 2, '0F3A': 3, 'VEX.0F': 4, 'VEX.0F38': 5, 'VEX.0F3A': 6 } as const

/**
 * Mandatory prefix. `any`: 66, F2 and F3 keep their usual meaning or are ignored; `NP`: none of them; `NFx`: neither F2
 * nor F3, 66 selects the operand size.
 */
export type MandatoryPrefix = 'any' | 'NP' | 'NFx' | '66' | 'F3' | 'F2'

export interface Encoding {
  readonly vex: boolean
  readonly map: number
  readonly opcode: number
  readonly prefix: MandatoryPrefix
  /** Required REX.W or VEX.W; -1: either. */
  readonly w: 0 | 1 | -1
  /** Required VEX.L; -1: either. */
  readonly l: 0 | 1 | -1
  /** The opcode's low three bits are a register. */
  readonly plusRegister: boolean
  readonly hasModrm: boolean
  /** What ModRM.mod may be. `ignored`: any value means a register (MOV CR, MOV DR). */
  readonly mod: 'any' | 'memory' | 'register' | 'ignored'
  /** Required ModRM.reg, or -1. */
  readonly reg: number
  /** Required ModRM.rm, or -1. */
  readonly rm: number
}

const PREFIXES = ['NP', 'NFx', '66', 'F3', 'F2']
const MEMORY_ONLY = 'M'
const REGISTER_ONLY = ['R', 'N', 'U', 'STi']
const BY_MODRM = 'EGMRSCDPNQVUW'

function fail(text: string, why: string): never {
  throw new Error(`encoding '${text}': ${why}`)
}

const isByte = (token: string): boolean => /^[0-9A-F]{2}$/.test(token)

function modByOperands(operands: readonly OperandSpec[]): Encoding['mod'] {
  if (operands.some(({ kind }) => kind === MEMORY_ONLY)) return 'memory'
  return operands.some(({ kind }) => REGISTER_ONLY.includes(kind)) ? 'register' : 'any'
}

interface Head {
  map: number
  prefix: MandatoryPrefix
  w: 0 | 1 | -1
  l: 0 | 1 | -1
}

/** `VEX.L0.F2.0F38.W1` */
function parseVex(token: string, text: string): Head {
  const head: Head = { map: -1, prefix: 'NP', w: -1, l: -1 }
  for (const part of token.split('.').slice(1)) {
    if (part === 'L0' || part === 'LZ' || part === '128') head.l = 0
    else if (part === 'L1' || part === '256') head.l = 1
    else if (part === 'W0') head.w = 0
    else if (part === 'W1') head.w = 1
    else if (part === '0F') head.map = MAP['VEX.0F']
    else if (part === '0F38') head.map = MAP['VEX.0F38']
    else if (part === '0F3A') head.map = MAP['VEX.0F3A']
    else if (PREFIXES.includes(part)) head.prefix = part as MandatoryPrefix
    else if (part !== 'LIG' && part !== 'WIG') fail(text, `'${part}' is not a VEX field`)
  }
  if (head.map < 0) fail(text, 'VEX names no map')
  return head
}

/** Grammar: [VEX.…] | [prefix] [REX.W|W0] [0F [38|3A]]; opcode; then `+r` or a ModRM byte or `/r`, `/0`…`/7`, `mem`, `reg`, `mod=*`. */
export function parseEncoding(text: string, operands: readonly OperandSpec[]): Encoding {
  const tokens = text.split(' ')
  let at = 0
  let head: Head = { map: MAP.ONE_BYTE, prefix: 'any', w: -1, l: -1 }
  const vex = tokens[0]?.startsWith('VEX.') ?? false
  if (vex) {
    head = parseVex(tokens[at++] ?? '', text)
  } else {
    const first = tokens[at] ?? ''
    // 66, F2 and F3 are never opcodes of a row, so no look-ahead is needed.
    if (PREFIXES.includes(first)) {
      head.prefix = first as MandatoryPrefix
      at++
    }
    if (/^(REX\.W|W0)$/.test(tokens[at] ?? '')) head.w = tokens[at++] === 'W0' ? 0 : 1
    if (tokens[at] === '0F') {
      at++
      const escape = tokens[at]
      head.map = escape === '38' ? MAP['0F38'] : escape === '3A' ? MAP['0F3A'] : MAP[0x0f]
      if (head.map !== MAP[0x0f]) at++
    }
  }
  const opcodeToken = tokens[at++] ?? ''
  if (!isByte(opcodeToken)) fail(text, 'no opcode byte')
  const opcode = Number.parseInt(opcodeToken, 16)
  let mod: Encoding['mod'] = modByOperands(operands)
  let hasModrm = operands.some(({ kind }) => BY_MODRM.includes(kind) || kind === 'STi')
  let plusRegister = false
  let reg = -1
  let rm = -1
  for (; at < tokens.length; at++) {
    const token = tokens[at] ?? ''
    if (token === '+r') plusRegister = true
    else if (token === 'mem' || token === 'reg') mod = token === 'mem' ? 'memory' : 'register'
    else if (token === 'mod=*') mod = 'ignored'
    else if (token === '/r') hasModrm = true
    else if (/^\/[0-7]$/.test(token)) [hasModrm, reg] = [true, Number(token.charAt(1))]
    else if (isByte(token)) {
      const modrm = Number.parseInt(token, 16)
      if (modrm < 0xc0) fail(text, 'a fixed ModRM byte has mod = 11')
      ;[hasModrm, mod, reg, rm] = [true, 'register', (modrm >> 3) & 7, modrm & 7]
    } else fail(text, `'${token}' is not in the notation`)
  }
  if (plusRegister !== operands.some(({ kind }) => kind === 'Z')) fail(text, '+r and a Z operand go together')
  if (plusRegister && (opcode & 7) !== 0) fail(text, '+r needs an opcode that ends in 000')
  return { ...head, vex, opcode, plusRegister, hasModrm, mod, reg, rm }
}
