/** @hot What a paging strategy reads and sets on a software processor: the guest's paging registers, the hardware's root, the TLB. */

import type { GuestPagingState, Gva, Hpa, PagingFormat, PagingIntercepts, PagingPort } from '@nonroot/contracts'
import { CR0, CR4, EFER, flushAll, flushNonGlobal, flushPage, PAGING, S, setSecondStage, updatePaging } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'

const KIND: Readonly<Record<PagingFormat, number>> = {
  none: PAGING.none,
  legacy32: PAGING.bits32,
  pae: PAGING.pae,
  fourLevel: PAGING.level4,
  fiveLevel: PAGING.level5,
}

/** Reads from the processor, so that a fault allocates nothing. */
export class GuestPagingView implements GuestPagingState {
  userPagesAllowed = false
  private readonly core: Core
  constructor(core: Core) {
    this.core = core
  }
  get cr0(): number {
    return this.core.get32(S.cr0)
  }
  get cr3(): bigint {
    return this.core.get64(S.cr3)
  }
  get cr4(): number {
    return this.core.get32(S.cr4)
  }
  get efer(): number {
    return this.core.get32(S.efer)
  }
  get format(): PagingFormat {
    if (!(this.cr0 & CR0.pg)) return 'none'
    if (this.efer & EFER.lma) return this.cr4 & CR4.la57 ? 'fiveLevel' : 'fourLevel'
    return this.cr4 & CR4.pae ? 'pae' : 'legacy32'
  }
}

/** Without a second stage. */
export class ProcessorPagingPort implements PagingPort {
  readonly vcpu: number
  readonly guest: GuestPagingView
  /** The strategy is changing the root: `pagingChanged` must not report it as a write by the guest. */
  changing = false
  intercepts: PagingIntercepts = { pageFault: false, rootWrite: false, invalidate: false, rootRead: false }
  protected readonly core: Core

  constructor(vcpu: number, core: Core) {
    this.vcpu = vcpu
    this.core = core
    this.guest = new GuestPagingView(core)
  }

  guestPaging(): GuestPagingState {
    return this.guest
  }

  setHardwareRoot(root: Hpa | undefined, format: PagingFormat = 'fourLevel', keep = false): void {
    const { core } = this
    const { paging } = core
    const kind = KIND[format]
    const before = paging.hardwareRoot !== undefined
    if (root === undefined) paging.hardwareRoot = undefined
    else if (paging.hardwareRoot?.root !== root || paging.hardwareRoot.kind !== kind)
      paging.hardwareRoot = { root, kind }
    if (root !== undefined && kind === PAGING.pae) {
      for (let n = 0; n < 8; n++) paging.pdptes[n] = core.i32[(root >>> 2) + n]!
    }
    const nested = this.changing
    this.changing = true
    updatePaging(core)
    this.changing = nested
    if (!keep) this.flushFirstStage(before)
  }

  setSecondStageRoot(_root: Hpa | undefined, _accessedDirty?: boolean): void {
    setSecondStage(this.core, undefined)
  }

  setIntercepts(intercepts: PagingIntercepts): void {
    this.intercepts = intercepts
  }

  flushAll(): void {
    this.flushFirstStage(this.core.paging.hardwareRoot !== undefined)
  }
  /** Under a hardware root no translation is global, so the cheaper non-global flush discards all of them. */
  private flushFirstStage(underHardwareRoot: boolean): void {
    if (underHardwareRoot) flushNonGlobal(this.core)
    else flushAll(this.core)
  }
  flushAddress(address: Gva): void {
    flushPage(this.core, Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))
  }
  flushGuestPhysical(): void {
    this.flushAll()
  }
}
