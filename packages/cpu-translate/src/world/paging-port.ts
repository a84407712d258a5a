/** The paging port: both of the processor's roots have the same tables, so that translated code runs under the guest's own rights. */

import { ProcessorPagingPort } from '@nonroot/vcpu'
import { shareTables } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'

export class TranslatePagingPort extends ProcessorPagingPort {
  constructor(vcpu: number, core: Core) {
    super(vcpu, core)
    shareTables(core)
  }
}
