/** The page-modification log: guest-physical addresses whose EPT dirty flag was set, until it is full. (SDM Vol. 3C, "Page-Modification Logging") */

import type { HostMemory } from '@nonroot/contracts'
import { SecondaryControl } from '../tables/controls.ts'
import type { ControlCache } from '../exit/control-cache.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

/** The log's page holds this many entries of 8 bytes; the index counts down from the last. */
export const PML_ENTRIES = 512

export class PageModificationLog {
  private readonly host: HostMemory
  private readonly vmcs: Vmcs
  /** Derived at entry. */
  isActive = false

  constructor(host: HostMemory, vmcs: Vmcs) {
    this.host = host
    this.vmcs = vmcs
  }

  settle(controls: ControlCache): void {
    this.isActive = (controls.secondary & SecondaryControl.enablePml) !== 0
  }

  get isFull(): boolean {
    return this.index >= PML_ENTRIES
  }
  private get index(): number {
    return Number(this.vmcs.stored('pmlIndex'))
  }

  append(guestPhysical: number): void {
    const { index } = this
    const at = Number(this.vmcs.stored('pmlAddress')) + index * 8
    this.host.view.setBigUint64(at, BigInt(guestPhysical) & ~0xfffn, true)
    this.vmcs.store('pmlIndex', BigInt(index - 1) & 0xffffn)
  }

  /** Empties the log and returns its entries in order. Called by the hypervisor. */
  drain(): bigint[] {
    const from = this.isFull ? 0 : this.index + 1
    const page = Number(this.vmcs.stored('pmlAddress'))
    const logged: bigint[] = []
    for (let i = PML_ENTRIES - 1; i >= from; i--) logged.push(this.host.view.getBigUint64(page + i * 8, true))
    this.vmcs.store('pmlIndex', BigInt(PML_ENTRIES - 1))
    return logged
  }
}
