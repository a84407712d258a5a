/** The schema of stack files. Options of plugins have the plugin's own schema. */

import { FRAME_SIZE, formatSize, parseSize } from '@nonroot/contracts'
import { z } from 'zod'

export const CONFIG_VERSION = 'nonroot/v1'

/** Host memory is one WebAssembly memory of at most 4 GiB; tables and code need some of it. */
const MAX_MEMORY = 3584 * 2 ** 20
const MIN_MEMORY = 2 ** 20

const size = (least: number, most: number, what: string) =>
  z
    .union([z.string(), z.number()])
    .transform((text, context): number => {
      const bytes = parseSize(text)
      const problem =
        typeof bytes === 'object'
          ? bytes.problem
          : bytes < least || bytes > most
            ? `${formatSize(bytes)} is out of range (${formatSize(least)} to ${formatSize(most)})`
            : bytes % FRAME_SIZE
              ? `${formatSize(bytes)} is not a multiple of a frame (4 KiB)`
              : undefined
      if (problem === undefined) return bytes as number
      context.addIssue({ code: 'custom', message: problem })
      return z.NEVER
    })
    .meta({ description: `${what}, as in "512 MiB"`, examples: ['512 MiB'] })

const packageName = z
  .string()
  .min(1)
  .meta({ description: 'an npm package, or a path to one from this file', examples: ['@nonroot/mmu'] })

const strategyUse = (role: string) =>
  z
    .looseObject({
      use: packageName,
      strategy: z
        .string()
        .min(1)
        .optional()
        .meta({ description: 'which of the package’s strategies; may be left out where it has one' }),
    })
    .meta({ description: `the package for ${role}, and its options` })

const reclaimUse = z
  .looseObject({
    use: packageName,
    policy: z.string().min(1).optional().meta({ description: 'which of the package’s policies' }),
    strategy: z.string().min(1).optional().meta({ description: 'the same as policy' }),
  })
  .meta({ description: 'a way to get memory back from guests, and its options' })

const device = z
  .looseObject({
    kind: z.string().min(1).meta({ description: 'what it is: a kind that a package provides' }),
    use: packageName.optional(),
    name: z
      .string()
      .regex(/^[a-z][a-z0-9-]*$/i, 'a name is letters, digits and hyphens, a letter first')
      .optional()
      .meta({
        description: 'its name in metrics and errors (letters, digits and hyphens); its kind and a number otherwise',
      }),
  })
  .meta({ description: 'a device and its options' })

const stack = z.strictObject({
  cpu: strategyUse('the CPU mode: how guest code is run'),
  paging: strategyUse('the paging strategy: how memory is paged'),
  abi: strategyUse('the guest ABI: what the guest finds of its hypervisor'),
  io: z.array(strategyUse('an I/O model')).min(1).meta({ description: 'I/O models: the platform, transports' }),
  reclaim: z.array(reclaimUse).default([]).meta({ description: 'how memory is reclaimed, in order of trying' }),
  scheduler: strategyUse('the scheduler: which vCPU runs').optional(),
})

const machine = z.strictObject({
  memory: size(MIN_MEMORY, MAX_MEMORY, 'memory of the guest').prefault('512 MiB'),
  pluggable: size(0, MAX_MEMORY, 'memory that a memory device (virtio-mem) can plug while the guest runs').optional(),
  vcpus: z.int().min(1).max(64).default(1).meta({ description: 'virtual processors' }),
  clock: z
    .enum(['wall', 'deterministic'])
    .default('wall')
    .meta({ description: 'wall: time passes as it does; deterministic: it follows from instructions retired' }),
  onReset: z
    .enum(['restart', 'end'])
    .default('restart')
    .meta({ description: 'what a reset of the machine (or a triple fault) does' }),
})

const hostDevice = device.extend({
  at: z
    .string()
    .regex(/^[\da-f]{2}:[01][\da-f]\.[0-7]$/, 'a PCI address is bus:device.function, as in "01:00.0"')
    .optional()
    .meta({ description: 'its PCI address on the host; a bus of its own otherwise', examples: ['01:00.0'] }),
})

/** What a host with devices has, unless its configuration says otherwise. */
export const DEFAULT_HOST_IO = [
  { use: '@nonroot/io-pci-passthrough', strategy: 'intel-iommu' },
  { use: '@nonroot/io-emulated', strategy: 'pci' },
] as const

const host = z.strictObject({
  memory: size(MIN_MEMORY, 2 ** 32 - 65536, 'memory of the host, which all its guests share').optional(),
  io: z
    .array(strategyUse('an I/O model of the host'))
    .optional()
    .meta({ description: 'its PCI bus and its IOMMU; with devices, it has both unless this says otherwise' }),
  devices: z
    .array(hostDevice)
    .default([])
    .meta({ description: 'devices of the host, which VMs may be given: { kind: pci-passthrough, host: "01:00.0" }' }),
})

const schedule = z
  .strictObject({
    weight: z
      .number()
      .min(0.01)
      .max(100)
      .default(1)
      .meta({ description: 'relative claim to processor time (default 1)' }),
    cap: z
      .number()
      .gt(0)
      .max(1)
      .optional()
      .meta({ description: "the largest part of one processor's time, as in 0.5; no limit otherwise" }),
  })
  .meta({ description: 'claim to processor time, for schedulers that know one' })

