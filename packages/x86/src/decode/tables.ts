/**
 * Dispatch tables of the decoder, built once from the rows: opcode map × opcode × mandatory prefix × W, then ModRM.
 * Throws when two rows claim one encoding.
 */
import { rows } from '../rows/index.ts'
import type { Feature, OperandSpec, Row } from '../rows/row.ts'

/** Legacy maps, the three VEX maps with L = 0 and with L = 1. */
const MAPS = 10
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

export interface DecodeTables {
  /** By `topIndex`: 0 no such instruction, n > 0 row n - 1, n < 0 the ModRM table -n - 1. */
  readonly top: Int16Array
  /** 256 entries each by the ModRM byte: 0 or row + 1. */
  readonly byModrm: Int16Array
  readonly rows: readonly Row[]
  readonly traits: Uint16Array
  readonly immediates: Uint8Array
  /** Legal values of ModRM.reg (with REX.R) of `regRestricted` rows, as bits. */
  readonly legalReg: Uint16Array
  /** The row that takes this one's place when REX.B is set; -1 none. (90: NOP and PAUSE become XCHG.) */
  readonly withRexB: Int16Array
}

/** `prefix`: 0 none, 1 66, 2 F3, 3 F2, as VEX.pp. */
export function topIndex(long: number, map: number, opcode: number, prefix: number, w: number): number {
  return ((((long * MAPS + map) << 8) | opcode) << 3) | (prefix << 1) | w
}

const PREFIX_INDEX = { NP: [0], '66': [1], F3: [2], F2: [3], NFx: [0, 1], any: [0, 1, 2, 3] } as const

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

/** Which of two rows that claim an encoding has it: the higher; equals are an error in the rows. */
function precedence({ attributes, form }: Row): number {
  return (
    (attributes.reserved ? 0 : 4) +
    (form.prefix === 'any' || form.prefix === 'NFx' ? 0 : 2) +
    (form.plusRegister ? 0 : 1)
  )
}

function matches({ form }: Row, modrm: number): boolean {
  const register = modrm >= 0xc0
  if ((form.mod === 'memory' && register) || (form.mod === 'register' && !register)) return false
  return (form.reg < 0 || form.reg === ((modrm >> 3) & 7)) && (form.rm < 0 || form.rm === (modrm & 7))
}

const modrmMatters = ({ form }: Row): boolean =>
  form.mod === 'memory' || form.mod === 'register' || form.reg >= 0 || form.rm >= 0

/** The winner among the rows of one cell, for one ModRM byte if given; candidates come in order of precedence. */
function choose(candidates: readonly Row[], modrm?: number): Row | undefined {
  let best: Row | undefined
  for (const row of candidates) {
    if (modrm !== undefined && !matches(row, modrm)) continue
    if (!best) best = row
    else if (precedence(row) < precedence(best)) break
    else throw new Error(`'${row.mnemonic}' (${row.encoding}) and '${best.mnemonic}' (${best.encoding}) overlap`)
  }
  return best
}

/**
 * Rows by cell of the top table: for each cell the number of its list. Most cells have a list in common with others, so
 * that what follows from a list is worked out once. List 0 is empty.
 */
function distribute(included: readonly Row[]): { cells: Uint16Array; lists: readonly (readonly Row[])[] } {
  const cells = new Uint16Array(2 * MAPS * 256 * 8)
  const lists: (readonly Row[])[] = [[]]
  /** The list that another becomes with one more row. */
  const longer = new Map<number, number>()
  const add = (index: number, row: Row) => {
    const list = cells[index]!
    const key = list * rows.length + row.id
    let next = longer.get(key)
    if (next === undefined) longer.set(key, (next = lists.push([...lists[list]!, row]) - 1))
    cells[index] = next
  }
  for (const row of included) {
    const { form, attributes } = row
    const longModes = attributes.only64 ? [1] : attributes.not64 ? [0] : [0, 1]
    const maps = !form.vex
      ? [form.map]
      : form.l === 0
        ? [form.map]
        : form.l === 1
          ? [form.map + VEX_L1]
          : [form.map, form.map + VEX_L1]
    const widths = form.w < 0 ? [0, 1] : [form.w]
    const opcodes = form.plusRegister ? [0, 1, 2, 3, 4, 5, 6, 7].map((n) => form.opcode + n) : [form.opcode]
    for (const long of longModes)
      for (const map of maps)
        for (const opcode of opcodes)
          for (const prefix of PREFIX_INDEX[form.prefix])
            for (const w of widths) add(topIndex(long, map, opcode, prefix, w), row)
  }
  return { cells, lists }
}

/** Tables of a processor that has the features for which `has` answers true; rows of others do not exist for it. */
export function buildTables(has: (feature: Feature) => boolean): DecodeTables {
  const included = rows.filter(({ attributes }) => attributes.cpuid === undefined || has(attributes.cpuid))
  const { cells, lists } = distribute(included)
  const withRexB = new Int16Array(rows.length).fill(-1)
  const modrmTables: Int16Array[] = []
  const known = new Map<string, number>()
  /** What the top table says of a cell with these rows. */
  const entryOf = (list: readonly Row[]): number => {
    const candidates = list.toSorted((left, right) => precedence(right) - precedence(left))
    if (!list.some(modrmMatters)) {
      const row = choose(candidates)
      const register = list.find(({ form }) => form.plusRegister)
      // F3 90 with REX.B too: F3 is then a prefix without meaning, as silicon shows.
      if (row && register && row !== register) withRexB[row.id] = register.id
      return row ? row.id + 1 : 0
    }
    const table = new Int16Array(256)
    for (let modrm = 0; modrm < 256; modrm++) table[modrm] = (choose(candidates, modrm)?.id ?? -1) + 1
    const key = String.fromCharCode(...table)
    let at = known.get(key)
    if (at === undefined) known.set(key, (at = modrmTables.push(table) - 1))
    return -at - 1
  }
  const entries = new Map<number, number>([[0, 0]])
  const top = new Int16Array(cells.length)
  cells.forEach((list, index) => {
    let entry = entries.get(list)
    if (entry === undefined) entries.set(list, (entry = entryOf(lists[list]!)))
    top[index] = entry
  })
  const byModrm = new Int16Array(modrmTables.length * 256)
  modrmTables.forEach((table, at) => byModrm.set(table, at * 256))
  return {
    top,
    byModrm,
    rows,
    traits: Uint16Array.from(rows, traits),
    immediates: Uint8Array.from(rows, ({ operands }) => immediateKind(operands)),
    legalReg: Uint16Array.from(rows, legalReg),
    withRexB,
  }
}

/** Every row, whatever CPUID advertises. Building it at load is what checks the rows for overlaps. */
export const EVERY_ROW: DecodeTables = buildTables(() => true)
