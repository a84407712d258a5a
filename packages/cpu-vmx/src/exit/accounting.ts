/** @hot Counts exits and their cost by reason. */

import type { Counter, Metrics, Spans } from '@nonroot/contracts'
import { EXIT_REASON_NAMES, EXIT_REASONS, type ExitReasonName } from '../tables/exit-reasons.ts'

/** One in this many exits is timed, as a sample for all: reading the clock costs more than many exits do. */
const SAMPLE = 16
const NS_PER_MS = 1e6
/** No handler takes this long: the host was running something else, so the sample is discarded. */
const PREEMPTED_NS = 1e6

interface Account {
  readonly count: Counter
  readonly cost: Counter
}

export class ExitAccounting {
  /** By exit-reason number. Created at the first exit of that kind, so that reports contain only what occurred. */
  private readonly accounts: (Account | undefined)[] = []
  private readonly metrics: Metrics
  private readonly total: Counter
  private readonly spans: Spans | undefined
  private started = 0

  constructor(metrics: Metrics, spans?: Spans) {
    this.metrics = metrics
    this.spans = spans
    this.total = metrics.counter('exits', 'VM exits of all reasons')
  }

  /** An exit begins. */
  begin(): void {
    this.started = ++this.total.value % SAMPLE === 0 || this.spans !== undefined ? performance.now() : 0
  }

  /** The exit has been handled; the guest continues. */
  end(reason: ExitReasonName): void {
    const number = EXIT_REASONS[reason]
    const account = this.accounts[number] ?? this.open(reason)
    account.count.value++
    if (this.started === 0) return
    const ended = performance.now()
    this.spans?.span(reason, this.started, ended)
    const ns = Math.round((ended - this.started) * NS_PER_MS)
    if (this.total.value % SAMPLE === 0 && ns < PREEMPTED_NS) account.cost.value += ns * SAMPLE
  }

  private open(reason: ExitReasonName): Account {
    const account = {
      count: this.metrics.counter(`exits.${reason}`, `VM exits for reason ${EXIT_REASONS[reason]}`),
      cost: this.metrics.counter(
        `exitCost.${reason}`,
        `Time in handlers of these exits, extrapolated from one in ${SAMPLE}`,
        'ns',
      ),
    }
    this.accounts[EXIT_REASONS[reason]] = account
    return account
  }

  /** Counts so far, for tests and reports. */
  counts(): Partial<Record<ExitReasonName, number>> {
    const counts: Partial<Record<ExitReasonName, number>> = {}
    for (const name of EXIT_REASON_NAMES) {
      const account = this.accounts[EXIT_REASONS[name]]
      if (account) counts[name] = account.count.value
    }
    return counts
  }
}
