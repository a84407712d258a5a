/** A VM's guest-physical memory as a domain of the host's IOMMU: second-level tables over pinned frames. */

import { FRAME_SIZE, NonrootError } from '@nonroot/contracts'
import type { GuestFrames, HostMemory, Hpa } from '@nonroot/contracts'
import { Second } from './vtd/facts.ts'

const ENTRIES = 512
export const DOMAIN_LEVELS = 4

export class Domain {
  readonly id: number
  readonly root: Hpa
  readonly #memory: HostMemory
  readonly #frames: GuestFrames
  readonly #tables: Hpa[] = []
  readonly #pinned: number[] = []

  /** Pins all of the VM's RAM. Throws `host.memory` if the host has not enough. */
  constructor(id: number, memory: HostMemory, frames: GuestFrames) {
    this.id = id
    this.#memory = memory
    this.#frames = frames
    this.root = this.#table()
    try {
      this.#pinAll()
    } catch (error) {
      this.dispose()
      throw error
    }
  }

  #table(): Hpa {
    const frame = this.#memory.allocateFrame()
    if (frame === undefined) throw exhausted('for the tables of an assigned device')
    this.#tables.push(frame)
    return frame
  }

  #pinAll(): void {
    for (const { start, length, kind } of this.#frames.regions) {
      // A device's writes to ROM go nowhere.
      if (kind === 'rom') continue
      for (let address = start as number; address < start + length; address += FRAME_SIZE) {
        const frame = this.#frames.pin(address)
        if (typeof frame !== 'number') throw exhausted('to hold all of a VM that has an assigned device')
        this.#pinned.push(address)
        this.#map(address, frame)
      }
    }
  }

  #map(address: number, frame: number): void {
    const { words } = this.#memory
    let table = this.root as number
    for (let level = DOMAIN_LEVELS; ; level--) {
      const index = Math.floor(address / FRAME_SIZE / ENTRIES ** (level - 1)) % ENTRIES
      const word = (table >>> 2) + index * 2
      if (level === 1) {
        words[word] = frame | Second.read | Second.write
        return
      }
      if (words[word] === 0) words[word] = this.#table() | Second.read | Second.write
      table = (words[word]! & -FRAME_SIZE) >>> 0
    }
  }

  /** Gives back tables and pins. No device may use the domain any more, nor may anything of it be cached. */
  dispose(): void {
    for (const address of this.#pinned.splice(0)) this.#frames.unpin(address)
    for (const table of this.#tables.splice(0)) this.#memory.freeFrame(table)
  }
}

const exhausted = (what: string): NonrootError =>
  new NonrootError({
    code: 'host.memory',
    message: `no host frame is free ${what}: its memory is pinned, because a device may write it at any time`,
    thing: 'host.memory',
    remedy: 'give the host more memory (host.memory), or the machine less (machine.memory)',
  })
