/** Buses: route the guest's accesses to devices. */
export { KernelIoBus } from './io-bus.ts'
export { Platform } from './platform.ts'
export type { PlatformOptions } from './platform.ts'
