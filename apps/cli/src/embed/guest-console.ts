/** A running VM's console as web streams. A guest never waits for whoever reads it. */

import { ReadableStream, WritableStream } from 'node:stream/web'
import type { TerminalSize } from '@nonroot/host-node'

/** Printed and not read: beyond it the oldest is dropped. */
const MOST_KEPT = 1 << 20

export interface GuestConsole {
  /** What the guest prints. Of what is not read yet, the last mebibyte is kept. */
  readonly output: ReadableStream<Uint8Array>
  readonly input: WritableStream<Uint8Array | string>
  /** The terminal at the console has another size. Reaches guests that have an agent. */
  resize(size: TerminalSize): void
}

export interface ConsolePorts {
  type(bytes: Uint8Array): void
  resize(size: TerminalSize): void
}

export class StreamedConsole implements GuestConsole {
  readonly output: ReadableStream<Uint8Array>
  readonly input: WritableStream<Uint8Array | string>
  readonly resize: (size: TerminalSize) => void
  readonly #kept: Uint8Array[] = []
  #bytes = 0
  #ended = false
  #wake = (): void => {}

  constructor({ type, resize }: ConsolePorts) {
    this.resize = resize
    const encoder = new TextEncoder()
    this.input = new WritableStream({ write: (chunk) => type(typeof chunk === 'string' ? encoder.encode(chunk) : chunk) })
    this.output = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          while (this.#kept.length === 0 && !this.#ended) await new Promise<void>((resolve) => (this.#wake = resolve))
          const first = this.#kept.shift()
          if (!first) return controller.close()
          this.#bytes -= first.length
          controller.enqueue(first)
        },
      },
      { highWaterMark: 0 },
    )
  }

  add(bytes: Uint8Array): void {
    this.#kept.push(bytes)
    this.#bytes += bytes.length
    while (this.#bytes > MOST_KEPT && this.#kept.length > 1) this.#bytes -= this.#kept.shift()!.length
    this.#wake()
  }

  end(): void {
    this.#ended = true
    this.#wake()
  }
}
