/**
 * A console under a deterministic clock: input reaches the guest at whole milliseconds of the guest's clock. Input that is available before the guest
 * runs, or is caused by the guest's own output, therefore arrives at the same instruction in every run. Input that a person types meanwhile does not.
 */

import type { Clock, ConsoleBackend } from '@nonroot/contracts'

const EVERY_NS = 1e6 // as often as run loops look for input under a wall clock

/** `arrived`: input is waiting, whether or not the guest runs. */
export function timedConsole(console: ConsoleBackend, clock: Clock, arrived: () => void): ConsoleBackend {
  const listeners = new Set<(bytes: Uint8Array) => void>()
  let waiting: Uint8Array[] = []
  const deliver = (): void => {
    const pieces = waiting
    waiting = []
    for (const bytes of pieces) for (const listener of listeners) listener(bytes)
  }
  const receive = (bytes: Uint8Array): void => {
    waiting.push(bytes.slice())
    if (waiting.length > 1) return
    clock.setTimer((Math.floor(clock.nowNs() / EVERY_NS) + 1) * EVERY_NS, deliver)
    arrived()
  }
  let detach: (() => void) | undefined
  return {
    write: (bytes) => console.write(bytes),
    size: () => console.size(),
    onResize: (listener) => console.onResize(listener),
    ...(console.drain ? { drain: () => console.drain!() } : {}),
    onInput(listener) {
      listeners.add(listener)
      detach ??= console.onInput(receive)
      return () => {
        listeners.delete(listener)
        if (listeners.size > 0) return
        detach?.()
        detach = undefined
      }
    },
  }
}
