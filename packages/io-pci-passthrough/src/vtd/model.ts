/** The remapping unit as an I/O model: of the host, or of a guest's machine, where it remaps DMA only. */

import type { IoModel, IoModelContext } from '@nonroot/contracts'
import { REGISTERS_SIZE } from './facts.ts'
import { RemappingUnit } from './unit.ts'

/** Where QEMU and many boards have it. */
const REGISTERS = 0xfed9_0000

export const createHostIommu = (_options: object, context: IoModelContext): IoModel => modelOf(context, true)
export const createIntelIommu = (_options: object, context: IoModelContext): IoModel => modelOf(context, false)

function modelOf(context: IoModelContext, remapsInterrupts: boolean): IoModel {
  const unit = new RemappingUnit(context, remapsInterrupts)
  context.mmio({ at: REGISTERS, length: REGISTERS_SIZE }, unit)
  return {
    iommu: unit,
    devices: new Map([['unit', unit]]),
    describe: () => ({ iommu: { address: REGISTERS } }),
  }
}
