/** A bench for one device: everything a device may touch, observable, with no VM around it. */

import { BusMasterMemory, FrameReturn, gpa, NonrootError } from '@nonroot/contracts'
import type {
  BackendKinds,
  ConsoleBackend,
  Device,
  DeviceContext,
  DeviceDefinition,
  GuestFrames,
  GuestMemory,
  HostMemory,
  InterruptLine,
  Iommu,
  IoHandler,
  IoModel,
  IoRegion,
  IoSize,
  PciFunction,
  PciFunctionDescription,
  PowerControl,
  Token,
} from '@nonroot/contracts'
import { createTestClock } from './clock.ts'
import type { TestClock } from './clock.ts'
import { createTestGuestMemory } from './guest-memory.ts'
import { createTestHostMemory } from './host-memory.ts'
import { createTestLog, createTestMetrics } from './metrics.ts'
import type { TestLog } from './metrics.ts'

/** An interrupt line that counts. */
export interface TestLine extends InterruptLine {
  readonly raised: boolean
  /** Rising edges so far. */
  readonly edges: number
}

export function createTestLine(): TestLine {
  let raised = false
  let edges = 0
  return {
    get raised() {
      return raised
    },
    get edges() {
      return edges
    },
    raise() {
      if (!raised) edges++
      raised = true
    },
    lower() {
      raised = false
    },
    pulse() {
      this.raise()
      this.lower()
    },
  }
}

/** A console that remembers what was written and can be typed on. */
export interface TestConsole extends ConsoleBackend {
  readonly output: string
  /** The same as it was written. */
  readonly bytes: readonly number[]
  type(text: string): void
}

export function createTestConsole(): TestConsole {
  let output = ''
  const listeners = new Set<(bytes: Uint8Array) => void>()
  const decoder = new TextDecoder()
  const written: number[] = []
  return {
    bytes: written,
    get output() {
      return output
    },
    write(bytes) {
      written.push(...bytes)
      output += decoder.decode(bytes, { stream: true })
    },
    onInput(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    type: (text) => listeners.forEach((listener) => listener(new TextEncoder().encode(text))),
    size: () => ({ columns: 80, rows: 25 }),
    onResize: () => () => {},
  }
}

interface Claim {
  readonly region: IoRegion
  readonly handler: IoHandler
}

export interface DeviceBenchOptions {
  readonly name?: string
  readonly hostMemory?: HostMemory
  readonly guestMemory?: GuestMemory & GuestFrames
  /** Stands in front of the guest's memory. */
  readonly iommu?: Iommu
  readonly clock?: TestClock
  /** Back ends that `backend` hands out. */
  readonly backends?: { [K in keyof BackendKinds]?: BackendKinds[K]['backend'] }
  /** What I/O models would offer. */
  readonly offers?: ReadonlyMap<Token<unknown>, unknown>
  /** I/O models (a virtio transport), asked as the kernel would. */
  readonly models?: readonly Pick<IoModel, 'offers'>[]
}

/** The context handed to `create`, and the guest's and the platform's side of it. */
export interface DeviceBench {
  readonly context: DeviceContext
  readonly clock: TestClock
  readonly guestMemory: GuestMemory & GuestFrames
  readonly log: TestLog
  readonly console: TestConsole
  readonly power: string[]
  readonly messages: { address: number; data: number }[]
  /** `msixEnabled` and `busMaster` are the guest's to change: true at first, vectors provided. */
  readonly functions: {
    name: string
    description: PciFunctionDescription
    signals: number[]
    line: TestLine
    msixEnabled: boolean
    busMaster: boolean
  }[]
  line(name: number | string): TestLine
  /** Lines that were asked for. */
  readonly lines: ReadonlyMap<number | string, TestLine>
  /** The guest's IN and OUT. Unclaimed reads give all ones. */
  readPort(port: number, size?: IoSize): number
  writePort(port: number, value: number, size?: IoSize): void
  readMmio(address: number, size?: IoSize): number
  writeMmio(address: number, value: number, size?: IoSize): void
  /** What was claimed, in order. */
  readonly ports: readonly IoRegion[]
  readonly mmio: readonly IoRegion[]
}

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffffffff } as const

function createRegion(base: number, length: number): IoRegion {
  const region = {
    base,
    length,
    enabled: true,
    move(to: number) {
      region.base = to
    },
    enable() {
      region.enabled = true
    },
    disable() {
      region.enabled = false
    },
  }
  return region
}

