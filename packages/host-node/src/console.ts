/** The process's terminal (or pipes) as a guest's console. */

import type { ReadStream, WriteStream } from 'node:tty'
import type { ConsoleBackend } from '@nonroot/contracts'

export interface StreamConsole extends ConsoleBackend {
  /** Give the terminal back: cooked mode, input paused. */
  close(): void
}

/**
 * Output unchanged to `output`. If `input` is a terminal it is put into raw mode, so that every key goes to the guest; `filter`
 * sees input first and returns what the guest gets: it can take a key that leads back to the host.
 */
export function openStreamConsole(
  input: NodeJS.ReadStream = process.stdin,
  output: NodeJS.WriteStream = process.stdout,
  filter: (bytes: Uint8Array) => Uint8Array = (bytes) => bytes,
): StreamConsole {
  const listeners = new Set<(bytes: Uint8Array) => void>()
  const onData = (chunk: Buffer): void => {
    const bytes = filter(chunk)
    if (bytes.length) for (const listener of listeners) listener(bytes)
  }
  const terminal = input as ReadStream
  let listening = false
  return {
    write: (bytes) => void output.write(bytes.slice()),
    onInput(listener) {
      listeners.add(listener)
      if (!listening) {
        listening = true
        if (terminal.isTTY) terminal.setRawMode(true)
        input.on('data', onData)
        input.resume()
      }
      return () => listeners.delete(listener)
    },
    size: () => ((output as WriteStream).isTTY ? { columns: output.columns, rows: output.rows } : undefined),
    onResize(listener) {
      const onResize = (): void => listener({ columns: output.columns, rows: output.rows })
      output.on('resize', onResize)
      return () => output.off('resize', onResize)
    },
    drain: () => new Promise((resolve) => output.write('', () => resolve())),
    close() {
      input.off('data', onData)
      if (listening && terminal.isTTY) terminal.setRawMode(false)
      input.pause()
    },
  }
}
