/** A network with a bad cable: loses, delays, duplicates and reorders frames in both directions, as configured. For tests. */

import { ALL_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import type {
  CableEnd,
  FrameOffloads,
  FrameWork,
  NetworkBackend,
  NetworkImpairment,
  NetworkSurroundings,
} from '@nonroot/contracts'
import { FrameFinisher, takesWork } from './finish-frame.ts'

/** Frames on their way, each way; more are lost, as in any queue. */
const MOST_WAITING = 1000
/** How much later a frame is that others overtake. */
const OVERTAKEN_NS = 3e6
/** Frames to be cut would be lost as a whole. */
const whole = ({ checksum }: FrameOffloads): FrameOffloads => ({ checksum, segment4: false, segment6: false })

interface Waiting {
  readonly frame: Uint8Array
  readonly work: FrameWork
  readonly dueNs: number
}

export function withImpairment(network: NetworkBackend, impairment: NetworkImpairment): NetworkBackend {
  const random = createRandom(impairment.seed ?? 1)
  return {
    macAddress: network.macAddress,
    mtu: network.mtu,
    connect(card, surroundings) {
      const toCard = new BadCable(card, impairment, random, surroundings.clock)
      const toNetwork = new BadCable(network.connect(toCard, surroundings), impairment, random, surroundings.clock)
      return toNetwork
    },
    close: () => network.close(),
  }
}

/** One way. */
class BadCable implements CableEnd {
  readonly #end: CableEnd
  readonly #impairment: NetworkImpairment
  readonly #random: () => number
  readonly #clock: NetworkSurroundings['clock']
  /** By time. */
  readonly #waiting: Waiting[] = []

  constructor(end: CableEnd, impairment: NetworkImpairment, random: () => number, clock: NetworkSurroundings['clock']) {
    this.#end = end
    this.#impairment = impairment
    this.#random = random
    this.#clock = clock
  }

  /** What is to be cut is cut before it is lost. */
  readonly offloads = ALL_OFFLOADS
  readonly #finisher = new FrameFinisher()

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    if (takesWork(whole(this.#end.offloads), work)) this.#pass(frame, work)
    else this.#finisher.finish(frame, work, (done) => this.#pass(done, NO_WORK))
    return true
  }

  #pass(frame: Uint8Array, work: Readonly<FrameWork>): void {
    const { loss = 0, duplicate = 0 } = this.#impairment
    if (this.#random() < loss) return
    this.#send(frame, work)
    if (this.#random() < duplicate) this.#send(frame, work)
  }

  #send(frame: Uint8Array, work: Readonly<FrameWork>): void {
    const { reorder = 0, delayMs = 0 } = this.#impairment
    const late = delayMs * 1e6 + (this.#random() < reorder ? OVERTAKEN_NS : 0)
    if (late === 0) {
      // The cable is bad anyway: what finds no room is lost.
      this.#end.receive(frame, work)
      return
    }
    if (this.#waiting.length >= MOST_WAITING) return
    const dueNs = this.#clock.nowNs() + late
    const waiting = { frame: frame.slice(), work: { ...work }, dueNs }
    const behind = this.#waiting.findIndex((other) => other.dueNs > dueNs)
    this.#waiting.splice(behind < 0 ? this.#waiting.length : behind, 0, waiting)
    this.#clock.setTimer(dueNs, () => this.#deliver())
  }

  #deliver(): void {
    const now = this.#clock.nowNs()
    while (this.#waiting.length > 0 && this.#waiting[0]!.dueNs <= now) {
      const { frame, work } = this.#waiting.shift()!
      this.#end.receive(frame, work)
    }
    this.#end.flush()
  }

  flush(): void {
    this.#end.flush()
  }

  ready(): void {
    this.#end.ready()
  }

  carrier(on: boolean): void {
    this.#end.carrier(on)
  }
}

/** Numbers from 0 to 1. (Mulberry32) */
function createRandom(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b_79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
