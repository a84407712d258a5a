/** kvm-clock: guest time as a linear function of the TSC, in memory that the guest selects. (Linux, Documentation/virt/kvm/x86/msr.rst; pvclock-abi.h) */

import type { Clock, DmaMemory } from '@nonroot/contracts'

/** Offsets in `pvclock_vcpu_time_info`, 32 bytes. */
const TimeInfo = {
  version: 0,
  tscTimestamp: 8,
  systemTime: 16,
  multiplier: 24,
  shift: 28,
  flags: 29,
  size: 32,
} as const
const TSC_STABLE = 1

/** `ns = ((ticks << shift) * multiplier) >> 32`, with the largest multiplier that fits: the smallest error. */
export function timeScale(tscHz: number): { multiplier: number; shift: number } {
  let shift = 0
  let ratio = 1e9 / tscHz
  for (; ratio >= 1; shift++) ratio /= 2
  for (; ratio < 0.5; shift--) ratio *= 2
  return { multiplier: Math.min(Math.round(ratio * 2 ** 32), 0xffff_ffff), shift }
}

/**
 * Tell one vCPU the time. The TSC never leaves its line, so this is said once: no later version, no step back. False: not in RAM.
 *
 * The line starts where the clock does (TSC 0 at 0 ns); a guest that sets its own TSC elsewhere reads another time.
 */
export function writeTimeInfo(memory: DmaMemory, clock: Clock, address: number): boolean {
  const version = memory.readU32(address)
  if (version === undefined || !memory.isRam(address, TimeInfo.size)) return false
  const { multiplier, shift } = timeScale(clock.tscHz)
  const info = new DataView(new ArrayBuffer(TimeInfo.size))
  const odd = ((version | 1) + 2) >>> 0
  info.setUint32(TimeInfo.version, odd, true)
  info.setUint32(TimeInfo.multiplier, multiplier, true)
  info.setInt8(TimeInfo.shift, shift)
  info.setUint8(TimeInfo.flags, TSC_STABLE)
  memory.writeBytes(address, new Uint8Array(info.buffer))
  return memory.writeU32(address, (odd + 1) >>> 0)
}

/** The wall-clock time at which kvm-clock was zero: `pvclock_wall_clock`, 12 bytes. */
export function writeWallClock(memory: DmaMemory, clock: Clock, address: number): boolean {
  const version = memory.readU32(address)
  if (version === undefined || !memory.isRam(address, 12)) return false
  const odd = ((version | 1) + 2) >>> 0
  const nowNs = clock.nowNs()
  const wallMs = clock.wallClockMs()
  // In whole numbers apart: nanoseconds since 1970 do not fit into a double.
  let seconds = Math.floor(wallMs / 1000) - Math.floor(nowNs / 1e9)
  let nanoseconds = Math.round((wallMs % 1000) * 1e6) - (nowNs % 1e9)
  if (nanoseconds < 0) {
    nanoseconds += 1e9
    seconds--
  }
  memory.writeU32(address, odd)
  memory.writeU32(address + 4, seconds >>> 0)
  memory.writeU32(address + 8, nanoseconds)
  return memory.writeU32(address, (odd + 1) >>> 0)
}
