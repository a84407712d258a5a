/** Checked accesses to everything that a guest supplies: every ring, table and descriptor is read here. Independent of the ring format. @hot */

import type { DmaMemory } from '@nonroot/contracts'

/** High words from here on make a number that is not exact; no memory is there. */
const HIGH_END = 2 ** 21

/** Values come back as unsigned numbers, or -1 where there is no RAM. -1 is no address and no index either, so that checks can come late. */
export class GuestAccess {
  readonly memory: DmaMemory

  constructor(memory: DmaMemory) {
    this.memory = memory
  }

  u16(at: number): number {
    return this.memory.readU16(at) ?? -1
  }

  u32(at: number): number {
    return this.memory.readU32(at) ?? -1
  }

  /** A 64-bit address or length as an exact number, or -1. */
  u64(at: number): number {
    const low = this.u32(at)
    const high = this.u32(at + 4)
    return low < 0 || high < 0 || high >= HIGH_END ? -1 : high * 2 ** 32 + low
  }

  /** Whether a stretch can be read and written: RAM from end to end. ROM, registers and holes are not. */
  isRam(address: number, length: number): boolean {
    return this.memory.isRam(address, length)
  }
}
