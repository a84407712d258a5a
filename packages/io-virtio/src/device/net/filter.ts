/** Filters frames for a driver, by destination and VLAN. Independent of queues. @hot */

import type { SnapshotValue } from '@nonroot/contracts'
import { Control } from './format.ts'

const MAC = 6
/** Addresses of a table; with more, all are let through: "the device MAY". */
const MOST_ADDRESSES = 64
const VLANS = 4096
const VLAN_TYPE = 0x8100

/** One of the two tables. */
class AddressTable {
  count = 0
  overflow = false
  readonly bytes = new Uint8Array(MOST_ADDRESSES * MAC)

  set(bytes: Uint8Array): void {
    const count = bytes.length / MAC
    this.overflow = count > MOST_ADDRESSES
    this.count = this.overflow ? 0 : count
    if (!this.overflow) this.bytes.set(bytes)
  }

  has(frame: Uint8Array): boolean {
    for (let index = 0; index < this.count; index++) if (sameMac(frame, this.bytes, index * MAC)) return true
    return this.overflow
  }
}

function sameMac(frame: Uint8Array, table: Uint8Array, at: number): boolean {
  for (let index = 0; index < MAC; index++) if (frame[index] !== table[at + index]) return false
  return true
}

export class FrameFilter {
  /** Modes by their command's number, promiscuous to noBroadcast. */
  readonly modes = new Uint8Array(6)
  readonly unicast = new AddressTable()
  readonly multicast = new AddressTable()
  readonly #vlans = new Uint8Array(VLANS / 8)

  /** As after a reset: a driver that sets no filter gets what is sent to it and to all. */
  reset(): void {
    this.modes.fill(0)
    this.unicast.set(new Uint8Array(0))
    this.multicast.set(new Uint8Array(0))
    this.#vlans.fill(0)
  }

  setVlan(id: number, on: boolean): void {
    const bit = 1 << (id & 7)
    if (on) this.#vlans[id >> 3]! |= bit
    else this.#vlans[id >> 3]! &= ~bit
  }

  /** `filters`: the driver said that it sets filters; `vlans`: and those of VLANs. */
  wants(frame: Uint8Array, own: Uint8Array, filters: boolean, vlans: boolean): boolean {
    if (vlans && !this.#wantsVlan(frame)) return false
    const { modes } = this
    const { promiscuous, allMulticast, allUnicast, noMulticast, noUnicast, noBroadcast } = Control.rx
    if (modes[promiscuous]) return true
    if ((frame[0]! & 1) === 0) {
      if (modes[noUnicast]) return false
      return modes[allUnicast] === 1 || sameMac(frame, own, 0) || this.unicast.has(frame)
    }
    if (isBroadcast(frame)) return modes[noBroadcast] === 0
    if (!filters) return true
    if (modes[noMulticast]) return false
    return modes[allMulticast] === 1 || this.multicast.has(frame)
  }

  #wantsVlan(frame: Uint8Array): boolean {
    if (((frame[12]! << 8) | frame[13]!) !== VLAN_TYPE) return true
    const id = ((frame[14]! << 8) | frame[15]!) & (VLANS - 1)
    return (this.#vlans[id >> 3]! & (1 << (id & 7))) !== 0
  }

  save(): { readonly [key: string]: SnapshotValue } {
    const table = ({ bytes, count, overflow }: AddressTable): SnapshotValue => ({
      bytes: bytes.slice(0, count * MAC),
      overflow,
    })
    return {
      modes: this.modes.slice(),
      vlans: this.#vlans.slice(),
      unicast: table(this.unicast),
      multicast: table(this.multicast),
    }
  }

  restore(saved: { readonly [key: string]: SnapshotValue }): void {
    this.modes.set(saved['modes'] as Uint8Array)
    this.#vlans.set(saved['vlans'] as Uint8Array)
    for (const name of ['unicast', 'multicast'] as const) {
      const { bytes, overflow } = saved[name] as { bytes: Uint8Array; overflow: boolean }
      this[name].set(bytes)
      this[name].overflow = overflow
    }
  }
}

function isBroadcast(frame: Uint8Array): boolean {
  for (let index = 0; index < MAC; index++) if (frame[index] !== 0xff) return false
  return true
}
