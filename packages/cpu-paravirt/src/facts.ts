/** Selectors, frames and registers of the paravirtual interface. Facts only. (Xen, "public/arch-x86/xen-x86_64.h", "public/xen.h", "public/vcpu.h") */
import { CR0, CR4, EFER } from '@nonroot/contracts'

/** Flat segments of the hypervisor's page in every descriptor table. */
export const FLAT = { code: 0xe033, stack: 0xe02b } as const
export const SELECTOR_RPL = 3

/** General register 11, by its encoding. */
export const R11 = 11

/** vcpu_info, in bytes. */
export const INFO = { upcallPending: 0, upcallMask: 1, cr2: 16 } as const

/** Words of the frame that the return call reads, from RSP upwards. */
export const RETURN_FRAME = {
  rax: 0,
  r11: 1,
  rcx: 2,
  flags: 3,
  rip: 4,
  cs: 5,
  rflags: 6,
  rsp: 7,
  ss: 8,
  words: 9,
} as const
/** The frame's flags: the code that IRET returns to does not expect RCX and R11 to be kept. */
export const IN_SYSCALL = 0x100

/** Hardware's registers. The guest sees what it can change. (SDM Vol. 3A, "Control Registers") */
export const CR0_FIXED = CR0.pe | CR0.mp | CR0.et | CR0.ne | CR0.wp | CR0.am | CR0.pg
export const CR4_FIXED = CR4.pae | CR4.mce | CR4.osfxsr | CR4.osxmmexcpt
/** XSAVE is on from the start: kernels look whether it is. */
export const CR4_START = CR4_FIXED | CR4.osxsave
export const XCR0_START = 3n
/** What the guest may change. */
export const CR4_GUEST = CR4.tsd | CR4.de | CR4.osxsave
/** SYSCALL is off, so that it raises #UD, which we handle; the guest sees it on. */
const HARDWARE_EFER = EFER.lme | EFER.lma | EFER.nxe
export const EFER_VALUE = { hardware: HARDWARE_EFER, guest: HARDWARE_EFER | EFER.sce } as const
/** PAT as the hypervisor has it. */
export const PAT = 0x0000_0501_0007_0406n

/** Linear addresses that are the hypervisor's. */
export const HYPERVISOR = { start: 0xffff_8000_0000_0000n, end: 0xffff_8800_0000_0000n } as const
/** Their upper halves, unsigned. */
export const HYPERVISOR_HIGH = { start: 0xffff_8000, end: 0xffff_8800 } as const
export const isCanonical = (address: bigint): boolean =>
  BigInt.asUintN(64, BigInt.asIntN(48, address)) === BigInt.asUintN(64, address)
/** RSP's and other addresses' halves as the processor's memory routines want them. */
export const lowOf = (address: bigint): number => Number(BigInt.asIntN(32, address))
export const highOf = (address: bigint): number => Number(BigInt.asIntN(32, address >> 32n))
