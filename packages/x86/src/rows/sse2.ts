/** SSE2: packed and scalar double precision, packed integers in XMM registers. (SDM Vol. 1, "SSE2 Instructions".) */
import { flags } from './flags.ts'
import { PACKED, PACKED_SHIFTS } from './packed.ts'
import { alignedFamily, row, type RowSource } from './row.ts'

const COMPARE_FLAGS = { flags: flags('', 'OSZAPC') }

/** Packed with 66, scalar with F2. */
const arithmetic = (opcode: string, mnemonic: string): RowSource[] => [
  row(`${mnemonic}PD`, 'Vx,Wx', `66 0F ${opcode} /r`),
  row(`${mnemonic}SD`, 'Vq,Wq', `F2 0F ${opcode} /r`),
]

const DOUBLES = [
  row('MOVUPD', 'Vx,Wx', '66 0F 10 /r', { aligned: false }),
  row('MOVUPD', 'Wx,Vx', '66 0F 11 /r', { aligned: false }),
  row('MOVSD', 'Vq,Wq', 'F2 0F 10 /r'),
  row('MOVSD', 'Wq,Vq', 'F2 0F 11 /r'),
  row('MOVLPD', 'Vq,Mq', '66 0F 12 /r'),
  row('MOVLPD', 'Mq,Vq', '66 0F 13 /r'),
  row('UNPCKLPD', 'Vx,Wx', '66 0F 14 /r'),
  row('UNPCKHPD', 'Vx,Wx', '66 0F 15 /r'),
  row('MOVHPD', 'Vq,Mq', '66 0F 16 /r'),
  row('MOVHPD', 'Mq,Vq', '66 0F 17 /r'),
  row('MOVAPD', 'Vx,Wx', '66 0F 28 /r'),
  row('MOVAPD', 'Wx,Vx', '66 0F 29 /r'),
  row('MOVNTPD', 'Mx,Vx', '66 0F 2B /r'),
  row('UCOMISD', 'Vq,Wq', '66 0F 2E /r', COMPARE_FLAGS),
  row('COMISD', 'Vq,Wq', '66 0F 2F /r', COMPARE_FLAGS),
  row('MOVMSKPD', 'Gd,Ux', '66 0F 50 /r'),
  ...arithmetic('51', 'SQRT'),
  row('ANDPD', 'Vx,Wx', '66 0F 54 /r'),
  row('ANDNPD', 'Vx,Wx', '66 0F 55 /r'),
  row('ORPD', 'Vx,Wx', '66 0F 56 /r'),
  row('XORPD', 'Vx,Wx', '66 0F 57 /r'),
  ...arithmetic('58', 'ADD'),
  ...arithmetic('59', 'MUL'),
  ...arithmetic('5C', 'SUB'),
  ...arithmetic('5D', 'MIN'),
  ...arithmetic('5E', 'DIV'),
  ...arithmetic('5F', 'MAX'),
  row('CMPPD', 'Vx,Wx,Ib', '66 0F C2 /r'),
  row('CMPSD', 'Vq,Wq,Ib', 'F2 0F C2 /r'),
  row('SHUFPD', 'Vx,Wx,Ib', '66 0F C6 /r'),
]

const CONVERSIONS = [
  row('CVTPI2PD', 'Vx,Qq', '66 0F 2A /r'),
  row('CVTSI2SD', 'Vq,Ey', 'F2 0F 2A /r'),
  row('CVTTPD2PI', 'Pq,Wx', '66 0F 2C /r'),
  row('CVTTSD2SI', 'Gy,Wq', 'F2 0F 2C /r'),
  row('CVTPD2PI', 'Pq,Wx', '66 0F 2D /r'),
  row('CVTSD2SI', 'Gy,Wq', 'F2 0F 2D /r'),
  row('CVTPS2PD', 'Vx,Wq', 'NP 0F 5A /r'),
  row('CVTPD2PS', 'Vx,Wx', '66 0F 5A /r'),
  row('CVTSS2SD', 'Vq,Wd', 'F3 0F 5A /r'),
  row('CVTSD2SS', 'Vd,Wq', 'F2 0F 5A /r'),
  row('CVTDQ2PS', 'Vx,Wx', 'NP 0F 5B /r'),
  row('CVTPS2DQ', 'Vx,Wx', '66 0F 5B /r'),
  row('CVTTPS2DQ', 'Vx,Wx', 'F3 0F 5B /r'),
  row('CVTTPD2DQ', 'Vx,Wx', '66 0F E6 /r'),
  row('CVTDQ2PD', 'Vx,Wq', 'F3 0F E6 /r'),
  row('CVTPD2DQ', 'Vx,Wx', 'F2 0F E6 /r'),
]

const INTEGERS = [
  ...PACKED.map(([opcode, mnemonic]) => row(mnemonic, 'Vx,Wx', `66 0F ${opcode} /r`)),
  ...PACKED_SHIFTS.map(([encoding, mnemonic]) => row(mnemonic, 'Ux,Ib', `66 0F ${encoding}`)),
  row('PSRLDQ', 'Ux,Ib', '66 0F 73 /3'),
  row('PSLLDQ', 'Ux,Ib', '66 0F 73 /7'),
  row('PUNPCKLQDQ', 'Vx,Wx', '66 0F 6C /r'),
  row('PUNPCKHQDQ', 'Vx,Wx', '66 0F 6D /r'),
  row('MOVD', 'Vx,Ey', '66 0F 6E /r', { names: 'MOVD MOVD MOVQ' }),
  row('MOVD', 'Ey,Vx', '66 0F 7E /r', { names: 'MOVD MOVD MOVQ' }),
  row('MOVQ', 'Vx,Wq', 'F3 0F 7E /r'),
  row('MOVQ', 'Wq,Vq', '66 0F D6 /r'),
  row('MOVDQA', 'Vx,Wx', '66 0F 6F /r'),
  row('MOVDQA', 'Wx,Vx', '66 0F 7F /r'),
  row('MOVDQU', 'Vx,Wx', 'F3 0F 6F /r', { aligned: false }),
  row('MOVDQU', 'Wx,Vx', 'F3 0F 7F /r', { aligned: false }),
  row('MOVQ2DQ', 'Vx,Nq', 'F3 0F D6 /r'),
  row('MOVDQ2Q', 'Pq,Uq', 'F2 0F D6 /r'),
  row('MOVNTDQ', 'Mx,Vx', '66 0F E7 /r'),
  row('MASKMOVDQU', 'Vx,Ux', '66 0F F7 /r'),
  row('PSHUFD', 'Vx,Wx,Ib', '66 0F 70 /r'),
  row('PSHUFHW', 'Vx,Wx,Ib', 'F3 0F 70 /r'),
  row('PSHUFLW', 'Vx,Wx,Ib', 'F2 0F 70 /r'),
  row('PINSRW', 'Vx,Edw,Ib', '66 0F C4 /r'),
  row('PEXTRW', 'Gd,Ux,Ib', '66 0F C5 /r'),
  row('PMOVMSKB', 'Gd,Ux', '66 0F D7 /r'),
]

export const sse2: readonly RowSource[] = alignedFamily({ unit: 'sse', cpuid: 'sse2' }, [
  ...DOUBLES,
  ...CONVERSIONS,
  ...INTEGERS,
])
