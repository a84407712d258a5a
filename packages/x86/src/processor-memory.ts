/** Frames of the host that hold a processor's vCPU block, its TLB and its code. */
import { formatSize, NonrootError } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'

const FRAME = 4096

export class ProcessorMemory {
  readonly #memory: HostMemory
  /** [address, bytes]. */
  readonly #taken: [number, number][] = []

  constructor(memory: HostMemory) {
    this.#memory = memory
  }

  /** Address of contiguous frames. Throws `host.memory` if the host has none. */
  take(bytes: number): number {
    const count = Math.ceil(bytes / FRAME)
    const start = this.#memory.allocateFrames(count, 1)
    if (start === undefined)
      throw new NonrootError({
        code: 'host.memory',
        message: `host memory has no ${formatSize(bytes)} in one piece left for a processor`,
        thing: 'host.memory',
        remedy: 'make host.memory larger, or machine.memory or codeCacheMiB of stack.cpu smaller',
      })
    this.#taken.push([start, bytes])
    this.#memory.setApart(count)
    return start
  }

  free(): void {
    for (const [start, bytes] of this.#taken) {
      for (let at = start; at < start + bytes; at += FRAME) this.#memory.freeFrame(at as Hpa)
      this.#memory.setApart(-Math.ceil(bytes / FRAME))
    }
    this.#taken.length = 0
  }
}
