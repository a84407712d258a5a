/**
 * `npm test`: build, lint, every test; ends with `N passed, N failed`. Each step counts as one.
 *
 * Most steps use one core: after the build the checks of the text run beside those that need what was built.
 */

import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { root } from './workspace.ts'

type Step = readonly [name: string, ...args: string[]]

const cache = join(root, 'node_modules/.cache')
// The command's tests take what was built just before, as users have it.
const env = { ...process.env, NX_DAEMON: 'false', FORCE_COLOR: process.stdout.isTTY ? '1' : '0', NONROOT_TESTED: 'built' }
let passed = 0
let failed = 0

/** `quiet`: its output appears at its end, as other steps run beside it. */
function run([name, ...args]: Step, quiet = false): Promise<boolean> {
  const title = `\n> ${name} ${args.join(' ')}`
  if (!quiet) console.log(title)
  const started = performance.now()
  return new Promise((resolve) => {
    const child = spawn(name, args, { cwd: root, stdio: quiet ? ['ignore', 'pipe', 'pipe'] : 'inherit', env })
    let output = ''
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text: Buffer) => (output += text.toString()))
    child.on('error', (error) => (console.error(`${name}: ${error.message}`), resolve(false)))
    child.on('close', (status) => {
      const seconds = ((performance.now() - started) / 1000).toFixed(1)
      console.log(quiet ? `${title} (${seconds} s)\n${output.trimEnd()}` : `(${seconds} s)`)
      resolve(status === 0)
    })
  })
}
const count = (green: boolean): void => void (green ? passed++ : failed++)
async function steps(list: readonly Step[], quiet = true): Promise<void> {
  for (const step of list) count(await run(step, quiet))
}

/** Tests count one by one; their run fails, too, where something outside of them does. */
async function tests(name: string, args: readonly string[], quiet = false): Promise<void> {
  const report = join(cache, `${name}.json`)
  rmSync(report, { force: true })
  const green = await run(['vitest', 'run', ...args, '--reporter=json', `--outputFile.json=${report}`], quiet)
  try {
    const counts = JSON.parse(readFileSync(report, 'utf8')) as { numPassedTests: number; numFailedTests: number }
    passed += counts.numPassedTests
    failed += counts.numFailedTests
    if (!green && counts.numFailedTests === 0) failed++
  } catch {
    failed++
  }
}

mkdirSync(cache, { recursive: true })
await steps([['tsc', '-b']], false)

const text: readonly Step[] = [
  ['oxlint', '--type-aware', '--quiet'],
  // The boundary rule is silent without a project graph: nx makes it.
  ['nx', 'show', 'projects'],
  ['eslint', 'packages', 'apps'],
  ['node', 'tools/prose.ts'],
  ['cspell', 'lint', '--no-progress', '--quiet', '--cache', '--cache-location', 'node_modules/.cache/cspell'],
]
const built: readonly Step[] = [
  ['node', 'tools/copy-stacks.js'],
  ['node', 'tools/bundle.js'],
  ['tsc', '-p', 'bench'],
  ['tsc', '-p', 'packages/x86/tools'],
]
/** The code that faces a guest has a score that only rises (packages/io-virtio/coverage-score.json): its tests run once, there. */
const SCORED = ['src/queue', 'src/transport', 'src/device/block.test.ts', 'src/device/devices.test.ts']
const scored = (): Promise<void> => tests('vitest-coverage', ['--root', 'packages/io-virtio', '--reporter=dot', '--coverage', ...SCORED], true)
await Promise.all([steps(text), steps(built).then(scored)])

const others = SCORED.flatMap((at) => ['--exclude', `packages/io-virtio/${at}${at.endsWith('.ts') ? '' : '/**'}`])
await tests('vitest-report', ['--reporter=default', ...others])
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
