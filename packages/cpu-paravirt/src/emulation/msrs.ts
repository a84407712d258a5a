/** MSRs that a paravirtual guest may read or write by the trapped instruction. What is in no row is its hypervisor's interface, or #GP. */

import { readMsr, S, writeMsr } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { EFER_VALUE, isCanonical, PAT } from '../facts.ts'

interface PvMsr {
  readonly index: number
  readonly name: string
  read?(core: Core): bigint | undefined
  /** False: #GP. Absent: written values go nowhere. */
  write?(core: Core, value: bigint): boolean
}

const own =
  (index: number) =>
  (core: Core): bigint | undefined =>
    readMsr(core, index)
/** Only what it holds may be written. */
const same =
  (value: bigint) =>
  (_core: Core, written: bigint): boolean =>
    written === value
const base = (index: number, name: string): PvMsr => ({
  index,
  name,
  read: own(index),
  write: (core, value) => isCanonical(value) && writeMsr(core, index, value),
})
/** Entry points: what the guest wants there it says by callbacks. */
const ignored = (index: number, name: string): PvMsr => ({ index, name })
const readable = (index: number, name: string): PvMsr => ({ index, name, read: own(index), write: () => false })

const ROWS: readonly PvMsr[] = [
  readable(0x10, 'IA32_TIME_STAMP_COUNTER'),
  readable(0x17, 'IA32_PLATFORM_ID'),
  { index: 0x1b, name: 'IA32_APIC_BASE', read: () => 0xfee0_0900n, write: same(0xfee0_0900n) },
  { index: 0x8b, name: 'IA32_BIOS_SIGN_ID', read: own(0x8b) },
  readable(0x10a, 'IA32_ARCH_CAPABILITIES'),
  ignored(0x174, 'IA32_SYSENTER_CS'),
  ignored(0x175, 'IA32_SYSENTER_ESP'),
  ignored(0x176, 'IA32_SYSENTER_EIP'),
  // No banks, and never a machine check: a kernel that finds MCA must be able to look.
  readable(0x179, 'IA32_MCG_CAP'),
  { index: 0x17a, name: 'IA32_MCG_STATUS', read: () => 0n, write: same(0n) },
  { index: 0x1a0, name: 'IA32_MISC_ENABLE', read: own(0x1a0), write: (core, value) => value === readMsr(core, 0x1a0) },
  { index: 0x277, name: 'IA32_PAT', read: () => PAT, write: same(PAT) },
  {
    index: 0xc000_0080,
    name: 'IA32_EFER',
    read: () => BigInt(EFER_VALUE.guest),
    write: same(BigInt(EFER_VALUE.guest)),
  },
  ignored(0xc000_0081, 'IA32_STAR'),
  ignored(0xc000_0082, 'IA32_LSTAR'),
  ignored(0xc000_0083, 'IA32_CSTAR'),
  ignored(0xc000_0084, 'IA32_FMASK'),
  base(0xc000_0100, 'IA32_FS_BASE'),
  base(0xc000_0101, 'IA32_GS_BASE'),
  {
    index: 0xc000_0102,
    name: 'IA32_KERNEL_GS_BASE',
    read: (core) => core.get64(S.kernelGsBase),
    write: (core, value) => isCanonical(value) && (core.set64(S.kernelGsBase, value), true),
  },
  {
    index: 0xc000_0103,
    name: 'IA32_TSC_AUX',
    read: own(0xc000_0103),
    write: (core, value) => writeMsr(core, 0xc000_0103, value),
  },
]
const BY_INDEX = new Map(ROWS.map((row) => [row.index, row]))

/** Undefined: #GP. */
export function readGuestMsr(core: Core, index: number): bigint | undefined {
  const row = BY_INDEX.get(index)
  return row ? (row.read ? row.read(core) : 0n) : core.host.readMsr(index)
}

/** False: #GP. */
export function writeGuestMsr(core: Core, index: number, value: bigint): boolean {
  const row = BY_INDEX.get(index)
  if (!row) return core.host.writeMsr(index, value)
  return row.write ? row.write(core, value) : true
}
