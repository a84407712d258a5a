/**
 * What an instruction does to its operands, and what may interrupt it: facts for analyses of several instructions. By semantics; a property is false
 * where a name is missing. semantics/effects.test.ts compares these with the semantics.
 */

export interface Effects {
  /** The first operand is not written. */
  readonly readsOnly: boolean
  /** The memory operand is only an address. */
  readonly addressOnly: boolean
  /** Without a memory operand it can neither fault nor leave, and accesses no memory. */
  readonly isQuiet: boolean
  /** Its flags can be left out: nothing that can fault comes after the first flag that it writes. */
  readonly writesFlagsLast: boolean
  /** Leaves some flags unchanged that the manual calls undefined. */
  readonly leavesUndefined: boolean
  /** A shift or rotate, whose count may be a constant. */
  readonly isCounted: boolean
}

const NAMES: Readonly<Record<keyof Effects, string>> = {
  readsOnly: 'cmp test bt push callIndirect jmpIndirect',
  addressOnly: 'lea nop',
  isQuiet:
    'add or adc sbb and sub xor cmp test not neg inc dec mov movzx movsx lea bswap setcc cmovcc cbw cwd imulTruncated mul imul ' +
    'shl shr sar rol ror rcl rcr shld shrd bt bts btr btc bsf bsr popcnt lzcnt tzcnt nop clc stc cmc',
  writesFlagsLast: 'add or adc sbb and sub xor cmp test neg inc dec shl shr sar rol ror imulTruncated mul imul',
  leavesUndefined: 'rol ror',
  isCounted: 'shl shr sar rol ror',
}
const SETS = Object.entries(NAMES).map(([property, names]) => [property, new Set(names.split(' '))] as const)

/** Rows with the same semantics share the object. */
const known = new Map<string, Effects>()

export function effectsOf(semantics: string): Effects {
  let effects = known.get(semantics)
  if (!effects) {
    effects = Object.fromEntries(SETS.map(([property, names]) => [property, names.has(semantics)])) as unknown as Effects
    known.set(semantics, effects)
  }
  return effects
}
