/** The remapping unit as an I/O model, of a guest's machine or of the host. */

import type { IoModel, IoModelContext } from '@nonroot/contracts'
import { REGISTERS_SIZE } from './facts.ts'
import { RemappingUnit } from './unit.ts'

/** Where QEMU and many boards have it. */
const REGISTERS = 0xfed9_0000

export function createIntelIommu(_options: object, context: IoModelContext): IoModel {
  const unit = new RemappingUnit(context)
  context.mmio({ at: REGISTERS, length: REGISTERS_SIZE }, unit)
  return {
    iommu: unit,
    devices: new Map([['unit', unit]]),
    describe: () => ({ iommu: { address: REGISTERS } }),
  }
}
