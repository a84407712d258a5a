/** A console for embedders: the guest's bytes as web streams. */

import type { ConsoleBackend } from '@nonroot/contracts'

export interface StreamConsole extends ConsoleBackend {
  /** The guest's output, buffered until it is read. */
  readonly output: ReadableStream<Uint8Array>
  /** The guest's input. */
  readonly input: WritableStream<Uint8Array | string>
  resize(columns: number, rows: number): void
}

export function createStreamConsole(): StreamConsole {
  const inputs = new Set<(bytes: Uint8Array) => void>()
  const resizes = new Set<(size: { columns: number; rows: number }) => void>()
  const encoder = new TextEncoder()
  let size: { columns: number; rows: number } | undefined
  let sink: ReadableStreamDefaultController<Uint8Array> | undefined
  const output = new ReadableStream<Uint8Array>({
    start: (controller) => void (sink = controller),
    cancel: () => void (sink = undefined),
  })
  const listen = <T>(listeners: Set<T>, listener: T): (() => void) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  return {
    output,
    input: new WritableStream({
      write: (chunk) => {
        const bytes = typeof chunk === 'string' ? encoder.encode(chunk) : chunk
        for (const listener of inputs) listener(bytes)
      },
    }),
    write: (bytes) => sink?.enqueue(bytes.slice()),
    onInput: (listener) => listen(inputs, listener),
    size: () => size,
    onResize: (listener) => listen(resizes, listener),
    resize(columns, rows) {
      size = { columns, rows }
      for (const listener of resizes) listener(size)
    },
  }
}
