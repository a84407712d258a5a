/** The mode key: all of the processor's mode on which decoding depends. Blocks are cached by it. */

/** Bits of the mode key. */
export const MODE = {
  /** Code size: 0 = 16 bit, 1 = 32 bit, 2 = 64 bit. */
  codeSize: 3,
  /** SS.B: the stack pointer is ESP (else SP). In 64-bit mode always RSP. */
  stack32: 1 << 2,
  /** Protected mode (CR0.PE) and not virtual-8086. */
  protectedMode: 1 << 3,
  /** CPL is not 0: privileged instructions raise. */
  user: 1 << 4,
  /** EFER.LMA: long mode, including compatibility mode. */
  longMode: 1 << 5,
  /** Virtual-8086 mode. */
  v86: 1 << 6,
  /** CR0.EM or CR0.TS: x87 and MMX instructions raise. */
  noX87: 1 << 7,
  /** CR0.EM, CR0.TS, or CR4.OSFXSR clear: SSE instructions raise. */
  noSse: 1 << 8,
  /** The CS limit is lower than the code size allows: blocks are looked up, and checked, one by one. */
  csLimited: 1 << 9,
  /** The next instruction is in an interrupt shadow (state/shadow.ts), and has a separate block. */
  shadow: 1 << 10,
  /** The second root is the current one (paging/tlb/roots.ts). */
  secondRoot: 1 << 11,
} as const
export const MODE_BITS = 12

export type CodeSize = 16 | 32 | 64
export const codeSizeOf = (mode: number): CodeSize => (16 << (mode & MODE.codeSize)) as CodeSize
export const stackSizeOf = (mode: number): 16 | 32 | 64 =>
  (mode & MODE.codeSize) === 2 ? 64 : mode & MODE.stack32 ? 32 : 16
