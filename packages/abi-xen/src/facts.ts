/** Constants of Xen's public interface. (Xen, "public/xen.h", "public/errno.h", "public/arch-x86/cpuid.h") */

/** As hypercalls give them, negative. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  ESRCH: 3,
  ENOMEM: 12,
  EFAULT: 14,
  EBUSY: 16,
  EEXIST: 17,
  EINVAL: 22,
  ENOSPC: 28,
  ERANGE: 34,
  ENOSYS: 38,
  ENODATA: 61,
  ETIME: 62,
  EOPNOTSUPP: 95,
} as const
export type ErrnoName = keyof typeof ERRNO
export const fail = (name: ErrnoName): number => -ERRNO[name]

/** Interface version: 4.17, as Debian's. */
export const VERSION = (4 << 16) | 17
export const EXTRA_VERSION = '.5-nonroot'
export const DOMID_SELF = 0x7ff0
/** The domain's number, until a host has several. */
export const DOMAIN = 1

export const VIRQ = { timer: 0, debug: 1 } as const

/** struct shared_info, in bytes. */
export const SHARED = {
  vcpuInfo: 64,
  vcpus: 32,
  wallClockVersion: 0xc00,
  seconds: 0xc04,
  nanoseconds: 0xc08,
  secondsHigh: 0xc0c,
} as const
/** struct vcpu_info. */
export const INFO = { pending: 0, mask: 1, selector: 8, time: 32, bytes: 64 } as const
/** struct vcpu_time_info. */
export const TIME = {
  version: 0,
  tsc: 8,
  system: 16,
  multiplier: 24,
  shift: 28,
  flags: 29,
  bytes: 32,
  stable: 1,
} as const

/** XENFEAT bits: preserving accessed and dirty flags, roots above 4 GiB, high memory, software bits of grants. */
export const FEATURES = (1 << 4) | (1 << 5) | (1 << 6) | (1 << 7)

/** Of guests with memory of their own: writable tables, addresses translated, a vector for events, clocks that may be trusted. */
export const HVM_FEATURES = (1 << 0) | (1 << 2) | (1 << 8) | (1 << 9)

export const CPUID = {
  base: 0x4000_0000,
  last: 0x4000_0005,
  signature: [0x566e_6558, 0x6558_4d4d, 0x4d4d_566e],
  hypervisorPresent: 1 << 31,
  /** Leaf 4, for guests with interrupts of their own: vCPU's number in EBX, domain's in ECX, a vector for events can be chosen. */
  hvm: { vcpu: 1 << 3, domain: 1 << 4, upcallVector: 1 << 6 },
} as const
/** Bits of a machine address, as leaf 5 reports: grants of version 1 cover all of it. */
export const MACHINE_ADDRESS_BITS = 40
