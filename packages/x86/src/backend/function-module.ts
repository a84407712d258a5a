/**
 * Function bodies → the bytes of one WebAssembly module that imports memory, table and the functions that the bodies call. Independent of
 * instructions.
 */
import { Bytes, ModuleBuilder } from '@nonroot/wasm-encoder'
import { CODE_TYPE, type Built, type ModuleContext, type Signature } from '../ir/function.ts'
import { link, lower, type Lowered } from './lower.ts'

/** Pages of 64 KiB: any memory is accepted. */
const MOST_PAGES = 65536

/** `signature`: CODE_TYPE if absent. */
export type FunctionCode = Lowered & { readonly signature?: Signature | undefined }

export function functionCode({ root, signature }: Built): FunctionCode {
  const lowered = lower(root, (signature ?? CODE_TYPE).params.length)
  return signature ? { ...lowered, signature } : lowered
}

interface Functions {
  readonly module: ModuleBuilder
  /** Their indices. They are neither exported nor in the table yet: the caller does that. */
  readonly functions: number[]
}

export const functionModule = (bodies: readonly Built[], context: ModuleContext): Functions => linkFunctions(bodies.map(functionCode), context)

function linkFunctions(codes: readonly FunctionCode[], { signatures }: ModuleContext): Functions {
  const module = new ModuleBuilder()
  module.importMemory({ module: 'e', name: 'memory', initial: 1, maximum: MOST_PAGES, shared: true })
  module.importTable('e', 'table', 1)
  // The first type, which is TAIL_TYPE.
  module.type(CODE_TYPE.params, CODE_TYPE.results)
  const callees = new Map<string, number>()
  for (const name of new Set(codes.flatMap(({ calls }) => calls.map(({ callee }) => callee)))) {
    const known = signatures[name]
    if (!known) throw new Error(`code calls ${name}, which is not imported`)
    callees.set(name, module.importFunction('e', name, module.type(known.params, known.results)))
  }
  for (const [name, imported] of callees) {
    const { params, results, isRare } = signatures[name]!
    if (isRare) callees.set(name, module.function(module.type(params, results), [], handOn(imported, params.length)))
  }
  const functions = codes.map((code) => {
    const { params, results } = code.signature ?? CODE_TYPE
    return module.function(module.type(params, results), code.locals, link(code, (name) => callees.get(name)!), code.hints)
  })
  return { module, functions }
}

/** Code that only tail-calls a function. */
function handOn(callee: number, params: number): Uint8Array {
  const code = new Bytes(16)
  for (let n = 0; n < params; n++) {
    code.byte(0x20)
    code.u32(n)
  }
  code.byte(0x12)
  code.u32(callee)
  code.byte(0x0b)
  return code.toUint8Array()
}

/** A module with the functions exported by their numbers. Few of a `library` will be called. */
export const exportedModule = (bodies: readonly Built[], context: ModuleContext, kind: 'code' | 'library' = 'code'): Uint8Array<ArrayBuffer> =>
  linkedModule(bodies.map(functionCode), context, kind)

/** The same of what is lowered. */
export function linkedModule(codes: readonly FunctionCode[], context: ModuleContext, kind: 'code' | 'library' = 'code'): Uint8Array<ArrayBuffer> {
  const { module, functions } = linkFunctions(codes, context)
  if (kind === 'library') module.compileWhenCalled()
  for (const [n, index] of functions.entries()) module.exportFunction(String(n), index)
  return module.toBytes()
}
