/** The hypervisor kernel: composes a stack and runs VMs on it. The only package that uses inversify. */
export { default } from './plugin.ts'
export * from './composition/index.ts'
export { HostMachine, type HostMachineOptions } from './host-machine/index.ts'
export {
  createHostMemory,
  defaultHostSize,
  DemandGuestMemory,
  hostMemoryFor,
  openHostMemory,
  pcMemoryMap,
} from './memory/index.ts'
export { createLog } from './metrics/log.ts'
export type { LogLevel } from './metrics/log.ts'
export { createMetrics } from './metrics/metrics.ts'
export { DeterministicClock, WallClock } from './time/index.ts'
export * from './vm/index.ts'
