/** What a vCPU did how: instructions by the way they ran, traps by vector, the cache. */

import type { Counter, Gauge, Metrics } from '@nonroot/contracts'
import type { Translations } from '../translation/translations.ts'

export class Statistics {
  readonly direct: Counter
  readonly translated: Counter
  readonly interpreted: Counter
  readonly emulated: Counter
  readonly shortcuts: Counter
  readonly #traps: readonly Counter[]
  readonly #used: Gauge
  readonly #pages: Gauge

  constructor(metrics: Metrics) {
    const run = metrics.scope('instructions')
    this.direct = run.counter('direct', 'instructions of user code run directly')
    this.translated = run.counter('translated', 'instructions of translated kernel code, as the processor counts them')
    this.interpreted = run.counter('interpreted', 'instructions of code that is not translated: 16-bit and 32-bit kernel code')
    this.emulated = run.counter('emulated', 'single instructions that the monitor carried out')
    this.shortcuts = run.counter('shortcuts', 'frequent instructions that the monitor carried out without the virtual CPU')
    const traps = metrics.scope('traps')
    this.#traps = Array.from({ length: 32 }, (_, vector) =>
      traps.counter(`vector${vector}`, `exceptions of deprivileged code that the monitor took: vector ${vector}`),
    )
    const cache = metrics.scope('translator')
    this.#used = cache.gauge('used', 'bytes of the translation cache in use', 'bytes')
    this.#pages = cache.gauge('pages', 'guest pages with translated code')
  }

  trapped(vector: number): void {
    this.#traps[vector & 31]!.value++
  }
  sample(translations: Translations): void {
    this.#used.value = translations.used
    this.#pages.value = translations.pages.size
  }
}
