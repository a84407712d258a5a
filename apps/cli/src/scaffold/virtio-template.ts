/** The files of a new virtio device package: small, complete, working. Only what differs from a device with its own registers. */

import { manifest, readme, TSCONFIG } from './device-template.ts'
import type { DeviceTemplateInput } from './device-template.ts'

/** Path in the package to content. */
export const virtioTemplate = (input: DeviceTemplateInput): Readonly<Record<string, string>> => ({
  'package.json': manifest(input, ['@nonroot/io-virtio']),
  'tsconfig.json': TSCONFIG,
  '.gitignore': 'node_modules/\ndist/\n',
  'src/index.ts': plugin(input),
  'src/options.ts': options(input),
  'src/device.ts': device(input),
  'src/device.test.ts': test(input),
  'README.md': readme(input, {
    what: 'It turns the letters of what it is sent by some places, over virtio',
    option: 'shift: 13',
    device: 'the device. It sees queues of buffers, never a transport or a ring.',
    test: 'a driver for it, over each transport and ring, the suite that every virtio device passes, and drivers gone wrong.',
    stack: 'stack:\n  io: [{ use: "@nonroot/io-emulated" }, { use: "@nonroot/io-virtio" }]\n',
  }),
})

const plugin = ({ name, kind, className }: DeviceTemplateInput): string => `/** The plugin: what nonroot finds here. */

import { API_VERSION, defineDevice, definePlugin, VirtioTransport } from '@nonroot/contracts'
import { ${className} } from './device.ts'
import { options } from './options.ts'

export default definePlugin({
  name: '${name}',
  apiVersion: API_VERSION,
  devices: [
    defineDevice({
      kind: '${kind}',
      summary: 'turns letters by some places',
      options,
      needs: ['virtioTransport'],
      create: (options, context) =>
        context.capability(VirtioTransport).attach((port) => new ${className}(options, port, context)),
    }),
  ],
})
`

const options = ({ kind }: DeviceTemplateInput): string => `/** What a configuration may say of the device. */

import { z } from 'zod'

/** \`{ kind: ${kind}, shift: 13 }\` */
export const options = z.strictObject({
  shift: z.number().int().min(0).max(25).default(13).meta({ description: 'places that letters are turned by' }),
})

export type Options = z.output<typeof options>
`

const device = ({
  kind,
  className,
}: DeviceTemplateInput): string => `/** ${kind}: text in, letters turned by some places, text out. Independent of the transport. */

import type { Counter, DeviceContext, Snapshot, VirtioDevice, VirtioPort, Virtqueue } from '@nonroot/contracts'
import type { Options } from './options.ts'

/** Bit 0: the driver may change the shift, by writing the configuration. */
export const Feature = { adjustable: 0 } as const
/** A length comes from the guest, so it is bounded: no driver needs more at once. */
const MOST_BYTES = 4096

export class ${className} implements VirtioDevice {
  /** "Device Types": one that is not taken. */
  readonly deviceId = 0x3f
  readonly features = [Feature.adjustable]
  readonly queueSizes = [64]
  /** One byte: the shift. */
  readonly config: Uint8Array
  readonly #shift: number
  readonly #port: VirtioPort
  readonly #served: Counter

  constructor({ shift }: Options, port: VirtioPort, { metrics }: Pick<DeviceContext, 'metrics'>) {
    this.#shift = shift
    this.#port = port
    this.config = Uint8Array.of(shift)
    this.#served = metrics.counter('served', 'requests answered')
  }

  process(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      const text = new Uint8Array(Math.min(chain.readable, chain.writable, MOST_BYTES))
      chain.read(0, text)
      chain.write(
        0,
        text.map((byte) => this.#turn(byte)),
      )
      // At once, or after slow work: then \`queue.signal()\` follows.
      queue.push(chain, text.length)
      this.#served.value++
    }
  }

  #turn(byte: number): number {
    const first = byte >= 97 ? 97 : 65
    const letter = byte - first
    return letter >= 0 && letter < 26 ? first + ((letter + this.config[0]!) % 26) : byte
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (this.#port.accepted(Feature.adjustable) && offset === 0 && size === 1) this.config[0] = value % 26
  }

  /** The driver, or the machine, was reset. */
  stop(): void {
    this.config[0] = this.#shift
  }

  save(): Snapshot {
    return { type: '${kind}', version: 1, data: { shift: this.config[0]! } }
  }

  restore({ data }: Snapshot): void {
    this.config[0] = Number(data['shift'])
  }
}
`

const test = ({ className }: DeviceTemplateInput): string => `import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { createVirtio, virtioOptions } from '@nonroot/io-virtio'
import { benchVirtio, createRandom, fuzzVirtioDevice, testVirtioDevice } from '@nonroot/testkit'
import { Feature } from './device.ts'
import plugin from './index.ts'

const definition = plugin.devices![0]!
const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const decode = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes)

for (const transport of ['pci', 'mmio']) {
  for (const ring of ['split', 'packed']) {
    const create = (options = {}) =>
      benchVirtio(definition, options, createVirtio(virtioOptions.parse({ transport, ring })))

    describe(\`\${transport}, \${ring}\`, () => {
      testVirtioDevice(definition.kind, create, test)

      test('turns letters, and nothing else', async () => {
        const { driver } = await create({ shift: 1 })
        driver.start()
        const { parts, written } = await driver.request(0, [encode('Hello, Zed')], [4, 100])
        assert.equal(written, 10)
        assert.equal(decode(parts[0]) + decode(parts[1]!.subarray(0, 6)), 'Ifmmp, Afe')
      })

      test('survives drivers gone wrong', async () => {
        const subject = await create()
        await fuzzVirtioDevice(subject, {
          random: createRandom(),
          request: (random) => ({ queue: 0, out: [new Uint8Array(random(9000))], room: [random(9000)] }),
        })
      })
    })
  }
}

test('${className} lets the driver change the shift, if that was negotiated', async () => {
  const { driver } = await benchVirtio(definition, {}, createVirtio(virtioOptions.parse({})))
  driver.start({ accept: (feature) => feature !== Feature.adjustable })
  driver.registers.writeConfig(0, 1, 2)
  assert.equal(driver.registers.readConfig(0, 1), 13)
  driver.start()
  driver.registers.writeConfig(0, 1, 2)
  assert.equal(decode((await driver.request(0, [encode('abc')], [3])).parts[0]), 'cde')
})
`
