/**
 * Prebuilt handlers: those of the shapes that operating systems use, in one module with a list of its contents. Valid only for the version of the
 * code that generated it. Missing handlers are made on demand (handlers.ts).
 */
import { decode } from '../decode/decoder.ts'
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import { floatSignatures } from '../float/imports.ts'
import { exportedModule } from '../backend/function-module.ts'
import type { Signature } from '../ir/function.ts'
import { rows } from '../rows/index.ts'
import { canDropFlags } from '../semantics/dead-flags.ts'
import { decodeModeOf } from '../decode/decode-mode.ts'
import { systemRoutineNumber } from '../system/index.ts'
import { exitOf } from '../rows/exits.ts'
import { coreModules, handlerOf, moduleContext, shapeKey, SPECIAL_NAMES, specialHandler, type HandlerName, type PrebuiltHandlers } from './handlers.ts'

/** Identifies the build. Empty if unknown; a bundle has a digest of the code here (tools/bundle.js), and files contain the same. */
export const BUILD: string = ''

/** The name under which a host keeps the file. */
export const PREBUILT_HANDLERS = 'x86-handlers.bin'

interface Head {
  readonly build: string
  readonly names: readonly HandlerName[]
  /** Bytes of each module that follows: the core's, then the handlers'. */
  readonly sizes: readonly number[]
}

/** One line of the list: `mode bytes`, both hexadecimal: an instruction and its mode key. */
export const exampleLine = (mode: number, bytes: Uint8Array): string =>
  `${mode.toString(16)} ${[...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('')}`

/** Makes the handlers of a list of examples, for this build. The result is stored in a file and read by `readPrebuilt`. */
export function buildPrebuilt(list: string, build: string): Uint8Array<ArrayBuffer> {
  const names: HandlerName[] = [...SPECIAL_NAMES]
  const bodies = SPECIAL_NAMES.map((name) => specialHandler(name, CONTEXT))
  const seen = new Set<string>()
  for (const [instruction, mode] of examples(list))
    for (const flagsDead of canDropFlags(instruction) ? [false, true] : [false]) {
      const shape = shapeKey(instruction, mode, flagsDead)
      const id = `${instruction.row.id}/${shape}`
      if (seen.has(id)) continue
      seen.add(id)
      const body = handlerOf(instruction, mode, flagsDead, CONTEXT)
      if (!body) continue
      names.push([instruction.row.id, shape])
      bodies.push(body)
    }
  const context = moduleContext({ ...PROCESSOR_IMPORTS, ...floatSignatures() })
  const modules = [...coreModules(CONTEXT, context), exportedModule(bodies, context, 'library')]
  const sizes = modules.map(({ length }) => length)
  const head = new TextEncoder().encode(JSON.stringify({ build, names, sizes } satisfies Head))
  const file = new Uint8Array(4 + head.length + sizes.reduce((sum, size) => sum + size, 0))
  new DataView(file.buffer).setUint32(0, head.length, true)
  let at = 4
  for (const part of [head, ...modules]) {
    file.set(part, at)
    at += part.length
  }
  return file
}

/** Undefined: the file is another build's. */
export function readPrebuilt(file: Uint8Array, own = BUILD): PrebuiltHandlers | undefined {
  const length = new DataView(file.buffer, file.byteOffset).getUint32(0, true)
  const { build, names, sizes } = JSON.parse(new TextDecoder().decode(file.subarray(4, 4 + length))) as Head
  if (own === '' || build !== own) return undefined
  let at = 4 + length
  const modules = sizes.map((size) => new WebAssembly.Module(file.slice(at, (at += size))))
  return { core: modules.slice(0, -1), module: modules.at(-1)!, names }
}

const SLOW: Signature = { params: ['i32', 'i32'], results: ['i32'] }
/** What a processor gives its handlers, floating point aside (processor.ts). */
const PROCESSOR_IMPORTS: Readonly<Record<string, Signature>> = {
  slowRead: SLOW,
  slowWrite: SLOW,
  slowModify: SLOW,
  checkSegment: SLOW,
  slowReadOfCompiled: SLOW,
  slowWriteOfCompiled: SLOW,
  slowModifyOfCompiled: SLOW,
  system: { params: ['i32', 'i32', 'i32'], results: ['i32'] },
}
const CONTEXT = {
  systemRoutine: systemRoutineNumber,
  exitOf: (instruction: Instruction) => exitOf(instruction.row),
}

function* examples(list: string): Iterable<[Instruction, number]> {
  for (const line of list.split('\n')) {
    const [key, code] = line.split(' ')
    if (!key || !code) continue
    const bytes = Uint8Array.from(code.match(/../g)!, (byte) => parseInt(byte, 16))
    const mode = parseInt(key, 16)
    const instruction = createInstruction(rows[0]!)
    if (decode(bytes, 0, bytes.length, decodeModeOf(mode), instruction) === 'ok') yield [instruction, mode]
  }
}
