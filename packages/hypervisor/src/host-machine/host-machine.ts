/** The host as a machine: its bus, the functions on it, and who owns each. Independent of device kinds and of the IOMMU. */

import { HOST_MMIO, NonrootError } from '@nonroot/contracts'
import type {
  Device,
  DmaMemory,
  GuestFrames,
  HostBackends,
  HostBus,
  HostFunction,
  HostFunctionInfo,
  HostMemory,
  IoModel,
  IoSize,
  Log,
  Metrics,
  PciFunction,
} from '@nonroot/contracts'
import { KernelIoBus, DeviceContexts } from '../bus/index.ts'
import { createError } from '../composition/compose.ts'
import type { DeviceLayer, HostDeviceLayer, StrategyLayer } from '../composition/stack.ts'
import { namedLog } from '../metrics/log.ts'
import { WallClock } from '../time/index.ts'
import { VmAssignment } from './assignment.ts'
import type { AddressesInUse, AssignmentSource, RegisterPages } from './assignment.ts'
import { HostDma } from './host-dma.ts'
import { HostInterrupts } from './interrupts.ts'

export interface HostMachineOptions {
  readonly io: readonly StrategyLayer<'host'>[]
  readonly devices: readonly HostDeviceLayer[]
  readonly memory: HostMemory
  /** What the host's devices reach. Default: all of `memory`. */
  readonly dma?: DmaMemory
  readonly backends: HostBackends
  readonly metrics: Metrics
  readonly log: Log
  readonly resolvePath: (folder: string, path: string) => string
}

/** A function and its device. */
interface Owned {
  readonly info: Omit<HostFunctionInfo, 'owner'>
  readonly requesterId: number
  readonly device: Device
  owner: string | undefined
  /** It changes hands: until then it cannot be taken. */
  changing: boolean
}

const ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const
const FUNCTION_CONFIGURATION = 4096

export class HostMachine implements AssignmentSource {
  readonly memory: HostMemory
  readonly interrupts: HostInterrupts
  readonly bus: HostBus
  /** Host-physical addresses: of the IOMMU's registers, of configuration space. */
  readonly iommu: number | undefined
  readonly #ecam: number
  readonly #models: readonly IoModel[]
  readonly #functions: readonly Owned[]

  private constructor(options: HostMachineOptions, parts: HostMachineParts) {
    this.memory = options.memory
    this.interrupts = parts.interrupts
    this.#models = parts.models
    this.#functions = parts.functions
    const { bus } = parts
    const described = parts.contexts.describe()
    this.iommu = described.iommu && HOST_MMIO.start + described.iommu.address
    this.#ecam = HOST_MMIO.start + (described.pci?.ecam?.address ?? 0)
    this.bus = {
      readMmio(address: number, size: IoSize): number {
        const value = bus.readMmio((address - HOST_MMIO.start) as never, size)
        return value < 0 ? ONES[size] : value
      },
      writeMmio(address: number, size: IoSize, value: number): void {
        bus.writeMmio((address - HOST_MMIO.start) as never, size, value)
      },
    }
  }

  /** Creates the host's I/O models and devices, in order. If one fails, those before it are disposed of. */
  static async create(options: HostMachineOptions): Promise<HostMachine> {
    const { metrics, log, memory, backends, resolvePath } = options
    const interrupts = new HostInterrupts(metrics)
    const bus = new KernelIoBus(metrics.scope('io'))
    const power = { powerOff: none, reset: none, exit: none, crashed: none, onPowerButton: () => none }
    const console = { write: none, onInput: () => none, size: () => undefined, onResize: () => none }
    const contexts = new DeviceContexts({
      bus,
      dma: options.dma ?? new HostDma(memory),
      memoryMap: { size: memory.bytes.length, regions: [] },
      frames: { release: () => 0 },
      clock: new WallClock(),
      power,
      metrics,
      log: namedLog(log, 'host'),
      vcpuCount: 0,
      console,
      backends,
      resolvePath,
      messages: interrupts,
    })
    const models: IoModel[] = []
    const functions: Owned[] = []
    const parts: HostMachineParts = { interrupts, bus, contexts, models, functions }
    for (const layer of [...options.io, ...options.devices]) {
      try {
        if ('definition' in layer && 'role' in layer) {
          const context = contexts.modelContext(`host-${layer.definition.name}`, layer.folder)
          const model = await layer.definition.create(layer.options as never, context)
          models.push(model)
          contexts.addModel(model, layer.thing)
        } else functions.push(await createFunction(layer, contexts))
      } catch (error) {
        await disposeParts(parts)
        throw createError(layer as StrategyLayer | DeviceLayer, error)
      }
    }
    return new HostMachine(options, parts)
  }

  list(): HostFunctionInfo[] {
    return this.#functions.map(({ info, owner }) => ({ ...info, owner }))
  }

