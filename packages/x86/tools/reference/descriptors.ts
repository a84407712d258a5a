/** Segment descriptors as the manual lays them out. (SDM Vol. 3A, "Segment Descriptors") */
import { SEGMENT } from '../../src/state/layout.ts'
import type { ReferenceState } from './state.ts'

export interface Descriptor {
  /** Linear address of its eight bytes. */
  readonly at: bigint
  readonly raw: bigint
  readonly base: bigint
  /** In bytes, granularity applied. */
  readonly limit: number
  /** In the VMCS's format. */
  readonly rights: number
  readonly type: number
  readonly isSystem: boolean
  readonly isCode: boolean
  readonly conforming: boolean
  readonly readable: boolean
  readonly writable: boolean
  readonly accessed: boolean
  readonly dpl: number
  readonly present: boolean
  readonly long: boolean
  readonly big: boolean
}

/** Undefined: the selector leads outside its table. There is no LDT. */
export function readDescriptor(m: ReferenceState, selector: number): Descriptor | undefined {
  if (selector & 4 || (selector & 0xfff8) + 7 > m.limit(SEGMENT.gdtr)) return undefined
  const at = m.base(SEGMENT.gdtr) + BigInt(selector & 0xfff8)
  const raw = m.read(at, 8, true)
  const type = Number((raw >> 40n) & 15n)
  const isSystem = !((raw >> 44n) & 1n)
  const isCode = !isSystem && (type & 8) !== 0
  const limit = Number((raw & 0xffffn) | ((raw >> 32n) & 0xf_0000n))
  const granular = ((raw >> 55n) & 1n) !== 0n
  return {
    at, raw, type, isSystem, isCode,
    base: ((raw >> 16n) & 0xff_ffffn) | ((raw >> 32n) & 0xff00_0000n),
    limit: granular ? ((limit << 12) | 0xfff) >>> 0 : limit,
    rights: Number((raw >> 40n) & 0xf0ffn),
    conforming: isCode && (type & 4) !== 0,
    readable: !isCode || (type & 2) !== 0,
    writable: !isSystem && !isCode && (type & 2) !== 0,
    accessed: (type & 1) !== 0,
    dpl: Number((raw >> 45n) & 3n),
    present: ((raw >> 47n) & 1n) !== 0n,
    long: ((raw >> 53n) & 1n) !== 0n,
    big: ((raw >> 54n) & 1n) !== 0n,
  }
}
