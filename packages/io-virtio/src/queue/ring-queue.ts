/** What both ring formats share: chains in flight and their order, failing, notifications. @hot */

import type { Counter, DescriptorChain, Virtqueue } from '@nonroot/contracts'
import { Chain } from './chain.ts'
import type { Lifetime } from './chain.ts'
import { GuestAccess } from './guest-access.ts'
import type { DmaMemory } from '@nonroot/contracts'

/** Indirect tables may be longer than the ring, up to this. ("The device MAY have a reasonable limit of descriptors") */
const LEAST_LIMIT = 1024

/** Where the driver put a queue, and what was negotiated about rings. */
export interface QueueSetup {
  readonly index: number
  readonly size: number
  /** Descriptor area, driver area, device area: guest-physical. */
  readonly descriptors: number
  readonly driver: number
  readonly device: number
  readonly indirect: boolean
  readonly eventIndex: boolean
  readonly inOrder: boolean
}

export interface QueueHost {
  readonly memory: DmaMemory
  /** Send a used buffer notification. */
  notify(index: number): void
  /** The driver broke a rule: the queue stands still from now on. */
  broken(index: number, reason: string): void
  readonly buffers: Counter
  readonly notifications: Counter
  readonly suppressed: Counter
}

/** Positions in the rings. Plain data. */
export interface QueuePosition {
  readonly [name: string]: number
}

export abstract class RingQueue implements Virtqueue {
  readonly index: number
  readonly size: number
  protected readonly access: GuestAccess
  protected readonly setup: QueueSetup
  /** Most descriptors of a chain. */
  protected readonly limit: number
  /** Ring entries pushed since the driver was last notified or found not to want it. */
  protected unsignalled = 0
  readonly #host: QueueHost
  readonly #lifetime: Lifetime = { open: true }
  readonly #free: Chain[] = []
  /** Chains in flight, oldest first, as a ring: kept only where order matters. */
  readonly #order: (Chain | undefined)[]
  #oldest = 0
  #flying = 0

  constructor(setup: QueueSetup, host: QueueHost) {
    this.index = setup.index
    this.size = setup.size
    this.setup = setup
    this.access = new GuestAccess(host.memory)
    this.limit = Math.max(LEAST_LIMIT, setup.size)
    this.#host = host
    this.#order = setup.inOrder ? new Array<Chain | undefined>(setup.size).fill(undefined) : []
  }

  /** Next available buffer into `chain`. False: there is none, or the queue broke. */
  protected abstract next(chain: Chain): boolean
  /** Into the ring, visible to the driver. */
  protected abstract publish(chain: Chain, written: number): void
  /** Does the driver want to be notified of the last `unsignalled` entries? */
  protected abstract wanted(): boolean
  protected abstract stepBack(chain: Chain): void
  abstract position(): QueuePosition
  abstract resume(position: QueuePosition): void

  get open(): boolean {
    return this.#lifetime.open
  }

  /** In flight: popped and not published. */
  get flying(): number {
    return this.#flying
  }

  /** The queue is no more: chains in flight are dead. */
  close(): void {
    this.#lifetime.open = false
  }

  protected fail(reason: string): false {
    this.close()
    this.#host.broken(this.index, reason)
    return false
  }

  pop(): Chain | undefined {
    if (!this.#lifetime.open) return undefined
    const chain = this.#free.pop() ?? new Chain(this.access, this.#lifetime)
    chain.clear()
    if (!this.next(chain)) {
      this.#free.push(chain)
      return undefined
    }
    chain.held = true
    if (this.setup.inOrder) this.#order[(this.#oldest + this.#flying) % this.size] = chain
    this.#flying++
    this.#host.buffers.value++
    return chain
  }

  push(popped: DescriptorChain, written: number): void {
    const chain = popped as Chain
    if (!chain.held || !this.#lifetime.open) return
    chain.held = false
    chain.written = Math.min(written, chain.writable)
    if (!this.setup.inOrder) return this.#finish(chain)
    chain.done = true
    for (let oldest = this.#order[this.#oldest]; oldest?.done; oldest = this.#order[this.#oldest]) {
      this.#order[this.#oldest] = undefined
      this.#oldest = (this.#oldest + 1) % this.size
      this.#finish(oldest)
    }
  }

  #finish(chain: Chain): void {
    this.#flying--
    this.publish(chain, chain.written)
    this.#free.push(chain)
  }

  unpop(popped: DescriptorChain): void {
    const chain = popped as Chain
    if (!chain.held || !this.#lifetime.open) return
    chain.held = false
    this.#flying--
    if (this.setup.inOrder) this.#order[(this.#oldest + this.#flying) % this.size] = undefined
    this.stepBack(chain)
    this.#free.push(chain)
  }

  signal(): void {
    if (this.unsignalled === 0 || !this.#lifetime.open) return
    if (this.wanted()) {
      this.#host.notifications.value++
      this.#host.notify(this.index)
    } else this.#host.suppressed.value++
    this.unsignalled = 0
  }
}
