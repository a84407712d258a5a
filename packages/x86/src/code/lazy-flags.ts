/**
 * Lazy flags that compiled code leaves: an operation, its operands and its result. The flags are computed only when they are read, by the same
 * formulas as everywhere (semantics/flag-formulas.ts).
 */
import type { ArithmeticKind } from '../semantics/flag-formulas.ts'
import type { Width } from '../ir/nodes.ts'

const KINDS: readonly ArithmeticKind[] = ['add', 'adc', 'sub', 'sbb', 'logic', 'inc', 'dec', 'shl', 'shr', 'sar', 'mul', 'imul']
const WIDTHS: readonly Width[] = [8, 16, 32, 64]

export interface LazyKind {
  readonly kind: ArithmeticKind
  readonly width: Width
}

/** Number of an operation and width in the lazyKind slot; from 1. */
export const lazyKindNumber = (kind: ArithmeticKind, width: Width): number => 1 + KINDS.indexOf(kind) * 4 + WIDTHS.indexOf(width)

/** All of them, by number; entry 0 is none. */
export const LAZY_KINDS: readonly (LazyKind | undefined)[] = [
  undefined,
  ...KINDS.flatMap((kind) => WIDTHS.map((width) => ({ kind, width }))),
]
