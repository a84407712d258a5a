/** @hot The processor's bus with what VMX adds to it: TSC scaling and the TPR shadow. */

import { ProcessorBus } from '@nonroot/vcpu'
import { X2APIC_TPR, type TaskPriorityShadow } from '../features/task-priority.ts'

const TSC_FRACTION = 48n

export class VmxBus extends ProcessorBus {
  /** Called when an exit is due after the current instruction. */
  onExitBehind: () => void = () => {}
  /** The TPR shadow. Without it CR8 accesses the interrupt controller. */
  taskPriority: TaskPriorityShadow | undefined
  /** Derived at entry: fixed point with 48 fraction bits. Undefined: the guest's TSC runs at the host's rate. */
  tscMultiplier: bigint | undefined

  /** The processor adds the offset. (SDM Vol. 3C, "TSC Scaling") */
  override readTsc(): bigint {
    const tsc = super.readTsc()
    return this.tscMultiplier === undefined ? tsc : (tsc * this.tscMultiplier) >> TSC_FRACTION
  }

  override readMsr(index: number): bigint | undefined {
    if (index === X2APIC_TPR && this.taskPriority?.readsMsr) return BigInt(this.taskPriority.value)
    return super.readMsr(index)
  }
  override writeMsr(index: number, value: bigint): boolean {
    return index === X2APIC_TPR && this.taskPriority?.writesMsr ? this.writeShadow(value) : super.writeMsr(index, value)
  }

  override readTaskPriority(): number {
    return this.taskPriority?.isActive ? this.taskPriority.value >>> 4 : super.readTaskPriority()
  }
  override writeTaskPriority(value: number): boolean {
    return this.taskPriority?.isActive ? this.taskPriority.write(value << 4) : super.writeTaskPriority(value)
  }
  /** WRMSR of the TPR: bits 63:8 are reserved. */
  private writeShadow(value: bigint): boolean {
    if (value >> 8n) return false
    if (this.taskPriority!.write(Number(value))) this.onExitBehind()
    return true
  }
}
