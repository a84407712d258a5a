/** A function of IR: its body and its type. What the back end makes modules of. */
import type { ValueType } from '@nonroot/wasm-encoder'
import type { IrBuilder } from './builder.ts'

export interface Signature {
  readonly params: readonly ValueType[]
  readonly results: readonly ValueType[]
  /** Called seldom, from many places: by way of a function of the module's own, because a call of an import is long. */
  readonly isRare?: boolean | undefined
}

/** A function's body, and the imports it calls. */
export type Built = Pick<IrBuilder, 'root' | 'callees'> & { readonly signature?: Signature }

export interface ModuleContext {
  /** Types of the functions that bodies may call, by name. */
  readonly signatures: Readonly<Record<string, Signature>>
}

/** Every handler and region is one of these: (cpu, record). A body that says nothing else is of this type. */
export const CODE_TYPE: Signature = { params: ['i32', 'i32'], results: [] }
