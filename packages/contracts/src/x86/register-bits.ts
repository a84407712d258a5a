/**
 * Bits of the control, debug and flags registers, segment access rights, and exception vectors. Values are signed 32-bit words, as the low halves of
 * registers are; the tables ending in `_64` have the same bits for 64-bit values.
 */

/** (SDM Vol. 3A, "Control Registers") */
export const CR0 = {
  pe: 1,
  mp: 2,
  em: 4,
  ts: 8,
  et: 0x10,
  ne: 0x20,
  wp: 0x1_0000,
  am: 0x4_0000,
  nw: 0x2000_0000,
  cd: 0x4000_0000,
  pg: 0x8000_0000 | 0,
} as const

export const CR4 = {
  tsd: 4,
  de: 8,
  pse: 0x10,
  pae: 0x20,
  mce: 0x40,
  pge: 0x80,
  pce: 0x100,
  osfxsr: 0x200,
  osxmmexcpt: 0x400,
  umip: 0x800,
  la57: 0x1000,
  vmxe: 0x2000,
  fsgsbase: 0x1_0000,
  pcide: 0x2_0000,
  osxsave: 0x4_0000,
  smep: 0x10_0000,
  smap: 0x20_0000,
} as const

/** (SDM Vol. 3A, "Extended Feature Enable Register") */
export const EFER = { sce: 1, lme: 0x100, lma: 0x400, nxe: 0x800 } as const

/** RFLAGS. (SDM Vol. 1, "EFLAGS Register") */
export const FLAG = {
  CF: 1 << 0,
  PF: 1 << 2,
  AF: 1 << 4,
  ZF: 1 << 6,
  SF: 1 << 7,
  TF: 1 << 8,
  IF: 1 << 9,
  DF: 1 << 10,
  OF: 1 << 11,
  IOPL: 3 << 12,
  NT: 1 << 14,
  RF: 1 << 16,
  VM: 1 << 17,
  AC: 1 << 18,
  VIF: 1 << 19,
  VIP: 1 << 20,
  ID: 1 << 21,
} as const
/** Bit 1 of RFLAGS is always 1. */
export const FLAGS_FIXED = 2

type Bits<Names extends string, Value> = Readonly<Record<Names, Value>>

const all = (bits: Bits<string, number>): number => Object.values(bits).reduce((sum, bit) => sum | bit, 0)
/** Every bit of each register that is defined above; the rest is reserved. */
export const DEFINED = { cr0: all(CR0), efer: all(EFER), flags: all(FLAG) } as const

const wide = <Names extends string>(bits: Bits<Names, number>): Bits<Names, bigint> =>
  Object.fromEntries(Object.entries<number>(bits).map(([name, value]) => [name, BigInt(value >>> 0)])) as Bits<
    Names,
    bigint
  >
export const CR0_64 = wide(CR0)
export const CR4_64 = wide(CR4)
export const EFER_64 = wide(EFER)
export const FLAG_64 = wide(FLAG)

/** (SDM Vol. 3B, "Debug Status Register (DR6)") */
export const DR6 = { generalDetect: 1 << 13, singleStep: 1 << 14, taskSwitch: 1 << 15, fixed: 0xffff_0ff0 | 0 } as const

/** Access rights of segment registers, in the VMCS's format. (SDM Vol. 3C, "Guest Register State") */
export const RIGHTS = {
  accessed: 1,
  /** Data: writable. Code: readable. */
  readWrite: 2,
  /** Data: expand-down. Code: conforming. */
  direction: 4,
  code: 8,
  /** Code or data, not a system segment. */
  user: 0x10,
  present: 0x80,
  long: 0x2000,
  big: 0x4000,
  granular: 0x8000,
  unusable: 0x1_0000,
} as const

/** (SDM Vol. 3A, "Exception and Interrupt Vectors") */
export const VECTOR = {
  DE: 0,
  DB: 1,
  NMI: 2,
  BP: 3,
  OF: 4,
  BR: 5,
  UD: 6,
  NM: 7,
  DF: 8,
  TS: 10,
  NP: 11,
  SS: 12,
  GP: 13,
  PF: 14,
  MF: 16,
  AC: 17,
  MC: 18,
  XM: 19,
  VE: 20,
  CP: 21,
} as const

/** Exceptions that push an error code, a bit each by vector. (SDM Vol. 3A, "Protected-Mode Exceptions and Interrupts") */
export const WITH_ERROR_CODE = [
  VECTOR.DF,
  VECTOR.TS,
  VECTOR.NP,
  VECTOR.SS,
  VECTOR.GP,
  VECTOR.PF,
  VECTOR.AC,
  VECTOR.CP,
].reduce((bits, vector) => bits | (1 << vector), 0)
