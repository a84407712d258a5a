/** Function bodies → the bytes of one WebAssembly module that imports memory, table and whatever the bodies call. Knows no instruction. */
import { ModuleBuilder, type ValueType } from '@nonroot/wasm-encoder'
import type { IrBuilder } from '../ir/builder.ts'
import { lower } from './lower.ts'

export interface Signature {
  readonly params: readonly ValueType[]
  readonly results: readonly ValueType[]
}

/** A function's body, and the imports it calls. */
export type Built = Pick<IrBuilder, 'root' | 'callees'> & { readonly signature?: Signature }

export interface ModuleContext {
  /** Types of the functions that bodies may call, by name. */
  readonly signatures: Readonly<Record<string, Signature>>
}

/** Pages of 64 KiB: any memory will do. */
const MOST_PAGES = 65536

/** Every handler and region is one of these: (cpu, record). A body that says nothing else is of this type. */
export const CODE_TYPE: Signature = { params: ['i32', 'i32'], results: [] }

/** The functions are neither exported nor in the table yet: that is the caller's. */
export function functionModule(bodies: readonly Built[], { signatures }: ModuleContext): { module: ModuleBuilder; functions: number[] } {
  const module = new ModuleBuilder()
  module.importMemory({ module: 'e', name: 'memory', initial: 1, maximum: MOST_PAGES, shared: true })
  module.importTable('e', 'table', 1)
  const type = module.type(CODE_TYPE.params, CODE_TYPE.results)
  const callees = new Map<string, number>()
  for (const name of new Set(bodies.flatMap((body) => [...body.callees]))) {
    const known = signatures[name]
    if (!known) throw new Error(`code calls ${name}, which is not imported`)
    callees.set(name, module.importFunction('e', name, module.type(known.params, known.results)))
  }
  const functions = bodies.map((body) => {
    const { params, results } = body.signature ?? CODE_TYPE
    const { code, locals } = lower(body.root, { params: params.length, callee: (name) => callees.get(name)!, tailType: type })
    return module.function(module.type(params, results), locals, code)
  })
  return { module, functions }
}

/** The same, with the functions exported by their numbers. */
export function exportedModule(bodies: readonly Built[], context: ModuleContext): Uint8Array<ArrayBuffer> {
  const { module, functions } = functionModule(bodies, context)
  for (const [n, index] of functions.entries()) module.exportFunction(String(n), index)
  return module.toBytes()
}