export function createDeviceBench(options: DeviceBenchOptions = {}): DeviceBench {
  const clock = options.clock ?? createTestClock()
  const hostMemory = options.hostMemory ?? createTestHostMemory(512)
  const guestMemory = options.guestMemory ?? createTestGuestMemory({ hostMemory, ram: 1 << 20 })
  const log = createTestLog()
  const terminal = createTestConsole()
  const power: string[] = []
  const lines = new Map<number | string, TestLine>()
  const ports: Claim[] = []
  const mmio: Claim[] = []
  const messages: DeviceBench['messages'] = []
  const functions: DeviceBench['functions'] = []
  let nextMmio = 0xd0000000

  const line = (name: number | string): TestLine => {
    if (!lines.has(name)) lines.set(name, createTestLine())
    return lines.get(name)!
  }
  const claim = (claims: Claim[], base: number, length: number, handler: IoHandler): IoRegion => {
    const other = claims.find(({ region }) => base < region.base + region.length && region.base < base + length)
    if (other) {
      throw new NonrootError({
        code: 'device.create',
        message: `0x${base.toString(16)}+${length} is claimed twice`,
        value: base,
        remedy: 'claim another range',
      })
    }
    const region = createRegion(base, length)
    claims.push({ region, handler })
    return region
  }
  const find = (claims: Claim[], address: number): Claim | undefined =>
    claims.find(({ region }) => region.enabled && address >= region.base && address < region.base + region.length)
  const read = (claims: Claim[], address: number, size: IoSize): number => {
    const hit = find(claims, address)
    return hit ? hit.handler.read(address - hit.region.base, size) : ALL_ONES[size]
  }
  const write = (claims: Claim[], address: number, size: IoSize, value: number): void => {
    const hit = find(claims, address)
    hit?.handler.write(address - hit.region.base, size, value)
  }
  const control: PowerControl = {
    powerOff: () => void power.push('powerOff'),
    reset: () => void power.push('reset'),
    exit: (status) => void power.push(`exit ${status}`),
    crashed: (reason) => void power.push(`crashed ${reason}`),
    onPowerButton: () => () => {},
  }
  const name = options.name ?? 'device0'

  const context: DeviceContext = {
    name,
    portIo: (base, length, handler) => claim(ports, base, length, handler),
    mmio(range, handler) {
      if (typeof range === 'object') return claim(mmio, range.at, range.length, handler)
      const base = Math.ceil(nextMmio / range) * range
      nextMmio = base + range
      return claim(mmio, base, range, handler)
    },
    pci(description): PciFunction {
      const pin = createTestLine()
      const signals: number[] = []
      const msixEnabled = (description.msixVectors ?? 0) > 0
      const added = { name, description, signals, line: pin, msixEnabled, busMaster: true }
      functions.push(added)
      const regions = Object.entries(description.bars ?? {}).map(([number, bar]) => {
        const region = context.mmio(Math.max(bar.size, 4096), bar.handler)
        return [Number(number), region] as const
      })
      return {
        requesterId: functions.length << 3,
        interrupt: pin,
        get msixEnabled() {
          return added.msixEnabled
        },
        get busMaster() {
          return added.busMaster
        },
        signal: (vector) => void (added.busMaster && signals.push(vector)),
        bar: (number) => new Map(regions).get(number),
        configRead: () => 0,
        configWrite: () => {},
      }
    },
    interrupt: line,
    messageInterrupts: { send: (address, data) => void messages.push({ address, data }) },
    dma: new BusMasterMemory(options.iommu?.attach({ name, requesterId: undefined }, guestMemory) ?? guestMemory, {
      get function() {
        return functions[0]
      },
    }),
    memoryMap: guestMemory,
    clock,
    power: control,
    backend(kind) {
      const given = options.backends?.[kind] ?? (kind === 'console' ? terminal : undefined)
      if (given) return Promise.resolve(given as never)
      return Promise.reject(
        new NonrootError({
          code: 'host.backend',
          message: `the bench has no ${kind} back end`,
          remedy: `createDeviceBench({ backends: { ${kind}: ... } })`,
        }),
      )
    },
    capability<T>(of: Token<T>): T {
      if ((of as symbol) === FrameReturn) return guestMemory as T
      const make = options.models?.find((model) => model.offers?.has(of as Token<unknown>))?.offers
      const given = options.offers?.get(of as Token<unknown>) ?? make?.get(of as Token<unknown>)?.(context)
      if (given === undefined) {
        throw new NonrootError({ code: 'stack.missing', message: `no I/O model offers ${String(of)}` })
      }
      return given as T
    },
    metrics: createTestMetrics(),
    log,
  }

  return {
    context,
    clock,
    guestMemory,
    log,
    console: terminal,
    power,
    messages,
    functions,
    line,
    lines,
    readPort: (port, size = 1) => read(ports, port, size),
    writePort: (port, value, size = 1) => write(ports, port, size, value),
    readMmio: (address, size = 4) => read(mmio, gpa(address), size),
    writeMmio: (address, value, size = 4) => write(mmio, gpa(address), size, value),
    get ports() {
      return ports.map(({ region }) => region)
    },
    get mmio() {
      return mmio.map(({ region }) => region)
    },
  }
}

/** Parse options as the kernel would, create the device on a bench. */
export async function benchDevice(
  definition: DeviceDefinition,
  rawOptions: unknown = {},
  options: DeviceBenchOptions = {},
): Promise<{ device: Device; bench: DeviceBench }> {
  const bench = createDeviceBench(options)
  const parsed = await definition.options['~standard'].validate(rawOptions)
  if (parsed.issues) {
    throw new NonrootError({
      code: 'plugin.options',
      message: parsed.issues.map((issue) => issue.message).join('; '),
      thing: definition.kind,
      value: rawOptions,
    })
  }
  return { device: await definition.create(parsed.value as never, bench.context), bench }
}
