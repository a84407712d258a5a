/** How a run loop yields to its thread's event loop, and sleeps. Input, completed disk requests and messages of other threads arrive then. */

export interface Pace {
  /** Lets the event loop run pending work. */
  turn(): Promise<void>
  /** Sleeps until so much time has passed, or until `wake`. A wake since the last sleep ends it at once. */
  sleep(ns: number): Promise<void>
  wake(): void
}

/** Timers of event loops are accurate to a millisecond or two: for shorter times the thread itself sleeps. */
const COARSE_MS = 2
/** Events do not reach the thread while it sleeps: this is the maximum delay. */
const DOZE_MS = 0.1
/** Longest time-out that event loops take. */
const LONGEST_MS = 2 ** 31 - 1

export class EventLoopPace implements Pace {
  #woken = false
  #end: (() => void) | undefined
  readonly #cell = new Int32Array(new SharedArrayBuffer(4))
  readonly #turn = turner()

  turn(): Promise<void> {
    return this.#turn()
  }

  async sleep(ns: number): Promise<void> {
    const ms = ns / 1e6
    if (ms <= COARSE_MS) {
      const end = performance.now() + ms
      await this.#turn()
      for (let left = ms; !this.#woken && left > 0; left = end - performance.now()) {
        this.#doze(Math.min(left, DOZE_MS))
        await this.#turn()
      }
    } else if (!this.#woken) {
      await new Promise<void>((resolve) => {
        const timeout = setTimeout(resolve, Math.min(Math.floor(ms) - 1, LONGEST_MS))
        this.#end = () => {
          clearTimeout(timeout)
          resolve()
        }
      })
      this.#end = undefined
    }
    this.#woken = false
  }

  /** Short, because events do not reach the thread meanwhile. */
  #doze(ms: number): void {
    try {
      Atomics.wait(this.#cell, 0, 0, ms)
    } catch {
      // A thread that may not block (a browser's main thread) polls its event loop instead.
    }
  }

  wake(): void {
    this.#woken = true
    this.#end?.()
  }
}

/** The platform's cheapest turn of the event loop. */
function turner(): () => Promise<void> {
  const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => unknown }
  if (setImmediate) return () => new Promise((resolve) => void setImmediate(resolve))
  const { port1, port2 } = new MessageChannel()
  let waiting: (() => void) | undefined
  port2.onmessage = () => waiting?.()
  return () =>
    new Promise((resolve) => {
      waiting = resolve
      port1.postMessage(0)
    })
}
