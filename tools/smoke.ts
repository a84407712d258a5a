/**
 * What CI runs after the tests: the shipped stacks with Debian's own kernel, and a short run of every oracle and fuzzer, each by name. Ends with
 * `N passed, N failed`. Parts that need what is not there (Debian's packages, gcc) are reported as skipped, with the reason.
 *
 *     npm run smoke -- [--only WORD] [--long --seed N]
 *
 * `--long` (`npm run nightly`): an hour or more, with the tests at their full length; the seed of its oracles is printed, and is the day's number unless given.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { root } from './workspace.ts'

const { values } = parseArgs({ options: { only: { type: 'string', default: '' }, long: { type: 'boolean', default: false }, seed: { type: 'string' } } })
const seed = values.seed ?? (values.long ? String(Math.floor(Date.now() / 86_400_000)) : '1')
console.log(`seed ${seed}`)

interface Result {
  readonly status: number
  readonly output: string
}

function run(command: string, args: readonly string[], seconds: number, input = new Uint8Array()): Promise<Result> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: root, stdio: ['pipe', 'pipe', 'pipe'], timeout: seconds * 1000, killSignal: 'SIGKILL' })
    child.stdin.on('error', () => {})
    child.stdin.end(input)
    let output = ''
    const add = (chunk: Buffer): void => void (output += chunk.toString('latin1'))
    child.stdout.on('data', add)
    child.stderr.on('data', add)
    child.on('error', (error) => resolve({ status: -1, output: error.message }))
    child.on('close', (status) => resolve({ status: status ?? -1, output }))
  })
}
const nonroot = (...args: string[]): Promise<Result> => run(process.execPath, [join(root, 'apps/cli/bin/nonroot.js'), ...args], 300)
const script = (name: string, ...args: string[]): Promise<Result> => run('npm', ['run', '--silent', name, '--', ...args], values.long ? 4 * 3600 : 600)

/** What went wrong, or undefined. */
type Check = () => Promise<string | undefined>
const tail = (output: string): string => output.trim().split('\n').slice(-8).join('\n      ')
const gives = (status: number, { status: is, output }: Result): string | undefined =>
  is === status ? undefined : `status ${is}, not ${status}:\n      ${tail(output)}`

const stacks = readdirSync(join(root, 'stacks')).filter((name) => name.endsWith('.yaml')).toSorted()

const DEBIAN: Readonly<Record<string, Check>> = {
  ...Object.fromEntries(
    stacks.map((stack) => [`${stack} runs a command in Debian`, async () => gives(7, await nonroot('run', join('stacks', stack), '--', 'sh', '-c', 'exit 7'))]),
  ),
  'two million bytes through a command come back': async () => {
    const bytes = Buffer.from(Uint8Array.from({ length: 2e6 }, (_, index) => Math.imul(index, 0x9e3779b1) >>> 24))
    const back = await run(process.execPath, [join(root, 'apps/cli/bin/nonroot.js'), 'run', '--', 'cat'], 300, bytes)
    return gives(0, back) ?? (back.output === bytes.toString('latin1') ? undefined : `${back.output.length} bytes came back, others than went`)
  },
  'a deterministic run repeats': async () => {
    const args = ['run', '--set', 'machine.clock=deterministic', '--', 'dmesg']
    const [one, two] = [await nonroot(...args), await nonroot(...args)]
    return gives(0, one) ?? (one.output === two.output ? undefined : 'the second console differs from the first')
  },
}

/** By script: arguments of the short and of the long form. */
const ORACLES: readonly (readonly [script: string, short: readonly string[], long: readonly string[]])[] = [
  ['oracle:system', ['--programs', '300'], ['--minutes', '60']],
  ['fuzz:tiers', ['--sequences', '15000'], ['--minutes', '60']],
  ['oracle:tiers', ['--minutes', '0.4'], ['--minutes', '30']],
  ['oracle:evaluator', [], []],
  ['fuzz:virtio', ['--minutes', '0.4'], ['--minutes', '30']],
  ['fuzz:frames', ['--rounds', '6'], ['--rounds', '1000']],
]
/** Tests that `npm test` leaves out or runs in a shorter form, with NONROOT_SMOKE. */
const MORE_TESTS = ['tools/third-party.test.ts', 'packages/x86/src/float/library.test.ts', 'packages/cpu-translate/src/random.test.ts', 'apps/cli/src/embed/open-vm.test.ts']
/** The same, with NONROOT_LONG. */
const LONG_TESTS = ['packages/boot/src/fuzz.test.ts', 'apps/cli/src/examples/slurm.test.ts']
const NATIVE: readonly (readonly string[])[] = ['64', '32'].map((mode) => ['--mode', mode, '--cases', values.long ? '10000000' : '40000'])

let passed = 0
let failed = 0
async function step(name: string, check: Check): Promise<void> {
  if (!name.includes(values.only)) return
  const started = performance.now()
  const problem = await check()
  const seconds = ((performance.now() - started) / 1000).toFixed(0)
  if (problem === undefined) passed++
  else failed++
  console.log(`${problem === undefined ? 'ok    ' : 'FAILED'} ${name} (${seconds} s)${problem === undefined ? '' : `\n      ${problem}`}`)
}
const skip = (name: string, why: string): void => console.log(`skipped ${name}: ${why}`)

const image = await nonroot('image', 'debian')
if (image.status === 0) for (const [name, check] of Object.entries(DEBIAN)) await step(name, check)
else skip('Debian', tail(image.output))

await step('tests that npm test leaves out or shortens', async () => gives(0, await run('env', ['NONROOT_SMOKE=1', 'NONROOT_TESTED=built', 'npx', 'vitest', 'run', ...MORE_TESTS], 600)))
if (values.long) await step('tests at their full length', async () => gives(0, await run('env', ['NONROOT_LONG=1', 'npx', 'vitest', 'run', ...LONG_TESTS], 3600)))
for (const [name, short, long] of ORACLES) await step(name, async () => gives(0, await script(name, '--seed', seed, ...(values.long ? long : short))))
for (const args of NATIVE) {
  const name = `oracle:native ${args.slice(0, 2).join(' ')}`
  if (!name.includes(values.only)) continue
  // It ends with 3 where the host has no compiler, or runs no 32-bit code.
  const result = await script('oracle:native', '--seed', seed, ...args)
  if (result.status === 3) skip(name, tail(result.output))
  else await step(name, async () => gives(0, result))
}

console.log(`\n${passed} passed, ${failed} failed`)
process.exitCode = failed ? 1 : 0
