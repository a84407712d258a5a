/** Streams between programs of the host and programs in the guest (vsock). Knows no device and no kind of socket. */

/** What happens on a stream, told to whoever holds its other end. */
export interface StreamHandlers {
  /** Valid during the call only. Not called while paused. */
  data(bytes: Uint8Array): void
  /** The other side sends no more. */
  end(): void
  /** It is over, whoever ended it. Called once, after which nothing is. */
  close(): void
  /** That many more bytes of `write` were taken by the other side. */
  taken(bytes: number): void
}

export interface SocketStream {
  /** Called once, before anything else. */
  handle(handlers: StreamHandlers): void
  /** Copied before it returns. */
  write(bytes: Uint8Array): void
  /** Nothing more will be written. */
  end(): void
  pause(): void
  resume(): void
  /** Give it up, now. */
  destroy(): void
}

/** A program of the host that wants a port of the guest. */
export interface IncomingStream extends SocketStream {
  /** The guest took it; `port` names its end on the host's side. Not called: destroy it. */
  accepted(port: number): void
}

export interface SocketBackend {
  /** A program in the guest wants a port of the host. Rejects if nobody listens. */
  connect(port: number): Promise<SocketStream>
  onConnect(listener: (port: number, stream: IncomingStream) => void): () => void
  close(): Promise<void>
}

export interface SocketRequest {
  /** A UNIX socket: programs connect to it and say `CONNECT PORT`; ports of the host are the sockets `PATH_PORT`. */
  readonly path: string
}
