/** SSE: packed and scalar single precision. (SDM Vol. 1, "SSE Instructions".) Its MMX instructions are in mmx.ts. */
import { flags } from './flags.ts'
import { alignedFamily, row, type RowSource } from './row.ts'

const COMPARE_FLAGS = { flags: flags('', 'OSZAPC') }

/** Packed without prefix, scalar with F3. */
const arithmetic = (opcode: string, mnemonic: string): RowSource[] => [
  row(`${mnemonic}PS`, 'Vx,Wx', `NP 0F ${opcode} /r`),
  row(`${mnemonic}SS`, 'Vd,Wd', `F3 0F ${opcode} /r`),
]

export const sse: readonly RowSource[] = alignedFamily({ unit: 'sse', cpuid: 'sse' }, [
  row('MOVUPS', 'Vx,Wx', 'NP 0F 10 /r', { aligned: false }),
  row('MOVUPS', 'Wx,Vx', 'NP 0F 11 /r', { aligned: false }),
  row('MOVSS', 'Vd,Wd', 'F3 0F 10 /r'),
  row('MOVSS', 'Wd,Vd', 'F3 0F 11 /r'),
  row('MOVLPS', 'Vq,Mq', 'NP 0F 12 /r'),
  row('MOVHLPS', 'Vq,Uq', 'NP 0F 12 /r'),
  row('MOVLPS', 'Mq,Vq', 'NP 0F 13 /r'),
  row('UNPCKLPS', 'Vx,Wx', 'NP 0F 14 /r'),
  row('UNPCKHPS', 'Vx,Wx', 'NP 0F 15 /r'),
  row('MOVHPS', 'Vq,Mq', 'NP 0F 16 /r'),
  row('MOVLHPS', 'Vq,Uq', 'NP 0F 16 /r'),
  row('MOVHPS', 'Mq,Vq', 'NP 0F 17 /r'),
  row('MOVAPS', 'Vx,Wx', 'NP 0F 28 /r'),
  row('MOVAPS', 'Wx,Vx', 'NP 0F 29 /r'),
  row('CVTPI2PS', 'Vq,Qq', 'NP 0F 2A /r'),
  row('CVTSI2SS', 'Vd,Ey', 'F3 0F 2A /r'),
  row('MOVNTPS', 'Mx,Vx', 'NP 0F 2B /r'),
  row('CVTTPS2PI', 'Pq,Wq', 'NP 0F 2C /r'),
  row('CVTTSS2SI', 'Gy,Wd', 'F3 0F 2C /r'),
  row('CVTPS2PI', 'Pq,Wq', 'NP 0F 2D /r'),
  row('CVTSS2SI', 'Gy,Wd', 'F3 0F 2D /r'),
  row('UCOMISS', 'Vd,Wd', 'NP 0F 2E /r', COMPARE_FLAGS),
  row('COMISS', 'Vd,Wd', 'NP 0F 2F /r', COMPARE_FLAGS),
  row('MOVMSKPS', 'Gd,Ux', 'NP 0F 50 /r'),
  ...arithmetic('51', 'SQRT'),
  ...arithmetic('52', 'RSQRT'),
  ...arithmetic('53', 'RCP'),
  row('ANDPS', 'Vx,Wx', 'NP 0F 54 /r'),
  row('ANDNPS', 'Vx,Wx', 'NP 0F 55 /r'),
  row('ORPS', 'Vx,Wx', 'NP 0F 56 /r'),
  row('XORPS', 'Vx,Wx', 'NP 0F 57 /r'),
  ...arithmetic('58', 'ADD'),
  ...arithmetic('59', 'MUL'),
  ...arithmetic('5C', 'SUB'),
  ...arithmetic('5D', 'MIN'),
  ...arithmetic('5E', 'DIV'),
  ...arithmetic('5F', 'MAX'),
  row('CMPPS', 'Vx,Wx,Ib', 'NP 0F C2 /r'),
  row('CMPSS', 'Vd,Wd,Ib', 'F3 0F C2 /r'),
  row('SHUFPS', 'Vx,Wx,Ib', 'NP 0F C6 /r'),
  row('LDMXCSR', 'Md', 'NP 0F AE /2'),
  row('STMXCSR', 'Md', 'NP 0F AE /3'),
])
