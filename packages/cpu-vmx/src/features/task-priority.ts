/**
 * The TPR shadow: CR8, and MSR 808H in x2APIC mode, read and write the virtual TPR in the virtual-APIC page, and a write below the threshold exits
 * after its instruction. (SDM Vol. 3C, "TPR Virtualization", "Virtualizing MSR-Based APIC Accesses")
 */

import type { HostMemory } from '@nonroot/contracts'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import { msrExits } from '../tables/msr-bitmap.ts'
import type { ControlCache } from '../exit/control-cache.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

/** Byte offset of VTPR in the virtual-APIC page. */
export const VTPR = 0x80
export const X2APIC_TPR = 0x808

export class TaskPriorityShadow {
  private readonly host: HostMemory
  private readonly vmcs: Vmcs
  /** Derived at entry: CR8 accesses the shadow. */
  isActive = false
  /** Derived at entry: RDMSR and WRMSR of 808H access it. */
  readsMsr = false
  writesMsr = false
  /** A write fell below the threshold: exit before the next instruction. */
  isBelow = false
  private page = 0

  constructor(host: HostMemory, vmcs: Vmcs) {
    this.host = host
    this.vmcs = vmcs
  }

  /** Called after a change of the controls. Accesses of 808H that exit by the bitmap are not virtualised. */
  settle(controls: ControlCache): void {
    this.isActive = (controls.processor & ProcessorControl.useTprShadow) !== 0
    this.page = Number(this.vmcs.read('virtualApicAddress'))
    const msr = this.isActive && (controls.secondary & SecondaryControl.virtualizeX2apicMode) !== 0
    const exits = (write: boolean) =>
      (controls.processor & ProcessorControl.useMsrBitmaps) === 0 ||
      msrExits(this.host.bytes, controls.msrBitmap, X2APIC_TPR, write)
    this.readsMsr = msr && !exits(false)
    this.writesMsr = msr && !exits(true)
  }

  /** VTPR, 8 bits. */
  get value(): number {
    return this.host.bytes[this.page + VTPR]!
  }
  get isUnderThreshold(): boolean {
    return this.isActive && this.value >>> 4 < (this.vmcs.read32('tprThreshold') & 15)
  }
  /** Returns whether it is now below the threshold. */
  write(value: number): boolean {
    this.host.bytes[this.page + VTPR] = value
    return (this.isBelow = this.isUnderThreshold)
  }
}
