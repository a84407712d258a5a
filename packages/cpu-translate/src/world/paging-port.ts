/** @hot The paging port: one hardware root for both of the processor's roots, so that translated code runs under the guest's own rights. */

import type { Hpa, PagingFormat } from '@nonroot/contracts'
import { ProcessorPagingPort } from '@nonroot/vcpu'
import { S, setRoot } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'

export class TranslatePagingPort extends ProcessorPagingPort {
  constructor(vcpu: number, core: Core) {
    super(vcpu, core)
    setRoot(core, 1, 0n, undefined)
  }

  override setHardwareRoot(root: Hpa | undefined, format: PagingFormat = 'fourLevel', keep = false): void {
    super.setHardwareRoot(root, format, keep)
    const { paging } = this.core
    paging.otherRoot.hardwareRoot = paging.hardwareRoot
    paging.otherRoot.cr3 = this.core.get64(S.cr3)
  }
}
