/** `npm test`: build, lint, every test; ends with `N passed, N failed`. Each step counts as one. */

import { mkdirSync, readFileSync, rmSync } from 'node:fs'
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { root } from './workspace.ts'

const report = join(root, 'node_modules/.cache/vitest-report.json')

/** oxlint's and vitest's own output goes straight to the terminal. */
function run(name: string, args: readonly string[]): Promise<boolean> {
  console.log(`\n> ${name} ${args.join(' ')}`)
  const env = { ...process.env, NX_DAEMON: 'false', FORCE_COLOR: process.stdout.isTTY ? '1' : '0' }
  return new Promise((resolve) => {
    const child = spawn(name, args, { cwd: root, stdio: 'inherit', env })
    child.on('error', (error) => (console.error(`${name}: ${error.message}`), resolve(false)))
    child.on('close', (status) => resolve(status === 0))
  })
}

let passed = 0
let failed = 0
const step = async (name: string, args: readonly string[]): Promise<void> => {
  if (await run(name, args)) passed++
  else failed++
}

await step('tsc', ['-b'])
await step('tsc', ['-p', 'bench'])
await step('tsc', ['-p', 'packages/x86/tools'])
await step('node', ['tools/copy-stacks.js'])
await step('node', ['tools/bundle.js'])
await step('oxlint', ['--type-aware', '--quiet'])
// The boundary rule is silent without a project graph: nx makes it.
await step('nx', ['show', 'projects'])
await step('eslint', ['packages', 'apps'])
await step('node', ['tools/prose.ts'])
await step('cspell', ['lint', '--no-progress', '--quiet', '--cache', '--cache-location', 'node_modules/.cache/cspell'])

// The code that faces a guest has a score that only rises (packages/io-virtio/coverage-score.json).
await step('npm', ['run', '--silent', 'coverage:virtio', '--', '--reporter=dot'])

rmSync(report, { force: true })
mkdirSync(join(report, '..'), { recursive: true })
const green = await run('vitest', ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report}`])
try {
  const counts = JSON.parse(readFileSync(report, 'utf8')) as {
    numPassedTests: number
    numFailedTests: number
    success: boolean
  }
  passed += counts.numPassedTests
  failed += counts.numFailedTests
  if (!green && counts.numFailedTests === 0) failed++
} catch {
  failed++
}
console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
