/**
 * `hub:NAME`: a switch between VMs of one or several processes. The first process has the switch and listens for the others; if it ends, another one takes over.
 */

import { NO_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import type {
  CableEnd,
  HostNetwork,
  Listener,
  NetworkBackend,
  NetworkSurroundings,
  SocketStream,
} from '@nonroot/contracts'
import { FrameStream } from '../cable/frame-stream.ts'
import { StreamNetwork } from './stream-network.ts'
import { Switch, SwitchPort } from './switch.ts'

/** Of one who finds neither a switch nor a free name: others are just changing places. */
const MOST_TRIES = 20
const MOST_PORTS = 64

export class Hub implements NetworkBackend {
  readonly macAddress: Uint8Array
  readonly mtu: number
  readonly #host: HostNetwork
  readonly #path: string
  readonly #streams = new Set<FrameStream>()
  #listener: Listener | undefined
  /** The cable to the switch, ours or another's. */
  readonly #cable: StreamNetwork

  constructor(name: string, host: HostNetwork, card: Pick<NetworkBackend, 'macAddress' | 'mtu'>) {
    this.#host = host
    this.#path = host.meetingPath(`hub-${name}`)
    this.macAddress = card.macAddress
    this.mtu = card.mtu
    this.#cable = new StreamNetwork(card)
  }

  async join(): Promise<this> {
    await this.#cable.dial(() => this.#find(), this.#path)
    return this
  }

  /** A stream to the switch: another's, or the one that is made here. */
  async #find(): Promise<SocketStream> {
    for (let tries = 0; ; tries++) {
      try {
        return await this.#host.connect({ path: this.#path })
      } catch (error) {
        if (tries >= MOST_TRIES) throw error
      }
      try {
        await this.#serve()
      } catch {
        // Another process created it first.
      }
    }
  }

  async #serve(): Promise<void> {
    const learning = new Switch()
    this.#listener = await this.#host.listen({ path: this.#path }, ({ stream }) => {
      if (this.#streams.size >= MOST_PORTS) return stream.destroy()
      this.#plug(learning, stream)
    })
  }

  #plug(learning: Switch, stream: SocketStream): void {
    const frames: FrameStream = new FrameStream(stream, {
      frame: (frame) => (learning.forward(port, frame, NO_WORK), true),
      flush: () => learning.flush(),
      ready: () => port.drain(),
      closed: () => {
        learning.remove(port)
        this.#streams.delete(frames)
      },
    })
    const port = new SwitchPort({
      offloads: NO_OFFLOADS,
      receive: (frame) => frames.room() && (frames.send(frame), true),
      flush: () => frames.flush(),
    })
    this.#streams.add(frames)
    learning.add(port)
  }

  connect(card: CableEnd, surroundings: NetworkSurroundings): CableEnd {
    return this.#cable.connect(card, surroundings)
  }

  async close(): Promise<void> {
    await this.#cable.close()
    for (const frames of this.#streams) frames.close()
    await this.#listener?.close()
  }
}
