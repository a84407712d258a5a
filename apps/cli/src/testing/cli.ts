/** The command for tests: in this process with its words captured, or as a process of its own. Not part of the package. */

import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { main } from '../main.ts'

export interface CliResult {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

export interface CliOptions {
  readonly cwd?: string
  readonly env?: NodeJS.ProcessEnv
  /** Standard input that comes after a while, and ends after as long again. Default: none. */
  readonly input?: { readonly text: string | Uint8Array; readonly afterMs: number }
  /** Of standard output, in `out`. */
  readonly encoding?: 'utf8' | 'latin1'
}

export const fixtures = fileURLToPath(new URL('../../fixtures/', import.meta.url))
const startFile = new URL('../start.ts', import.meta.url).href
const script = `import { start } from '${startFile}'; process.exitCode = await start(process.argv.slice(1))`

export async function cli(...argv: string[]): Promise<CliResult> {
  let [out, err] = ['', '']
  const status = await main(argv, {
    out: (text) => void (out += text),
    err: (text) => void (err += text),
    color: false,
  })
  return { status, out, err }
}

/** Whether processes run what was built, as users have it (`npm test` says so); else they run from source. */
export const isBuiltTested = process.env['NONROOT_TESTED'] === 'built'
/** Node for a script that imports our packages. */
export const node: readonly string[] = [process.execPath, ...(isBuiltTested ? [] : ['--conditions=@nonroot/source']), '--input-type=module']

/** The command as a process of its own. */
export const command: readonly string[] =
  isBuiltTested
    ? [process.execPath, fileURLToPath(new URL('../../bin/nonroot.js', import.meta.url))]
    : [...node, '-e', script, '--']

/** In a process: for what must not happen in ours. */
export function spawnCli(argv: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  return exec(command[0]!, [...command.slice(1), ...argv], options)
}

export function exec(command: string, args: readonly string[], options: CliOptions = {}): Promise<CliResult> {
  const { cwd, env, input, encoding = 'utf8' } = options
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, {
      ...(cwd === undefined ? {} : { cwd }),
      env: { ...process.env, ...env },
      stdio: [input ? 'pipe' : 'ignore', 'pipe', 'pipe'],
    })
    if (input) {
      setTimeout(() => child.stdin!.write(input.text), input.afterMs)
      setTimeout(() => child.stdin!.end(), 2 * input.afterMs)
    }
    let err = ''
    const out: Buffer[] = []
    child.stdout!.on('data', (chunk: Buffer) => out.push(chunk))
    child.stderr!.on('data', (chunk) => (err += chunk))
    child.on('error', reject)
    child.on('close', (status) => resolve({ status, out: Buffer.concat(out).toString(encoding), err }))
  })
}

/** Files by path, in a fresh folder that `remove` takes away. */
export async function folderWith(
  files: Readonly<Record<string, string>>,
): Promise<{ folder: string; remove: () => void }> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-test-'))
  for (const [path, content] of Object.entries(files)) {
    await mkdir(dirname(join(folder, path)), { recursive: true })
    await writeFile(join(folder, path), content)
  }
  return { folder, remove: () => rmSync(folder, { recursive: true, force: true }) }
}

/** No trace of where in our code it happened. */
export const stackTrace = /^\s+at .+[:(]\d*|node:internal|\.ts:\d+:\d+\)/m