  /** What the devices of one VM are offered. */
  assignmentFor(vm: string, frames: GuestFrames & RegisterPages, addresses: AddressesInUse): VmAssignment {
    return new VmAssignment(this, vm, frames, addresses)
  }

  async take(at: string, owner: string): Promise<HostFunction> {
    const found = this.#functions.find(({ info }) => info.at === at)
    const refuse = (message: string, remedy: string): never => {
      throw new NonrootError({ code: 'device.create', message, thing: at, value: at, remedy })
    }
    const places = this.#functions.map(({ info }) => info.at).join(', ')
    if (!found) {
      return refuse(
        `the host has no function ${at}`,
        places
          ? `it has ${places}`
          : `give it devices: host: { devices: [{ kind: nvme, at: "${at}", image: ./disk.img }] }`,
      )
    }
    if (found.owner !== undefined || found.changing) {
      const by = found.changing ? 'being given back' : `assigned to VM ${found.owner}`
      return refuse(`host function ${at} (${found.info.name}) is ${by}`, 'assign another one, or end that VM first')
    }
    const split = this.#functions.find(
      (other) => other.info.group === found.info.group && other.owner !== undefined && other.owner !== owner,
    )
    if (split) {
      return refuse(
        `host function ${at} is in one group with ${split.info.at}, which is assigned to VM ${split.owner}`,
        'assign all functions of a group to one VM: they can reach each other behind the IOMMU',
      )
    }
    found.owner = owner
    await found.device.quiesce?.()
    this.#reset(found)
    return {
      ...found.info,
      owner,
      requesterId: found.requesterId,
      configuration: this.#ecam + found.requesterId * FUNCTION_CONFIGURATION,
      quiesce: async () => found.device.quiesce?.(),
      reset: () => this.#reset(found),
      release: () => this.#release(found),
    }
  }

  async #release(found: Owned): Promise<void> {
    if (found.owner === undefined || found.changing) return
    found.changing = true
    this.#reset(found)
    await found.device.quiesce?.()
    this.#reset(found)
    found.owner = undefined
    found.changing = false
  }

  #reset(found: Owned): void {
    found.device.reset?.()
    for (const { pciBus } of this.#models) pciBus?.reset?.(found.requesterId)
  }

  dispose(): Promise<void> {
    return disposeParts({ models: this.#models, functions: this.#functions })
  }
}

interface HostMachineParts {
  readonly interrupts: HostInterrupts
  readonly bus: KernelIoBus
  readonly contexts: DeviceContexts
  readonly models: IoModel[]
  readonly functions: Owned[]
}

const none = (): void => {}

async function createFunction(layer: HostDeviceLayer, contexts: DeviceContexts): Promise<Owned> {
  const context = contexts.deviceContext(layer.name, layer.folder)
  const at = layer.at === undefined ? undefined : parseAddress(layer.at)
  const added: { pci: PciFunction; vendorId: number; deviceId: number; classCode: number }[] = []
  const device = await layer.definition.create(layer.options as never, {
    ...context,
    pci: (description) => {
      const { vendorId, deviceId, classCode } = description
      const pci = context.pci(at ? { ...description, at } : description)
      added.push({ pci, vendorId, deviceId, classCode })
      return pci
    },
  })
  const [only] = added
  if (!only || added.length > 1) {
    await device.dispose?.()
    throw new NonrootError({
      code: 'device.create',
      message: `a device of kind ${layer.definition.kind} is ${added.length} PCI functions: the host takes devices that are one`,
      thing: layer.thing,
      remedy: 'choose a kind that is a PCI device, as nvme',
    })
  }
  const { requesterId } = only.pci
  const { vendorId, deviceId, classCode } = only
  return {
    info: {
      ...{ at: formatAddress(requesterId), name: layer.name, kind: layer.definition.kind },
      ...{ vendorId, deviceId, classCode },
      // Functions of one device, and devices of one bus, see each other.
      group: requesterId >> 8,
    },
    requesterId,
    device,
    owner: undefined,
    changing: false,
  }
}

const formatAddress = (id: number): string => {
  const hex = (value: number): string => value.toString(16).padStart(2, '0')
  return `${hex(id >> 8)}:${hex((id >> 3) & 0x1f)}.${id & 7}`
}

/** The schema has checked its form. */
function parseAddress(at: string): { bus: number; device: number; function: number } {
  const [bus, device, number] = at.split(/[:.]/).map((part) => Number.parseInt(part, 16)) as [number, number, number]
  return { bus, device, function: number }
}

async function disposeParts({
  models,
  functions,
}: {
  readonly models: readonly IoModel[]
  readonly functions: readonly Owned[]
}): Promise<void> {
  for (const { device } of functions) {
    await device.quiesce?.()
    await device.dispose?.()
  }
  for (const model of models.toReversed()) await model.dispose?.()
}
