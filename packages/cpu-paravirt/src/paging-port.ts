/** @hot What the paging strategy can do to a vCPU: its two roots, and its translations. */

import { NonrootError } from '@nonroot/contracts'
import type { GuestPagingState, Gva, PagingPort } from '@nonroot/contracts'
import { flushNonGlobal, flushPage, S } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { EFER_VALUE, highOf, lowOf } from './facts.ts'
import type { Frames } from './entry/frames.ts'
import type { GuestState } from './guest-state.ts'

export class ParavirtPagingPort implements PagingPort {
  readonly vcpu: number
  readonly #core: Core
  readonly #state: GuestState
  readonly #frames: Frames

  constructor(vcpu: number, core: Core, state: GuestState, frames: Frames) {
    this.vcpu = vcpu
    this.#core = core
    this.#state = state
    this.#frames = frames
  }

  guestPaging(): GuestPagingState {
    const core = this.#core
    return {
      cr0: core.get32(S.cr0),
      cr3: core.get64(S.cr3),
      cr4: core.get32(S.cr4),
      efer: EFER_VALUE.guest,
      format: 'fourLevel',
    }
  }

  setRoots(kernel: number, user: number): void {
    const state = this.#state
    if (kernel !== state.kernelRoot) this.#frames.loadRoot(0, (state.kernelRoot = kernel))
    if (user !== state.userRoot) this.#frames.loadRoot(1, (state.userRoot = user))
  }

  setHardwareRoot(root: unknown): void {
    if (root !== undefined) unsupported('tables of the hypervisor in place of the guest’s')
  }
  setSecondStageRoot(root: unknown): void {
    if (root !== undefined) unsupported('a second stage')
  }
  setIntercepts(): void {}

  /** No translation is global: the guest does not see CR4.PGE. */
  flushAll(): void {
    flushNonGlobal(this.#core)
  }
  flushAddress(address: Gva): void {
    flushPage(this.#core, lowOf(address), highOf(address))
  }
  flushGuestPhysical(): void {
    flushNonGlobal(this.#core)
  }
}

const unsupported = (what: string): never => {
  throw new NonrootError({
    code: 'stack.incompatible',
    message: `CPU mode paravirt has no ${what}`,
    thing: 'stack.paging',
    remedy: 'choose stack.paging: { use: "@nonroot/mmu", strategy: direct }',
  })
}
