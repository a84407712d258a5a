/**
 * Function bodies → the bytes of one WebAssembly module that imports memory, table and the functions that the bodies call. Independent of
 * instructions.
 */
import { Bytes, ModuleBuilder } from '@nonroot/wasm-encoder'
import { CODE_TYPE, type Built, type ModuleContext } from '../ir/function.ts'
import { lower } from './lower.ts'

/** Pages of 64 KiB: any memory is accepted. */
const MOST_PAGES = 65536

/** The functions are neither exported nor in the table yet: the caller does that. */
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
  for (const [name, imported] of callees) {
    const { params, results, isRare } = signatures[name]!
    if (isRare) callees.set(name, module.function(module.type(params, results), [], handOn(imported, params.length)))
  }
  const functions = bodies.map((body) => {
    const { params, results } = body.signature ?? CODE_TYPE
    const { code, locals, hints } = lower(body.root, { params: params.length, callee: (name) => callees.get(name)!, tailType: type })
    return module.function(module.type(params, results), locals, code, hints)
  })
  return { module, functions }
}

/** Code that only tail-calls a function. */
function handOn(callee: number, params: number): Bytes {
  const code = new Bytes(16)
  for (let n = 0; n < params; n++) {
    code.byte(0x20)
    code.u32(n)
  }
  code.byte(0x12)
  code.u32(callee)
  code.byte(0x0b)
  return code
}

/** The same, with the functions exported by their numbers. Few of a `library` will be called. */
export function exportedModule(bodies: readonly Built[], context: ModuleContext, kind: 'code' | 'library' = 'code'): Uint8Array<ArrayBuffer> {
  const { module, functions } = functionModule(bodies, context)
  if (kind === 'library') module.compileWhenCalled()
  for (const [n, index] of functions.entries()) module.exportFunction(String(n), index)
  return module.toBytes()
}
