/** The 65,536 I/O ports and their devices. One table lookup per access. @hot */

import { IO_DEFERRED } from '@nonroot/contracts'
import type { IoSize } from '@nonroot/contracts'
import type { ClaimedRegion } from './io-region.ts'

const PORTS = 0x10000
const UNCLAIMED = 0

export class PortSpace {
  readonly regions: ClaimedRegion[] = []
  /** Index into `regions`, plus one. */
  readonly #table = new Uint16Array(PORTS)
  /** The device of the last access, for the message if it throws. */
  current: ClaimedRegion | undefined

  /** Fills the table again. Where ranges that a guest moved overlap, the earlier claim wins. */
  update(): void {
    this.#table.fill(UNCLAIMED)
    for (let index = this.regions.length; index > 0; index--) {
      const { base, length, enabled } = this.regions[index - 1]!
      if (enabled && base >= 0 && base < PORTS) this.#table.fill(index, base, Math.min(base + length, PORTS))
    }
  }

  /** Undefined if no device answers. */
  read(port: number, size: IoSize): number | undefined {
    const at = this.#table[port]!
    if (at === UNCLAIMED) return size === 1 ? undefined : this.#readBytes(port, size)
    const region = this.regions[at - 1]!
    const offset = port - region.base
    if (offset + size > region.length) return this.#readBytes(port, size)
    region.accesses.value++
    this.current = region
    return region.handler.read(offset, size)
  }

  /** Undefined if no device answers. */
  write(port: number, size: IoSize, value: number): boolean | undefined {
    const at = this.#table[port]!
    if (at === UNCLAIMED) return size === 1 ? undefined : this.#writeBytes(port, size, value)
    const region = this.regions[at - 1]!
    const offset = port - region.base
    if (offset + size > region.length) return this.#writeBytes(port, size, value)
    region.accesses.value++
    this.current = region
    return region.handler.write(offset, size, value) !== false
  }

  /** An access to several devices, or beyond a device's end: each byte goes to its own device. */
  #readBytes(port: number, size: IoSize): number | undefined {
    let value = 0
    let answered = false
    for (let byte = 0; byte < size; byte++) {
      const one = port + byte < PORTS && this.#table[port + byte] !== UNCLAIMED ? this.read(port + byte, 1) : undefined
      if (one === IO_DEFERRED) return IO_DEFERRED
      if (one !== undefined) answered = true
      value |= ((one ?? 0xff) & 0xff) << (8 * byte)
    }
    return answered ? value >>> 0 : undefined
  }

  #writeBytes(port: number, size: IoSize, value: number): boolean | undefined {
    let answered = false
    for (let byte = 0; byte < size; byte++) {
      if (port + byte >= PORTS || this.#table[port + byte] === UNCLAIMED) continue
      answered = true
      if (this.write(port + byte, 1, (value >>> (8 * byte)) & 0xff) === false) return false
    }
    return answered ? true : undefined
  }
}
