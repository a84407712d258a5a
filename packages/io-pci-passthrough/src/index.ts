/** Devices of the host, assigned to VMs, and the IOMMU that stands between. */
export { default } from './plugin.ts'
export { AssignedFunction, type AssignedOptions } from './device.ts'
export { Domain } from './domain.ts'
export { IommuDriver } from './driver.ts'
export { RemappingUnit } from './vtd/unit.ts'
export { createHostIommu, createIntelIommu } from './vtd/model.ts'
