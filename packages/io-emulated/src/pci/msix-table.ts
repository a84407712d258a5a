/** MSI-X table and pending bits as registers of a BAR. Independent of the function. (PCI Local Bus 3.0, "MSI-X Table Structure") @hot */

import type { IoHandler, IoSize, MessageInterrupts } from '@nonroot/contracts'

const Entry = { addressLow: 0, addressHigh: 1, data: 2, control: 3, words: 4, bytes: 16 } as const
const MASKED = 1
const SMALLEST_BAR = 4096

export class MsixTable implements IoHandler {
  readonly vectors: number
  /** Where the pending bits start in the BAR, and the BAR's size. */
  readonly pendingOffset: number
  readonly size: number
  readonly words: Uint32Array
  readonly pending: Uint32Array
  enabled = false
  /** By the function mask, or because the function may not send. */
  functionMasked = false
  readonly #messages: MessageInterrupts

  constructor(vectors: number, messages: MessageInterrupts) {
    this.vectors = vectors
    this.#messages = messages
    this.words = new Uint32Array(vectors * Entry.words)
    this.pending = new Uint32Array(Math.ceil(vectors / 64) * 2)
    const table = vectors * Entry.bytes
    // A page apart where that costs nothing: the two may be mapped with different rights.
    this.pendingOffset = table <= SMALLEST_BAR / 2 ? SMALLEST_BAR / 2 : Math.ceil(table / SMALLEST_BAR) * SMALLEST_BAR
    const end = this.pendingOffset + this.pending.byteLength
    this.size = Math.max(SMALLEST_BAR, 2 ** Math.ceil(Math.log2(end)))
    this.reset()
  }

  /** Send the vector as the guest programmed it, or remember it while it is masked. */
  signal(vector: number): void {
    if (vector >= this.vectors) return
    const at = vector * Entry.words
    if (this.functionMasked || this.words[at + Entry.control]! & MASKED) {
      this.pending[vector >> 5]! |= 1 << (vector & 31)
      return
    }
    this.#messages.send(this.words[at]! + this.words[at + Entry.addressHigh]! * 2 ** 32, this.words[at + Entry.data]!)
  }

  /** The function's message control changed, or whether it may send. */
  control(enabled: boolean, functionMasked: boolean): void {
    this.enabled = enabled
    this.functionMasked = functionMasked
    if (enabled && !functionMasked) for (let vector = 0; vector < this.vectors; vector++) this.#release(vector)
  }

  #release(vector: number): void {
    const bit = 1 << (vector & 31)
    if (!(this.pending[vector >> 5]! & bit)) return
    if (!this.enabled || this.functionMasked || this.words[vector * Entry.words + Entry.control]! & MASKED) return
    this.pending[vector >> 5]! &= ~bit
    this.signal(vector)
  }

  read(offset: number, size: IoSize): number {
    const word = offset >> 2
    const value =
      offset < this.words.byteLength
        ? this.words[word]!
        : offset >= this.pendingOffset
          ? (this.pending[(offset - this.pendingOffset) >> 2] ?? 0)
          : 0
    return size === 4 ? value : (value >>> (8 * (offset & 3))) & (size === 2 ? 0xffff : 0xff)
  }

  /** Entries are written by doublewords. */
  write(offset: number, size: IoSize, value: number): void {
    if (size !== 4 || offset & 3 || offset >= this.words.byteLength) return
    const word = offset >> 2
    this.words[word] = word % Entry.words === Entry.addressLow ? value & ~3 : value
    if (word % Entry.words === Entry.control) this.#release(Math.floor(word / Entry.words))
  }

  reset(): void {
    this.words.fill(0)
    for (let at = Entry.control; at < this.words.length; at += Entry.words) this.words[at] = MASKED
    this.pending.fill(0)
    this.enabled = this.functionMasked = false
  }
}
