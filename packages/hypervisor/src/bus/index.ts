/** Buses: where devices meet the guest's accesses. */
export { KernelIoBus } from './io-bus.ts'
export { Platform } from './platform.ts'
export type { PlatformOptions } from './platform.ts'
