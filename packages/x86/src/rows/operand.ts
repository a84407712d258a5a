/** Operand notation of the manual's opcode maps, parsed: where an operand is and how wide. Not its value. */

/**
 * Where the operand is. Letters are those of SDM Vol. 2D, "Codes for Addressing Method"; the manual has none for the
 * opcode's low three bits (`Z`), the x87 stack (`ST`) and implied registers (`gpr`, `segment`, `xmm0`, `one`).
 */
export type OperandKind =
  | 'E' // general register or memory, by ModRM.rm
  | 'G' // general register, by ModRM.reg
  | 'M' // memory, by ModRM.rm
  | 'R' // general register, by ModRM.rm
  | 'Z' // general register, by the opcode's low three bits and REX.B (held in Instruction.rm)
  | 'B' // general register, by VEX.vvvv
  | 'I' // immediate
  | 'J' // relative branch target
  | 'A' // far pointer in the instruction
  | 'O' // memory offset in the instruction
  | 'X' // memory at DS:rSI (segment may be overridden)
  | 'Y' // memory at ES:rDI
  | 'S' // segment register, by ModRM.reg
  | 'C' // control register, by ModRM.reg
  | 'D' // debug register, by ModRM.reg
  | 'P' // MMX register, by ModRM.reg
  | 'N' // MMX register, by ModRM.rm
  | 'Q' // MMX register or memory, by ModRM.rm
  | 'V' // XMM register, by ModRM.reg
  | 'U' // XMM register, by ModRM.rm
  | 'W' // XMM register or memory, by ModRM.rm
  | 'ST0' // x87 stack top
  | 'STi' // x87 stack register, by ModRM.rm
  | 'gpr' // the general register `register`
  | 'segment' // the segment register `register`
  | 'xmm0'
  | 'one' // the constant 1

/**
 * Width. b w d q x: 8 16 32 64 128 bits. v: operand size. z: operand size, at most 32. y: 64 bits when the operand size
 * is 64, else 32. t: 80 bits. p: far pointer (16:v). s: pseudo-descriptor (GDTR, IDTR). a: BOUND's pair.
 * f32 f64 f80 i16 i32 i64 bcd: x87 memory formats. env, state, fx, none: areas of their own layout, or no access.
 * sreg: selector: 16 bits in memory, the operand size in a register. db dw: 32-bit register or memory of 8, 16 bits.
 */
export type OperandSize =
  | 'b'
  | 'w'
  | 'd'
  | 'q'
  | 'x'
  | 'v'
  | 'z'
  | 'y'
  | 'p'
  | 's'
  | 'a'
  | 'f32'
  | 'f64'
  | 'f80'
  | 'i16'
  | 'i32'
  | 'i64'
  | 'bcd'
  | 'env'
  | 'state'
  | 'fx'
  | 'none'
  | 'sreg'
  | 'db'
  | 'dw'
  | 'c' // CMPXCHG8B, CMPXCHG16B: twice y

export interface OperandSpec {
  /** As written: `Ev`. */
  readonly text: string
  readonly kind: OperandKind
  readonly size: OperandSize
  /** Register number of the implied operands; -1 otherwise. AH is 4 with size b, without REX. */
  readonly register: number
  /** Immediates: sign-extended (to the operand size and beyond). */
  readonly signed: boolean
}

const fixed = (text: string, kind: OperandKind, size: OperandSize, register: number): OperandSpec => ({
  text,
  kind,
  size,
  register,
  signed: false,
})

const IMPLIED: Readonly<Record<string, OperandSpec>> = {
  AL: fixed('AL', 'gpr', 'b', 0),
  CL: fixed('CL', 'gpr', 'b', 1),
  AX: fixed('AX', 'gpr', 'w', 0),
  DX: fixed('DX', 'gpr', 'w', 2),
  eAX: fixed('eAX', 'gpr', 'z', 0),
  rAX: fixed('rAX', 'gpr', 'v', 0),
  ES: fixed('ES', 'segment', 'w', 0),
  CS: fixed('CS', 'segment', 'w', 1),
  SS: fixed('SS', 'segment', 'w', 2),
  DS: fixed('DS', 'segment', 'w', 3),
  FS: fixed('FS', 'segment', 'w', 4),
  GS: fixed('GS', 'segment', 'w', 5),
  XMM0: fixed('XMM0', 'xmm0', 'x', 0),
  ST0: fixed('ST0', 'ST0', 'f80', 0),
  STi: fixed('STi', 'STi', 'f80', -1),
  '1': fixed('1', 'one', 'b', -1),
}

const SIZES = 'b w d q x v z y p s a f32 f64 f80 i16 i32 i64 bcd env state fx none sreg db dw c'.split(' ')
const KINDS = 'EGMRZBIJAOXYSCDPNQVUW'

function parseOperand(text: string): OperandSpec {
  const implied = IMPLIED[text]
  if (implied) return implied
  const kind = text.charAt(0)
  const rest = text.slice(1)
  const signed = (kind === 'I' && (rest === 'bs' || rest === 'z')) || kind === 'J'
  const size = kind === 'I' && rest === 'bs' ? 'b' : rest === '' ? 'none' : rest
  if (!KINDS.includes(kind) || !SIZES.includes(size)) throw new Error(`operand '${text}' is not in the notation`)
  return { text, kind: kind as OperandKind, size: size as OperandSize, register: -1, signed }
}

const cache = new Map<string, OperandSpec>()

/** Equal texts give the identical object. */
export function parseOperands(text: string): OperandSpec[] {
  if (text === '') return []
  return text.split(',').map((part) => {
    const known = cache.get(part)
    if (known) return known
    const spec = parseOperand(part)
    cache.set(part, spec)
    return spec
  })
}
