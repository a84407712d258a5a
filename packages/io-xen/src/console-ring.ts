/** The console's ring, seen from domain 0: what the guest puts in is shown, what is typed goes out. (Xen, "public/io/console.h") */

import type { ConsoleBackend, Gpa, DmaMemory, RingBackend } from '@nonroot/contracts'
import type { TwoLevelChannels } from './event-channels.ts'

const IN = { at: 0, size: 1024, consumer: 3072, producer: 3076 } as const
const OUT = { at: 1024, size: 2048, consumer: 3080, producer: 3084 } as const

export class ConsoleRing implements RingBackend {
  /** Where it is; undefined where the guest chooses. */
  readonly page: Gpa | undefined
  #port = 0
  readonly #memory: DmaMemory
  readonly #events: TwoLevelChannels
  readonly #console: ConsoleBackend
  #connected: Gpa | undefined
  /** Typed, and not in the ring yet. */
  #typed: Uint8Array[] = []

  constructor(memory: DmaMemory, events: TwoLevelChannels, console: ConsoleBackend, page?: Gpa) {
    this.page = page
    this.#memory = memory
    this.#events = events
    this.#console = console
    console.onInput((bytes) => {
      this.#typed.push(bytes.slice())
      this.#give()
    })
  }

  get port(): number {
    return this.#port
  }

  reset(): void {
    this.#connected = undefined
    this.#port = this.#events.allocateLocal(() => this.#onEvent())
  }

  connect(page: Gpa): void {
    this.#connected = page
    this.#give()
  }

  #onEvent(): void {
    if (this.#show()) this.#events.notify(this.#port)
    this.#give()
  }

  /** True: the guest has room again. Indices are the guest's own words: more than a ring full is no ring. */
  #show(): boolean {
    const page = this.#connected
    if (page === undefined) return false
    const producer = this.#memory.readU32(page + OUT.producer) ?? 0
    const consumer = this.#memory.readU32(page + OUT.consumer) ?? 0
    const count = (producer - consumer) >>> 0
    if (count === 0 || count > OUT.size) return false
    const bytes = new Uint8Array(count)
    const start = consumer & (OUT.size - 1)
    const head = Math.min(count, OUT.size - start)
    this.#memory.readBytes(page + OUT.at + start, bytes.subarray(0, head))
    if (head < count) this.#memory.readBytes(page + OUT.at, bytes.subarray(head))
    this.#memory.writeU32(page + OUT.consumer, producer)
    this.#console.write(bytes)
    return true
  }

  #give(): void {
    const page = this.#connected
    if (page === undefined || this.#typed.length === 0) return
    let producer = this.#memory.readU32(page + IN.producer) ?? 0
    const consumer = this.#memory.readU32(page + IN.consumer) ?? 0
    const before = producer
    while (this.#typed.length > 0) {
      const room = IN.size - ((producer - consumer) >>> 0)
      if (room <= 0) break
      const bytes = this.#typed[0]!
      const start = producer & (IN.size - 1)
      const count = Math.min(room, bytes.length, IN.size - start)
      this.#memory.writeBytes(page + IN.at + start, bytes.subarray(0, count))
      producer = (producer + count) >>> 0
      if (count === bytes.length) this.#typed.shift()
      else this.#typed[0] = bytes.subarray(count)
    }
    if (producer === before) return
    this.#memory.writeU32(page + IN.producer, producer)
    this.#events.notify(this.#port)
  }
}
