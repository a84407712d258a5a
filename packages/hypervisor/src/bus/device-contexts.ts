/** The contexts that a VM's devices and I/O models receive: claims, lines, back ends, and what the models offer. Independent of device types. */

import { Assignment, BusMasterMemory, FrameReturn, gpa, NonrootError, tokenName } from '@nonroot/contracts'
import type {
  BackendKinds,
  Clock,
  ConsoleBackend,
  DeviceContext,
  DmaMemory,
  DmaRequester,
  HostBackends,
  InterruptController,
  InterruptLine,
  Iommu,
  IoModel,
  IoModelContext,
  Log,
  MemoryMap,
  MessageInterrupts,
  Metrics,
  PciBus,
  PciFunction,
  PlatformDescription,
  PowerControl,
  Token,
} from '@nonroot/contracts'
import { MMIO_WINDOW } from '../memory/memory-map.ts'
import { namedLog } from '../metrics/log.ts'
import type { KernelIoBus } from './io-bus.ts'

/** Lines for devices that may have any, in this order: lines that no PC device uses, then those of PCI. */
const FREE_LINES = [5, 10, 11, 23, 22, 21, 20, 19, 18, 17, 16]
/** Addresses for devices that may have any: below the I/O APIC. */
const ANYWHERE = { start: 0xf000_0000, end: 0xfec0_0000 } as const

export interface DeviceContextsOptions {
  readonly bus: KernelIoBus
  readonly dma: DmaMemory
  readonly memoryMap: MemoryMap
  readonly frames: FrameReturn
  readonly clock: Clock
  readonly power: PowerControl
  readonly metrics: Metrics
  readonly log: Log
  readonly vcpuCount: number
  readonly console: ConsoleBackend
  /** Where messages go if no I/O model has an interrupt controller: on the host. */
  readonly messages?: MessageInterrupts
  /** Offered to devices, with functions of the host. */
  readonly assignment?: Assignment
  readonly backends: HostBackends
  /** Resolves a path of the configuration against the folder of the file that contains it. */
  readonly resolvePath: (folder: string, path: string) => string
}

export class DeviceContexts {
  readonly #options: DeviceContextsOptions
  readonly #models: IoModel[] = []
  readonly #linesTaken = new Set<number>()
  #iommu: Iommu | undefined

  constructor(options: DeviceContextsOptions) {
    this.#options = options
  }

