/**
 * Dispatch tables of the decoder, made from the rows: opcode map × opcode × mandatory prefix × W, then ModRM. A cell is computed when an instruction
 * first uses it: most are never used, and computing all dominated the start-up time. Throws if two rows claim one encoding.
 */
import { rows } from '../rows/index.ts'
import type { Feature, OperandSpec, Row } from '../rows/row.ts'

/** Legacy maps, the three VEX maps with L = 0 and with L = 1. */
const MAPS = 10
/** In a cell that has not been used yet. */
export const UNSETTLED = -0x8000
/** From a VEX map with L = 0 to the same with L = 1. */
export const VEX_L1 = 3

/** Immediate (or relative target, far pointer, memory offset) that follows, by row. */
export const IMMEDIATE = {
  none: 0,
  byte: 1,
  byteSigned: 2,
  word: 3,
  z: 4,
  full: 5,
  wordByte: 6,
  farPointer: 7,
  offset: 8,
} as const

/** Bits of `DecodeTables.traits`. */
export const TRAIT = {
  modrm: 1,
  modIgnored: 2,
  default64: 4,
  force64: 8,
  lock: 16,
  notReal: 32,
  /** 66 is part of the opcode and does not select the operand size. */
  prefix66: 64,
  vvvv: 128,
  regUnextended: 256,
  rmUnextended: 512,
  regRestricted: 1024,
  plusRegister: 2048,
} as const

/** `prefix`: 0 none, 1 66, 2 F3, 3 F2, as VEX.pp. */
export function topIndex(long: number, map: number, opcode: number, prefix: number, w: number): number {
  return ((((long * MAPS + map) << 8) | opcode) << 3) | (prefix << 1) | w
}

const PREFIXES = { NP: [0], '66': [1], F3: [2], F2: [3], NFx: [0, 1], any: [0, 1, 2, 3] } as const

function immediateKind(operands: readonly OperandSpec[]): number {
  const text = operands
    .filter(({ kind }) => kind === 'I' || kind === 'J' || kind === 'A' || kind === 'O')
    .map((operand) => operand.text)
    .join(',')
  if (text === '') return IMMEDIATE.none
  if (text === 'Ib') return IMMEDIATE.byte
  if (text === 'Ibs' || text === 'Jb') return IMMEDIATE.byteSigned
  if (text === 'Iw') return IMMEDIATE.word
  if (text === 'Iz' || text === 'Jz') return IMMEDIATE.z
  if (text === 'Iv') return IMMEDIATE.full
  if (text === 'Iw,Ib') return IMMEDIATE.wordByte
  if (text === 'Ap') return IMMEDIATE.farPointer
  if (text === 'Ob' || text === 'Ov') return IMMEDIATE.offset
  throw new Error(`no immediate of the form '${text}'`)
}

/** Control registers 0, 2, 3, 4, 8; debug registers 0 to 7; six segment registers, of which CS cannot be loaded. */
function legalReg({ operands }: Row): number {
  const kinds = operands.map(({ kind }) => kind)
  if (kinds.includes('C')) return 0b1_0001_1101
  if (kinds.includes('D')) return 0xff
  if (kinds[0] === 'S') return 0b11_1101
  return kinds.includes('S') ? 0b11_1111 : 0xffff
}

function traits(row: Row): number {
  const { form, operands, attributes } = row
  const has = (...kinds: string[]) => operands.some(({ kind }) => kinds.includes(kind))
  let bits = 0
  if (form.hasModrm) bits |= TRAIT.modrm
  if (form.mod === 'ignored') bits |= TRAIT.modIgnored
  if (form.plusRegister) bits |= TRAIT.plusRegister
  if (form.prefix === '66') bits |= TRAIT.prefix66
  if (attributes.default64) bits |= TRAIT.default64
  if (attributes.force64) bits |= TRAIT.force64
  if (attributes.lock) bits |= TRAIT.lock
  if (attributes.notReal) bits |= TRAIT.notReal
  if (has('B')) bits |= TRAIT.vvvv
  if (has('S', 'P')) bits |= TRAIT.regUnextended
  if (has('N', 'Q', 'STi')) bits |= TRAIT.rmUnextended
  if (legalReg(row) !== 0xffff) bits |= TRAIT.regRestricted
  return bits
}

/** Precedence of rows that claim the same encoding: the higher wins; equal ones are an error in the rows. */
function precedence({ attributes, form }: Row): number {
  return (
    (attributes.reserved ? 0 : 4) +
    (form.prefix === 'any' || form.prefix === 'NFx' ? 0 : 2) +
    (form.plusRegister ? 0 : 1)
  )
}

