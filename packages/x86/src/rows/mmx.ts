/** Instructions on MMX registers, those that SSE, SSE2 and SSSE3 added included. (SDM Vol. 1, "MMX Instructions".) */
import { PACKED, PACKED_SHIFTS, PACKED_SSSE3 } from './packed.ts'
import { family, row, type RowSource } from './row.ts'

/** PUNPCKL… reads only the low 32 bits of its source. */
const source = (mnemonic: string) => (mnemonic.startsWith('PUNPCKL') ? 'Qd' : 'Qq')

export const mmx: readonly RowSource[] = family({ unit: 'mmx', cpuid: 'mmx' }, [
  ...PACKED.map(([opcode, mnemonic, cpuid = 'mmx']) =>
    row(mnemonic, `Pq,${source(mnemonic)}`, `NP 0F ${opcode} /r`, { cpuid }),
  ),
  ...PACKED_SHIFTS.map(([encoding, mnemonic]) => row(mnemonic, 'Nq,Ib', `NP 0F ${encoding}`)),
  ...PACKED_SSSE3.map(([opcode, mnemonic]) => row(mnemonic, 'Pq,Qq', `NP 0F 38 ${opcode} /r`, { cpuid: 'ssse3' })),
  row('PALIGNR', 'Pq,Qq,Ib', 'NP 0F 3A 0F /r', { cpuid: 'ssse3' }),
  row('MOVD', 'Pq,Ey', 'NP 0F 6E /r', { names: 'MOVD MOVD MOVQ' }),
  row('MOVD', 'Ey,Pq', 'NP 0F 7E /r', { names: 'MOVD MOVD MOVQ' }),
  row('MOVQ', 'Pq,Qq', 'NP 0F 6F /r'),
  row('MOVQ', 'Qq,Pq', 'NP 0F 7F /r'),
  row('EMMS', '', 'NP 0F 77'),
  row('PSHUFW', 'Pq,Qq,Ib', 'NP 0F 70 /r', { cpuid: 'sse' }),
  row('PINSRW', 'Pq,Edw,Ib', 'NP 0F C4 /r', { cpuid: 'sse' }),
  row('PEXTRW', 'Gd,Nq,Ib', 'NP 0F C5 /r', { cpuid: 'sse' }),
  row('PMOVMSKB', 'Gd,Nq', 'NP 0F D7 /r', { cpuid: 'sse' }),
  row('MOVNTQ', 'Mq,Pq', 'NP 0F E7 /r', { cpuid: 'sse' }),
  row('MASKMOVQ', 'Pq,Nq', 'NP 0F F7 /r', { cpuid: 'sse' }),
])
