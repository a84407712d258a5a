/** A network that is a stream of frames to a peer: another VM, passt, QEMU. The link is down while no peer is connected. */

import { ALL_OFFLOADS, ConnectError, NO_WORK, NonrootError } from '@nonroot/contracts'
import type {
  CableEnd,
  FrameWork,
  Listener,
  NetworkBackend,
  NetworkSurroundings,
  SocketStream,
} from '@nonroot/contracts'
import { FrameFinisher } from '../cable/finish-frame.ts'
import { FrameStream } from '../cable/frame-stream.ts'

const RETRY_NS = 1e9

/** How the other side is reached: it is asked anew after it went away. */
export type Dial = () => Promise<SocketStream>

export class StreamNetwork implements NetworkBackend, CableEnd {
  readonly offloads = ALL_OFFLOADS
  readonly macAddress: Uint8Array
  readonly mtu: number
  readonly #finisher = new FrameFinisher()
  #dial: Dial | undefined
  #listener: Listener | undefined
  #stream: FrameStream | undefined
  #card: CableEnd | undefined
  #clock: NetworkSurroundings['clock'] | undefined
  #on = true
  #closed = false
  readonly #emit = (frame: Uint8Array): void => void this.#stream!.send(frame)

  constructor({ macAddress, mtu }: Pick<NetworkBackend, 'macAddress' | 'mtu'>) {
    this.macAddress = macAddress
    this.mtu = mtu
  }

  /** Reach the other side now, and again whenever it goes away. Rejects if no peer answers. */
  async dial(dial: Dial, name: string): Promise<this> {
    this.#dial = dial
    try {
      this.attach(await dial())
    } catch (error) {
      if (!(error instanceof ConnectError)) throw error
      throw new NonrootError({
        code: 'host.backend',
        message: `cannot connect to ${name}: ${error.problem}`,
        thing: 'network',
        value: name,
        remedy: 'start what listens there first, or let this side listen: socket:listen:...',
        cause: error,
      })
    }
    return this
  }

  /** The other side comes to us; one at a time, the latest. */
  listens(listener: Listener): void {
    this.#listener = listener
  }

  /** A peer has connected. */
  attach(stream: SocketStream): void {
    if (this.#closed) return stream.destroy()
    this.#stream?.close()
    const frames: FrameStream = new FrameStream(stream, {
      frame: (frame) => !this.#card || !this.#on || this.#card.receive(frame, NO_WORK),
      flush: () => this.#card?.flush(),
      ready: () => this.#card?.ready(),
      closed: () => {
        if (this.#stream === frames) this.#lost()
      },
    })
    this.#stream = frames
    this.#card?.carrier(true)
  }

  #lost(): void {
    this.#stream = undefined
    this.#card?.carrier(false)
    // Frames that waited for room find a link that is down.
    this.#card?.ready()
    this.#retry()
  }

  #retry(): void {
    if (!this.#dial || this.#closed || !this.#clock) return
    this.#clock.setTimer(this.#clock.nowNs() + RETRY_NS, () => {
      if (this.#closed || this.#stream) return
      this.#dial!().then(
        (stream) => this.attach(stream),
        () => this.#retry(),
      )
    })
  }

  connect(card: CableEnd, { clock }: NetworkSurroundings): CableEnd {
    this.#card = card
    this.#clock = clock
    if (!this.#stream) {
      card.carrier(false)
      this.#retry()
    }
    return this
  }

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    const stream = this.#stream
    if (!stream || !this.#on) return true
    if (!stream.room()) return false
    this.#finisher.finish(frame, work, this.#emit)
    return true
  }

  flush(): void {
    this.#stream?.flush()
  }

  ready(): void {
    this.#stream?.resume()
  }

  carrier(on: boolean): void {
    this.#on = on
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#stream?.close()
    await this.#listener?.close()
  }
}
