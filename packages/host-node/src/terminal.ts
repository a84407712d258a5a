/** The process's terminal: raw while a guest has it, restored however the process ends. */

import type { ReadStream, WriteStream } from 'node:tty'

export interface TerminalSize {
  readonly columns: number
  readonly rows: number
}

export interface Terminal {
  /** Keys come one by one, from a person. */
  readonly interactive: boolean
  /** Of the screen that output goes to, if it is one. */
  size(): TerminalSize | undefined
  onResize(listener: (size: TerminalSize) => void): void
  /** Bytes typed or piped. Raw mode from the first listener on. */
  onInput(listener: (bytes: Uint8Array) => void): void
  /** No more will come. */
  onInputEnd(listener: () => void): void
  /** Stops reading input for now: its sender waits. */
  pause(): void
  resume(): void
  /** In order. Tells when the operating system has it. */
  write(bytes: Uint8Array, written: () => void): void
  /** Output cannot be written: its reader has gone (EPIPE), or there is no room. */
  onOutputClosed(listener: (error: NodeJS.ErrnoException) => void): void
  /** Resolves when all was written. */
  drain(): Promise<void>
  /** Cooked mode again, listeners gone. */
  close(): void
}

export function openTerminal(
  input: NodeJS.ReadStream = process.stdin,
  output: NodeJS.WriteStream = process.stdout,
): Terminal {
  const keyboard = input as ReadStream
  const screen = output as WriteStream
  const interactive = keyboard.isTTY === true
  const cleanUps: (() => void)[] = []
  let raw = false
  let closed = false
  const cook = (): void => {
    if (raw) keyboard.setRawMode(false)
    raw = false
  }
  // Runs however the process ends, signals that kill it at once excepted.
  process.on('exit', cook)
  cleanUps.push(() => process.off('exit', cook))
  const on = (stream: NodeJS.ReadStream | NodeJS.WriteStream, event: string, listener: (...args: never[]) => void) => {
    stream.on(event, listener as () => void)
    cleanUps.push(() => stream.off(event, listener as () => void))
  }
  const size = (): TerminalSize | undefined =>
    screen.isTTY ? { columns: screen.columns, rows: screen.rows } : undefined
  return {
    interactive,
    size,
    onResize: (listener) => on(output, 'resize', () => listener(size()!)),
    onInput(listener) {
      if (interactive && !raw) {
        keyboard.setRawMode(true)
        raw = true
      }
      on(input, 'data', listener)
      input.resume()
    },
    onInputEnd: (listener) => on(input, 'end', listener),
    pause: () => void input.pause(),
    resume: () => void input.resume(),
    write(bytes, written) {
      if (closed) written()
      else output.write(bytes, () => written())
    },
    onOutputClosed(listener) {
      on(output, 'error', (error: NodeJS.ErrnoException) => {
        closed = true
        listener(error)
      })
    },
    drain: () => new Promise((resolve) => (closed ? resolve() : output.write('', () => resolve()))),
    close() {
      cook()
      for (const cleanUp of cleanUps.splice(0)) cleanUp()
      input.pause()
      // A pipe that stays open must not keep the process.
      ;(input as { unref?: () => void }).unref?.()
    },
  }
}
