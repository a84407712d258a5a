/** RFLAGS as one number: gathered from, and stored to, the slots of the status flags. No BigInt. */
import type { Core } from './core.ts'
import { S } from './layout.ts'
import { DEFINED, FLAG, FLAGS_FIXED } from './register-bits.ts'

/** The bits of the status flags, and of all flags that can be set. */
export const STATUS_FLAGS = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF
export const OTHER_FLAGS =
  FLAG.TF | FLAG.IF | FLAG.DF | FLAG.IOPL | FLAG.NT | FLAG.RF | FLAG.VM | FLAG.AC | FLAG.VIF | FLAG.VIP | FLAG.ID
/** What SYSRET loads of R11: all but RF and VM. (SDM Vol. 2B, "SYSRET") */
export const SYSRET_FLAGS = (DEFINED.flags & ~(FLAG.RF | FLAG.VM)) | FLAGS_FIXED

export function readFlags(core: Core): number {
  const { i32 } = core
  const at = core.base >>> 2
  let flags = i32[at + (S.flags >>> 2)]! | i32[at + (S.cf >>> 2)]! | (i32[at + (S.af >>> 2)]! & FLAG.AF) | 2
  const low = i32[at + (S.sp >>> 2)]! & 0xff
  if (!((0x6996 >>> ((low ^ (low >>> 4)) & 15)) & 1)) flags |= FLAG.PF // 0x6996: odd parity of four bits
  if (i32[at + (S.zr >>> 2)] === 0 && i32[at + (S.zr >>> 2) + 1] === 0) flags |= FLAG.ZF
  if (i32[at + (S.sp >>> 2) + 1]! < 0) flags |= FLAG.SF
  if (i32[at + (S.of >>> 2) + 1]! < 0) flags |= FLAG.OF
  return flags
}

/** Sets every flag. The mode may have to be updated after it: VM, TF, AC. */
export function writeFlags(core: Core, flags: number): void {
  writeStatusFlags(core, flags)
  core.set32(S.flags, (flags & OTHER_FLAGS) | 2)
}

export function writeStatusFlags(core: Core, flags: number): void {
  core.set32(S.cf, flags & FLAG.CF)
  core.set32(S.af, flags & FLAG.AF)
  core.set32(S.of, 0)
  core.set32(S.of + 4, flags & FLAG.OF ? -0x8000_0000 : 0)
  core.set32(S.zr, flags & FLAG.ZF ? 0 : 1)
  core.set32(S.zr + 4, 0)
  core.set32(S.sp, flags & FLAG.PF ? 0 : 1)
  core.set32(S.sp + 4, flags & FLAG.SF ? -0x8000_0000 : 0)
}

export const ioPrivilege = (flags: number): number => (flags >>> 12) & 3
