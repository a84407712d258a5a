/**
 * The back end's side of a shared ring: requests are copied out before they are looked at, responses take the places of requests that were taken.
 * (Xen, "public/io/ring.h") @hot
 */

import type { DmaMemory, Gpa } from '@nonroot/contracts'

const PAGE = 4096
const REQUEST_PRODUCER = 0
const REQUEST_EVENT = 4
const RESPONSE_PRODUCER = 8
const RESPONSE_EVENT = 12
const HEADER = 64

/** How many entries fit: a power of two. */
export const ringEntries = (pages: number, bytes: number): number =>
  2 ** Math.floor(Math.log2((pages * PAGE - HEADER) / bytes))

export class BackRing {
  readonly entries: number
  readonly #memory: DmaMemory
  readonly #pages: readonly Gpa[]
  readonly #bytes: number
  /** The next request to take, and the end of those that the guest was last seen to have made. */
  #consumer: number
  #producer: number
  /** The next response, and the end of those that the guest may see. */
  #response: number
  #published: number
  #broken = false

  /** `bytes`: of an entry, which is as long as the longer of request and response. */
  constructor(memory: DmaMemory, pages: readonly Gpa[], bytes: number) {
    this.#memory = memory
    this.#pages = pages
    this.#bytes = bytes
    this.entries = ringEntries(pages.length, bytes)
    this.#response = this.#published = this.#consumer = this.#producer = this.#read(RESPONSE_PRODUCER)
  }

  #read(at: number): number {
    return this.#memory.readU32(this.#pages[0]! + at) ?? 0
  }

  /** The guest says that it has made more requests than the ring has places. */
  get broken(): boolean {
    return this.#broken
  }

  /** Requests that can be taken. */
  get available(): number {
    const producer = this.#read(REQUEST_PRODUCER)
    this.#broken ||= (producer - this.#response) >>> 0 > this.entries
    if (!this.#broken) this.#producer = producer
    return this.#broken ? 0 : (this.#producer - this.#consumer) >>> 0
  }

  /** Copies the next request into `into`. False: there is none. */
  take(into: Uint8Array): boolean {
    if (this.#consumer === this.#producer && this.available === 0) return false
    this.#copy(this.#consumer, into, false)
    this.#consumer = (this.#consumer + 1) >>> 0
    return true
  }

  /** The guest is to say when `count` requests are there. True: they are there already, and it may not say so. */
  wait(count = 1): boolean {
    this.#memory.writeU32(this.#pages[0]! + REQUEST_EVENT, (this.#consumer + count) >>> 0)
    return this.available >= count
  }

  /** Written to the ring; the guest sees it with the next `push`. */
  respond(from: Uint8Array): void {
    this.#copy(this.#response, from, true)
    this.#response = (this.#response + 1) >>> 0
  }

  /** Makes responses visible. True: the guest wants to be notified. */
  push(): boolean {
    const [before, now] = [this.#published, this.#response]
    if (before === now) return false
    this.#memory.writeU32(this.#pages[0]! + RESPONSE_PRODUCER, now)
    this.#published = now
    return (now - this.#read(RESPONSE_EVENT)) >>> 0 < (now - before) >>> 0
  }

  /** An entry may lie in two pages. */
  #copy(index: number, bytes: Uint8Array, write: boolean): void {
    const at = HEADER + (index & (this.entries - 1)) * this.#bytes
    const [page, offset] = [at >>> 12, at & (PAGE - 1)]
    const head = Math.min(bytes.length, PAGE - offset)
    this.#transfer(this.#pages[page]! + offset, head === bytes.length ? bytes : bytes.subarray(0, head), write)
    if (head < bytes.length) this.#transfer(this.#pages[page + 1]!, bytes.subarray(head), write)
  }
  #transfer(address: number, bytes: Uint8Array, write: boolean): void {
    if (write) this.#memory.writeBytes(address, bytes)
    else this.#memory.readBytes(address, bytes)
  }
}
