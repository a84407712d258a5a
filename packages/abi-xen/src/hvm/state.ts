/** State of a guest with its own memory and interrupts: pages of the hypervisor in its memory, and HVM parameters. */

import type { Gpa, GuestFrames, Hpa, TableStatus } from '@nonroot/contracts'
import type { DomainFrames } from '../frames.ts'

const PAGE = 4096
/** Frame numbers above this have no guest-physical address. */
const MOST_FRAME = 2 ** 36

/** Pages that the hypervisor keeps in place in the guest's memory, by frame number. */
export class GuestPages implements DomainFrames {
  readonly #frames: GuestFrames
  /** How often each is held. */
  readonly #held = new Map<number, number>()
  /** RAM where the machine has none. */
  readonly #added = new Set<number>()

  constructor(frames: GuestFrames) {
    this.#frames = frames
  }

  hold(frame: number): TableStatus {
    if (frame >= MOST_FRAME) return 'invalid'
    const at = this.#frames.pin(frame * PAGE)
    if (at === undefined) return 'invalid'
    if (at === 'wait') return 'noMemory'
    this.#held.set(frame, (this.#held.get(frame) ?? 0) + 1)
    return 'ok'
  }
  release(frame: number): void {
    const count = this.#held.get(frame)
    if (count === undefined) return
    this.#frames.unpin(frame * PAGE)
    if (count > 1) this.#held.set(frame, count - 1)
    else this.#held.delete(frame)
    if (count === 1 && this.#added.delete(frame)) this.#frames.removePage(frame * PAGE)
  }
  addressOf(frame: number): Gpa {
    return (frame * PAGE) as Gpa
  }
  hostAddress(machine: number): Hpa | undefined {
    return this.#frames.peek(machine)
  }
  /** The guest reaches the hypervisor's frames only where it asks for them. */
  shareFrame(): number {
    return 0
  }

  /** A page for one of the hypervisor's: the guest's own, or one more where it has no memory. */
  take(frame: number): Hpa | TableStatus {
    if (frame >= MOST_FRAME) return 'invalid'
    const address = frame * PAGE
    if (this.#frames.addPage(address)) this.#added.add(frame)
    const status = this.hold(frame)
    if (status === 'ok') return this.hostAddress(address)!
    if (this.#added.delete(frame)) this.#frames.removePage(address)
    return status
  }

  /** The guest needs the page no more: it reads as zeros. Undefined: it has none there, or one that is held. */
  discard(frame: number): boolean {
    if (frame >= MOST_FRAME || this.#held.has(frame) || this.#frames.state(frame * PAGE) === undefined) return false
    this.#frames.release([{ address: (frame * PAGE) as Gpa, length: PAGE }])
    return true
  }
  exists(frame: number): boolean {
    return frame < MOST_FRAME && this.#frames.state(frame * PAGE) !== undefined
  }

  /** Pages held. */
  get count(): number {
    return this.#held.size
  }

  reset(): void {
    for (const [frame, count] of [...this.#held]) for (let n = 0; n < count; n++) this.release(frame)
  }
}

/** Indices of HVM parameters. (Xen, "public/hvm/params.h") */
export const PARAMETER = { callback: 0, storeFrame: 1, storePort: 2, consoleFrame: 17, consolePort: 18 } as const

export interface HvmState {
  readonly pages: GuestPages
  readonly parameters: Map<number, bigint>
  /** Frame that shows shared information, and those that show the grant table. */
  sharedInfoFrame: number | undefined
  readonly grantFrames: Map<number, number>
  /** Pages of RAM that the guest was given. */
  readonly ramFrames: number
}
