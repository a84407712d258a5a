/** The host's network as a user-mode network uses it: sockets, names, files for captures, programs. Implemented per host. */

import type { SocketStream } from './sockets.ts'

/** A TCP port, or a UNIX socket. */
export type StreamAddress = { readonly host: string; readonly port: number } | { readonly path: string }

/** Why the host could not connect. */
export type ConnectProblem = 'refused' | 'unreachable' | 'timedOut' | 'denied' | 'other'

/** The error with which `connect` rejects. */
export class ConnectError extends Error {
  readonly problem: ConnectProblem

  constructor(problem: ConnectProblem, cause?: unknown) {
    super(`the host cannot connect: ${problem}`, { cause })
    this.problem = problem
  }
}

/** A stream accepted at a port that we listen on. */
export interface AcceptedStream {
  readonly stream: SocketStream
  /** The peer's address as text; empty for UNIX sockets. */
  readonly host: string
  readonly port: number
}

export interface Listener {
  /** The port that was assigned if 0 was requested. */
  readonly port: number
  close(): Promise<void>
}

/** A UDP socket. */
export interface DatagramSocket {
  readonly port: number
  /** Copied before it returns. Datagrams that the host cannot send are lost. */
  send(bytes: Uint8Array, host: string, port: number): void
  close(): void
}

export interface DatagramHandlers {
  /** Valid during the call only. */
  datagram(bytes: Uint8Array, host: string, port: number): void
  /** A datagram was refused: no one listens there. */
  refused(): void
}

/** A file opened for appending. */
export interface CaptureFile {
  /** Copied before it returns. False: too much is waiting to be written, and this was dropped. */
  write(bytes: Uint8Array): boolean
  close(): Promise<void>
}

export interface HostNetwork {
  /** Rejects with a `ConnectError`. */
  connect(to: StreamAddress): Promise<SocketStream>
  /** Rejects with a `NonrootError` if the address is in use. */
  listen(at: StreamAddress, onStream: (accepted: AcceptedStream) => void): Promise<Listener>
  /** At a port that the host chooses, or bound to one. */
  datagrams(
    family: 4 | 6,
    handlers: DatagramHandlers,
    at?: { readonly host: string; readonly port: number },
  ): Promise<DatagramSocket>
  /** Addresses of a name by the host's resolver, /etc/hosts included, as text. Empty: it has none of that family. Rejects if it does not exist. */
  lookUp(name: string, family: 4 | 6): Promise<readonly string[]>
  /** Addresses of the host's name servers, as text. */
  nameServers(): readonly string[]
  /** Random bytes: sequence numbers, ports, addresses. */
  random(into: Uint8Array): void
  /** A path at which programs of the same user meet: no other user can listen there, or connect. */
  meetingPath(name: string): string
  /** Start a program of the host. Rejects with a `NonrootError` if it is not there. */
  start(program: string, args: readonly string[]): Promise<StartedProgram>
  openCapture(path: string): Promise<CaptureFile>
}

export interface StartedProgram {
  /** It ended; gives its last words. */
  readonly ended: Promise<string>
  stop(): void
}
