/** A learning Ethernet switch. Bounded; a slow port does not delay others. @hot */

import type { CableEnd, FrameWork } from '@nonroot/contracts'
import { NO_WORK } from '@nonroot/contracts'
import { FrameFinisher, takesWork } from '../cable/finish-frame.ts'

const MAC = 6
/** Addresses learnt; a guest that makes up more makes the switch forget the oldest. */
const MOST_ADDRESSES = 1024
/** Frames, and bytes of them, that wait for a port; more are lost, as in any switch. */
const MOST_FRAMES = 512
const MOST_BYTES = 1024 * 1024

interface Waiting {
  readonly frame: Uint8Array
  readonly work: FrameWork
}

/** A port, seen from the switch. `end` is who is plugged in. */
export class SwitchPort {
  readonly end: Pick<CableEnd, 'offloads' | 'receive' | 'flush'>
  on = true
  /** Has frames that were not followed by a `flush`. */
  dirty = false
  #waiting: Waiting[] = []
  #bytes = 0

  constructor(end: Pick<CableEnd, 'offloads' | 'receive' | 'flush'>) {
    this.end = end
  }

  send(frame: Uint8Array, work: Readonly<FrameWork>): void {
    this.dirty = true
    if (this.#waiting.length === 0 && this.end.receive(frame, work)) return
    if (this.#waiting.length >= MOST_FRAMES || this.#bytes + frame.length > MOST_BYTES) return
    this.#waiting.push({ frame: frame.slice(), work: { ...work } })
    this.#bytes += frame.length
  }

  /** Who is plugged in has room again. */
  drain(): void {
    let sent = 0
    for (const { frame, work } of this.#waiting) {
      if (!this.end.receive(frame, work)) break
      this.#bytes -= frame.length
      sent++
    }
    this.#waiting.splice(0, sent)
    this.end.flush()
  }

  get waiting(): number {
    return this.#waiting.length
  }
}

export class Switch {
  readonly #ports = new Set<SwitchPort>()
  /** By the address as a number: 48 bits. In the order of learning. */
  readonly #places = new Map<number, SwitchPort>()
  readonly #finisher = new FrameFinisher()

  add(port: SwitchPort): void {
    this.#ports.add(port)
  }

  remove(port: SwitchPort): void {
    this.#ports.delete(port)
    for (const [address, place] of this.#places) if (place === port) this.#places.delete(address)
  }

  get addresses(): number {
    return this.#places.size
  }

  /** A frame came in at a port. */
  forward(from: SwitchPort, frame: Uint8Array, work: Readonly<FrameWork>): void {
    // A group address has no owner: nothing comes from one.
    if (frame[MAC]! & 1) return
    this.#learn(addressAt(frame, MAC), from)
    const place = frame[0]! & 1 ? undefined : this.#places.get(addressAt(frame, 0))
    if (place) {
      if (place !== from) this.#send(place, frame, work)
      return
    }
    for (const port of this.#ports) if (port !== from) this.#send(port, frame, work)
  }

  #learn(address: number, port: SwitchPort): void {
    if (this.#places.get(address) === port) return
    this.#places.delete(address)
    if (this.#places.size >= MOST_ADDRESSES) this.#places.delete(this.#places.keys().next().value!)
    this.#places.set(address, port)
  }

  #send(port: SwitchPort, frame: Uint8Array, work: Readonly<FrameWork>): void {
    if (!port.on) return
    if (takesWork(port.end.offloads, work)) port.send(frame, work)
    else this.#finisher.finish(frame, work, (done) => port.send(done, NO_WORK))
  }

  /** The batch of a port is over. */
  flush(): void {
    for (const port of this.#ports) {
      if (!port.dirty) continue
      port.dirty = false
      port.end.flush()
    }
  }
}

const addressAt = (frame: Uint8Array, at: number): number =>
  ((frame[at]! << 16) | (frame[at + 1]! << 8) | frame[at + 2]!) * 2 ** 24 +
  ((frame[at + 3]! << 16) | (frame[at + 4]! << 8) | frame[at + 5]!)
