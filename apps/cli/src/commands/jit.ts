/** `nonroot jit dump`: what the processor makes of guest code: its disassembly, IR and WebAssembly. */

import { readFile } from 'node:fs/promises'
import { ExitCode, NonrootError } from '@nonroot/contracts'
import type { CodeDump } from '@nonroot/cpu-vmx'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'

export interface JitDumpOptions {
  readonly bytes?: string
  readonly at?: string
  readonly mode: string
  readonly handlers?: boolean
  readonly json?: boolean
}

export async function jitDump(file: string | undefined, options: JitDumpOptions, io: CommandIo): Promise<number> {
  if ((file === undefined) === (options.bytes === undefined)) {
    throw usage(
      file === undefined ? 'there is no code' : 'there are two codes',
      'jit dump',
      file,
      'give FILE or --bytes',
    )
  }
  const { DUMP_MODES, dumpCode } = await import('@nonroot/cpu-vmx')
  const mode = DUMP_MODES[Number(options.mode) as keyof typeof DUMP_MODES]
  if (mode === undefined) throw usage('there is no such code size', '--mode', options.mode, 'valid: 64, 32, 16')
  const code = file === undefined ? parseBytes(options.bytes!) : await readCode(file)
  const at = parseOffset(options.at ?? '0')
  if (at >= code.length)
    throw usage(`the code has ${code.length} bytes`, '--at', options.at ?? '0', 'give an offset inside it')

  const dump = dumpCode(code, at, mode)
  const text = dump.region && (await wasmText(dump.region.wasm))
  if (options.json) {
    json(io, {
      version: 1,
      guest: dump.guest.map(({ address, bytes, text }) => ({ address, bytes: hex(bytes), text })),
      region: dump.region && { ...dump.region, wasm: hex(dump.region.wasm), wasmText: text },
      handlers: dump.handlers,
    })
  } else io.out(dumpText(dump, text, options.handlers === true))
  return ExitCode.ok
}

function dumpText({ guest, region, handlers }: CodeDump, wasm: string | undefined, withHandlers: boolean): string {
  const parts = ['guest code:']
  for (const { address, bytes, text } of guest) {
    parts.push(`  ${address.toString(16).padStart(6)}: ${hex(bytes).padEnd(30)} ${text}`)
  }
  if (guest.length === 0) parts.push('  no instruction')
  if (region) {
    parts.push(
      '',
      `IR of the region (${region.blocks} ${region.blocks === 1 ? 'block' : 'blocks'}):`,
      indented(region.ir),
    )
    parts.push('', `WebAssembly (a module of ${region.wasm.length} bytes):`)
    parts.push(wasm === undefined ? '  install the package wabt to see its text' : indented(wasm.trimEnd()))
  } else parts.push('', 'no region: the interpreter runs this code')
  if (withHandlers || !region) {
    for (const { text, ir } of handlers) parts.push('', `handler of ${text}:`, indented(ir))
  }
  return `${parts.join('\n')}\n`
}

const indented = (text: string): string => text.replaceAll(/^/gm, '  ')
const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')

/** The part of the package wabt that is used here. It is for developers, and not part of what is installed. */
interface Wabt {
  readWasm(
    bytes: Uint8Array,
    features: Readonly<Record<string, boolean>>,
  ): { toText(options: { readonly foldExprs: boolean }): string; destroy(): void }
}
const FEATURES = {
  threads: true,
  tail_call: true,
  simd: true,
  bulk_memory: true,
  sat_float_to_int: true,
  sign_extension: true,
}

/** Undefined where wabt is not installed. */
async function wasmText(bytes: Uint8Array): Promise<string | undefined> {
  const name = 'wabt'
  let open: () => Promise<Wabt>
  try {
    open = ((await import(name)) as { default: typeof open }).default
  } catch {
    return undefined
  }
  const module = (await open()).readWasm(bytes, FEATURES)
  try {
    return module.toText({ foldExprs: true })
  } finally {
    module.destroy()
  }
}

function parseBytes(text: string): Uint8Array {
  const digits = text.replaceAll(/0x|[\s,]/g, '')
  if (!/^([0-9a-f]{2})+$/i.test(digits))
    throw usage('these are no hexadecimal bytes', '--bytes', text, 'as in "48 01 d8"')
  return Uint8Array.from(digits.match(/../g)!, (byte) => parseInt(byte, 16))
}

function parseOffset(text: string): number {
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text)) throw usage('this is no offset', '--at', text, 'as in 0x1200 or 4608')
  return Number(text)
}

async function readCode(file: string): Promise<Uint8Array> {
  try {
    return await readFile(file)
  } catch (error) {
    throw new NonrootError({
      code: 'host.file',
      message: (error as Error).message,
      thing: file,
      remedy: 'give a file that can be read',
      cause: error,
    })
  }
}

const usage = (message: string, thing: string, value: string | undefined, remedy: string): NonrootError =>
  new NonrootError({ code: 'usage', message, thing, remedy, ...(value === undefined ? {} : { value }) })
