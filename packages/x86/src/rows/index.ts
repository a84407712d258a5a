/** Every row of the processor, numbered, and checked for overlaps when first loaded. */
import { bit } from './bit.ts'
import { control } from './control.ts'
import { integer } from './integer.ts'
import { nop } from './nop.ts'
import { parseRow, type Row, type RowSource } from './row.ts'
import { string } from './string.ts'
import { system } from './system.ts'
import { vmx } from './vmx.ts'

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
}

export const rows: readonly Row[] = Object.values(families)
  .flat()
  .map((source, id) => parseRow(source, id))
