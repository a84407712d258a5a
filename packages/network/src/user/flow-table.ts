/** TCP flows by their four-part key, looked up from a packet without allocation. @hot */

import type { Packet } from '../wire/packet.ts'
import type { FlowKey, TcpFlow } from './tcp-flow.ts'

export class FlowTable {
  size = 0
  readonly #chains = new Map<number, TcpFlow>()

  /** The flow of a segment from the guest. */
  find(packet: Packet, guestPort: number, remotePort: number): TcpFlow | undefined {
    const { bytes, destination, addressLength } = packet
    let flow = this.#chains.get(hash(bytes, destination + addressLength, guestPort, remotePort))
    while (flow) {
      const { key } = flow
      if (
        key.guestPort === guestPort &&
        key.remotePort === remotePort &&
        packet.is(destination, key.remote) &&
        packet.is(packet.addresses, key.guest)
      )
        return flow
      flow = flow.chained
    }
    return undefined
  }

  add(flow: TcpFlow): void {
    const at = hashOf(flow.key)
    flow.chained = this.#chains.get(at)
    this.#chains.set(at, flow)
    this.size++
  }

  remove(flow: TcpFlow): void {
    const at = hashOf(flow.key)
    const first = this.#chains.get(at)
    if (first === flow) {
      if (flow.chained) this.#chains.set(at, flow.chained)
      else this.#chains.delete(at)
      this.size--
      return
    }
    for (let before = first; before; before = before.chained) {
      if (before.chained !== flow) continue
      before.chained = flow.chained
      this.size--
      return
    }
  }

  forEach(visit: (flow: TcpFlow) => void): void {
    for (const first of this.#chains.values()) {
      let flow: TcpFlow | undefined = first
      while (flow) {
        // Visiting may remove it.
        const next: TcpFlow | undefined = flow.chained
        visit(flow)
        flow = next
      }
    }
  }
}

/** By ports and the end of the remote address, which ends at `end`. */
const hash = (bytes: Uint8Array, end: number, guestPort: number, remotePort: number): number =>
  (Math.imul(guestPort, 0x9e37) ^
    Math.imul(remotePort, 0x79b9) ^
    (bytes[end - 1]! << 8) ^
    (bytes[end - 2]! << 16) ^
    bytes[end - 3]!) &
  0x3fff_ffff

const hashOf = ({ remote, guestPort, remotePort }: FlowKey): number =>
  hash(remote, remote.length, guestPort, remotePort)
