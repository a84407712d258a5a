/** Memory behind the Bus Master Enable bit: a PCI function that is no bus master accesses none. (PCI Local Bus Specification 3.0, "Command Register") @hot */

import type { PciFunction } from '../devices/pci.ts'
import type { DmaMemory, MemoryLease, MemoryPiece } from './dma-memory.ts'

/** Before a device has become a PCI function, and if it never does, nothing is refused. */
export interface BusMaster {
  readonly function: Pick<PciFunction, 'busMaster'> | undefined
}

/**
 * A device's view of `memory`. While its function is no bus master, each access is refused as one outside RAM is. What was lent before the guest cleared
 * the bit stays lent: that request had been issued.
 */
export class BusMasterMemory implements DmaMemory {
  readonly untranslated?: DmaMemory
  readonly #memory: DmaMemory
  readonly #of: BusMaster

  constructor(memory: DmaMemory, of: BusMaster) {
    this.#memory = memory
    this.#of = of
    if (memory.untranslated) this.untranslated = new BusMasterMemory(memory.untranslated, of)
  }

  get #on(): boolean {
    const { function: issuer } = this.#of
    return issuer === undefined || issuer.busMaster
  }

  /** A question of the device's, not an access. */
  isRam(address: number, length: number): boolean {
    return this.#memory.isRam(address, length)
  }

  readU8(address: number): number | undefined {
    return this.#on ? this.#memory.readU8(address) : undefined
  }
  readU16(address: number): number | undefined {
    return this.#on ? this.#memory.readU16(address) : undefined
  }
  readU32(address: number): number | undefined {
    return this.#on ? this.#memory.readU32(address) : undefined
  }
  readU64(address: number): bigint | undefined {
    return this.#on ? this.#memory.readU64(address) : undefined
  }
  readBytes(address: number, into: Uint8Array): boolean {
    return this.#on && this.#memory.readBytes(address, into)
  }

  writeU8(address: number, value: number): boolean {
    return this.#on && this.#memory.writeU8(address, value)
  }
  writeU16(address: number, value: number): boolean {
    return this.#on && this.#memory.writeU16(address, value)
  }
  writeU32(address: number, value: number): boolean {
    return this.#on && this.#memory.writeU32(address, value)
  }
  writeU64(address: number, value: bigint): boolean {
    return this.#on && this.#memory.writeU64(address, value)
  }
  writeBytes(address: number, from: Uint8Array): boolean {
    return this.#on && this.#memory.writeBytes(address, from)
  }
  fill(address: number, length: number, value: number): boolean {
    return this.#on && this.#memory.fill(address, length, value)
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    return this.#on ? this.#memory.lease(pieces, access) : undefined
  }
}
