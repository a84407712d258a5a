/** Buses: route the guest's accesses to devices. */
export { KernelIoBus } from './io-bus.ts'
export { DeviceContexts } from './device-contexts.ts'
export type { DeviceContextsOptions } from './device-contexts.ts'
