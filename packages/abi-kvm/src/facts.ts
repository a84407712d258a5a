/** KVM's paravirtual interface as facts. (Linux, Documentation/virt/kvm/x86: "cpuid", "msr", "hypercalls") */

/** CPUID leaves. */
export const Leaf = {
  signature: 0x4000_0000,
  features: 0x4000_0001,
  frequencies: 0x4000_0010,
  last: 0x4fff_ffff,
} as const
/** "KVMKVMKVM\0\0\0" in EBX, ECX, EDX. */
export const SIGNATURE = { ebx: 0x4b4d_564b, ecx: 0x564b_4d56, edx: 0x4d } as const
/** Leaf 1, ECX. */
export const HYPERVISOR_PRESENT = 0x8000_0000

/** Bits of leaf 0x40000001, EAX. */
export const Feature = {
  oldClock: 1 << 0,
  noIoDelay: 1 << 1,
  clock: 1 << 3,
  stealTime: 1 << 5,
  pvEoi: 1 << 6,
  sendIpi: 1 << 11,
  pollControl: 1 << 12,
  schedYield: 1 << 13,
  stableClock: 1 << 24,
} as const

export const Msr = {
  oldWallClock: 0x11,
  oldSystemTime: 0x12,
  wallClock: 0x4b56_4d00,
  systemTime: 0x4b56_4d01,
  stealTime: 0x4b56_4d03,
  pvEoi: 0x4b56_4d04,
  pollControl: 0x4b56_4d05,
} as const
/** Bit 0 of the MSRs that hold an address. */
export const ENABLED = 1n

export const Hypercall = { vapicPollIrq: 1, sendIpi: 10, schedYield: 11 } as const

/** Negated in RAX. */
export const HypercallError = { permission: 1, unknown: 1000 } as const
