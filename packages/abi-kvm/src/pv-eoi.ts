/** PV EOI: a flag in guest memory that says "no EOI needed", which the guest clears instead of an EOI. Independent of the local APIC. @hot */

import type { EoiAssist, DmaMemory } from '@nonroot/contracts'

const NO_EOI_NEEDED = 1
const NOWHERE = -1

export class PvEoi implements EoiAssist {
  readonly #memory: DmaMemory
  /** Where each vCPU's flag is, as its MSR says. */
  readonly #flags: Float64Array
  /** Where the outstanding offer is: the guest may have moved or disabled the flag since. */
  readonly #offers: Float64Array

  constructor(memory: DmaMemory, vcpuCount: number) {
    this.#memory = memory
    this.#flags = new Float64Array(vcpuCount).fill(NOWHERE)
    this.#offers = new Float64Array(vcpuCount).fill(NOWHERE)
  }

  enable(vcpu: number, address: number | undefined): void {
    this.#flags[vcpu] = address ?? NOWHERE
  }

  offer(vcpu: number): boolean {
    const address = this.#flags[vcpu]!
    if (address === NOWHERE) return false
    const byte = this.#memory.readU8(address)
    if (byte === undefined || !this.#memory.writeU8(address, byte | NO_EOI_NEEDED)) return false
    this.#offers[vcpu] = address
    return true
  }

  taken(vcpu: number): boolean {
    const address = this.#offers[vcpu]!
    if (address === NOWHERE || (this.#memory.readU8(address) ?? 0) & NO_EOI_NEEDED) return false
    this.#offers[vcpu] = NOWHERE
    return true
  }

  withdraw(vcpu: number): void {
    const address = this.#offers[vcpu]!
    if (address === NOWHERE) return
    this.#memory.writeU8(address, (this.#memory.readU8(address) ?? 0) & ~NO_EOI_NEEDED)
    this.#offers[vcpu] = NOWHERE
  }

  reset(): void {
    this.#flags.fill(NOWHERE)
    this.#offers.fill(NOWHERE)
  }
}