  /** The memory that a device can access: all of it, or what the stack's IOMMU allows. */
  #dmaFor(requester: DmaRequester): DmaMemory {
    const { dma } = this.#options
    return this.#iommu?.attach(requester, dma) ?? dma
  }

  /** Called when an I/O model was created: what it offers is available to parts created later. */
  addModel(model: IoModel, thing: string): void {
    const twice = (what: 'interruptController' | 'pciBus' | 'iommu'): void => {
      if (!model[what] || !this.#models.some((other) => other[what])) return
      throw new NonrootError({
        code: 'stack.incompatible',
        message: `${thing} brings a second ${what}; a machine has one`,
        thing,
        remedy: 'remove one of the I/O models',
      })
    }
    twice('interruptController')
    twice('pciBus')
    twice('iommu')
    this.#models.push(model)
    this.#iommu ??= model.iommu
  }

  get interrupts(): InterruptController {
    const found = this.#models.find((model) => model.interruptController)?.interruptController
    if (found) return found
    throw missing('interrupt controller', 'add an I/O model that has one (stack.io: [{ use: "@nonroot/io-emulated" }])')
  }

  get #pciBus(): PciBus {
    const found = this.#models.find((model) => model.pciBus)?.pciBus
    if (found) return found
    throw missing('PCI bus', 'add an I/O model that has one, before those that need it')
  }

  /** The merged descriptions of all models: lists are concatenated; otherwise the later model wins. */
  describe(): PlatformDescription {
    const merged: Record<string, unknown> = {}
    for (const model of this.#models) {
      for (const [key, value] of Object.entries(model.describe?.() ?? {})) {
        const before = merged[key]
        merged[key] = Array.isArray(before) && Array.isArray(value) ? [...before, ...value] : value
      }
    }
    return merged as PlatformDescription
  }

  modelContext(name: string, folder: string): IoModelContext {
    const { vcpuCount, console } = this.#options
    return {
      ...this.deviceContext(name, folder),
      vcpuCount,
      console,
      mmioWindow: MMIO_WINDOW,
      child: (childName) => this.deviceContext(childName, folder),
    }
  }

  deviceContext(name: string, folder: string): DeviceContext {
    const { bus, memoryMap, clock, power } = this.#options
    let added: PciFunction | undefined
    const requester: DmaRequester = {
      name,
      get requesterId() {
        return added?.requesterId
      },
    }
    const issuer = {
      get function() {
        return added
      },
    }
    const metrics = this.#options.metrics.scope(`device.${name}`)
    const accesses = () => metrics.counter('accesses', 'register accesses answered')
    const offered = new Map<Token<unknown>, unknown>()
    const context: DeviceContext = {
      name,
      portIo: (base, length, handler) => bus.claimPorts(name, base, length, handler, accesses()),
      mmio: (range, handler) => {
        const [at, length] = typeof range === 'number' ? [this.#anywhere(name, range), range] : [range.at, range.length]
        return bus.claimAddresses(name, at, length, handler, accesses())
      },
      pci: (description) => {
        added = this.#pciBus.add(name, description)
        return added
      },
      interrupt: (line) => this.#line(name, line),
      messageInterrupts: { send: (address, data, from = added?.requesterId) => this.#message(address, data, from) },
      dma: new BusMasterMemory(this.#dmaFor(requester), issuer),
      memoryMap,
      clock,
      power,
      backend: (kind, request) => this.#backend(kind, request, folder),
      capability: <T>(of: Token<T>): T => {
        if ((of as symbol) === FrameReturn) return this.#options.frames as T
        if ((of as symbol) === Assignment && this.#options.assignment) return this.#options.assignment as T
        if (!offered.has(of)) offered.set(of, this.#offer(of, context))
        return offered.get(of) as T
      },
      metrics,
      log: namedLog(this.#options.log, name),
    }
    return context
  }

  readonly #deliver = (address: number, data: number, destination?: number): void => {
    const messages = this.#options.messages ?? this.interrupts.messages
    messages.send(address, data, undefined, destination)
  }

  /** Through the IOMMU, if there is one. */
  #message(address: number, data: number, requester: number | undefined): void {
    if (this.#iommu?.interrupt) this.#iommu.interrupt(requester, address, data, this.#deliver)
    else this.#deliver(address, data)
  }

  #anywhere(name: string, length: number): number {
    const base = this.#options.bus.findFreeAddresses(length, ANYWHERE.start, ANYWHERE.end)
    if (base !== undefined) return gpa(base)
    throw new NonrootError({
      code: 'device.create',
      message: `${name}: no ${length} bytes of addresses are free for its registers`,
      thing: name,
    })
  }

  #line(name: string, wanted: number | string): InterruptLine {
    const gsi = typeof wanted === 'number' ? wanted : FREE_LINES.find((free) => !this.#linesTaken.has(free))
    const line = gsi === undefined ? undefined : this.interrupts.line(gsi)
    if (gsi === undefined || line === undefined) {
      throw new NonrootError({
        code: 'device.create',
        message: `${name}: ${gsi === undefined ? 'no interrupt line is free' : `there is no interrupt line ${gsi}`}`,
        thing: name,
        value: wanted,
        remedy: `the interrupt controller has lines 0 to ${this.interrupts.lines - 1}`,
      })
    }
    this.#linesTaken.add(gsi)
    return line
  }

  #backend<K extends keyof BackendKinds>(
    kind: K,
    request: BackendKinds[K]['request'],
    folder: string,
  ): Promise<BackendKinds[K]['backend']> {
    const { backends, console, resolvePath } = this.#options
    if (kind === 'console' && (request as BackendKinds['console']['request']).name === undefined)
      return Promise.resolve(console as BackendKinds[K]['backend'])
    if (kind === 'folder' || kind === 'sockets' || kind === 'stream') {
      const named = request as BackendKinds['folder' | 'sockets' | 'stream']['request']
      const path = resolvePath(folder, named.path)
      return backends.open(kind, { ...named, path } as BackendKinds[K]['request'])
    }
    if (kind === 'network') {
      const network = request as BackendKinds['network']['request']
      return backends.open(kind, { ...network, folder: resolvePath(folder, '.') } as BackendKinds[K]['request'])
    }
    if (kind !== 'block') return backends.open(kind, request)
    const block = request as BackendKinds['block']['request']
    const image = /^[a-z][\w+.-]+:\/\//i.test(block.image) ? block.image : resolvePath(folder, block.image)
    return backends.open(kind, { ...block, image } as BackendKinds[K]['request'])
  }

  #offer<T>(of: Token<T>, forDevice: DeviceContext): T {
    const offered = this.offered(of, forDevice)
    if (offered !== undefined) return offered
    throw missing(tokenName(of), `${forDevice.name} needs an I/O model that offers it`)
  }

  /** A capability of the stack's I/O models, undefined if none offers it. */
  offered<T>(of: Token<T>, forDevice: DeviceContext): T | undefined {
    for (const model of this.#models) {
      const make = model.offers?.get(of as Token<unknown>)
      if (make) return make(forDevice) as T
    }
    return undefined
  }
}

const missing = (what: string, remedy: string): NonrootError =>
  new NonrootError({ code: 'stack.missing', message: `the stack has no ${what}`, thing: what, remedy })
