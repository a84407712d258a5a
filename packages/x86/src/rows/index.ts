/** Every row of the processor, numbered, and checked for overlaps when first loaded. */
import { bit } from './bit.ts'
import { bmi } from './bmi.ts'
import { control } from './control.ts'
import { crypto } from './crypto.ts'
import { integer } from './integer.ts'
import { mmx } from './mmx.ts'
import { nop } from './nop.ts'
import { parseRow, type Row, type RowSource } from './row.ts'
import { sse } from './sse.ts'
import { sse2 } from './sse2.ts'
import { sse3 } from './sse3.ts'
import { sse4 } from './sse4.ts'
import { state } from './state.ts'
import { string } from './string.ts'
import { system } from './system.ts'
import { vmx } from './vmx.ts'
import { x87 } from './x87.ts'

export { FEATURES, type FeatureBit } from './features.ts'
export type * from './row.ts'

/** The manual's families in order; docs/instructions.md has one section for each. */
export const families: Readonly<Record<string, readonly RowSource[]>> = {
  integer,
  bit,
  string,
  control,
  nop,
  system,
  vmx,
  x87,
  mmx,
  sse,
  sse2,
  sse3,
  sse4,
  crypto,
  bmi,
  state,
}

export const rows: readonly Row[] = Object.values(families)
  .flat()
  .map((source, id) => parseRow(source, id))
