/** The control queue: filters, address, queue pairs, offloads. Independent of frames. ("Control Virtqueue") */

import type { FrameOffloads, SnapshotValue, VirtioPort, Virtqueue } from '@nonroot/contracts'
import type { FrameFilter } from './filter.ts'
import { Control, CONTROL_ERROR, CONTROL_OK, NetFeature } from './format.ts'

const MAC = 6
const HEADER = 2
/** The longest command has two tables of addresses; what is longer is not read. */
const LONGEST = HEADER + 2 * (4 + 4096 * MAC)
const MOST_VLAN = 4095

export interface ControlParts {
  accepted(feature: number): boolean
  readonly mostPairs: number
  setMac(mac: Uint8Array): void
  /** The driver announced its address to the network. */
  announced(): void
}

/** Guest offloads by their feature bits. */
const OFFLOADS = [NetFeature.guestChecksum, NetFeature.guestTso4, NetFeature.guestTso6] as const

export class Controller {
  /** Pairs of queues in use. */
  pairs = 1
  readonly #filter: FrameFilter
  readonly #parts: ControlParts
  readonly #status = new Uint8Array(1)
  /** Undefined: as negotiated. */
  #offloadBits: number | undefined
  readonly #offloads = { checksum: false, segment4: false, segment6: false }

  constructor(filter: FrameFilter, parts: ControlParts) {
    this.#filter = filter
    this.#parts = parts
  }

  reset(): void {
    this.pairs = 1
    this.#offloadBits = undefined
  }

  /** What the driver takes over. */
  get offloads(): FrameOffloads {
    const offloads = this.#offloads
    offloads.checksum = this.#takes(NetFeature.guestChecksum)
    offloads.segment4 = this.#takes(NetFeature.guestTso4)
    offloads.segment6 = this.#takes(NetFeature.guestTso6)
    return offloads
  }

  #takes(feature: number): boolean {
    if (!this.#parts.accepted(feature)) return false
    return this.#offloadBits === undefined || (this.#offloadBits & (1 << feature)) !== 0
  }

  process(queue: Virtqueue, port: VirtioPort): void {
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      if (chain.writable === 0 || chain.readable > LONGEST) return port.fail('a control command of the wrong shape')
      const command = new Uint8Array(chain.readable)
      chain.read(0, command)
      this.#status[0] = this.#obey(command) ? CONTROL_OK : CONTROL_ERROR
      chain.write(0, this.#status)
      queue.push(chain, 1)
    }
  }

  /** False: unknown, not negotiated, or of the wrong length. */
  #obey(bytes: Uint8Array): boolean {
    if (bytes.length < HEADER || !this.#parts.accepted(NetFeature.controlQueue)) return false
    const [group, command] = bytes as unknown as [number, number]
    const data = bytes.subarray(HEADER)
    const view = new DataView(data.buffer, data.byteOffset, data.length)
    const { accepted } = this.#parts
    switch (group) {
      case Control.rx.class:
        return accepted(NetFeature.controlRx) && this.#setMode(command, data)
      case Control.mac.class:
        return this.#setAddresses(command, data, view)
      case Control.vlan.class:
        return accepted(NetFeature.controlVlan) && this.#setVlan(command, view)
      case Control.announce.class:
        if (command !== Control.announce.acknowledge || !accepted(NetFeature.guestAnnounce)) return false
        this.#parts.announced()
        return true
      case Control.multiQueue.class:
        return accepted(NetFeature.multiQueue) && this.#setPairs(command, view)
      case Control.offloads.class:
        return accepted(NetFeature.controlGuestOffloads) && this.#setOffloads(command, view)
      default:
        return false
    }
  }

  #setMode(command: number, data: Uint8Array): boolean {
    const { modes } = this.#filter
    if (command >= modes.length || data.length !== 1 || data[0]! > 1) return false
    modes[command] = data[0]!
    return true
  }

  #setAddresses(command: number, data: Uint8Array, view: DataView): boolean {
    if (command === Control.mac.setAddress) {
      if (!this.#parts.accepted(NetFeature.controlMac) || data.length !== MAC) return false
      this.#parts.setMac(data)
      return true
    }
    if (command !== Control.mac.setTable || !this.#parts.accepted(NetFeature.controlRx)) return false
    const unicast = tableAt(data, view, 0)
    const multicast = unicast && tableAt(data, view, 4 + unicast.length)
    if (!unicast || !multicast) return false
    this.#filter.unicast.set(unicast)
    this.#filter.multicast.set(multicast)
    return true
  }

  #setVlan(command: number, view: DataView): boolean {
    if (command > Control.vlan.remove || view.byteLength !== 2 || view.getUint16(0, true) > MOST_VLAN) return false
    this.#filter.setVlan(view.getUint16(0, true), command === Control.vlan.add)
    return true
  }

  #setPairs(command: number, view: DataView): boolean {
    if (command !== Control.multiQueue.setPairs || view.byteLength !== 2) return false
    const pairs = view.getUint16(0, true)
    if (pairs < 1 || pairs > this.#parts.mostPairs) return false
    this.pairs = pairs
    return true
  }

  #setOffloads(command: number, view: DataView): boolean {
    if (command !== Control.offloads.set || view.byteLength !== 8) return false
    const bits = view.getUint32(0, true)
    const allowed = OFFLOADS.filter(this.#parts.accepted).reduce((sum, bit) => sum | (1 << bit), 0)
    if (view.getUint32(4, true) !== 0 || bits & ~allowed) return false
    this.#offloadBits = bits
    return true
  }

  save(): { readonly [key: string]: SnapshotValue } {
    return { pairs: this.pairs, offloads: this.#offloadBits ?? null }
  }

  restore(saved: { readonly [key: string]: SnapshotValue }): void {
    this.pairs = saved['pairs'] as number
    this.#offloadBits = (saved['offloads'] as number | null) ?? undefined
  }
}

/** A count and so many addresses. Undefined: there are fewer. */
function tableAt(data: Uint8Array, view: DataView, at: number): Uint8Array | undefined {
  if (at + 4 > data.length) return undefined
  const length = view.getUint32(at, true) * MAC
  return at + 4 + length > data.length ? undefined : data.subarray(at + 4, at + 4 + length)
}
