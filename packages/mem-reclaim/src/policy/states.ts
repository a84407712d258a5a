/** The state of a host, by the part of its memory that is free. ("Memory Resource Management in VMware ESX Server", Waldspurger, 2002, 6.3) */

/** `high`: nothing to do. `soft`: guests are asked. `hard`: memory is taken. `low`: allocations wait. */
export type HostState = 'high' | 'soft' | 'hard' | 'low'
const STATES: readonly HostState[] = ['high', 'soft', 'hard', 'low']

/** A state is left for the next lower one below that one's threshold. */
export const THRESHOLDS = { high: 0.06, soft: 0.04, hard: 0.02, low: 0.01 } as const
/** It is left for the next higher one this far above that one's threshold, so that it does not alternate. */
export const HYSTERESIS = 0.005

export class StateMachine {
  #at = 0

  get state(): HostState {
    return STATES[this.#at]!
  }

  /** `freePart`: 0 to 1. */
  update(freePart: number): HostState {
    while (this.#at < STATES.length - 1 && freePart < THRESHOLDS[STATES[this.#at + 1]!]) this.#at++
    while (this.#at > 0 && freePart >= THRESHOLDS[STATES[this.#at - 1]!] + HYSTERESIS) this.#at--
    return this.state
  }
}
