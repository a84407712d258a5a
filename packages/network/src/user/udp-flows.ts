/** UDP of the guest: one socket of the host for each of its ports, closed when idle. Bounded. Independent of frames. */

import type { DatagramSocket, HostNetwork } from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { Address4, Address6, sameBytes } from './addresses.ts'
import type { Policy } from './policy.ts'

const MOST_FLOWS = 512
/** Datagrams that wait for a socket to be made. */
const MOST_EARLY = 16
/** RFC 4787: "MUST NOT expire in less than two minutes"; of DNS less, since each query has its own port. */
const IDLE_NS = 120e9

export interface UdpOwner {
  nowNs(): number
  /** To the guest. Dropped where there is no room. */
  sendDatagram(flow: UdpFlow, from: Uint8Array, fromPort: number, bytes: Uint8Array): void
  /** No one listens where the guest's last datagram went. */
  portUnreachable(flow: UdpFlow): void
}

export interface UdpFlow {
  readonly guest: Uint8Array
  readonly guestPort: number
  readonly mac: Uint8Array
  usedNs: number
  socket: DatagramSocket | undefined
  /** What waits for the socket. */
  early: (() => void)[]
  closed: boolean
  /** The last destination, as the guest names it. */
  remote: Uint8Array
  remotePort: number
}

export class UdpFlows {
  /** What the guest's answers to forwarded datagrams go through, by family and the guest's port. False: it is no answer. */
  readonly forwards = new Map<string, (bytes: Uint8Array, toPort: number) => boolean>()
  readonly #flows = new Map<string, UdpFlow>()
  readonly #owner: UdpOwner
  readonly #host: HostNetwork
  readonly #policy: Policy

  constructor(owner: UdpOwner, host: HostNetwork, policy: Policy) {
    this.#owner = owner
    this.#host = host
    this.#policy = policy
  }

  get size(): number {
    return this.#flows.size
  }

  /** The guest sent a datagram. Gives why it goes nowhere, if so. */
  send(
    from: { readonly guest: Uint8Array; readonly guestPort: number; readonly mac: Uint8Array },
    remote: Uint8Array,
    remotePort: number,
    bytes: Uint8Array,
  ): 'refused' | 'denied' | undefined {
    const gateway = remote.length === 4 ? Address4.gateway : Address6.gateway
    if (this.forwards.size > 0 && sameBytes(remote, gateway)) {
      const family = remote.length === 4 ? 4 : 6
      if (this.forwards.get(`${family} ${from.guestPort}`)?.(bytes, remotePort)) return undefined
    }
    const verdict = this.#policy.decide(remote, remotePort)
    if ('refused' in verdict) return verdict.refused
    const { host, port } = verdict.to
    const flow = this.#flowOf(from)
    flow.usedNs = this.#owner.nowNs()
    flow.remote = remote
    flow.remotePort = remotePort
    if (flow.socket) flow.socket.send(bytes, host, port)
    else if (flow.early.length < MOST_EARLY) {
      const copy = bytes.slice()
      flow.early.push(() => flow.socket?.send(copy, host, port))
    }
    return undefined
  }

  #flowOf(from: { readonly guest: Uint8Array; readonly guestPort: number; readonly mac: Uint8Array }): UdpFlow {
    const key = `${from.guestPort} ${from.guest.join('.')}`
    const found = this.#flows.get(key)
    if (found) {
      // Last in the order of use.
      this.#flows.delete(key)
      this.#flows.set(key, found)
      return found
    }
    if (this.#flows.size >= MOST_FLOWS) this.#close(this.#flows.keys().next().value!)
    const flow: UdpFlow = {
      ...from,
      usedNs: 0,
      socket: undefined,
      early: [],
      closed: false,
      remote: from.guest,
      remotePort: 0,
    }
    this.#flows.set(key, flow)
    void this.#open(flow)
    return flow
  }

  async #open(flow: UdpFlow): Promise<void> {
    const family = flow.guest.length === 4 ? 4 : 6
    try {
      const socket = await this.#host.datagrams(family, {
        datagram: (bytes, host, port) => {
          const from = guestsNameOf(host, flow.guest.length)
          if (!from || flow.closed) return
          flow.usedNs = this.#owner.nowNs()
          this.#owner.sendDatagram(flow, from, port, bytes)
        },
        refused: () => {
          if (!flow.closed) this.#owner.portUnreachable(flow)
        },
      })
      if (flow.closed) return socket.close()
      flow.socket = socket
      for (const send of flow.early.splice(0)) send()
    } catch {
      // The host has none to give: what the guest sent is lost, as datagrams may be.
      flow.early.length = 0
      for (const [key, each] of this.#flows) if (each === flow) this.#close(key)
    }
  }

  #close(key: string): void {
    const flow = this.#flows.get(key)
    if (!flow) return
    this.#flows.delete(key)
    flow.closed = true
    flow.socket?.close()
  }

  /** Close what was not used for long. */
  expire(): void {
    const before = this.#owner.nowNs() - IDLE_NS
    for (const [key, flow] of this.#flows) if (flow.usedNs < before) this.#close(key)
  }

  close(): void {
    for (const key of [...this.#flows.keys()]) this.#close(key)
  }
}

/** What comes from the host's loopback comes from the gateway. Undefined: an address of the other family. */
function guestsNameOf(host: string, length: number): Uint8Array | undefined {
  const address = ipaddr.parse(host.replace(/%.*$/, ''))
  if (address.range() === 'loopback') return length === 4 ? Address4.gateway : Address6.gateway
  const bytes = Uint8Array.from(address.toByteArray())
  return bytes.length === length ? bytes : undefined
}
