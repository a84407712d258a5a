/** What a vCPU did how: instructions by the way they ran, traps by vector, the cache. */

import type { Counter, Gauge, Metrics } from '@nonroot/contracts'
import type { World } from '../world/world.ts'
import type { Translations } from '../translation/translations.ts'

export class Statistics {
  readonly direct: Counter
  readonly translated: Counter
  readonly interpreted: Counter
  readonly emulated: Counter
  readonly shortcuts: Counter
  readonly quick: Counter
  readonly #traps: readonly Counter[]
  readonly #used: Gauge
  readonly #pages: Gauge
  #from = 0

  constructor(metrics: Metrics) {
    const run = metrics.scope('instructions')
    this.direct = run.counter('direct', 'instructions of user code run directly')
    this.translated = run.counter('translated', 'instructions of translated kernel code, as the processor counts them')
    this.interpreted = run.counter('interpreted', 'instructions of code that is not translated: 16-bit and 32-bit kernel code')
    this.emulated = run.counter('emulated', 'single instructions that the monitor carried out')
    this.shortcuts = run.counter('shortcuts', 'calls of the monitor that did not leave the processor: branches that `quick` does not know, system calls, control registers')
    this.quick = run.counter('quick', 'calls of the monitor that were answered in WebAssembly: returns, branches to registers, flags')
    const traps = metrics.scope('traps')
    this.#traps = Array.from({ length: 32 }, (_, vector) =>
      traps.counter(`vector${vector}`, `exceptions of deprivileged code that the monitor took: vector ${vector}`),
    )
    const cache = metrics.scope('translator')
    this.#used = cache.gauge('used', 'bytes of the translation cache in use', 'bytes')
    this.#pages = cache.gauge('pages', 'guest pages with translated code')
  }

  /** Deprivileged code begins to run. */
  start(retired: number): void {
    this.#from = retired
  }
  /** It ran in this world since the start, or since the last call. */
  ran(world: World, retired: number): void {
    if (world !== 'virtual') (world === 'user' ? this.direct : this.translated).value += retired - this.#from
    this.#from = retired
  }
  trapped(vector: number): void {
    this.#traps[vector & 31]!.value++
  }
  sample(translations: Translations): void {
    this.quick.value += translations.quick.takeCount()
    this.#used.value = translations.used
    this.#pages.value = translations.pages.size
  }
}
