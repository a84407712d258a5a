/** x2APIC mode: which registers are MSRs, and which bits of them. (SDM Vol. 3A, "x2APIC Register Address Space") */

import { ApicMsr, ApicRegister } from './registers.ts'

/** Offset of the xAPIC register behind an x2APIC MSR, or -1. */
export const x2apicRegister = (index: number): number =>
  index >= ApicMsr.x2apicFirst && index <= ApicMsr.x2apicLast ? (index - ApicMsr.x2apicFirst) << 4 : -1

const LVT_REGISTERS = [0, 1, 2, 3, 4, 5].map((entry) => ApicRegister.lvtTimer + entry * 16)

/** What x2APIC mode lets be read: no DFR, no arbitration priority, no EOI, no high half of ICR. (SDM Vol. 3A, "x2APIC Register Address Space") */
export const X2APIC_READABLE: ReadonlySet<number> = new Set([
  ApicRegister.id,
  ApicRegister.version,
  ApicRegister.taskPriority,
  ApicRegister.processorPriority,
  ApicRegister.logicalDestination,
  ApicRegister.spuriousVector,
  ...Array.from({ length: 24 }, (_, word) => ApicRegister.inService + word * 16),
  ApicRegister.errorStatus,
  ApicRegister.interruptCommandLow,
  ...LVT_REGISTERS,
  ApicRegister.initialCount,
  ApicRegister.currentCount,
  ApicRegister.divideConfiguration,
])

/** What may be written, and with which bits: any other is #GP. */
export const X2APIC_WRITABLE: ReadonlyMap<number, bigint> = new Map<number, bigint>([
  [ApicRegister.taskPriority, 0xffn],
  [ApicRegister.endOfInterrupt, 0n],
  [ApicRegister.spuriousVector, 0x11ffn],
  [ApicRegister.errorStatus, 0n],
  [ApicRegister.interruptCommandLow, 0xffff_ffff_000c_cfffn],
  ...LVT_REGISTERS.map((register) => [register, 0x7f7ffn] as const),
  [ApicRegister.initialCount, 0xffff_ffffn],
  [ApicRegister.divideConfiguration, 0xbn],
  [ApicRegister.selfIpi, 0xffn],
])
