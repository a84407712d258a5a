/**
 * The MSR areas of a VMCS: guest MSRs stored on VM exit and loaded on VM entry, entry by entry. The host's area is checked but not loaded: the
 * hypervisor is not guest code and has no MSRs of its own. (SDM Vol. 3C, "Saving MSRs", "Loading MSRs")
 */

import type { HostMemory } from '@nonroot/contracts'
import { readMsr, writeMsr } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import type { Vmcs } from '../vmcs/vmcs.ts'

/** Index 0, reserved 4, value 8. */
const ENTRY = { bytes: 16, index: 0, reserved: 4, value: 8 } as const

/** An MSR of the x2APIC. */
const isX2apic = (index: number): boolean => index >>> 8 === 8
const SMM_MONITOR_CTL = 0x9b
const SMBASE = 0x9e
const UPDATE_TRIGGER = 0x79
const FS_BASE = 0xc000_0100
const GS_BASE = 0xc000_0101
const NOT_LOADED = new Set([FS_BASE, GS_BASE, SMM_MONITOR_CTL, UPDATE_TRIGGER])

export class MsrAreas {
  private readonly host: HostMemory
  private readonly vmcs: Vmcs
  private readonly core: Core
  /** Derived at entry: an area is not empty. */
  isActive = false

  constructor(host: HostMemory, vmcs: Vmcs, core: Core) {
    this.host = host
    this.vmcs = vmcs
    this.core = core
  }

  settle(): void {
    this.isActive = this.vmcs.read32('exitMsrStoreCount') + this.vmcs.read32('entryMsrLoadCount') > 0
  }

  /** VM exit: stores the MSRs. Returns 0, or the number (from 1) of the entry that cannot be stored, which is a VMX abort. */
  store(): number {
    const { view } = this.host
    const address = Number(this.vmcs.stored('exitMsrStoreAddress'))
    const count = this.vmcs.read32('exitMsrStoreCount')
    for (let n = 0; n < count; n++) {
      const at = address + n * ENTRY.bytes
      const index = view.getUint32(at + ENTRY.index, true)
      const refused = view.getUint32(at + ENTRY.reserved, true) !== 0 || isX2apic(index) || index === SMBASE
      const value = refused ? undefined : readMsr(this.core, index)
      if (value === undefined) return n + 1
      view.setBigUint64(at + ENTRY.value, value, true)
    }
    return 0
  }

  /** VM entry: loads the MSRs. Returns 0, or the number (from 1) of the entry that fails. */
  load(): number {
    const { view } = this.host
    const address = Number(this.vmcs.stored('entryMsrLoadAddress'))
    const count = this.vmcs.read32('entryMsrLoadCount')
    for (let n = 0; n < count; n++) {
      const at = address + n * ENTRY.bytes
      const index = view.getUint32(at + ENTRY.index, true)
      const refused = view.getUint32(at + ENTRY.reserved, true) !== 0 || isX2apic(index) || NOT_LOADED.has(index)
      if (refused || !writeMsr(this.core, index, view.getBigUint64(at + ENTRY.value, true))) return n + 1
    }
    return 0
  }
}
