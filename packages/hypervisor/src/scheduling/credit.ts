/**
 * Credits, as in Xen's credit scheduler: each period's processor time is shared out by weight, and running costs what it takes. vCPUs with credit left go before those without; one
 * that wakes with credit left goes before all others, once. A vCPU that has used its cap waits for the next period. @hot
 */

import type { Schedulable, Scheduler, Slice, WakeReason } from '@nonroot/contracts'

export interface CreditOptions {
  /** Longest slice, in milliseconds. */
  readonly slice?: number | undefined
  /** How often credits are shared out, in milliseconds. */
  readonly period?: number | undefined
}

interface Account {
  readonly who: Schedulable
  awake: boolean
  boosted: boolean
  creditNs: number
  /** In this period. */
  usedNs: number
}

/** Lower goes first. */
const PRIORITY = { boost: 0, under: 1, over: 2, none: 3 } as const
type Priority = (typeof PRIORITY)[keyof typeof PRIORITY]

export class Credit implements Scheduler {
  readonly #accounts: Account[] = []
  readonly #periodNs: number
  readonly #slice: { who: Schedulable; sliceNs: number }
  readonly #sliceNs: number
  #periodEndNs = 0
  /** Position in `#accounts` to look at first: those of one priority take turns. */
  #next = 0
  /** At least one runnable vCPU waits for the next period because of its cap. */
  #capped = false

  constructor({ slice = 1, period = 30 }: CreditOptions = {}) {
    this.#sliceNs = slice * 1e6
    this.#periodNs = period * 1e6
    this.#slice = { who: undefined as never, sliceNs: 0 }
  }

  add(who: Schedulable): void {
    this.#accounts.push({ who, awake: false, boosted: false, creditNs: 0, usedNs: 0 })
  }
  remove(who: Schedulable): void {
    const at = this.#accounts.findIndex((account) => account.who === who)
    if (at >= 0) this.#accounts.splice(at, 1)
    if (at >= 0 && at < this.#next) this.#next--
  }

  wake(who: Schedulable, reason: WakeReason): void {
    const account = this.#of(who)
    if (!account || account.awake) return
    account.awake = true
    account.boosted = account.creditNs >= 0 && reason !== 'start' && reason !== 'resume'
  }
  sleep(who: Schedulable): void {
    const account = this.#of(who)
    if (account) account.awake = false
  }

  next(processor: number, nowNs: number): Slice | undefined {
    if (nowNs >= this.#periodEndNs) this.#shareOut(nowNs)
    const count = this.#accounts.length
    let best: Account | undefined
    let bestPriority: Priority = PRIORITY.none
    let bestIndex = 0
    this.#capped = false
    for (let step = 0; step < count; step++) {
      const index = (this.#next + step) % count
      const account = this.#accounts[index]!
      const priority = this.#priority(account, processor)
      if (priority >= bestPriority) continue
      best = account
      bestPriority = priority
      bestIndex = index
    }
    if (!best) return undefined
    this.#next = bestIndex + 1
    this.#slice.who = best.who
    this.#slice.sliceNs = Math.min(this.#sliceNs, this.#allowance(best) - best.usedNs)
    return this.#slice
  }

  #priority(account: Account, processor: number): Priority {
    if (!account.awake || account.who.affinity?.has(processor) === false) return PRIORITY.none
    if (account.usedNs >= this.#allowance(account)) {
      this.#capped = true
      return PRIORITY.none
    }
    return account.boosted ? PRIORITY.boost : account.creditNs > 0 ? PRIORITY.under : PRIORITY.over
  }

  /** Time that its cap leaves it in a period. */
  #allowance({ who }: Account): number {
    return who.cap === undefined ? Infinity : who.cap * this.#periodNs
  }

  ran(_processor: number, who: Schedulable, tookNs: number): void {
    const account = this.#of(who)
    if (!account) return
    account.creditNs -= tookNs
    account.usedNs += tookNs
    account.boosted = false
  }

  retryAtNs(): number {
    return this.#capped ? this.#periodEndNs : Infinity
  }

  /** No VM saves up, or owes, more than a period's time: one that slept long cannot hold the processor long. */
  #shareOut(nowNs: number): void {
    let weights = 0
    for (const { who, awake, usedNs } of this.#accounts) if (awake || usedNs > 0) weights += who.weight
    for (const account of this.#accounts) {
      const isActive = account.awake || account.usedNs > 0
      const share = isActive ? (this.#periodNs * account.who.weight) / weights : this.#periodNs
      account.creditNs = Math.max(-this.#periodNs, Math.min(account.creditNs + share, this.#periodNs))
      account.usedNs = 0
    }
    this.#periodEndNs = nowNs + this.#periodNs
  }

  #of(who: Schedulable): Account | undefined {
    for (const account of this.#accounts) if (account.who === who) return account
    return undefined
  }
}
