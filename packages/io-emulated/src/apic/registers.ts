/** Local APIC and message registers: offsets and fields as facts. (SDM Vol. 3A, "Advanced Programmable Interrupt Controller") */

/** Offsets in the xAPIC page; an x2APIC register's MSR is 0x800 + offset / 16. */
export const ApicRegister = {
  id: 0x020,
  version: 0x030,
  taskPriority: 0x080,
  arbitrationPriority: 0x090,
  processorPriority: 0x0a0,
  endOfInterrupt: 0x0b0,
  remoteRead: 0x0c0,
  logicalDestination: 0x0d0,
  destinationFormat: 0x0e0,
  spuriousVector: 0x0f0,
  inService: 0x100,
  triggerMode: 0x180,
  interruptRequest: 0x200,
  errorStatus: 0x280,
  interruptCommandLow: 0x300,
  interruptCommandHigh: 0x310,
  lvtTimer: 0x320,
  lvtThermal: 0x330,
  lvtPerformance: 0x340,
  lvtLint0: 0x350,
  lvtLint1: 0x360,
  lvtError: 0x370,
  initialCount: 0x380,
  currentCount: 0x390,
  divideConfiguration: 0x3e0,
  selfIpi: 0x3f0,
} as const

export const LVT_FIRST = ApicRegister.lvtTimer
/** Index into the LVT by register. */
export const Lvt = { timer: 0, thermal: 1, performance: 2, lint0: 3, lint1: 4, error: 5 } as const
/** Bits of each LVT entry that can be written. */
export const LVT_WRITABLE = [0x700ff, 0x107ff, 0x107ff, 0x1a7ff, 0x1a7ff, 0x100ff] as const

export const LvtField = {
  vector: 0xff,
  deliveryMode: 0x700,
  level: 0x8000,
  masked: 0x10000,
  timerMode: 0x60000,
} as const
export const TimerMode = { oneShot: 0, periodic: 0x20000, tscDeadline: 0x40000 } as const

/** Delivery modes, as in LVT, ICR, MSI data and redirection entries (there shifted by 8). */
export const DeliveryMode = { fixed: 0, lowestPriority: 1, smi: 2, nmi: 4, init: 5, startup: 6, extInt: 7 } as const

export const Icr = {
  vector: 0xff,
  logical: 0x800,
  assert: 0x4000,
  level: 0x8000,
  shorthand: 0xc0000,
  writable: 0xccfff,
} as const
export const Shorthand = { none: 0, self: 0x40000, all: 0x80000, others: 0xc0000 } as const

export const Svr = { vector: 0xff, enabled: 0x100, suppressEoiBroadcast: 0x1000, writable: 0x11ff } as const

export const ApicError = { sendIllegalVector: 0x20, receiveIllegalVector: 0x40, illegalRegister: 0x80 } as const

/** Integrated APIC, six LVT entries, EOI broadcast can be suppressed. */
export const APIC_VERSION = 0x14 | (5 << 16) | (1 << 24)

export const ApicBase = { bsp: 0x100, x2apic: 0x400, enabled: 0x800, flags: 0xd00 } as const
export const APIC_DEFAULT_BASE = 0xfee0_0000

export const ApicMsr = {
  base: 0x1b,
  tscDeadline: 0x6e0,
  x2apicFirst: 0x800,
  endOfInterrupt: 0x80b,
  x2apicLast: 0x8ff,
} as const

/** Hz of the timer before its divider: one tick a nanosecond. As CPUID 0x40000010 and 0x15 must say if they are there. */
export const APIC_TIMER_HZ = 1_000_000_000

/** Destination of a message to everybody, from wherever it came (0xFF in 8 bits, 0xFFFFFFFF in 32). */
export const BROADCAST = 0xffff_ffff
