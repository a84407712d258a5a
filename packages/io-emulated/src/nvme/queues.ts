/** Submission and completion queues in guest memory. Rings only; independent of commands. (Base Specification, "Submission Queue & Completion Queue Definition") @hot */

import type { DmaMemory } from '@nonroot/contracts'
import { parseCommand } from './command.ts'
import type { Command, Outcome } from './command.ts'
import { COMPLETION_SIZE, SUBMISSION_SIZE } from './facts.ts'

interface Ring {
  readonly id: number
  readonly base: number
  /** Entries. */
  readonly size: number
}

export class SubmissionQueue implements Ring {
  readonly id: number
  readonly base: number
  readonly size: number
  readonly completion: CompletionQueue
  head = 0
  tail = 0
  /** Commands fetched and not completed. */
  active = 0
  readonly #bytes = new Uint8Array(SUBMISSION_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

  constructor(ring: Ring, completion: CompletionQueue) {
    this.id = ring.id
    this.base = ring.base
    this.size = ring.size
    this.completion = completion
  }

  get empty(): boolean {
    return this.head === this.tail
  }

  /** The next command; undefined if its entry is not in RAM. */
  fetch(memory: DmaMemory): Command | undefined {
    if (!memory.readBytes(this.base + this.head * SUBMISSION_SIZE, this.#bytes)) return undefined
    this.head = (this.head + 1) % this.size
    return parseCommand(this.#view)
  }
}

interface Waiting {
  readonly queue: SubmissionQueue
  readonly id: number
  readonly outcome: Outcome
}

export class CompletionQueue implements Ring {
  readonly id: number
  readonly base: number
  readonly size: number
  readonly vector: number
  readonly interrupts: boolean
  head = 0
  tail = 0
  phase = 1
  /** Completions that found the ring full. */
  readonly waiting: Waiting[] = []
  readonly #bytes = new Uint8Array(COMPLETION_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

  constructor(ring: Ring, vector: number, interrupts: boolean) {
    this.id = ring.id
    this.base = ring.base
    this.size = ring.size
    this.vector = vector
    this.interrupts = interrupts
  }

  /** The driver has entries to read. */
  get unread(): boolean {
    return this.head !== this.tail
  }

  get #full(): boolean {
    return (this.tail + 1) % this.size === this.head
  }

  /** Post a completion, or keep it until the driver makes room. False: the ring is not in RAM. */
  post(memory: DmaMemory, queue: SubmissionQueue, id: number, outcome: Outcome): boolean {
    if (this.#full || this.waiting.length > 0) {
      this.waiting.push({ queue, id, outcome })
      return true
    }
    return this.#write(memory, queue, id, outcome)
  }

  #write(memory: DmaMemory, queue: SubmissionQueue, id: number, { status, result }: Outcome): boolean {
    const view = this.#view
    view.setUint32(0, result, true)
    view.setUint16(8, queue.head, true)
    view.setUint16(10, queue.id, true)
    view.setUint16(12, id, true)
    view.setUint16(14, (status << 1) | this.phase, true)
    if (!memory.writeBytes(this.base + this.tail * COMPLETION_SIZE, this.#bytes)) return false
    this.tail = (this.tail + 1) % this.size
    if (this.tail === 0) this.phase ^= 1
    return true
  }

  /** The driver moved its head: post what waited. False: the ring is not in RAM. */
  release(memory: DmaMemory): boolean {
    while (this.waiting.length > 0 && !this.#full) {
      const { queue, id, outcome } = this.waiting.shift()!
      if (!this.#write(memory, queue, id, outcome)) return false
    }
    return true
  }
}
