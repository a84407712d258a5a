/** Effects on the flags that many rows share. (SDM Vol. 1, Appendix A, "EFLAGS Cross-Reference"; Vol. 2, "Flags Affected".) */
import type { RowFlags } from './row.ts'

export const flags = (reads: string, writes: string, undefined_ = ''): RowFlags => ({
  reads,
  writes,
  undefined: undefined_,
})

/** All flags that POPF, IRET and the like may load. */
export const EVERY_FLAG = 'ODITSZAPCLNRVXFGE'

export const ARITHMETIC = flags('', 'OSZAPC')
export const ARITHMETIC_WITH_CARRY = flags('C', 'OSZAPC')
export const LOGICAL = flags('', 'OSZAPC', 'A')
export const INCREMENT = flags('', 'OSZAP')
export const MULTIPLY = flags('', 'OSZAPC', 'SZAP')
export const DIVIDE = flags('', 'OSZAPC', 'OSZAPC')

export const SHIFT_ONE = flags('', 'OSZAPC', 'A')
export const ROTATE_ONE = flags('', 'OC')
export const ROTATE_CARRY_ONE = flags('C', 'OC')
/** By a count: whatever the count leaves alone depends on the former value. */
export const SHIFT: RowFlags = { ...flags('OSZAPC', 'OSZAPC', 'A'), count: 'shift' }
export const SHIFT_ARITHMETIC: RowFlags = { ...flags('OSZAPC', 'OSZAPC', 'A'), count: 'arithmeticShift' }
export const ROTATE: RowFlags = { ...flags('OC', 'OC'), count: 'rotate' }
export const DOUBLE_SHIFT: RowFlags = { ...flags('OSZAPC', 'OSZAPC', 'A'), count: 'doubleShift' }

export const BIT_TEST = flags('', 'OSAPC', 'OSAP')
export const BIT_SCAN = flags('', 'OSZAPC', 'OSAPC')
export const ZERO_ONLY = flags('', 'Z')

/** Condition codes in the order of their four bits. (SDM Vol. 1, Appendix B.) */
export const CONDITIONS: readonly (readonly [name: string, reads: string])[] = [
  ['O', 'O'],
  ['NO', 'O'],
  ['B', 'C'],
  ['AE', 'C'],
  ['E', 'Z'],
  ['NE', 'Z'],
  ['BE', 'CZ'],
  ['A', 'CZ'],
  ['S', 'S'],
  ['NS', 'S'],
  ['P', 'P'],
  ['NP', 'P'],
  ['L', 'SO'],
  ['GE', 'SO'],
  ['LE', 'SOZ'],
  ['G', 'SOZ'],
]

export const hex = (byte: number): string => byte.toString(16).toUpperCase().padStart(2, '0')
