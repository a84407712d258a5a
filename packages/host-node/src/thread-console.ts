/** A guest's console in the thread that runs it: bytes go to another thread in batches, and no faster than they are shown there. */

import type { ConsoleBackend } from '@nonroot/contracts'

type Size = { readonly columns: number; readonly rows: number }

export interface ThreadConsole extends ConsoleBackend {
  /** Input from the terminal. */
  deliver(bytes: Uint8Array): void
  resize(size: Size): void
  /** Send what waits. */
  flush(): void
}

const BATCH = 16 * 1024
/** Bytes sent and not shown yet beyond which the guest has to wait, as for a slow serial line. */
const MOST_AHEAD = 1 << 20

/** Shared between the threads: bytes sent that were not shown yet. */
export const createFlow = (): Int32Array => new Int32Array(new SharedArrayBuffer(4))

/** The other thread showed that many bytes. */
export function shown(flow: Int32Array, bytes: number): void {
  Atomics.sub(flow, 0, bytes)
  Atomics.notify(flow, 0)
}

/** Without a `flow` the guest never waits: whatever protocol the bytes follow bounds what is under way. */
export function createThreadConsole(
  send: (bytes: Uint8Array) => void,
  flow: Int32Array | undefined,
  firstSize: Size | undefined,
): ThreadConsole {
  const inputs = new Set<(bytes: Uint8Array) => void>()
  const resizes = new Set<(size: Size) => void>()
  let size = firstSize
  const batch = new Uint8Array(BATCH)
  let filled = 0
  let scheduled = false
  const flush = (): void => {
    scheduled = false
    if (filled === 0) return
    if (flow) {
      for (let ahead = Atomics.load(flow, 0); ahead > MOST_AHEAD; ahead = Atomics.load(flow, 0))
        Atomics.wait(flow, 0, ahead)
      Atomics.add(flow, 0, filled)
    }
    send(batch.slice(0, filled))
    filled = 0
  }
  const listen = <T>(listeners: Set<T>, listener: T): (() => void) => {
    listeners.add(listener)
    return () => listeners.delete(listener)
  }
  return {
    write(bytes) {
      for (let from = 0; from < bytes.length;) {
        if (filled === BATCH) flush()
        const piece = Math.min(bytes.length - from, BATCH - filled)
        batch.set(piece === bytes.length ? bytes : bytes.subarray(from, from + piece), filled)
        filled += piece
        from += piece
      }
      // When the run loop next gives way.
      if (!scheduled) queueMicrotask(flush)
      scheduled = true
    },
    onInput: (listener) => listen(inputs, listener),
    size: () => size,
    onResize: (listener) => listen(resizes, listener),
    drain: async () => flush(),
    deliver: (bytes) => inputs.forEach((listener) => listener(bytes)),
    resize(newSize) {
      size = newSize
      resizes.forEach((listener) => listener(newSize))
    },
    flush,
  }
}
