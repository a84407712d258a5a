/** Threads of the host beside a VM's own, for slow work that runs while the guest continues. */

/** One end of a channel between two threads. Messages are cloned as by `structuredClone`. */
export interface ThreadPort {
  post(message: unknown): void
  onMessage(listener: (message: unknown) => void): void
}

/** A thread, as seen by the code that started it. It does not keep the process alive. */
export interface HostThread extends ThreadPort {
  /** The thread ended, or could not start: messages are no longer answered. */
  onEnd(listener: (reason: string) => void): void
  dispose(): void
}

/** The export of a thread's module: called once, with the channel to its starter. */
export type ServeThread = (port: ThreadPort) => void

/** Starts threads. */
export interface ThreadBackend {
  /** `module`: URL of a module that exports a `ServeThread` named `serve`. */
  start(module: URL): HostThread
}
