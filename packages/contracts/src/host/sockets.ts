/** Streams between programs on the host and programs in the guest (vsock). Independent of devices and kinds of sockets. */

/** Events of a stream, for the holder of its other end. */
export interface StreamHandlers {
  /** Valid during the call only. Not called while paused. */
  data(bytes: Uint8Array): void
  /** The other side sends no more. */
  end(): void
  /** The stream has ended, on either side. Called once, as the last event. */
  close(): void
  /** The other side has accepted that many more bytes of `write`. */
  taken(bytes: number): void
}

export interface SocketStream {
  /** Called once, before any other method. */
  handle(handlers: StreamHandlers): void
  /** Copied before it returns. */
  write(bytes: Uint8Array): void
  /** Ends writing. */
  end(): void
  pause(): void
  resume(): void
  /** Closes the stream at once. */
  destroy(): void
}

/** A program on the host that connects to a port of the guest. */
export interface IncomingStream extends SocketStream {
  /** Called when the guest accepts; `port` is the host's end. If it is not accepted, destroy it instead. */
  accepted(port: number): void
}

export interface SocketBackend {
  /** Connects a program in the guest to a port of the host. Rejects if no one listens. */
  connect(port: number): Promise<SocketStream>
  onConnect(listener: (port: number, stream: IncomingStream) => void): () => void
  close(): Promise<void>
}

export interface SocketRequest {
  /** A UNIX socket: programs connect to it and send `CONNECT PORT`; ports of the host are the sockets `PATH_PORT`. */
  readonly path: string
}
