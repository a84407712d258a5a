/**
 * DMA remapping: a requester's addresses to physical ones, by root table, context entry and second-level tables, with their caches.
 * ("DMA Remapping"; "Caching Translation Information") @hot
 */

import type { Counter, DmaMemory, Metrics } from '@nonroot/contracts'
import { ContextType, Fault, LEVELS, MESSAGES, Present, Reserved, Second } from './facts.ts'
import { Iotlb } from './iotlb.ts'

export interface Context {
  readonly domain: number
  readonly type: number
  readonly levels: number
  readonly root: number
  /** Faults are not recorded. */
  readonly quiet: boolean
}

const FRAME = 4096
const RIGHTS = Second.read | Second.write

export type Report = (requester: number, address: number, write: boolean, reason: number) => void

export class Translation {
  /** From GCMD.TE. Off: addresses are physical ones. */
  enabled = false
  /** Latched by GCMD.SRTP. */
  rootTable = 0
  readonly #memory: DmaMemory
  readonly #report: Report
  readonly #contexts = new Map<number, Context>()
  readonly #iotlb = new Iotlb()
  readonly #misses: Counter
  readonly #blocked: Counter

  constructor(memory: DmaMemory, report: Report, metrics: Metrics) {
    this.#memory = memory
    this.#report = report
    this.#misses = metrics.counter('iotlbMisses', 'walks of second-level tables')
    this.#blocked = metrics.counter('blocked', 'DMA accesses blocked')
  }

  /** The physical address, or -1: the access is blocked. `quiet`: only a question, nothing is recorded. */
  translate(requester: number, address: number, write: boolean, quiet = false): number {
    if (address >= MESSAGES.start && address < MESSAGES.end)
      return this.#block(requester, address, write, Fault.reservedRequest, quiet)
    if (!this.enabled) return address
    const context = this.#contexts.get(requester) ?? this.#findContext(requester, address, write, quiet)
    if (context === undefined) return -1
    if (context.type === ContextType.passThrough) return address
    const page = Math.floor(address / FRAME)
    let entry = this.#iotlb.find(context.domain, page)
    if (entry < 0) {
      entry = this.#walk(context, requester, address, page, write, quiet)
      if (entry < 0) return -1
    }
    if (!(entry & (write ? Second.write : Second.read)))
      return this.#block(
        requester,
        address,
        write,
        write ? Fault.writeDenied : Fault.readDenied,
        quiet || context.quiet,
      )
    return entry - (entry % FRAME) + (address % FRAME)
  }

  /** The domain that a requester's translations are cached under; undefined: it has none. */
  domainOf(requester: number): number | undefined {
    return this.#contexts.get(requester)?.domain
  }

  #block(requester: number, address: number, write: boolean, reason: number, quiet: boolean): -1 {
    if (quiet) return -1
    this.#blocked.value++
    this.#report(requester, address, write, reason)
    return -1
  }

  #findContext(requester: number, address: number, write: boolean, quiet: boolean): Context | undefined {
    const fail = (reason: number, silent = quiet): undefined =>
      void this.#block(requester, address, write, reason, silent)
    const bus = requester >> 8
    const root = this.#memory.readU64(this.rootTable + bus * 16)
    if (root === undefined) return fail(Fault.rootAccess)
    if (!(Number(root & 0xfffn) & Present)) return fail(Fault.rootNotPresent)
    if (root & Reserved.root || this.#memory.readU64(this.rootTable + bus * 16 + 8)) return fail(Fault.rootReserved)
    const at = Number(root & ~0xfffn) + (requester & 0xff) * 16
    const low = this.#memory.readU64(at)
    const high = this.#memory.readU64(at + 8)
    if (low === undefined || high === undefined) return fail(Fault.contextAccess)
    const bits = Number(low & 0xfffn)
    const silent = quiet || (bits & 2) !== 0
    if (!(bits & Present)) return fail(Fault.contextNotPresent, silent)
    if (low & Reserved.contextLow || high & Reserved.contextHigh) return fail(Fault.contextReserved, silent)
    const type = (bits >> 2) & 3
    const levels = Number(high & 7n) + 2
    if (type > ContextType.passThrough || !LEVELS.includes(levels as 3 | 4)) return fail(Fault.contextInvalid, silent)
    const domain = Number((high >> 8n) & 0xffffn)
    const context: Context = { domain, type, levels, root: Number(low & ~0xfffn), quiet: silent && !quiet }
    this.#contexts.set(requester, context)
    return context
  }

  /** Frame and rights, which are entered into the IOTLB; -1: blocked. Entries that allow nothing are not cached. */
  #walk(context: Context, requester: number, address: number, page: number, write: boolean, quiet: boolean): number {
    const { levels, domain } = context
    const silent = quiet || context.quiet
    this.#misses.value++
    if (address >= 2 ** (12 + 9 * levels)) return this.#block(requester, address, write, Fault.addressTooWide, silent)
    let rights: number = RIGHTS
    let table = context.root
    for (let level = levels; ; level--) {
      const span = 2 ** (9 * (level - 1))
      const at = table + (Math.floor(page / span) % 512) * 8
      const low = this.#memory.readU32(at)
      const high = this.#memory.readU32(at + 4)
      if (low === undefined || high === undefined)
        return this.#block(requester, address, write, Fault.tableAccess, silent)
      rights &= low
      if (rights === 0)
        return this.#block(requester, address, write, write ? Fault.writeDenied : Fault.readDenied, silent)
      const next = (low & -FRAME) + (low < 2 ** 31 ? 0 : 2 ** 32) + (high & 0xf_ffff) * 2 ** 32
      const isLarge = level > 1 && (low & Second.large) !== 0
      // There are no pages of 512 GiB, and large ones are aligned to their size.
      if (isLarge && (level === 4 || next % (span * FRAME) !== 0))
        return this.#block(requester, address, write, Fault.tableReserved, silent)
      if (level > 1 && !isLarge) {
        table = next
        continue
      }
      const entry = next + (page % span) * FRAME + rights
      this.#iotlb.enter(domain, page, entry)
      return entry
    }
  }

  // Invalidation

  /** Context entries: of one requester, of a domain, or all. */
  forgetContexts(requester?: number, mask = 0, domain?: number): void {
    if (requester === undefined && domain === undefined) this.#contexts.clear()
    for (const [id, context] of this.#contexts) {
      if (domain !== undefined && context.domain !== domain) continue
      // The mask leaves bits of the function number out.
      if (requester !== undefined && (id & ~mask) !== (requester & ~mask)) continue
      this.#contexts.delete(id)
    }
  }

  /** Translations: all, of a domain, or of 2^order pages of it. */
  forgetPages(domain?: number, page?: number, order = 0): void {
    if (page === undefined) this.#iotlb.forget(domain)
    else this.#iotlb.forget(domain, page - (page % 2 ** order), 2 ** order)
  }

  reset(): void {
    this.enabled = false
    this.rootTable = 0
    this.#contexts.clear()
    this.#iotlb.forget()
  }
}