const reclaim = z
  .strictObject({
    minimum: size(0, MAX_MEMORY, 'memory that is never taken from the VM').optional(),
    maximum: size(MIN_MEMORY, MAX_MEMORY, 'memory that the VM may have').optional(),
    shares: z
      .int()
      .min(1)
      .max(1_000_000)
      .optional()
      .meta({ description: 'relative claim to memory under pressure (default 1000)' }),
    group: z.string().min(1).max(64).optional().meta({
      description:
        'VMs that name the same group may share equal pages; who shares can find out by the time that a write takes',
    }),
  })
  .meta({ description: 'what reclaim may take of the VM' })

const boot = z
  .looseObject({ use: packageName.default('@nonroot/boot') })
  .meta({ description: 'a boot protocol with its options: { linux: { kernel: ./vmlinuz } }' })

const image = z
  .strictObject({
    mirror: z
      .union([z.string().min(1), z.array(z.string().min(1)).min(1)])
      .optional()
      .meta({ description: "addresses of Debian's mirrors; the system's package client otherwise", examples: ['https://mirror.example/debian'] }),
    keyring: z
      .string()
      .min(1)
      .optional()
      .meta({ description: "a file with the public keys that sign the mirrors' releases; Debian's own otherwise" }),
  })
  .meta({ description: 'where the packages of Debian come from, which a guest is made of where boot names none' })

const strategyChange = z.looseObject({ use: packageName.optional(), strategy: z.string().min(1).optional() })

/** Names of VMs. They become parts of file names. */
export const VM_NAME = /^[a-z][a-z0-9-]{0,31}$/i

/** What a VM changes of the file's own keys. Merged with them as a file is with what it extends. */
const vm = z
  .strictObject({
    name: z
      .string()
      .regex(VM_NAME, 'a name is up to 32 letters, digits and hyphens, a letter first')
      .meta({
        description:
          'what its console, metrics and control socket are called: up to 32 letters, digits and hyphens, a letter first',
        examples: ['web'],
      }),
    stack: z
      .strictObject({
        cpu: strategyChange.optional(),
        paging: strategyChange.optional(),
        abi: strategyChange.optional(),
        io: z.array(strategyUse('an I/O model')).min(1).optional(),
      })
      .optional()
      .meta({ description: 'layers that differ from the stack' }),
    machine: machine.optional(),
    schedule: schedule.optional(),
    reclaim: reclaim.optional(),
    devices: z.array(device).optional(),
    boot: boot.optional(),
  })
  .meta({ description: 'a VM, and what it changes of the keys above' })

export const stackConfig = z
  .strictObject({
    apiVersion: z.literal(CONFIG_VERSION),
    extends: z.string().min(1).optional().meta({ description: 'another stack file, which this one changes' }),
    stack,
    machine: machine.prefault({}),
    host: host.prefault({}),
    schedule: schedule.optional(),
    reclaim: reclaim.optional(),
    devices: z.array(device).default([]),
    boot: boot.optional(),
    image: image.optional(),
    vms: z
      .array(vm)
      .min(1)
      .optional()
      .meta({ description: 'the VMs of the host; one, as the other keys say, if left out' }),
  })
  .meta({ title: 'nonroot stack', description: 'A hypervisor stack, its machine, its devices and its guest' })

/** As written, and as TypeScript configurations export it: sizes may be text, defaults may be absent. */
export type StackConfigInput = z.input<typeof stackConfig>
/** As parsed: sizes in bytes, defaults filled in. */
export type StackConfig = z.output<typeof stackConfig>

/** Typing for `nonroot.config.ts`: `export default defineStack({ ... })`. */
export const defineStack = (config: StackConfigInput): StackConfigInput => config

interface ObjectSchema {
  readonly required?: readonly string[]
  readonly properties?: Readonly<Record<string, ObjectSchema>>
}

/** Required keys that are checked only if no other file is extended. */
function requirements(schema: ObjectSchema): ObjectSchema {
  const inner = Object.entries(schema.properties ?? {})
    .map(([key, value]) => [key, requirements(value)] as const)
    .filter(([, value]) => value.required || value.properties)
  return {
    ...(schema.required ? { required: schema.required } : {}),
    ...(inner.length ? { properties: Object.fromEntries(inner) } : {}),
  }
}

const withoutRequirements = ({ required: _, ...schema }: ObjectSchema): ObjectSchema =>
  schema.properties
    ? {
        ...schema,
        properties: Object.fromEntries(
          Object.entries(schema.properties).map(([key, value]) => [key, withoutRequirements(value)]),
        ),
      }
    : schema

/** For editors: `# yaml-language-server: $schema=...`. A file that extends another may omit keys that the other has. */
export function stackJsonSchema(): Record<string, unknown> {
  const schema = z.toJSONSchema(stackConfig, { io: 'input', target: 'draft-2020-12' }) as ObjectSchema
  return {
    $id: 'https://nonroot.dev/schema/stack-v1.json',
    ...withoutRequirements(schema),
    if: { not: { required: ['extends'] } },
    then: requirements(schema),
  }
}
