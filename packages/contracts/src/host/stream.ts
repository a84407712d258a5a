/** Streams to other programs on the host, by a UNIX socket. */

import type { SocketStream } from './sockets.ts'

export interface StreamRequest {
  /** A UNIX socket on which another program listens. */
  readonly path: string
}

/** A stream whose holder can wait for bytes without returning to its event loop. */
export interface BlockingStream extends SocketStream {
  /** Blocks until something has been given to the handlers (bytes, the end). False: nothing was, in that time. */
  wait(ms: number): boolean
}
