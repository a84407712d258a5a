/** Records the work of devices and the interrupts of a traced VM. Other VMs have none of this. */

import type { Gpa, InterruptController, InterruptSink, IoBus, IoSize } from '@nonroot/contracts'
import type { KernelIoBus } from '../bus/index.ts'
import type { Tracer } from './tracer.ts'

type Span = NonNullable<Tracer['span']>

export const vcpuTrack = (vcpu: number): string => `vcpu${vcpu}`

/** A vCPU's way to the bus: each access that a device answers is a span of the vCPU's track. */
export class TracedBus implements IoBus {
  readonly #bus: KernelIoBus
  readonly #track: string
  readonly #span: Span

  constructor(bus: KernelIoBus, vcpu: number, span: Span) {
    this.#bus = bus
    this.#track = vcpuTrack(vcpu)
    this.#span = span
  }

  #record<T>(what: 'read' | 'write', result: T, started: number): T {
    const owner = this.#bus.currentOwner
    if (owner !== undefined) this.#span(this.#track, `${owner} ${what}`, started, performance.now())
    return result
  }

  readPort(port: number, size: IoSize): number {
    const started = performance.now()
    return this.#record('read', this.#bus.readPort(port, size), started)
  }
  writePort(port: number, size: IoSize, value: number): boolean {
    const started = performance.now()
    return this.#record('write', this.#bus.writePort(port, size, value), started)
  }
  readMmio(address: Gpa, size: IoSize): number {
    const started = performance.now()
    return this.#record('read', this.#bus.readMmio(address, size), started)
  }
  writeMmio(address: Gpa, size: IoSize, value: number): boolean {
    const started = performance.now()
    return this.#record('write', this.#bus.writeMmio(address, size, value), started)
  }
  readMmio64(address: Gpa): bigint {
    const started = performance.now()
    return this.#record('read', this.#bus.readMmio64(address), started)
  }
  writeMmio64(address: Gpa, value: bigint): boolean {
    const started = performance.now()
    return this.#record('write', this.#bus.writeMmio64(address, value), started)
  }
}

/** Each interrupt is a span on a track beside its vCPU's: from when the vCPU was notified of one until it takes the vector. */
export function traceInterrupts(controller: InterruptController, sink: InterruptSink, span: Span): InterruptSink {
  /** When the vCPU was notified, while it has not taken one since. */
  const notified: (number | undefined)[] = []
  const acknowledge = controller.acknowledge.bind(controller)
  controller.acknowledge = (vcpu) => {
    const vector = acknowledge(vcpu)
    const ended = performance.now()
    if (vector >= 0) span(`${vcpuTrack(vcpu)} interrupts`, `vector 0x${vector.toString(16)}`, notified[vcpu] ?? ended, ended)
    notified[vcpu] = undefined
    return vector
  }
  return {
    wake(vcpu) {
      notified[vcpu] ??= performance.now()
      sink.wake(vcpu)
    },
  }
}
