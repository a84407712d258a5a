/**
 * How a run loop gives way to its thread's event loop, and sleeps. Input, finished disk requests and messages of other threads arrive
 * in between.
 */

export interface Pace {
  /** Let the event loop do what waits. */
  turn(): Promise<void>
  /** Until that much has passed, or `wake`. A wake since the last sleep ends it at once. */
  sleep(ns: number): Promise<void>
  wake(): void
}

/** Timers of event loops are good to a millisecond or two: what is shorter is slept in the thread itself. */
const COARSE_MS = 2
/** Nothing that finished reaches the thread while it dozes: this is how late it may be. */
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

  /** Nothing reaches the thread meanwhile, which is why it is short. */
  #doze(ms: number): void {
    try {
      Atomics.wait(this.#cell, 0, 0, ms)
    } catch {
      // A thread that may not block (a browser's first): its event loop is then asked again and again.
    }
  }

  wake(): void {
    this.#woken = true
    this.#end?.()
  }
}

/** The cheapest way round the event loop that the platform has. */
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
