/**
 * Event channels of one domain, with two levels of pending bits. Ports that back ends of ours hold are interdomain ones of domain 0.
 * (Xen, "public/event_channel.h"; "public/xen.h", struct shared_info) @hot
 */

import type {
  Counter,
  EventChannels,
  EventError,
  EventMemory,
  X86InterruptController,
  InterruptSink,
  Metrics,
  PortStatus,
  Snapshot,
} from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'

/** 64 words of 64 bits. */
export const PORTS = 4096
const PENDING = 0x800
const MASK = 0xa00
/** Of vcpu_info. */
const UPCALL_PENDING = 0
const UPCALL_MASK = 1
const SELECTOR = 8
const VIRTUAL_INTERRUPTS = 24
/** Virtual interrupts that belong to a vCPU, once each; the others are the domain's. */
const PER_VCPU = new Set([0, 1, 13])
const SELF = 0x7ff0

/** Domain 0's end of a channel. It is no one's once the guest has closed its own. */
export interface LocalPort {
  notify(): void
  /** The guest's end waits for domain 0 again. */
  close(): void
}

interface Port {
  state: PortStatus['state'] | 'reserved'
  vcpu: number
  remote: number
  remotePort: number
  virtual: number
  onEvent: (() => void) | undefined
}
const closed = (): Port => ({ state: 'closed', vcpu: 0, remote: 0, remotePort: 0, virtual: 0, onEvent: undefined })

export class TwoLevelChannels implements EventChannels, X86InterruptController {
  readonly lines = 0
  readonly messages = { send: (): void => {} }
  readonly #vcpuCount: number
  readonly #deliver: ((vcpu: number) => void) | undefined
  #memory: EventMemory | undefined
  #sink: InterruptSink | undefined
  readonly #ports: Port[] = []
  /** Port by virtual interrupt, for each vCPU; 0 none. */
  readonly #virtual: Uint16Array
  readonly #sends: Counter
  readonly #virtuals: Counter
  readonly #lost: Counter
  readonly #upcalls: Counter

  /** `deliver`: tells a vCPU of events that has interrupts. Without it, the CPU mode looks before each entry. */
  constructor(vcpuCount: number, metrics: Metrics, deliver?: (vcpu: number) => void) {
    this.#vcpuCount = vcpuCount
    this.#deliver = deliver
    this.#virtual = new Uint16Array(vcpuCount * VIRTUAL_INTERRUPTS)
    this.#sends = metrics.counter('sends', 'events sent by the guest')
    this.#virtuals = metrics.counter('virtual', 'virtual interrupts raised')
    this.#lost = metrics.counter('lost', 'events to ports without a listener')
    this.#upcalls = metrics.counter('upcalls', 'times that a vCPU was told of events')
    this.reset()
  }

  /** Where pending bits are (by the guest ABI), or whom to wake (by the kernel). */
  attach(to: EventMemory | InterruptSink): void {
    if ('wake' in to) this.#sink = to
    else this.#memory = to
  }

  reset(vcpu?: number): void {
    if (vcpu !== undefined) return
    this.#ports.length = 0
    this.#ports.push({ ...closed(), state: 'reserved' })
    this.#virtual.fill(0)
  }

  // Ports

