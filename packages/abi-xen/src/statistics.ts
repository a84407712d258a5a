/** Counts hypercalls: by number, by sub-operation, failed calls and continued ones. */

import type { Counter, Metrics, VmContext } from '@nonroot/contracts'
import { LISTS_OPERATIONS, OPERATION_NAMES } from './operations.ts'
import { HYPERCALLS, type Hypercall } from './table.ts'

export class CallStatistics {
  readonly refused: Counter
  readonly again: Counter
  readonly #metrics: Metrics
  readonly #calls = new Map<Hypercall, Counter>()
  /** By number of the call times 64, plus the sub-operation. Made when one is first counted. */
  readonly #operations = new Map<number, Counter>()
  #row: Hypercall | undefined

  constructor(metrics: Metrics) {
    this.#metrics = metrics
    for (const row of HYPERCALLS.values()) this.#calls.set(row, metrics.counter(row.name, `hypercalls ${row.name}`))
    this.refused = metrics.counter('refused', 'hypercalls that gave an error')
    this.again = metrics.counter('again', 'hypercalls that were continued')
  }

  readonly count = (row: Hypercall, operation: number): void => {
    this.#calls.get(row)!.value++
    this.#row = row
    if (row.number !== LISTS_OPERATIONS && OPERATION_NAMES.has(row.number)) this.#operation(row, operation)
  }
  /** Of the call counted last. */
  readonly note = (operation: number): void => {
    if (this.#row) this.#operation(this.#row, operation)
  }

  #operation(row: Hypercall, operation: number): void {
    const name = OPERATION_NAMES.get(row.number)?.[operation] ?? '-'
    const key = row.number * 64 + (name === '-' ? 63 : operation)
    let counter = this.#operations.get(key)
    if (!counter) {
      const words = name === '-' ? 'other' : name
      counter = this.#metrics.counter(`${row.name}.${words}`, `hypercalls ${row.name}: ${words}`)
      this.#operations.set(key, counter)
    }
    counter.value++
  }
}

export const leakCounter = ({ metrics }: VmContext): Counter =>
  metrics.counter('leaks', 'frames and grants still in use after a domain ended and everything was given back')
