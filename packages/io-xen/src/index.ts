/** What a Xen guest meets its devices on: event channels, rings in its own memory, and the store. */
export { default } from './plugin.ts'
export { TwoLevelChannels } from './event-channels.ts'
export { ConsoleRing } from './console-ring.ts'
export { StoreRing } from './store/ring.ts'
export { Store, type StoreConnection } from './store/store.ts'
export { createXenHvmPlatform, createXenPlatform, type XenIoModel } from './platform.ts'
export { XenBackends } from './backends/backends.ts'
export type { FrontEnd, Nodes, SplitDriver } from './backends/split-device.ts'