  #at(port: number): Port | undefined {
    return Number.isInteger(port) && port > 0 ? this.#ports[port] : undefined
  }

  #allocate(made: Partial<Port>): number | EventError {
    let port = this.#ports.findIndex(({ state }) => state === 'closed')
    if (port < 0) port = this.#ports.length
    if (port >= PORTS) return 'noSpace'
    this.#ports[port] = { ...closed(), ...made }
    this.#setBit(PENDING, port, false)
    return port
  }

  allocateUnbound(remote: number): number | EventError {
    return this.#allocate({ state: 'unbound', remote })
  }

  /** A port whose other end is a back end of ours, called at each event. */
  allocateLocal(onEvent: () => void): number {
    const port = this.#allocate({ state: 'interdomain', remote: 0, onEvent })
    if (typeof port === 'number') return port
    throw new NonrootError({ code: 'internal', message: 'no event channel is left for a back end' })
  }

  /** Joins a port of the guest's that waits for domain 0. Undefined: it is none. */
  bindLocal(port: number, onEvent: () => void): LocalPort | undefined {
    const found = this.#at(port)
    if (found?.state !== 'unbound' || found.remote !== 0) return undefined
    Object.assign(found, { state: 'interdomain', onEvent })
    const isOurs = (): boolean => this.#ports[port] === found && found.onEvent === onEvent
    return {
      notify: () => {
        if (isOurs()) this.#setPending(port)
        else this.#lost.value++
      },
      close: () => {
        if (isOurs()) Object.assign(found, { state: 'unbound', onEvent: undefined })
      },
    }
  }

  /** Domain 0's ports are ours and none is offered: only a domain's own can be joined. */
  bindInterdomain(remote: number, remotePort: number): number | EventError {
    if (remote !== SELF) return 'noDomain'
    const other = this.#at(remotePort)
    if (other?.state !== 'unbound' || other.remote !== SELF) return 'badPort'
    const port = this.#allocate({ state: 'interdomain', remote: SELF, remotePort })
    if (typeof port !== 'number') return port
    Object.assign(other, { state: 'interdomain', remotePort: port })
    this.#setPending(port)
    return port
  }

  bindVirtual(vcpu: number, virtual: number): number | EventError {
    if (virtual >= VIRTUAL_INTERRUPTS) return 'invalid'
    if (vcpu >= this.#vcpuCount) return 'badVcpu'
    if (!PER_VCPU.has(virtual) && vcpu !== 0) return 'invalid'
    const slot = vcpu * VIRTUAL_INTERRUPTS + virtual
    if (this.#virtual[slot]) return 'exists'
    const port = this.#allocate({ state: 'virtual', vcpu, virtual })
    if (typeof port === 'number') this.#virtual[slot] = port
    return port
  }

  bindIpi(vcpu: number): number | EventError {
    if (vcpu >= this.#vcpuCount) return 'badVcpu'
    return this.#allocate({ state: 'ipi', vcpu })
  }

  bindVcpu(port: number, vcpu: number): EventError | undefined {
    if (vcpu >= this.#vcpuCount) return 'badVcpu'
    const found = this.#at(port)
    if (!found) return 'badPort'
    if (
      found.state === 'virtual'
        ? PER_VCPU.has(found.virtual)
        : !['unbound', 'interdomain', 'physical'].includes(found.state)
    )
      return 'invalid'
    found.vcpu = vcpu
    return undefined
  }

  close(port: number): EventError | undefined {
    const found = this.#at(port)
    if (!found || found.state === 'reserved' || found.state === 'closed') return 'badPort'
    if (found.state === 'virtual') this.#virtual[found.vcpu * VIRTUAL_INTERRUPTS + found.virtual] = 0
    if (found.state === 'interdomain' && found.remote === SELF) {
      Object.assign(this.#ports[found.remotePort]!, { state: 'unbound', remotePort: 0 })
    }
    this.#ports[port] = closed()
    this.#setBit(PENDING, port, false)
    return undefined
  }

  status(port: number): PortStatus | EventError {
    const found = this.#at(port)
    if (!found) return 'badPort'
    const { vcpu, remote, remotePort, virtual } = found
    return { state: found.state === 'reserved' ? 'closed' : found.state, vcpu, remote, remotePort, virtual }
  }

  isOpen(port: number): boolean {
    return this.#at(port) !== undefined
  }

  // Events

  send(port: number): EventError | undefined {
    const found = this.#at(port)
    if (!found) return 'badPort'
    this.#sends.value++
    switch (found.state) {
      case 'interdomain':
        if (found.onEvent) found.onEvent()
        else if (found.remote === SELF) this.#setPending(found.remotePort)
        else this.#lost.value++
        return undefined
      case 'ipi':
        this.#setPending(port)
        return undefined
      case 'unbound':
        this.#lost.value++
        return undefined
      default:
        return 'invalid'
    }
  }

  /** From one of ours to the guest. */
  notify(port: number): void {
    if (this.#at(port)?.onEvent) this.#setPending(port)
    else this.#lost.value++
  }

  raiseVirtual(vcpu: number, virtual: number): void {
    this.#virtuals.value++
    const owner = PER_VCPU.has(virtual) ? vcpu : 0
    const port = this.#virtual[owner * VIRTUAL_INTERRUPTS + virtual]!
    if (port) this.#setPending(port)
    else this.#lost.value++
  }

  unmask(port: number): EventError | undefined {
    if (!this.#at(port)) return 'badPort'
    this.#setBit(MASK, port, false)
    if (this.#bit(PENDING, port)) this.#select(port)
    return undefined
  }

  isPending(port: number): boolean {
    return this.#bit(PENDING, port)
  }

  #setPending(port: number): void {
    if (this.#bit(PENDING, port)) return
    this.#setBit(PENDING, port, true)
    if (this.#bit(MASK, port)) this.wake(this.#ports[port]!.vcpu)
    else this.#select(port)
  }

  #select(port: number): void {
    const { vcpu } = this.#ports[port]!
    const memory = this.#memory
    if (!memory) return
    const at = memory.vcpuInfo(vcpu) + SELECTOR + ((port >>> 11) << 2)
    memory.view.setUint32(at, memory.view.getUint32(at, true) | (1 << ((port >>> 6) & 31)), true)
    this.#upcall(vcpu)
  }

  #upcall(vcpu: number): void {
    const memory = this.#memory!
    const at = memory.vcpuInfo(vcpu)
    if (memory.view.getUint8(at + UPCALL_PENDING) === 0) {
      memory.view.setUint8(at + UPCALL_PENDING, 1)
      this.#upcalls.value++
      this.#deliver?.(vcpu)
    }
    this.wake(vcpu)
  }

  /** The vCPU was notified of events and has not looked at them yet. */
  isNotified(vcpu: number): boolean {
    const memory = this.#memory
    return memory !== undefined && memory.view.getUint8(memory.vcpuInfo(vcpu) + UPCALL_PENDING) !== 0
  }

  markAll(vcpu: number): void {
    const memory = this.#memory!
    memory.view.setBigUint64(memory.vcpuInfo(vcpu) + SELECTOR, 0xffff_ffff_ffff_ffffn, true)
    this.#upcall(vcpu)
  }

  wake(vcpu: number): void {
    this.#sink?.wake(vcpu)
  }

  #bit(table: number, port: number): boolean {
    const memory = this.#memory
    return (
      memory !== undefined &&
      ((memory.view.getUint8(memory.sharedInfo + table + (port >>> 3)) >>> (port & 7)) & 1) === 1
    )
  }
  #setBit(table: number, port: number, on: boolean): void {
    const memory = this.#memory
    if (!memory) return
    const at = memory.sharedInfo + table + (port >>> 3)
    const old = memory.view.getUint8(at)
    memory.view.setUint8(at, on ? old | (1 << (port & 7)) : old & ~(1 << (port & 7)))
  }

  // As an interrupt controller: events are found in shared memory, nothing is acknowledged.

  line(): undefined {
    return undefined
  }
  hasPending(vcpu: number): boolean {
    const memory = this.#memory
    if (!memory) return false
    const at = memory.vcpuInfo(vcpu)
    return memory.view.getUint8(at + UPCALL_PENDING) !== 0 && memory.view.getUint8(at + UPCALL_MASK) === 0
  }
  acknowledge(): number {
    return -1
  }
  signals(): number {
    return 0
  }
  takeSignal(): number {
    return 0
  }
  readTaskPriority(): number {
    return 0
  }
  writeTaskPriority(): void {}
  readMsr(): undefined {
    return undefined
  }
  writeMsr(): undefined {
    return undefined
  }
  save(): Snapshot {
    throw notSaved()
  }
  restore(): void {
    throw notSaved()
  }
}

const notSaved = (): NonrootError =>
  new NonrootError({
    code: 'snapshot.mismatch',
    message: 'a Xen guest cannot be saved yet',
    thing: 'stack.io',
    remedy: 'save guests of I/O model pc',
  })
