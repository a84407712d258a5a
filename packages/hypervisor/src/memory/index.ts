/** Host and guest memory. */
export { DemandGuestMemory } from './guest-memory.ts'
export type { GuestMemoryOptions } from './guest-memory.ts'
export { createHostMemory, defaultHostSize, hostMemoryFor, mostRam, openHostMemory } from './host-memory.ts'
export { MMIO_WINDOW, pcMemoryMap } from './memory-map.ts'
