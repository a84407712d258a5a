/** x87 instructions. (SDM Vol. 1, "x87 FPU Instructions"; Vol. 2D, "Escape Opcode Instructions".) */
import { flags, hex } from './flags.ts'
import { family, row, type RowSource } from './row.ts'

/** /0 to /7 of D8, DA, DC and DE with a memory operand. */
const ARITHMETIC = ['ADD', 'MUL', 'COM', 'COMP', 'SUB', 'SUBR', 'DIV', 'DIVR']

const MEMORY_ARITHMETIC = ARITHMETIC.flatMap((name, n) => {
  const real = { semantics: `f${name.toLowerCase()}` }
  return [
    row(`F${name}`, 'Mf32', `D8 /${n}`, real),
    row(`F${name}`, 'Mf64', `DC /${n}`, real),
    row(`FI${name}`, 'Mi32', `DA /${n}`, real),
    row(`FI${name}`, 'Mi16', `DE /${n}`, real),
  ]
})

/** The DC and DE forms store to STi; there /4 and /5, and /6 and /7, have changed places. */
const REVERSED = ['ADD', 'MUL', '', '', 'SUBR', 'SUB', 'DIVR', 'DIV']
const REGISTER_ARITHMETIC = ARITHMETIC.flatMap((name, n) => {
  const other = REVERSED[n] ?? ''
  const toTop = row(`F${name}`, 'ST0,STi', `D8 /${n}`)
  if (other === '') return [toTop]
  return [toTop, row(`F${other}`, 'STi,ST0', `DC /${n}`), row(`F${other}P`, 'STi,ST0', `DE /${n}`)]
})

const MEMORY_MOVES = [
  row('FLD', 'Mf32', 'D9 /0'),
  row('FST', 'Mf32', 'D9 /2'),
  row('FSTP', 'Mf32', 'D9 /3'),
  row('FLD', 'Mf64', 'DD /0'),
  row('FST', 'Mf64', 'DD /2'),
  row('FSTP', 'Mf64', 'DD /3'),
  row('FLD', 'Mf80', 'DB /5'),
  row('FSTP', 'Mf80', 'DB /7'),
  row('FILD', 'Mi32', 'DB /0'),
  row('FISTTP', 'Mi32', 'DB /1', { cpuid: 'sse3' }),
  row('FIST', 'Mi32', 'DB /2'),
  row('FISTP', 'Mi32', 'DB /3'),
  row('FILD', 'Mi16', 'DF /0'),
  row('FISTTP', 'Mi16', 'DF /1', { cpuid: 'sse3' }),
  row('FIST', 'Mi16', 'DF /2'),
  row('FISTP', 'Mi16', 'DF /3'),
  row('FILD', 'Mi64', 'DF /5'),
  row('FISTTP', 'Mi64', 'DD /1', { cpuid: 'sse3' }),
  row('FISTP', 'Mi64', 'DF /7'),
  row('FBLD', 'Mbcd', 'DF /4'),
  row('FBSTP', 'Mbcd', 'DF /6'),
]

const CONTROL = [
  row('FLDENV', 'Menv', 'D9 /4'),
  row('FLDCW', 'Mw', 'D9 /5'),
  row('FNSTENV', 'Menv', 'D9 /6', { nonWaiting: true }),
  row('FNSTCW', 'Mw', 'D9 /7', { nonWaiting: true }),
  row('FRSTOR', 'Mstate', 'DD /4'),
  row('FNSAVE', 'Mstate', 'DD /6', { nonWaiting: true }),
  row('FNSTSW', 'Mw', 'DD /7', { nonWaiting: true }),
  row('FNSTSW', 'AX', 'DF E0', { nonWaiting: true }),
  row('FNCLEX', '', 'DB E2', { nonWaiting: true }),
  row('FNINIT', '', 'DB E3', { nonWaiting: true }),
  // 8087 and 80287 controls, without effect since.
  row('FNENI', '', 'DB E0', { semantics: 'fnnop', nonWaiting: true, undocumented: true }),
  row('FNDISI', '', 'DB E1', { semantics: 'fnnop', nonWaiting: true, undocumented: true }),
  row('FNSETPM', '', 'DB E4', { semantics: 'fnnop', nonWaiting: true, undocumented: true }),
  row('FNOP', '', 'D9 D0'),
  row('FWAIT', '', '9B', { unit: 'wait' }),
]

