/** Steal time: how long a vCPU was ready but did not run. Written to memory that the guest selects. (Linux, `struct kvm_steal_time`) */

import type { DmaMemory } from '@nonroot/contracts'

/** Offsets in the structure, 64 bytes. */
const StealTime = { steal: 0, version: 8, size: 64 } as const

export function writeStealTime(memory: DmaMemory, address: number, stolenNs: number): boolean {
  const version = memory.readU32(address + StealTime.version)
  if (version === undefined || !memory.isRam(address, StealTime.size)) return false
  const odd = ((version | 1) + 2) >>> 0
  memory.writeU32(address + StealTime.version, odd)
  memory.writeU64(address + StealTime.steal, BigInt(stolenNs))
  return memory.writeU32(address + StealTime.version, (odd + 1) >>> 0)
}
