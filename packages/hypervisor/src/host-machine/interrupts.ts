/** The host's interrupts: vectors that messages of its devices raise, each with the handler of the part that allocated it. */

import { NonrootError } from '@nonroot/contracts'
import type { Counter, HostInterrupt, MessageInterrupts, Metrics } from '@nonroot/contracts'

const MESSAGE_WINDOW = 0xfee0_0000
const FIRST_VECTOR = 0x20
const VECTORS = 256

export class HostInterrupts implements MessageInterrupts {
  readonly #handlers = new Map<number, () => void>()
  readonly #spurious: Counter

  constructor(metrics: Metrics) {
    this.#spurious = metrics.counter('spuriousMessages', 'messages of host devices with a vector that is not allocated')
  }

  send(address: number, data: number): void {
    const handler = address >>> 20 === MESSAGE_WINDOW >>> 20 ? this.#handlers.get(data & 0xff) : undefined
    if (handler) handler()
    else this.#spurious.value++
  }

  allocate(handler: () => void): HostInterrupt {
    for (let vector = FIRST_VECTOR; vector < VECTORS; vector++) {
      if (this.#handlers.has(vector)) continue
      this.#handlers.set(vector, handler)
      return { address: MESSAGE_WINDOW, data: vector, vector, free: () => void this.#handlers.delete(vector) }
    }
    throw new NonrootError({
      code: 'device.create',
      message: `all ${VECTORS - FIRST_VECTOR} interrupt vectors of the host are taken`,
      remedy: 'assign fewer functions',
    })
  }
}
