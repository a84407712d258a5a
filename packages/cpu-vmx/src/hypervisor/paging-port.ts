/** @hot The paging port under VMX: sets CR3, EPTP and the intercepts among the controls, and flushes the TLB. */

import type { Gva, Hpa, PagingFormat, PagingIntercepts, PagingPort, GuestPagingState } from '@nonroot/contracts'
import {
  flushAll,
  flushNonGlobal,
  flushPage,
  forgetSecondStage,
  PAGING,
  S,
  setSecondStage,
  updatePaging,
  CR0,
  CR4,
  EFER,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

const PAGE_FAULT_BIT = 1 << 14
/** EPT pointer: write-back tables, four levels, accessed and dirty flags. */
const EPTP_WRITE_BACK = 6
const EPTP_FOUR_LEVELS = 3 << 3
const EPTP_ACCESSED_DIRTY = 1 << 6

const KIND: Readonly<Record<PagingFormat, number>> = {
  none: PAGING.none,
  legacy32: PAGING.bits32,
  pae: PAGING.pae,
  fourLevel: PAGING.level4,
  fiveLevel: PAGING.level5,
}

/** Reads from the processor, so that a fault allocates nothing. */
class GuestPagingView implements GuestPagingState {
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

export class VmxPagingPort implements PagingPort {
  readonly vcpu: number
  readonly guest: GuestPagingView
  /** The strategy is changing the root: `pagingChanged` must not report it as a write by the guest. */
  changing = false
  intercepts: PagingIntercepts = { pageFault: false, rootWrite: false, invalidate: false, rootRead: false }
  private readonly core: Core
  private readonly vmcs: Vmcs
  private readonly controlsChanged: () => void

  constructor(vcpu: number, core: Core, vmcs: Vmcs, controlsChanged: () => void) {
    this.vcpu = vcpu
    this.core = core
    this.vmcs = vmcs
    this.guest = new GuestPagingView(core)
    this.controlsChanged = controlsChanged
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

  setSecondStageRoot(root: Hpa | undefined, accessedDirty = false): void {
    setSecondStage(this.core, root === undefined ? undefined : { root, accessedDirty })
    const pointer =
      root === undefined
        ? 0
        : (root | EPTP_WRITE_BACK | EPTP_FOUR_LEVELS | (accessedDirty ? EPTP_ACCESSED_DIRTY : 0)) >>> 0
    this.vmcs.write('eptPointer', BigInt(pointer))
    this.set('secondaryProcessorControls', SecondaryControl.enableEpt, root !== undefined)
    this.controlsChanged()
  }

  setIntercepts(intercepts: PagingIntercepts): void {
    this.intercepts = intercepts
    this.set('exceptionBitmap', PAGE_FAULT_BIT, intercepts.pageFault)
    this.set('processorControls', ProcessorControl.cr3LoadExiting, intercepts.rootWrite)
    this.set('processorControls', ProcessorControl.cr3StoreExiting, intercepts.rootRead)
    this.set('processorControls', ProcessorControl.invlpgExiting, intercepts.invalidate)
    this.controlsChanged()
  }

  private set(
    field: 'secondaryProcessorControls' | 'processorControls' | 'exceptionBitmap',
    bits: number,
    on: boolean,
  ): void {
    const value = this.vmcs.read32(field)
    this.vmcs.write(field, (on ? value | bits : value & ~bits) >>> 0)
  }

  flushAll(): void {
    if (this.core.secondStage) forgetSecondStage(this.core)
    else this.flushFirstStage(this.core.paging.hardwareRoot !== undefined)
  }
  /** Under a hardware root no translation is global, so the cheaper non-global flush discards all of them. */
  private flushFirstStage(underHardwareRoot: boolean): void {
    if (underHardwareRoot) flushNonGlobal(this.core)
    else flushAll(this.core)
  }
  flushAddress(address: Gva): void {
    flushPage(this.core, Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))
  }
  /** As INVEPT does, for all contexts. (SDM Vol. 3C, "Operations that Invalidate Cached Mappings") */
  flushGuestPhysical(): void {
    forgetSecondStage(this.core)
  }
}
