/**
 * The `direct` strategy: the processor walks the guest's own tables, which hold machine addresses; every change of them is asked for and judged here.
 * Faults are the guest's own, except writes to its tables of the last level, which are carried out for it.
 */

import { NonrootError, RESUME } from '@nonroot/contracts'
import type { Gva, PagingOutcome, PagingPort, X86PagingStrategy, Snapshot, VmContext } from '@nonroot/contracts'
import { DirectTables } from './tables.ts'

const notSaved = (): never => {
  throw new NonrootError({
    code: 'snapshot.mismatch',
    message:
      'a guest whose tables hold machine addresses cannot be saved: its memory would have to be at the same place again',
    thing: 'stack.paging',
    remedy: 'save guests of paging ept or shadow',
  })
}

export class DirectPaging implements X86PagingStrategy {
  readonly tableCalls: DirectTables
  readonly #inject = { next: 'inject' as const, address: 0n as Gva, code: 0 }

  constructor(context: VmContext) {
    this.tableCalls = new DirectTables(context)
  }

  attach(port: PagingPort): void {
    port.setHardwareRoot(undefined)
    this.tableCalls.addPort(port)
  }

  onPageFault(_port: PagingPort, address: Gva, code: number): PagingOutcome {
    this.#inject.address = address
    this.#inject.code = code
    return this.#inject
  }
  onSecondStageFault(): PagingOutcome {
    return { next: 'failure', message: 'paging direct has no second stage' }
  }
  onRootWrite = (): PagingOutcome => RESUME
  onInvalidate = (): PagingOutcome => RESUME
  onModeChange = (): PagingOutcome => RESUME
  onTableUpdate = (): PagingOutcome => RESUME

  onMemoryChange(): void {
    if (!this.tableCalls.isFreeing) {
      throw new NonrootError({
        code: 'internal',
        message: 'memory of a guest with direct paging was taken away behind its back',
        thing: 'stack.reclaim',
        remedy: 'leave out reclaim policies: such a guest gives memory back by itself',
      })
    }
  }

  save = (): Snapshot => notSaved()
  restore(): void {
    notSaved()
  }

  dispose(): void {
    this.tableCalls.dispose()
  }
}

export const createDirectPaging = (_options: unknown, context: VmContext): DirectPaging => new DirectPaging(context)
