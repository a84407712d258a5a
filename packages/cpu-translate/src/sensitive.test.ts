/**
 * The unprivileged sensitive instructions (Robin and Irvine), alone and in the middle of a block, at every privilege level: the expectation is the processor's own
 * behaviour under VMX, complete state and memory.
 */

import { isDeepStrictEqual } from 'node:util'
import { describe, expect, it } from 'vitest'
import { createMachine } from './testing/machines.ts'
import { SNIPPETS } from './testing/snippets.ts'

const vmx = createMachine('vmx')
const translate = createMachine('translate')
const off = createMachine('off')

/** mov ecx, 5; lea rsi, [rip + 3]; add rsi, rcx — and the same again behind it. */
const AROUND = [0xb9, 5, 0, 0, 0, 0x48, 0x8d, 0x35, 3, 0, 0, 0, 0x48, 0x01, 0xce]
const placed = (code: readonly number[], where: 'alone' | 'in a block'): number[] =>
  where === 'alone' ? [...code] : [...AROUND, ...code, ...AROUND]

describe.each([0, 1, 2, 3] as const)('at CPL %s', (cpl) => {
  describe.each(['alone', 'in a block'] as const)('%s', (where) => {
    it.each(SNIPPETS)('$name', ({ code }) => {
      const program = placed(code, where)
      const expected = vmx.run(program, { cpl })
      expect(expected.reason).toBe('halt')
      expect(translate.run(program, { cpl })).toEqual(expected)
    })
  })
})

it('without translation a kernel at CPL 1 gets wrong answers, which no trap prevents', () => {
  const families = SNIPPETS.filter(({ code }) => !isDeepStrictEqual(off.run(code), vmx.run(code))).map(({ name }) => name.split(' ')[0])
  // SGDT, SIDT, SLDT, SMSW and STR trap, as this processor has UMIP; INT n and most far transfers trap as well.
  expect(new Set(families)).toEqual(
    new Set(['POPF', 'LAR', 'LSL', 'VERR', 'VERW', 'MOV', 'CALL', 'IRET']),
  )
})
