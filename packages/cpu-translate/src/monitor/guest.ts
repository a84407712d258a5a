/** The guest of one vCPU: the state that the monitor's parts share, and what they may do to it. The loop that runs it is in vcpu.ts. */

import type { HostMemory, VcpuStatePatch, X86VcpuPorts } from '@nonroot/contracts'
import { isGlobalPage, ProcessorBus, VcpuGuest, type Siblings } from '@nonroot/vcpu'
import { S } from '@nonroot/x86'
import type { ProcessorOptions } from '@nonroot/x86'
import { Translations } from '../translation/translations.ts'
import { TranslatePagingPort } from '../world/paging-port.ts'
import { Worlds } from '../world/world.ts'
import { Events } from './events.ts'
import { QuickTraps } from './quick-traps.ts'
import { Shortcuts } from './shortcuts.ts'
import { Statistics } from './statistics.ts'
import { SystemCalls } from './system-calls.ts'

export interface TranslateVcpuOptions {
  readonly processor: ProcessorOptions
  /** False: kernel code runs deprivileged as it is. */
  readonly translates: boolean
  /** Bytes. */
  readonly translationCache: number
}

export class Guest extends VcpuGuest {
  readonly pagingPort: TranslatePagingPort
  readonly worlds: Worlds
  readonly events: Events
  readonly translations: Translations
  readonly shortcuts: Shortcuts
  readonly systemCalls: SystemCalls
  readonly statistics: Statistics
  readonly #translates: boolean
  /** The virtual CPU runs code that is not translated. */
  interpreting = false

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: Siblings,
    options: TranslateVcpuOptions,
  ) {
    super(index, ports, new ProcessorBus(host, ports, index, siblings), options.processor)
    this.#translates = options.translates
    this.statistics = new Statistics(ports.metrics)
    const quick = new QuickTraps(host)
    this.worlds = new Worlds(this.core, quick)
    this.events = new Events(index, this.core, ports)
    this.translations = new Translations(
      this.processor,
      host,
      ports.metrics.scope('translator'),
      options.translationCache,
      quick,
      (low, high) => isGlobalPage(ports.guestMemory, this.pagingPort.guest, addressOf(low, high)),
    )
    this.shortcuts = new Shortcuts(this.core, this.translations)
    this.systemCalls = new SystemCalls(this.core, this.translations, this.worlds)
    if (options.translates) this.translations.answerQuickly()
    this.pagingPort = new TranslatePagingPort(index, this.core)
    this.bus.onTableWrite = (address, size) => this.accept(ports.paging.onTableUpdate(this.pagingPort, address, size))
  }

  // --- deprivileged code ---

  /** The kernel code at RIP runs deprivileged. False: it cannot be fetched now. */
  enterKernel(): boolean {
    const { core, translations, worlds } = this
    if (this.#translates) {
      translations.settle()
      const offset = translations.at(core.get32(S.rip), core.get32(S.rip + 4))
      if (offset < 0) return false
      worlds.enterKernel()
      translations.enter(offset)
    } else worlds.enterKernel()
    return true
  }
  /** RIP becomes the guest's, if it is in the cache. */
  leaveCache(): void {
    const { core, translations, shortcuts } = this
    if (!translations.contains(core.get32(S.rip), core.get32(S.rip + 4))) return
    const point = translations.pointAtRip()
    if (point < 0) {
      this.fail(`translated code stopped at offset ${core.get32(S.rip)} of its cache, where no instruction begins`)
      return
    }
    shortcuts.settleShadow(core.get32(S.rip))
    translations.leaveAt(point)
  }

  // --- what invalidates translations ---

  /** INVLPG of one address, or (`undefined`) of everything. */
  codeInvalidated(address: bigint | undefined): void {
    this.translations.invalidated(address)
  }
  /** CR3 was written, or a control register that changes what may be executed. */
  rootChanged(mode: boolean): void {
    this.translations.rootChanged(mode)
  }

  // --- state ---

  override writeState(patch: VcpuStatePatch): void {
    super.writeState(patch)
    this.translations.flush()
  }
  override reset(kind: 'powerUp' | 'init'): void {
    super.reset(kind)
    this.translations.flush()
  }

  override dispose(): void {
    this.translations.dispose()
    super.dispose()
  }
}

const addressOf = (low: number, high: number): bigint =>
  BigInt.asUintN(64, (BigInt(high) << 32n) | BigInt(low >>> 0))
