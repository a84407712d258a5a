/** The remapping unit as an I/O model: of the host, or of a guest's machine, where devices that are no PCI functions are not behind it. */

import type { IoModel, IoModelContext } from '@nonroot/contracts'
import { REGISTERS_SIZE } from './facts.ts'
import { RemappingUnit } from './unit.ts'

/** Where QEMU and many boards have it. */
const REGISTERS = 0xfed9_0000

export const createHostIommu = (_options: object, context: IoModelContext): IoModel => modelOf(context, false)
export const createIntelIommu = (_options: object, context: IoModelContext): IoModel => modelOf(context, true)

function modelOf(context: IoModelContext, bypass: boolean): IoModel {
  const unit = new RemappingUnit(context, bypass)
  context.mmio({ at: REGISTERS, length: REGISTERS_SIZE }, unit)
  return {
    iommu: unit,
    devices: new Map([['unit', unit]]),
    describe: () => ({ iommu: { address: REGISTERS, remapsInterrupts: true } }),
  }
}
