/**
 * A UNIX socket whose streams can be waited for: a thread owns the sockets and passes on bytes through shared memory, so that the thread that serves a
 * client can block until more arrives. One client at a time; others wait until it has gone.
 */

import type { BlockingStream, HostThread, StreamHandlers } from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'
import { createNodeThreads } from './threads.ts'

/** Words of the ring's control: all but `bytes` count up, modulo 2^32. */
export const Ring = { written: 0, read: 1, closed: 2, unsent: 3, control: 16, size: 1 << 20 } as const

export type ListenerMessage =
  | { readonly type: 'listening' }
  | { readonly type: 'failed'; readonly message: string }
  | { readonly type: 'client'; readonly client: number; readonly ring: SharedArrayBuffer }
  | { readonly type: 'more'; readonly client: number }
  | { readonly type: 'closed' }

export type StreamMessage =
  | { readonly type: 'listen'; readonly path: string }
  | { readonly type: 'write'; readonly client: number; readonly bytes: Uint8Array }
  | { readonly type: 'taken'; readonly client: number }
  | { readonly type: 'destroy'; readonly client: number }
  | { readonly type: 'close' }

/** Bytes that the peer has not taken: more are not written before it has taken some. */
const MOST_UNSENT = 8 << 20
const PATIENCE_MS = 10_000

class RingStream implements BlockingStream {
  readonly #thread: HostThread
  readonly #client: number
  readonly #control: Int32Array
  readonly #bytes: Uint8Array
  #handlers: StreamHandlers | undefined
  #isOver = false

  constructor(thread: HostThread, client: number, ring: SharedArrayBuffer) {
    this.#thread = thread
    this.#client = client
    this.#control = new Int32Array(ring, 0, Ring.control / 4)
    this.#bytes = new Uint8Array(ring, Ring.control)
  }

  handle(handlers: StreamHandlers): void {
    this.#handlers = handlers
    this.take()
  }

  /** Gives the handlers all that has arrived. False: nothing has. */
  take(): boolean {
    if (!this.#handlers || this.#isOver) return false
    const closed = Atomics.load(this.#control, Ring.closed) === 1
    const written = Atomics.load(this.#control, Ring.written) >>> 0
    const read = Atomics.load(this.#control, Ring.read) >>> 0
    const length = (written - read) >>> 0
    if (length > 0) {
      const copy = new Uint8Array(length)
      for (let at = 0; at < length; at++) copy[at] = this.#bytes[(read + at) % Ring.size]!
      Atomics.store(this.#control, Ring.read, written | 0)
      this.#thread.post({ type: 'taken', client: this.#client } satisfies StreamMessage)
      this.#handlers.data(copy)
      return true
    }
    if (closed) {
      this.#isOver = true
      this.#handlers.close()
    }
    return closed
  }

  wait(ms: number): boolean {
    const end = performance.now() + ms
    for (;;) {
      const written = Atomics.load(this.#control, Ring.written)
      if (this.take()) return true
      const left = end - performance.now()
      if (left <= 0 || this.#isOver) return false
      Atomics.wait(this.#control, Ring.written, written, left)
    }
  }

  write(bytes: Uint8Array): void {
    if (this.#isOver) return
    const copy = bytes.slice()
    const end = performance.now() + PATIENCE_MS
    for (;;) {
      const unsent = Atomics.load(this.#control, Ring.unsent)
      if (unsent < MOST_UNSENT) break
      const left = end - performance.now()
      // It asks and does not listen to the answers.
      if (left <= 0 || Atomics.load(this.#control, Ring.closed) === 1) return this.destroy()
      Atomics.wait(this.#control, Ring.unsent, unsent, left)
    }
    Atomics.add(this.#control, Ring.unsent, copy.length)
    this.#thread.post({ type: 'write', client: this.#client, bytes: copy } satisfies StreamMessage)
  }

  end(): void {
    this.destroy()
  }
  /** Bytes stay in the ring, which is bounded, until they are taken. */
  pause(): void {}
  resume(): void {}
  destroy(): void {
    if (!this.#isOver) this.#thread.post({ type: 'destroy', client: this.#client } satisfies StreamMessage)
  }
}

export interface BlockingListener {
  close(): Promise<void>
}

/** Listens on a UNIX socket. Rejects if it cannot. */
export function listenBlocking(path: string, onClient: (stream: BlockingStream) => void): Promise<BlockingListener> {
  const entry = new URL(`./listener-thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
  const thread = createNodeThreads().start(entry)
  const refuse = (message: string): NonrootError =>
    new NonrootError({
      code: 'host.backend',
      message,
      thing: path,
      value: path,
      remedy: 'name a path in a folder that can be written',
    })
  return new Promise((resolve, reject) => {
    const streams = new Map<number, RingStream>()
    const closed = Promise.withResolvers<void>()
    const close = async (): Promise<void> => {
      thread.post({ type: 'close' } satisfies StreamMessage)
      await closed.promise
      thread.dispose()
    }
    thread.onEnd((reason) => reject(refuse(`cannot listen on ${path}: ${reason}`)))
    thread.onMessage((given) => {
      const message = given as ListenerMessage
      if (message.type === 'listening') resolve({ close })
      else if (message.type === 'closed') closed.resolve()
      else if (message.type === 'failed') reject(refuse(message.message))
      else if (message.type === 'more') streams.get(message.client)?.take()
      else {
        const stream = new RingStream(thread, message.client, message.ring)
        streams.clear()
        streams.set(message.client, stream)
        onClient(stream)
      }
    })
    thread.post({ type: 'listen', path } satisfies StreamMessage)
  })
}