const REGISTER_MOVES = [
  row('FLD', 'STi', 'D9 /0'),
  row('FXCH', 'STi', 'D9 /1'),
  row('FST', 'STi', 'DD /2'),
  row('FSTP', 'STi', 'DD /3'),
  row('FFREE', 'STi', 'DD /0'),
  row('FFREEP', 'STi', 'DF /0', { undocumented: true }),
  // Aliases.
  row('FSTPNCE', 'STi', 'D9 /3', { undocumented: true }),
  row('FXCH', 'STi', 'DD /1', { undocumented: true }),
  row('FXCH', 'STi', 'DF /1', { undocumented: true }),
  row('FSTP', 'STi', 'DF /2', { undocumented: true }),
  row('FSTP', 'STi', 'DF /3', { undocumented: true }),
]

const toFlags = { flags: flags('', 'OSZAPC') }
const COMPARE = [
  row('FCOM', 'ST0,STi', 'DC /2', { undocumented: true }),
  row('FCOMP', 'ST0,STi', 'DC /3', { undocumented: true }),
  row('FCOMP', 'ST0,STi', 'DE /2', { undocumented: true }),
  row('FCOMPP', '', 'DE D9'),
  row('FUCOM', 'ST0,STi', 'DD /4'),
  row('FUCOMP', 'ST0,STi', 'DD /5'),
  row('FUCOMPP', '', 'DA E9'),
  row('FCOMI', 'ST0,STi', 'DB /6', { cpuid: 'cmov', ...toFlags }),
  row('FUCOMI', 'ST0,STi', 'DB /5', { cpuid: 'cmov', ...toFlags }),
  row('FCOMIP', 'ST0,STi', 'DF /6', { cpuid: 'cmov', ...toFlags }),
  row('FUCOMIP', 'ST0,STi', 'DF /5', { cpuid: 'cmov', ...toFlags }),
]

/** Condition codes B, E, BE, U of the integer conditions; DB negates. */
const CONDITIONAL = (
  [
    ['B', 'C'],
    ['E', 'Z'],
    ['BE', 'CZ'],
    ['U', 'P'],
  ] as const
).flatMap(([name, reads], n) => [
  row(`FCMOV${name}`, 'ST0,STi', `DA /${n}`, { semantics: 'fcmovcc', cpuid: 'cmov', flags: flags(reads, '') }),
  row(`FCMOVN${name}`, 'ST0,STi', `DB /${n}`, { semantics: 'fcmovcc', cpuid: 'cmov', flags: flags(reads, '') }),
])

/** D9 E0 to D9 FF, without operands; `-` is not an instruction. */
const D9_FROM_E0 = `
  FCHS FABS - - FTST FXAM - -
  FLD1 FLDL2T FLDL2E FLDPI FLDLG2 FLDLN2 FLDZ -
  F2XM1 FYL2X FPTAN FPATAN FXTRACT FPREM1 FDECSTP FINCSTP
  FPREM FYL2XP1 FSQRT FSINCOS FRNDINT FSCALE FSIN FCOS
`
const D9 = D9_FROM_E0.trim()
  .split(/\s+/)
  .flatMap((name, n) => (name === '-' ? [] : [row(name, '', `D9 ${hex(0xe0 + n)}`)]))

export const x87: readonly RowSource[] = family({ unit: 'x87', cpuid: 'fpu' }, [
  ...MEMORY_ARITHMETIC,
  ...REGISTER_ARITHMETIC,
  ...MEMORY_MOVES,
  ...CONTROL,
  ...REGISTER_MOVES,
  ...COMPARE,
  ...CONDITIONAL,
  ...D9,
])