const modrmMatters = ({ form }: Row): boolean =>
  form.mod === 'memory' || form.mod === 'register' || form.reg >= 0 || form.rm >= 0

/** The row with lower precedence loses an encoding that both claim. */
function checkOverlap(winner: Row, loser: Row): void {
  if (precedence(winner) > precedence(loser)) return
  const name = ({ mnemonic, encoding }: Row): string => `'${mnemonic}' (${encoding})`
  throw new Error(`${name(loser)} and ${name(winner)} overlap`)
}

/** By ModRM byte, 0 or row + 1, for the rows of one cell. They are in order of precedence: the first one gets the byte. */
function modrmTable(candidates: readonly Row[]): Int16Array {
  const table = new Int16Array(256)
  for (const row of candidates) {
    const { mod, reg, rm } = row.form
    const end = mod === 'memory' ? 0xc0 : 0x100
    for (let modrm = mod === 'register' ? 0xc0 : 0; modrm < end; modrm++) {
      if ((reg >= 0 && reg !== ((modrm >> 3) & 7)) || (rm >= 0 && rm !== (modrm & 7))) continue
      const taken = table[modrm]!
      if (taken === 0) table[modrm] = row.id + 1
      else checkOverlap(rows[taken - 1]!, row)
    }
  }
  return table
}

/** Rows by map and opcode: `map << 8 | opcode`. */
const byOpcode: Row[][] = Array.from({ length: MAPS << 8 }, () => [])
for (const row of rows) {
  const { vex, l, map, opcode, plusRegister } = row.form
  const maps = !vex || l === 0 ? [map] : l === 1 ? [map + VEX_L1] : [map, map + VEX_L1]
  for (const at of maps) for (let n = 0; n < (plusRegister ? 8 : 1); n++) byOpcode[(at << 8) | (opcode + n)]!.push(row)
}

/** The rows of a cell of the top table. */
function rowsOf(index: number): Row[] {
  const w = index & 1
  const prefix = (index >> 1) & 3
  const long = index >> 11 >= MAPS
  return byOpcode[(index >> 3) % (MAPS << 8)]!.filter(
    ({ form, attributes }) =>
      !(long ? attributes.not64 : attributes.only64) &&
      (PREFIXES[form.prefix] as readonly number[]).includes(prefix) &&
      (form.w < 0 || form.w === w),
  )
}

export class DecodeTables {
  /** By `topIndex`: 0 no such instruction, n > 0 row n - 1, n < 0 the ModRM table -n - 1, or `UNSETTLED`. */
  readonly top = new Int16Array(2 * (MAPS << 11)).fill(UNSETTLED)
  /** By the ModRM byte: 0 or row + 1. */
  readonly byModrm: Int16Array[] = []
  readonly rows: readonly Row[] = rows
  // By row, for rows in computed cells.
  readonly traits = new Uint16Array(rows.length)
  readonly immediates = new Uint8Array(rows.length)
  /** Legal values of ModRM.reg (with REX.R) of `regRestricted` rows, as bits. */
  readonly legalReg = new Uint16Array(rows.length)
  /** The row that replaces this one if REX.B is set; -1 none. (90: NOP and PAUSE become XCHG.) */
  readonly withRexB = new Int16Array(rows.length).fill(-1)
  readonly #has: (feature: Feature) => boolean

  /** Tables of a processor with the features for which `has` returns true; rows of other features are excluded. */
  constructor(has: (feature: Feature) => boolean) {
    this.#has = has
  }

  /** Computes and returns a cell of the top table. */
  settle(index: number): number {
    const list = rowsOf(index).filter(({ attributes }) => attributes.cpuid === undefined || this.#has(attributes.cpuid))
    for (const row of list) {
      this.traits[row.id] = traits(row)
      this.immediates[row.id] = immediateKind(row.operands)
      this.legalReg[row.id] = legalReg(row)
    }
    return (this.top[index] = this.#entryOf(list.toSorted((left, right) => precedence(right) - precedence(left))))
  }

  #entryOf(candidates: readonly Row[]): number {
    if (candidates.some(modrmMatters)) return -this.byModrm.push(modrmTable(candidates))
    const [row, next] = candidates
    if (!row) return 0
    if (next) checkOverlap(row, next)
    const register = candidates.find(({ form }) => form.plusRegister)
    // F3 90 with REX.B too: F3 is then ignored, as on real processors.
    if (register && row !== register) this.withRexB[row.id] = register.id
    return row.id + 1
  }
}

/** Every row, whatever CPUID advertises. */
export const EVERY_ROW = new DecodeTables(() => true)
