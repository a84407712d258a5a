/** The files of a new device package: small, complete, working; the starting point of a device author. */

export interface DeviceTemplateInput {
  /** npm package name. */
  readonly name: string
  /** What a configuration calls the device. */
  readonly kind: string
  /** PascalCase. */
  readonly className: string
  /** Version range of our packages. */
  readonly version: string
}

/** Path in the package to content. */
export const deviceTemplate = (input: DeviceTemplateInput): Readonly<Record<string, string>> => ({
  'package.json': manifest(input),
  'tsconfig.json': TSCONFIG,
  '.gitignore': 'node_modules/\ndist/\n',
  'src/index.ts': plugin(input),
  'src/options.ts': options(input),
  'src/device.ts': device(input),
  'src/device.test.ts': test(input),
  'README.md': readme(input),
})

/** `further`: packages of ours that the tests need beside the usual. */
export const manifest = ({ name, kind, version }: DeviceTemplateInput, further: readonly string[] = []): string =>
  `${JSON.stringify(
    {
      name,
      version: '0.1.0',
      description: `The ${kind} device for nonroot`,
      license: 'MIT',
      type: 'module',
      sideEffects: false,
      exports: { '.': { types: './dist/index.d.ts', default: './dist/index.js' }, './package.json': './package.json' },
      files: ['dist', '!**/*.test.*'],
      engines: { node: '>=24.11' },
      nonroot: { apiVersion: 1, provides: [`device:${kind}`] },
      scripts: { build: 'tsc', test: 'node --test "src/**/*.test.ts"', prepare: 'tsc' },
      dependencies: { zod: '^4.6.7' },
      peerDependencies: { '@nonroot/contracts': `^${version}` },
      devDependencies: {
        ...Object.fromEntries(
          ['@nonroot/contracts', ...further, '@nonroot/testkit'].map((ours) => [ours, `^${version}`]),
        ),
        '@types/node': '^24.0.0',
        typescript: '>=5.8',
      },
    },
    null,
    2,
  )}\n`

export const TSCONFIG = `${JSON.stringify(
  {
    compilerOptions: {
      target: 'es2023',
      lib: ['es2024', 'esnext.sharedmemory'],
      module: 'nodenext',
      types: ['node'],
      rootDir: 'src',
      outDir: 'dist',
      declaration: true,
      strict: true,
      noUncheckedIndexedAccess: true,
      exactOptionalPropertyTypes: true,
      verbatimModuleSyntax: true,
      erasableSyntaxOnly: true,
      rewriteRelativeImportExtensions: true,
      skipLibCheck: true,
    },
    include: ['src'],
  },
  null,
  2,
)}\n`

const plugin = ({ name, kind, className }: DeviceTemplateInput): string => `/** The plugin: what nonroot finds here. */

import { API_VERSION, defineDevice, definePlugin } from '@nonroot/contracts'
import { ${className} } from './device.ts'
import { options } from './options.ts'

export default definePlugin({
  name: '${name}',
  apiVersion: API_VERSION,
  devices: [
    defineDevice({
      kind: '${kind}',
      summary: 'counts up at a rate and interrupts at each count',
      options,
      create: (options, context) => new ${className}(options, context),
    }),
  ],
})
`

const options = ({ kind }: DeviceTemplateInput): string => `/** What a configuration may say of the device. */

import { z } from 'zod'

/** \`{ kind: ${kind}, rate: 10 }\` */
export const options = z.strictObject({
  rate: z.number().positive().max(1e6).default(10).meta({ description: 'counts a second' }),
})

export type Options = z.output<typeof options>
`

