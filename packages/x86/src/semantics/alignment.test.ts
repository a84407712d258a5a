/** #AC of instructions that reach more than one value, as the processors that the oracle ran on raise it. In both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { PLACE } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { FLAG } from '../state/register-bits.ts'

const AC = 17

describe.each(TIERS)('%s', (tier) => {
  const m = machineOf(tier)
  it.each<[string, number[], number]>([
    ['FNSAVE', asm(64, 'fnsave [rdi]; ud2'), 4],
    ['FRSTOR', asm(64, 'frstor [rdi]; ud2'), 4],
    ['FNSTENV', asm(64, 'fnstenv [rdi]; ud2'), 4],
    ['FLDENV', asm(64, 'fldenv [rdi]; ud2'), 4],
    ['FNSAVE with 16-bit operands', asm(64, 'data16 fnsave [rdi]; ud2'), 2],
    ['FRSTOR with 16-bit operands', asm(64, 'data16 frstor [rdi]; ud2'), 2],
    ['FLDENV with 16-bit operands', asm(64, 'data16 fldenv [rdi]; ud2'), 2],
    ['FSTP of 80 bits', asm(64, 'fld1; fstp tbyte ptr [rdi]; ud2'), 8],
    ['MASKMOVDQU of all bytes', asm(64, 'pcmpeqd xmm1, xmm1; maskmovdqu xmm0, xmm1; ud2'), 8],
    ['MASKMOVDQU of none', asm(64, 'pxor xmm1, xmm1; maskmovdqu xmm0, xmm1; ud2'), 8],
    ['MASKMOVQ', asm(64, 'pcmpeqd mm1, mm1; maskmovq mm0, mm1; ud2'), 8],
    ['a byte', asm(64, 'mov byte ptr [rdi], 1; ud2'), 1],
  ])('%s: %#', (_name, code, alignment) => {
    for (const flag of [0, FLAG.AC]) {
      const wrong: number[] = []
      for (let offset = 0; offset < 16; offset++) {
        m.enter('long', 3)
        m.flags = 2 | flag
        m.set(7, PLACE.data + 0x100 + offset)
        m.run(code)
        if (m.vector !== (flag && offset % alignment ? AC : 6)) wrong.push(offset)
      }
      expect([flag, wrong]).toEqual([flag, []])
    }
  })
})
