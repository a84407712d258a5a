/** BMI1 and BMI2: VEX-encoded instructions on general registers. (SDM Vol. 1, "Bit Manipulation Instructions".) LZCNT and TZCNT are in bit.ts. */
import { flags } from './flags.ts'
import { family, row, type RowSource } from './row.ts'

const BY_LOWEST_BIT = { flags: flags('', 'OSZAPC', 'AP') }

/** Not recognised in real-address and virtual-8086 mode, where C4 and C5 are LES and LDS. */
export const bmi: readonly RowSource[] = [
  ...family({ cpuid: 'bmi1', notReal: true }, [
    row('ANDN', 'Gy,By,Ey', 'VEX.LZ.NP.0F38 F2 /r', { flags: flags('', 'OSZAPC', 'AP') }),
    row('BEXTR', 'Gy,Ey,By', 'VEX.LZ.NP.0F38 F7 /r', { flags: flags('', 'OSZAPC', 'SAP') }),
    row('BLSR', 'By,Ey', 'VEX.LZ.NP.0F38 F3 /1', BY_LOWEST_BIT),
    row('BLSMSK', 'By,Ey', 'VEX.LZ.NP.0F38 F3 /2', BY_LOWEST_BIT),
    row('BLSI', 'By,Ey', 'VEX.LZ.NP.0F38 F3 /3', BY_LOWEST_BIT),
  ]),
  ...family({ cpuid: 'bmi2', notReal: true }, [
    row('BZHI', 'Gy,Ey,By', 'VEX.LZ.NP.0F38 F5 /r', { flags: flags('', 'OSZAPC', 'AP') }),
    row('MULX', 'Gy,By,Ey', 'VEX.LZ.F2.0F38 F6 /r'),
    row('PDEP', 'Gy,By,Ey', 'VEX.LZ.F2.0F38 F5 /r'),
    row('PEXT', 'Gy,By,Ey', 'VEX.LZ.F3.0F38 F5 /r'),
    row('RORX', 'Gy,Ey,Ib', 'VEX.LZ.F2.0F3A F0 /r'),
    row('SARX', 'Gy,Ey,By', 'VEX.LZ.F3.0F38 F7 /r'),
    row('SHLX', 'Gy,Ey,By', 'VEX.LZ.66.0F38 F7 /r'),
    row('SHRX', 'Gy,Ey,By', 'VEX.LZ.F2.0F38 F7 /r'),
  ]),
]
