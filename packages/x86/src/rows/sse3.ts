/** SSE3 and SSSE3 on XMM registers. (SDM Vol. 1, "SSE3 Instructions", "SSSE3 Instructions".) FISTTP is in x87.ts, MONITOR in system.ts. */
import { PACKED_SSSE3 } from './packed.ts'
import { alignedFamily, row, type RowSource } from './row.ts'

export const sse3: readonly RowSource[] = [
  ...alignedFamily({ unit: 'sse', cpuid: 'sse3' }, [
    row('MOVSLDUP', 'Vx,Wx', 'F3 0F 12 /r'),
    row('MOVSHDUP', 'Vx,Wx', 'F3 0F 16 /r'),
    row('MOVDDUP', 'Vx,Wq', 'F2 0F 12 /r'),
    row('HADDPD', 'Vx,Wx', '66 0F 7C /r'),
    row('HADDPS', 'Vx,Wx', 'F2 0F 7C /r'),
    row('HSUBPD', 'Vx,Wx', '66 0F 7D /r'),
    row('HSUBPS', 'Vx,Wx', 'F2 0F 7D /r'),
    row('ADDSUBPD', 'Vx,Wx', '66 0F D0 /r'),
    row('ADDSUBPS', 'Vx,Wx', 'F2 0F D0 /r'),
    row('LDDQU', 'Vx,Mx', 'F2 0F F0 /r', { aligned: false }),
  ]),
  ...alignedFamily({ unit: 'sse', cpuid: 'ssse3' }, [
    ...PACKED_SSSE3.map(([opcode, mnemonic]) => row(mnemonic, 'Vx,Wx', `66 0F 38 ${opcode} /r`)),
    row('PALIGNR', 'Vx,Wx,Ib', '66 0F 3A 0F /r'),
  ]),
]
