/** The agent of a VM's guest, for all who run commands there: the VM's own command, `nonroot exec`, whoever resizes the console. */

import { NonrootError } from '@nonroot/contracts'
import { AgentClient } from '@nonroot/image'
import type { TerminalSize } from '@nonroot/image'

/** Undefined: the agent is there. */
type Waiting = (failure: NonrootError | undefined) => void

export class GuestAgent {
  readonly client: AgentClient
  /** With its guest. */
  ended = false
  readonly #waiting = new Set<Waiting>()
  #failure: NonrootError | undefined
  #consoleSize: TerminalSize | undefined

  /** `send`: bytes for the agent's port. */
  constructor(send: (bytes: Uint8Array) => void) {
    this.client = new AgentClient(send, {
      ready: () => this.#ready(),
      failed: (error) => this.#settle((this.#failure = error)),
    })
  }

  /** Calls back once, when the agent is there or will not be. Call the result to stop waiting. */
  whenReady(listener: Waiting): () => void {
    if (this.client.ready || this.#failure) listener(this.#failure)
    else this.#waiting.add(listener)
    return () => void this.#waiting.delete(listener)
  }

  resizeConsole(size: TerminalSize): void {
    this.#consoleSize = size
    if (this.client.ready) this.client.resizeConsole(size)
  }

  /** The guest was reset: another agent may come. */
  reset(): void {
    this.client.lose('the guest was restarted')
  }

  /** The guest has ended. */
  end(): void {
    this.ended = true
    this.client.lose('the guest ended')
    this.#settle(new NonrootError({ code: 'usage', message: 'the guest has ended', thing: 'agent' }))
  }

  #ready(): void {
    if (this.#consoleSize) this.client.resizeConsole(this.#consoleSize)
    this.#settle(undefined)
  }

  #settle(failure: NonrootError | undefined): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const listener of waiting) listener(failure)
  }
}
