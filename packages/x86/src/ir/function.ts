/** A function of IR: its body and its type. The back end makes modules of these. */
import type { ValueType } from '@nonroot/wasm-encoder'
import type { IrBuilder } from './builder.ts'

export interface Signature {
  readonly params: readonly ValueType[]
  readonly results: readonly ValueType[]
  /** Called rarely, from many places: through a function in the same module, because calls of imports are long. */
  readonly isRare?: boolean | undefined
}

/** A function's body, and the imports it calls. */
export type Built = Pick<IrBuilder, 'root' | 'callees'> & { readonly signature?: Signature }

export interface ModuleContext {
  /** Types of the functions that bodies may call, by name. */
  readonly signatures: Readonly<Record<string, Signature>>
}

/** The type of every handler and region: (cpu, record). The default for bodies. */
export const CODE_TYPE: Signature = { params: ['i32', 'i32'], results: [] }