const device = ({
  kind,
  className,
}: DeviceTemplateInput): string => `/** ${kind}: a counter behind three registers. Independent of the bus. */

import type { Clock, Counter, Device, DeviceContext, InterruptLine, IoSize, Snapshot, Timer } from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'
import type { Options } from './options.ts'

/** Registers: 32 bits each, by offset from the device's base. */
export const REGISTERS = {
  /** Read-only: how often it has counted. */
  count: 0x0,
  /** Bit 0: run. */
  control: 0x4,
  /** Read: bit 0 is set once it has counted. Writing 1 clears it, and with it the interrupt. */
  status: 0x8,
} as const

export class ${className} implements Device {
  readonly #clock: Clock
  readonly #line: InterruptLine
  readonly #counted: Counter
  readonly #periodNs: number
  #count = 0
  #running = false
  #pending = false
  #timer: Timer | undefined

  constructor({ rate }: Options, { clock, interrupt, mmio, metrics }: DeviceContext) {
    this.#clock = clock
    this.#line = interrupt('ready')
    this.#counted = metrics.counter('counted', 'how often the device has counted')
    this.#periodNs = Math.round(1e9 / rate)
    mmio(0x1000, {
      read: (offset, size) => this.#read(offset, size),
      write: (offset, _size, value) => this.#write(offset, value),
    })
  }

  reset(): void {
    this.#count = 0
    this.#run(false)
    this.#setPending(false)
  }

  save(): Snapshot {
    const data = { count: this.#count, running: this.#running, pending: this.#pending }
    return { type: '${kind}', version: 1, data }
  }

  restore({ version, data }: Snapshot): void {
    if (version !== 1) {
      throw new NonrootError({ code: 'snapshot.mismatch', message: \`${kind} cannot restore version \${version}\` })
    }
    this.#count = Number(data['count'])
    this.#setPending(data['pending'] === true)
    this.#run(data['running'] === true)
  }

  #read(offset: number, size: IoSize): number {
    if (size !== 4) return 0
    if (offset === REGISTERS.count) return this.#count
    if (offset === REGISTERS.control) return this.#running ? 1 : 0
    return offset === REGISTERS.status && this.#pending ? 1 : 0
  }

  #write(offset: number, value: number): void {
    if (offset === REGISTERS.status && value & 1) this.#setPending(false)
    if (offset === REGISTERS.control) this.#run((value & 1) === 1)
  }

  #run(running: boolean): void {
    if (running && !this.#running) this.#schedule()
    if (!running && this.#timer) this.#clock.cancel(this.#timer)
    this.#running = running
  }

  #schedule(): void {
    this.#timer = this.#clock.setTimer(this.#clock.nowNs() + this.#periodNs, () => {
      this.#count = (this.#count + 1) >>> 0
      this.#counted.value++
      this.#setPending(true)
      this.#schedule()
    })
  }

  #setPending(pending: boolean): void {
    this.#pending = pending
    if (pending) this.#line.raise()
    else this.#line.lower()
  }
}
`

const test = ({ kind, className }: DeviceTemplateInput): string => `import assert from 'node:assert/strict'
import { test } from 'node:test'
import { benchDevice, testDevice } from '@nonroot/testkit'
import { REGISTERS } from './device.ts'
import plugin from './index.ts'

const definition = plugin.devices![0]!

testDevice(definition, { rate: 100 }, test)

test('${kind} counts at its rate and interrupts', async () => {
  const { bench } = await benchDevice(definition, { rate: 100 })
  const { base } = bench.mmio[0]!
  bench.writeMmio(base + REGISTERS.control, 1)
  bench.clock.advanceNs(25e6)
  assert.equal(bench.readMmio(base + REGISTERS.count), 2)
  assert.equal(bench.line('ready').raised, true)
  bench.writeMmio(base + REGISTERS.status, 1)
  assert.equal(bench.line('ready').raised, false)
})

test('${className} takes no rate of zero', async () => {
  await assert.rejects(benchDevice(definition, { rate: 0 }))
})
`

/** What a README says that depends on the kind of device. */
interface ReadmeInput {
  readonly what: string
  readonly option: string
  readonly device: string
  readonly test: string
  /** Of the stack file, before the devices. */
  readonly stack?: string
}

const REGISTERS: ReadmeInput = {
  what: 'It counts up at a rate and interrupts at each count',
  option: 'rate: 10',
  device: 'the device. It is handed all it may touch: registers, an interrupt line, a clock, metrics.',
  test: 'the device on a bench, and the suite that every device passes.',
}

export const readme = ({ name, kind }: DeviceTemplateInput, text = REGISTERS): string => `# ${name}

A device for [nonroot](https://www.npmjs.com/package/nonroot). ${text.what}; replace that by what yours does.

\`\`\`sh
npm install     # builds, too
npm test
\`\`\`

Name it in a stack file beside which it is installed:

\`\`\`yaml
${text.stack ?? ''}devices:
  - { kind: ${kind}, use: "${name}", ${text.option} }
\`\`\`

- \`src/index.ts\`: the plugin. package.json's \`"nonroot"\` field says the same, so that it can be read without running code.
- \`src/options.ts\`: what a configuration may say.
- \`src/device.ts\`: ${text.device}
- \`src/device.test.ts\`: ${text.test}
`
