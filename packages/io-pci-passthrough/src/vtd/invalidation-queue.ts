/** Queued invalidation: descriptors in memory that software puts into a ring. ("Queued Invalidation Interface") */

import type { Counter, DmaMemory, Metrics } from '@nonroot/contracts'
import { Descriptor, DESCRIPTOR_SIZE, Granularity, Wait } from './facts.ts'
import type { EventRegisters } from './faults.ts'
import type { Leases } from './leases.ts'
import type { Translation } from './translation.ts'

export interface QueueOptions {
  readonly memory: DmaMemory
  readonly translation: Translation
  readonly leases: Leases
  /** The invalidation completion event. */
  readonly event: EventRegisters
  readonly metrics: Metrics
  /** A descriptor that there is not, or that cannot be read: the queue stops. */
  readonly failed: () => void
}

export class InvalidationQueue {
  enabled = false
  address = 0
  /** Log2 of its pages. */
  order = 0
  head = 0
  tail = 0
  /** ICS.IWC: a wait descriptor asked for an interrupt. */
  completed = false
  stopped = false
  readonly #options: QueueOptions
  readonly #descriptors: Counter

  constructor(options: QueueOptions) {
    this.#options = options
    this.#descriptors = options.metrics.counter('invalidations', 'invalidation descriptors executed')
    options.leases.onDrained = () => this.run()
  }

  get #entries(): number {
    return 256 << this.order
  }

  /** Up to the tail, or to a wait descriptor whose transfers are still in progress. */
  run(): void {
    while (this.enabled && !this.stopped && this.head !== this.tail) {
      const at = this.address + this.head * DESCRIPTOR_SIZE
      const { memory } = this.#options
      const words = [0, 4, 8, 12].map((offset) => memory.readU32(at + offset))
      const outcome = words.includes(undefined) ? 'failed' : this.#execute(words as [number, number, number, number])
      if (outcome === 'waits') return
      if (outcome === 'failed') {
        this.stopped = true
        return this.#options.failed()
      }
      this.#descriptors.value++
      this.head = (this.head + 1) % this.#entries
    }
  }

  #execute([low, second, third, fourth]: readonly [number, number, number, number]): 'done' | 'waits' | 'failed' {
    const { translation, leases } = this.#options
    const granularity = (low >> 4) & 3
    const domain = low >>> 16
    switch (low & 0xf) {
      case Descriptor.context:
        if (granularity === 0) return 'failed'
        invalidateContexts(translation, granularity, domain, second & 0xffff, (second >>> 16) & 3)
        return 'done'
      case Descriptor.iotlb: {
        if (granularity === 0) return 'failed'
        const page = (third >>> 12) + fourth * 2 ** 20
        invalidatePages(translation, leases, granularity, domain, page, third & 0x3f)
        return 'done'
      }
      // No device has a cache of translations; interrupt entries are not cached.
      case Descriptor.deviceTlb:
      case Descriptor.interruptCache:
        return 'done'
      case Descriptor.wait:
        if (!leases.drained) return 'waits'
        return this.#wait(low, second, third, fourth)
      default:
        return 'failed'
    }
  }

  #wait(low: number, data: number, addressLow: number, addressHigh: number): 'done' | 'failed' {
    if (low & Wait.status) {
      const at = addressLow - (addressLow % 4) + addressHigh * 2 ** 32
      if (!this.#options.memory.writeU32(at, data)) return 'failed'
    }
    if (low & Wait.interrupt && !this.completed) {
      this.completed = true
      this.#options.event.raise()
    }
    return 'done'
  }

  reset(): void {
    this.enabled = this.completed = this.stopped = false
    this.address = this.order = this.head = this.tail = 0
  }
}

export function invalidateContexts(
  translation: Translation,
  granularity: number,
  domain: number,
  requester: number,
  functionMask: number,
): void {
  if (granularity === Granularity.global) translation.forgetContexts()
  else if (granularity === Granularity.domain) translation.forgetContexts(undefined, 0, domain)
  // The mask covers 1, 2 or 3 bits of the function number, the highest first.
  else translation.forgetContexts(requester, [0, 4, 6, 7][functionMask], domain)
}

export function invalidatePages(
  translation: Translation,
  leases: Leases,
  granularity: number,
  domain: number,
  page: number,
  order: number,
): void {
  if (granularity === Granularity.global) {
    translation.forgetPages()
    leases.affect()
  } else if (granularity === Granularity.domain) {
    translation.forgetPages(domain)
    leases.affect(domain)
  } else {
    translation.forgetPages(domain, page, order)
    leases.affect(domain, page, order)
  }
}
