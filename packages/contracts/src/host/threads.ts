/** Threads of the host beside a VM's own, for work that may take its time while the guest goes on. */

/** One end of a line between two threads. What is posted is cloned as by `structuredClone`. */
export interface ThreadPort {
  post(message: unknown): void
  onMessage(listener: (message: unknown) => void): void
}

/** A thread, seen by who started it. It keeps no process alive. */
export interface HostThread extends ThreadPort {
  /** It ended by itself, or could not start: nothing that is posted is answered any more. */
  onEnd(listener: (reason: string) => void): void
  dispose(): void
}

/** What the module of a thread exports: called once, with the line to who started it. */
export type ServeThread = (port: ThreadPort) => void

/** Starts threads. */
export interface ThreadBackend {
  /** `module`: URL of a module that exports a `ServeThread` named `serve`. */
  start(module: URL): HostThread
}
