/** Pending calls by deadline, then in the order in which they were set: a binary heap. Independent of clocks. @hot */

import type { Timer } from '@nonroot/contracts'

/** Not in the heap: expired or cancelled. */
const OUT = -1

export class HeapTimer implements Timer {
  readonly deadlineNs: number
  readonly callback: () => void
  readonly order: number
  at = OUT

  constructor(deadlineNs: number, callback: () => void, order: number) {
    this.deadlineNs = deadlineNs
    this.callback = callback
    this.order = order
  }
}

const before = (left: HeapTimer, right: HeapTimer): boolean =>
  left.deadlineNs < right.deadlineNs || (left.deadlineNs === right.deadlineNs && left.order < right.order)

export class TimerHeap {
  readonly #heap: HeapTimer[] = []
  #order = 0

  get nextDeadline(): number {
    return this.#heap.length > 0 ? this.#heap[0]!.deadlineNs : Infinity
  }

  add(deadlineNs: number, callback: () => void): HeapTimer {
    const timer = new HeapTimer(deadlineNs, callback, this.#order++)
    this.#heap.push(timer)
    this.#up(timer, this.#heap.length - 1)
    return timer
  }

  remove(timer: HeapTimer): void {
    const { at } = timer
    if (at === OUT || this.#heap[at] !== timer) return
    timer.at = OUT
    const last = this.#heap.pop()!
    if (last === timer) return
    this.#down(last, at)
    this.#up(last, last.at)
  }

  /** Removes and returns the earliest if it is due. */
  takeExpired(now: number): HeapTimer | undefined {
    const first = this.#heap[0]
    if (first === undefined || first.deadlineNs > now) return undefined
    this.remove(first)
    return first
  }

  clear(): void {
    for (const timer of this.#heap) timer.at = OUT
    this.#heap.length = 0
  }

  #up(timer: HeapTimer, from: number): void {
    const heap = this.#heap
    let at = from
    while (at > 0) {
      const parent = (at - 1) >> 1
      const above = heap[parent]!
      if (!before(timer, above)) break
      heap[at] = above
      above.at = at
      at = parent
    }
    heap[at] = timer
    timer.at = at
  }

  #down(timer: HeapTimer, from: number): void {
    const heap = this.#heap
    const { length } = heap
    let at = from
    for (;;) {
      let child = 2 * at + 1
      if (child >= length) break
      if (child + 1 < length && before(heap[child + 1]!, heap[child]!)) child++
      const below = heap[child]!
      if (!before(below, timer)) break
      heap[at] = below
      below.at = at
      at = child
    }
    heap[at] = timer
    timer.at = at
  }
}
