/**
 * Model-specific registers as rows: where each is kept and what may be written. The host handles those without a row. (SDM Vol. 4, "Model-Specific
 * Registers")
 */
import type { Core } from '../state/core.ts'
import { S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { applyControls } from './derive.ts'
import { CR4, DEFINED, EFER } from '../state/register-bits.ts'

export interface Msr {
  readonly name: string
  /** Slot of the vCPU block; otherwise the value is in `core.msrs`. */
  readonly slot?: number
  /** Bits that may be set; others are #GP. Absent: all. 0n: only zero may be written. */
  readonly writable?: bigint
  readonly canonical?: boolean
  readonly readOnly?: boolean
  readonly reset?: bigint
  read?(core: Core): bigint
  /** Instead of a plain store. False is #GP. */
  write?(core: Core, value: bigint): boolean
}

const EFER_BITS = BigInt(DEFINED.efer)
const LMA = BigInt(EFER.lma)

/** Vulnerabilities that the processor does not have, because it does not speculate. (SDM Vol. 4, IA32_ARCH_CAPABILITIES) */
const ARCH_CAPABILITIES = [0, 3, 4, 5, 6, 8, 13, 14, 15, 20, 24, 26, 27, 62].reduce(
  (all, bit) => all | (1n << BigInt(bit)),
  0n,
)

const memoryType = (value: bigint): boolean => value === 0n || value === 1n || (value >= 4n && value <= 6n)
/** Eight bytes, each a memory type; PAT also knows UC-. */
function memoryTypes(value: bigint, uncachedMinus: boolean): boolean {
  for (let i = 0n; i < 64n; i += 8n) {
    const type = (value >> i) & 0xffn
    if (!memoryType(type) && !(uncachedMinus && type === 7n)) return false
  }
  return true
}

const store = (slot: number) => (core: Core, value: bigint) => {
  core.set64(slot, value)
  return true
}
const storeIf = (index: number, valid: (value: bigint) => boolean) => (core: Core, value: bigint) => {
  if (!valid(value)) return false
  core.msrs.set(index, value)
  return true
}

function writeEfer(core: Core, value: bigint): boolean {
  const old = core.get64(S.efer)
  const paging = core.get32(S.cr0) < 0
  if (value & ~EFER_BITS & ~LMA) return false
  if (paging && (value ^ old) & 0x100n) return false
  core.set64(S.efer, (value & ~LMA) | (old & LMA))
  return applyControls(core, { efer: Number((value ^ old) & 0xffff_ffffn) })
}

/** The time stamp counter as the guest sees it. */
export const readTsc = (core: Core): bigint => BigInt.asUintN(64, core.host.readTsc() + core.get64(S.tscOffset))
const TSC_ADJUST = 0x3b

function moveTsc(core: Core, by: bigint): void {
  core.set64(S.tscOffset, core.get64(S.tscOffset) + by)
  core.msrs.set(TSC_ADJUST, BigInt.asUintN(64, (core.msrs.get(TSC_ADJUST) ?? 0n) + by))
}

const rows: [index: number, row: Msr][] = [
  [0x00, { name: 'IA32_P5_MC_ADDR', readOnly: true, reset: 0n }],
  [0x01, { name: 'IA32_P5_MC_TYPE', readOnly: true, reset: 0n }],
  [
    0x10,
    {
      name: 'IA32_TIME_STAMP_COUNTER',
      read: readTsc,
      write: (core, value) => (moveTsc(core, value - readTsc(core)), true),
    },
  ],
  [0x17, { name: 'IA32_PLATFORM_ID', readOnly: true, reset: 0n }],
  [
    0x1b,
    {
      name: 'IA32_APIC_BASE',
      slot: S.apicBase,
      writable: 0xff_ffff_fd00n,
      write: (core, value) => {
        if (value & 0x400n && !(value & 0x800n)) return false
        if (core.host.writeMsr(0x1b, value) === false && core.host.readMsr(0x1b) !== undefined) return false
        core.set64(S.apicBase, value)
        return true
      },
    },
  ],
  [0x3a, { name: 'IA32_FEATURE_CONTROL', readOnly: true, reset: 1n }],
  [
    TSC_ADJUST,
    {
      name: 'IA32_TSC_ADJUST',
      write: (core, value) => (moveTsc(core, value - (core.msrs.get(TSC_ADJUST) ?? 0n)), true),
    },
  ],
  [0x79, { name: 'IA32_BIOS_UPDT_TRIG', write: () => true }],
  [0x8b, { name: 'IA32_BIOS_SIGN_ID', reset: 0n }],
  [0xfe, { name: 'IA32_MTRRCAP', readOnly: true, reset: 0x508n }],
  [0x10a, { name: 'IA32_ARCH_CAPABILITIES', readOnly: true, reset: ARCH_CAPABILITIES }],
  [
    0x174,
    {
      name: 'IA32_SYSENTER_CS',
      slot: S.sysenterCs,
      write: (core, value) => store(S.sysenterCs)(core, value & 0xffff_ffffn),
    },
  ],
  [0x175, { name: 'IA32_SYSENTER_ESP', slot: S.sysenterEsp, canonical: true }],
  [0x176, { name: 'IA32_SYSENTER_EIP', slot: S.sysenterEip, canonical: true }],
  [0x179, { name: 'IA32_MCG_CAP', readOnly: true, reset: 0n }],
  [0x17a, { name: 'IA32_MCG_STATUS', writable: 7n }],
  [0x1a0, { name: 'IA32_MISC_ENABLE', slot: S.miscEnable, writable: 0x1_0044_1889n | 0x4_0000_0000n }],
  [0x1d9, { name: 'IA32_DEBUGCTL', writable: 0n }],
  ...Array.from({ length: 8 }, (_, n): [number, Msr][] => [
    [
      0x200 + 2 * n,
      {
        name: `IA32_MTRR_PHYSBASE${n}`,
        write: storeIf(0x200 + 2 * n, (v) => memoryType(v & 0xffn) && (v & 0xf00n) === 0n && v >> 40n === 0n),
      },
    ],
    [0x201 + 2 * n, { name: `IA32_MTRR_PHYSMASK${n}`, writable: 0xff_ffff_f800n }],
  ]).flat(),
  ...[0x250, 0x258, 0x259, 0x268, 0x269, 0x26a, 0x26b, 0x26c, 0x26d, 0x26e, 0x26f].map((index): [number, Msr] => [
    index,
    { name: `IA32_MTRR_FIX_${index.toString(16)}`, write: storeIf(index, (v) => memoryTypes(v, false)) },
  ]),
  [
    0x277,
    { name: 'IA32_PAT', slot: S.pat, write: (core, value) => memoryTypes(value, true) && store(S.pat)(core, value) },
  ],
  [0x2ff, { name: 'IA32_MTRR_DEF_TYPE', write: storeIf(0x2ff, (v) => memoryType(v & 0xffn) && (v & ~0xcffn) === 0n) }],
  [0xda0, { name: 'IA32_XSS', slot: S.xss, writable: 0n }],
  [0xc000_0080, { name: 'IA32_EFER', slot: S.efer, write: writeEfer }],
  [0xc000_0081, { name: 'IA32_STAR', slot: S.star }],
  [0xc000_0082, { name: 'IA32_LSTAR', slot: S.lstar, canonical: true }],
  [0xc000_0083, { name: 'IA32_CSTAR', slot: S.cstar, canonical: true }],
  [0xc000_0084, { name: 'IA32_FMASK', slot: S.fmask, writable: 0xffff_ffffn }],
  [0xc000_0100, { name: 'IA32_FS_BASE', slot: segment(SEGMENT.fs) + SEG.base, canonical: true }],
  [0xc000_0101, { name: 'IA32_GS_BASE', slot: segment(SEGMENT.gs) + SEG.base, canonical: true }],
  [0xc000_0102, { name: 'IA32_KERNEL_GS_BASE', slot: S.kernelGsBase, canonical: true }],
  [0xc000_0103, { name: 'IA32_TSC_AUX', slot: S.tscAux, writable: 0xffff_ffffn }],
]

export const MSRS: ReadonlyMap<number, Msr> = new Map(rows)

/** undefined: no such register (#GP). */
export function readMsr(core: Core, index: number): bigint | undefined {
  const row = MSRS.get(index)
  if (!row) return core.host.readMsr(index)
  if (row.read) return row.read(core)
  return row.slot !== undefined ? core.get64(row.slot) : (core.msrs.get(index) ?? row.reset ?? 0n)
}

/** False: no such register, or an invalid value (#GP). */
export function writeMsr(core: Core, index: number, value: bigint): boolean {
  const row = MSRS.get(index)
  if (!row) return core.host.writeMsr(index, value)
  if (row.readOnly) return false
  if (row.writable !== undefined && value & ~row.writable) return false
  if (row.canonical && !isCanonical(core, value)) return false
  if (row.write) return row.write(core, value)
  if (row.slot !== undefined) core.set64(row.slot, value)
  else core.msrs.set(index, value)
  return true
}

/** By the address width in force (48 bits, or 57 with CR4.LA57). */
export function isCanonical(core: Core, value: bigint): boolean {
  const width = core.get32(S.cr4) & CR4.la57 ? 57 : 48
  return BigInt.asUintN(64, BigInt.asIntN(width, value)) === value
}

/** By its upper half, with an address width of 48 bits. */
export const isCanonical48 = (high: number): boolean => (high << 16) >> 16 === high
