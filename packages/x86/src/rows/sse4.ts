/** SSE4.1 and SSE4.2. (SDM Vol. 1, "SSE4 Instructions".) CRC32 and POPCNT, on general registers, are in bit.ts. */
import { flags } from './flags.ts'
import { alignedFamily, row, type RowSource } from './row.ts'

const ALL_FLAGS = { flags: flags('', 'OSZAPC') }

/** Map 0F 38, 66, `Vx,Wx`. */
const PLAIN: readonly (readonly [string, string])[] = [
  ['28', 'PMULDQ'],
  ['29', 'PCMPEQQ'],
  ['2B', 'PACKUSDW'],
  ['38', 'PMINSB'],
  ['39', 'PMINSD'],
  ['3A', 'PMINUW'],
  ['3B', 'PMINUD'],
  ['3C', 'PMAXSB'],
  ['3D', 'PMAXSD'],
  ['3E', 'PMAXUW'],
  ['3F', 'PMAXUD'],
  ['40', 'PMULLD'],
  ['41', 'PHMINPOSUW'],
]

/** PMOVSX and PMOVZX: the last digit of the opcode, the conversion, the source. */
const EXTENSIONS: readonly (readonly [string, string, string])[] = [
  ['0', 'BW', 'Wq'],
  ['1', 'BD', 'Wd'],
  ['2', 'BQ', 'Ww'],
  ['3', 'WD', 'Wq'],
  ['4', 'WQ', 'Wd'],
  ['5', 'DQ', 'Wq'],
]

/** Map 0F 3A, 66, `Vx,Wx,Ib`. */
const WITH_IMMEDIATE: readonly (readonly [string, string])[] = [
  ['08', 'ROUNDPS'],
  ['09', 'ROUNDPD'],
  ['0C', 'BLENDPS'],
  ['0D', 'BLENDPD'],
  ['0E', 'PBLENDW'],
  ['40', 'DPPS'],
  ['41', 'DPPD'],
  ['42', 'MPSADBW'],
]

export const sse4: readonly RowSource[] = [
  ...alignedFamily({ unit: 'sse', cpuid: 'sse4.1' }, [
    ...PLAIN.map(([opcode, mnemonic]) => row(mnemonic, 'Vx,Wx', `66 0F 38 ${opcode} /r`)),
    ...EXTENSIONS.flatMap(([digit, name, source]) => [
      row(`PMOVSX${name}`, `Vx,${source}`, `66 0F 38 2${digit} /r`),
      row(`PMOVZX${name}`, `Vx,${source}`, `66 0F 38 3${digit} /r`),
    ]),
    ...WITH_IMMEDIATE.map(([opcode, mnemonic]) => row(mnemonic, 'Vx,Wx,Ib', `66 0F 3A ${opcode} /r`)),
    row('PBLENDVB', 'Vx,Wx,XMM0', '66 0F 38 10 /r'),
    row('BLENDVPS', 'Vx,Wx,XMM0', '66 0F 38 14 /r'),
    row('BLENDVPD', 'Vx,Wx,XMM0', '66 0F 38 15 /r'),
    row('PTEST', 'Vx,Wx', '66 0F 38 17 /r', ALL_FLAGS),
    row('MOVNTDQA', 'Vx,Mx', '66 0F 38 2A /r'),
    row('ROUNDSS', 'Vd,Wd,Ib', '66 0F 3A 0A /r'),
    row('ROUNDSD', 'Vq,Wq,Ib', '66 0F 3A 0B /r'),
    row('PEXTRB', 'Edb,Vx,Ib', '66 0F 3A 14 /r'),
    row('PEXTRW', 'Edw,Vx,Ib', '66 0F 3A 15 /r'),
    row('PEXTRD', 'Ey,Vx,Ib', '66 0F 3A 16 /r', { names: 'PEXTRD PEXTRD PEXTRQ' }),
    row('EXTRACTPS', 'Ed,Vx,Ib', '66 0F 3A 17 /r'),
    row('PINSRB', 'Vx,Edb,Ib', '66 0F 3A 20 /r'),
    row('INSERTPS', 'Vx,Wd,Ib', '66 0F 3A 21 /r'),
    row('PINSRD', 'Vx,Ey,Ib', '66 0F 3A 22 /r', { names: 'PINSRD PINSRD PINSRQ' }),
  ]),
  // The string comparisons take unaligned operands.
  ...alignedFamily({ unit: 'sse', cpuid: 'sse4.2' }, [
    row('PCMPGTQ', 'Vx,Wx', '66 0F 38 37 /r'),
    row('PCMPESTRM', 'Vx,Wx,Ib', '66 0F 3A 60 /r', { aligned: false, ...ALL_FLAGS }),
    row('PCMPESTRI', 'Vx,Wx,Ib', '66 0F 3A 61 /r', { aligned: false, ...ALL_FLAGS }),
    row('PCMPISTRM', 'Vx,Wx,Ib', '66 0F 3A 62 /r', { aligned: false, ...ALL_FLAGS }),
    row('PCMPISTRI', 'Vx,Wx,Ib', '66 0F 3A 63 /r', { aligned: false, ...ALL_FLAGS }),
  ]),
]
