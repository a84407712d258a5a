import { describe, expect, it } from 'vitest'
import { tableIndex } from './paging-entry.ts'
import { CR0_64, CR4_64, DEFINED, EFER_64, FLAG_64, VECTOR, WITH_ERROR_CODE } from './register-bits.ts'

describe('facts of registers', () => {
  // SDM Vol. 3A, "Control Registers", "EFER"; Vol. 1, "EFLAGS Register"; Vol. 3A, "Exception and Interrupt Reference".
  it.each([
    ['CR0', DEFINED.cr0 >>> 0, 0xe005_003f],
    ['EFER', DEFINED.efer, 0xd01],
    ['RFLAGS', DEFINED.flags, 0x3f_7fd5],
  ])('%s has the defined bits', (_, bits, expected) => {
    expect(bits.toString(16)).toBe(expected.toString(16))
  })

  it('has unsigned 64-bit forms', () => {
    expect([CR0_64.pg, CR4_64.smap, EFER_64.nxe, FLAG_64.ID]).toEqual([1n << 31n, 1n << 21n, 1n << 11n, 1n << 21n])
  })

  it('lists the exceptions that push an error code', () => {
    const names = Object.entries(VECTOR).filter(([, vector]) => (WITH_ERROR_CODE >>> vector) & 1)
    expect(names.map(([name]) => name)).toEqual(['DF', 'TS', 'NP', 'SS', 'GP', 'PF', 'AC', 'CP'])
  })
})

describe('tableIndex', () => {
  it.each([1, 2, 3, 4, 5])('selects nine bits at level %i', (level) => {
    for (const index of [0, 1, 0xff, 0x100, 0x1ff]) {
      const around = ((1n << BigInt(12 + 9 * (level - 1))) - 1n) | (0x7fn << BigInt(12 + 9 * level))
      const address = (BigInt(index) << BigInt(12 + 9 * (level - 1))) | around
      const low = Number(BigInt.asIntN(32, address))
      const high = Number(BigInt.asIntN(32, address >> 32n))
      expect(tableIndex(low, high, level)).toBe(index)
    }
  })
})
