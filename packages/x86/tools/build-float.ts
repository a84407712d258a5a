/**
 * Compiles float-library/ (exact floating point) to wasm and writes it to src/float/module.ts.
 * `--check` writes nothing and fails if the file differs from what a build gives.
 */
import asc from 'assemblyscript/asc'
import { readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')
const target = join(root, 'src/float/module.ts')

const FLAGS = [
  '--runtime',
  'stub',
  '--use',
  'abort=',
  '--noAssert',
  '-O3',
  '--converge',
  '--importMemory',
  '--noExportMemory',
  '--sharedMemory',
  '--maximumMemory',
  '65536',
  '--enable',
  'threads',
  '--noColors',
]

async function compile(): Promise<Uint8Array> {
  let binary: Uint8Array | undefined
  const { error, stderr } = await asc.main(['float-library/index.ts', '--baseDir', root, '-o', 'float.wasm', ...FLAGS], {
    writeFile: (name, contents) => {
      if (name === 'float.wasm' && typeof contents !== 'string') binary = contents
    },
  })
  if (error || !binary) throw new Error(`float-library/ does not compile: ${stderr.toString()}`)
  return binary
}

function render(binary: Uint8Array): string {
  const lines =
    Buffer.from(binary)
      .toString('base64')
      .match(/.{1,116}/g) ?? []
  return [
    '/** Exact floating point as a wasm module. Generated from float-library/ by tools/build-float.ts: do not edit. */',
    'const BASE64 = `',
    ...lines,
    '`',
    '',
    `/** The module's ${binary.length} bytes. It imports \`env.memory\` and has no data of its own. */`,
    'export function floatBinary(): Uint8Array<ArrayBuffer> {',
    "  const characters = atob(BASE64.replaceAll('\\n', ''))",
    '  const bytes = new Uint8Array(characters.length)',
    '  // Runs at every start, and Uint8Array.from would call a function for each byte.',
    '  for (let at = 0; at < bytes.length; at++) bytes[at] = characters.charCodeAt(at)',
    '  return bytes',
    '}',
    '',
  ].join('\n')
}

const text = render(await compile())
if (process.argv.includes('--check')) {
  if (readFileSync(target, 'utf8') !== text) throw new Error(`${target} is stale: run tools/build-float.ts`)
} else writeFileSync(target, text)
