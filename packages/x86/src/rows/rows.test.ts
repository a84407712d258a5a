import { describe, expect, it } from 'vitest'
import { createInstruction, decode, disassemble } from '../decode/index.ts'
import { DecodeTables } from '../decode/tables.ts'
import { families, rows } from './index.ts'
import { parseRow, row, type Feature } from './row.ts'

describe('the rows', () => {
  it('are numbered in the order of the families', () => {
    const sources = Object.values(families).flat()
    expect(rows.map(({ id }) => id)).toEqual(sources.map((_, id) => id))
    expect(rows.map(({ mnemonic }) => mnemonic)).toEqual(sources.map(({ mnemonic }) => mnemonic))
  })

  it('can all be reached by the decoder, and no two claim one encoding', () => {
    const reached = new Set<number>()
    const tables = new DecodeTables(() => true)
    // Throws where two do.
    tables.top.forEach((_, cell) => tables.settle(cell))
    for (const entry of tables.top) if (entry > 0) reached.add(entry - 1)
    for (const table of tables.byModrm) for (const entry of table) if (entry > 0) reached.add(entry - 1)
    expect(
      rows.filter(({ id }) => !reached.has(id)).map(({ mnemonic, encoding }) => `${mnemonic} ${encoding}`),
    ).toEqual([])
  })

  it('say of flags only what is consistent', () => {
    for (const { flags, mnemonic } of rows) {
      for (const letter of flags.undefined) expect(flags.writes, mnemonic).toContain(letter)
      for (const letter of flags.reads + flags.writes) expect('ODITSZAPCLNRVXFGE', mnemonic).toContain(letter)
    }
  })

  it('have one implementation per key only where the operands agree in kind', () => {
    // A key that MMX and general registers shared would be two instructions under one name.
    const groups = Map.groupBy(rows, ({ semantics }) => semantics)
    for (const [key, group] of groups) {
      const x87 = group.filter(({ attributes }) => attributes.unit === 'x87').length
      expect(x87 === 0 || x87 === group.length, key).toBe(true)
    }
  })
})

describe('notation', () => {
  it.each([
    ['an operand that is not in it', 'Kv', '01 /r', /operand 'Kv'/],
    ['an encoding without an opcode', '', 'NP 0F', /no opcode/],
    ['an unknown token', '', '01 /q', /'\/q'/],
    ['+r without the operand', '', '50 +r', /\+r/],
    ['a memory form as fixed ModRM', '', '0F 01 40', /mod = 11/],
    ['VEX without a map', '', 'VEX.L0.NP F2 /r', /no map/],
  ])('%s throws', (_, operands, encoding, message) => {
    expect(() => parseRow(row('X', operands, encoding), 0)).toThrow(message)
  })
})

describe('features', () => {
  const decodeWith = (has: (feature: Feature) => boolean, ...bytes: number[]): string => {
    const into = createInstruction(rows[0]!)
    const mode = { codeSize: 64, protectedMode: true, tables: new DecodeTables(has) } as const
    const result = decode(Uint8Array.from(bytes), 0, bytes.length, mode, into)
    return result === 'ok' ? disassemble(into) : result
  }

  it.each([
    ['TZCNT is BSF', 'bmi1', [0xf3, 0x0f, 0xbc, 0xc1], 'tzcnt eax,ecx', 'bsf eax,ecx'],
    ['LZCNT is BSR', 'lzcnt', [0xf3, 0x0f, 0xbd, 0xc1], 'lzcnt eax,ecx', 'bsr eax,ecx'],
    ['RDSSP is a NOP', 'cetSs', [0xf3, 0x48, 0x0f, 0x1e, 0xc8], 'rdsspq rax', 'nop rax'],
    ['POPCNT is #UD', 'popcnt', [0xf3, 0x0f, 0xb8, 0xc1], 'popcnt eax,ecx', 'ud'],
    ['CLWB is #UD', 'clwb', [0x66, 0x0f, 0xae, 0x30], 'clwb BYTE PTR [rax]', 'ud'],
  ])('%s without %s', (_, feature, bytes, present, absent) => {
    expect(decodeWith(() => true, ...bytes)).toBe(present)
    expect(decodeWith((name) => name !== feature, ...bytes)).toBe(absent)
  })
})
