/** @hot The paging port under VMX: sets CR3, EPTP and the intercepts among the controls, and flushes the TLB. */

import type { Hpa, PagingIntercepts } from '@nonroot/contracts'
import { ProcessorPagingPort } from '@nonroot/vcpu'
import { forgetSecondStage, setSecondStage } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

const PAGE_FAULT_BIT = 1 << 14
/** EPT pointer: write-back tables, four levels, accessed and dirty flags. */
const EPTP_WRITE_BACK = 6
const EPTP_FOUR_LEVELS = 3 << 3
const EPTP_ACCESSED_DIRTY = 1 << 6

export class VmxPagingPort extends ProcessorPagingPort {
  private readonly vmcs: Vmcs
  private readonly controlsChanged: () => void

  constructor(vcpu: number, core: Core, vmcs: Vmcs, controlsChanged: () => void) {
    super(vcpu, core)
    this.vmcs = vmcs
    this.controlsChanged = controlsChanged
  }

  override setSecondStageRoot(root: Hpa | undefined, accessedDirty = false): void {
    setSecondStage(this.core, root === undefined ? undefined : { root, accessedDirty })
    const pointer =
      root === undefined
        ? 0
        : (root | EPTP_WRITE_BACK | EPTP_FOUR_LEVELS | (accessedDirty ? EPTP_ACCESSED_DIRTY : 0)) >>> 0
    this.vmcs.write('eptPointer', BigInt(pointer))
    this.set('secondaryProcessorControls', SecondaryControl.enableEpt, root !== undefined)
    this.controlsChanged()
  }

  override setIntercepts(intercepts: PagingIntercepts): void {
    super.setIntercepts(intercepts)
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

  override flushAll(): void {
    if (this.core.secondStage) forgetSecondStage(this.core)
    else super.flushAll()
  }
  /** As INVEPT does, for all contexts. (SDM Vol. 3C, "Operations that Invalidate Cached Mappings") */
  override flushGuestPhysical(): void {
    forgetSecondStage(this.core)
  }
}
