/** The exact arithmetic as functions that handlers call directly from wasm: each export with its type, read from the binary. */
import type { ValueType } from '@nonroot/wasm-encoder'
import { floatBinary } from './module.ts'

export interface WasmFunction {
  readonly params: readonly ValueType[]
  readonly results: readonly ValueType[]
  readonly function: (...args: never[]) => unknown
}

const VALUE_TYPES: Record<number, ValueType> = { 0x7f: 'i32', 0x7e: 'i64', 0x7d: 'f32', 0x7c: 'f64', 0x7b: 'v128' }
const SECTION = { type: 1, function: 3, export: 7 } as const

/** Instantiates the library over `memory` and gives its exported functions by name. */
export function floatImports(memory: WebAssembly.Memory): Record<string, WasmFunction> {
  const bytes = floatBinary()
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } })
  const functions: Record<string, WasmFunction> = {}
  for (const [name, type] of exportTypes(bytes)) functions[name] = { ...type, function: exports[name] as WasmFunction['function'] }
  return functions
}

/** The types of these functions, without an instance. */
export const floatSignatures = (): Record<string, Pick<WasmFunction, 'params' | 'results'>> => Object.fromEntries(exportTypes(floatBinary()))

/** Exported functions' types. The module imports a memory only, so function numbers start at its own functions. */
function exportTypes(bytes: Uint8Array): Map<string, Pick<WasmFunction, 'params' | 'results'>> {
  let at = 8
  const u32 = (): number => {
    let value = 0
    for (let shift = 0; ; shift += 7) {
      const byte = bytes[at++]!
      value |= (byte & 0x7f) << shift
      if (byte < 0x80) return value
    }
  }
  const list = <T>(read: () => T): T[] => Array.from({ length: u32() }, read)
  const name = (): string => String.fromCharCode(...list(() => bytes[at++]!))
  let types: Pick<WasmFunction, 'params' | 'results'>[] = []
  let functions: number[] = []
  const found = new Map<string, Pick<WasmFunction, 'params' | 'results'>>()
  while (at < bytes.length) {
    const id = bytes[at++]!
    const size = u32()
    const end = at + size
    if (id === SECTION.type)
      types = list(() => {
        at++ // 0x60, a function type
        return { params: list(() => VALUE_TYPES[bytes[at++]!]!), results: list(() => VALUE_TYPES[bytes[at++]!]!) }
      })
    else if (id === SECTION.function) functions = list(u32)
    else if (id === SECTION.export)
      list(() => {
        const exported = name()
        const kind = bytes[at++]!
        const index = u32()
        if (kind === 0) found.set(exported, types[functions[index]!]!)
      })
    at = end
  }
  return found
}
