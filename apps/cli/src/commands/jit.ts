/** `nonroot jit dump`: prints the disassembly, IR and WebAssembly of guest code. */

import { readFile } from 'node:fs/promises'
import { bytesOf, ExitCode, NonrootError } from '@nonroot/contracts'
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
  const { code, at, base } = await codeOf(file, options)
  const dump = dumpCode(code, at, mode, base)
  const text = dump.region && (await wasmText(dump.region.wasm))
  if (options.json) {
    json(io, {
      version: 1,
      guest: dump.guest.map(({ address, bytes, text }) => ({
        address: shownAddress(base, address),
        bytes: hex(bytes),
        text,
      })),
      region: dump.region && { ...dump.region, wasm: hex(dump.region.wasm), wasmText: text },
      handlers: dump.handlers,
    })
  } else io.out(dumpText(dump, base, text, options.handlers === true))
  return ExitCode.ok
}

function dumpText(
  { guest, region, handlers }: CodeDump,
  base: bigint,
  wasm: string | undefined,
  withHandlers: boolean,
): string {
  const parts = ['guest code:']
  for (const { address, bytes, text } of guest) {
    parts.push(`  ${(base + BigInt(address)).toString(16).padStart(6)}: ${hex(bytes).padEnd(30)} ${text}`)
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

interface PlacedCode {
  /** From a page boundary on. */
  readonly code: Uint8Array
  readonly at: number
  /** Where `code` begins when it runs. */
  readonly base: bigint
}

/** Addresses beyond what a number holds are text in JSON. */
const shownAddress = (base: bigint, offset: number): number | string =>
  base === 0n ? offset : `0x${(base + BigInt(offset)).toString(16)}`

/** A flat binary has offsets; an ELF, or a Linux kernel with one inside, has addresses and may have symbols. */
async function codeOf(file: string | undefined, { bytes, at = '0' }: JitDumpOptions): Promise<PlacedCode> {
  const content = file === undefined ? parseBytes(bytes!) : await readCode(file)
  const elf = file === undefined ? undefined : await elfOf(content)
  if (!elf) {
    const offset = Number(parseOffset(at))
    if (offset < content.length) return { code: content, at: offset, base: 0n }
    throw usage(`the code has ${content.length} bytes`, '--at', at, 'give an offset inside it')
  }
  const { symbolsOf } = await import('../profile/symbols.ts')
  const numeric = OFFSET.test(at)
  const address = numeric ? BigInt(at) : (await symbolsOf(elf, {}))?.addressOf(at)
  if (address === undefined)
    throw usage(`${file} has no symbol ${at}`, '--at', at, 'give an address, as in 0xffffffff81000000')
  const { ImageReader, readElf } = await import('@nonroot/boot')
  const { segments } = readElf(new ImageReader(file!, elf))
  const segment = segments.find(({ virtual, data }) => address >= virtual && address < virtual + BigInt(data.length))
  if (!segment) {
    const ranges = segments.map(
      ({ virtual, data }) => `0x${virtual.toString(16)}..0x${(virtual + BigInt(data.length) - 1n).toString(16)}`,
    )
    throw usage(`nothing of ${file} is loaded at ${at}`, '--at', at, `it has ${ranges.join(', ')}`)
  }
  const page = address & ~0xfffn
  // A segment may begin within a page: what is before it reads as zeros.
  const code = new Uint8Array(0x1000)
  const from = Number(page - segment.virtual)
  code.set(bytesOf(segment.data).subarray(Math.max(0, from), from + 0x1000), Math.max(0, -from))
  return { code, at: Number(address - page), base: page }
}

/** The ELF that the file is or, being a bzImage, holds. */
async function elfOf(content: Uint8Array<ArrayBuffer>): Promise<Uint8Array<ArrayBuffer> | undefined> {
  if (content[0] === 0x7f && content[1] === 0x45 && content[2] === 0x4c && content[3] === 0x46) return content
  const [{ bzImagePayload, extractVmlinux }, { nodeImageHost }] = await Promise.all([
    import('@nonroot/image'),
    import('../image-host.ts'),
  ])
  try {
    bzImagePayload(content)
  } catch {
    return undefined
  }
  return new Uint8Array(await extractVmlinux(content, nodeImageHost().decompressors))
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

function parseBytes(text: string): Uint8Array<ArrayBuffer> {
  const digits = text.replaceAll(/0x|[\s,]/g, '')
  if (!/^([0-9a-f]{2})+$/i.test(digits))
    throw usage('these are no hexadecimal bytes', '--bytes', text, 'as in "48 01 d8"')
  return Uint8Array.from(digits.match(/../g)!, (byte) => parseInt(byte, 16))
}

const OFFSET = /^(0x[0-9a-f]+|\d+)$/i

function parseOffset(text: string): string {
  if (!OFFSET.test(text)) throw usage('this is no offset', '--at', text, 'as in 0x1200 or 4608')
  return text
}

async function readCode(file: string): Promise<Uint8Array<ArrayBuffer>> {
  try {
    return new Uint8Array(await readFile(file))
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
