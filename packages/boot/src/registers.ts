/** Initial registers of the entry states that boot protocols define: flat protected mode, and long mode on an identity map. */
import { CR0_64, CR4_64, EFER_64, FLAGS_FIXED, PAGE_ENTRY } from '@nonroot/contracts'
import type { SegmentState, VcpuStatePatch } from '@nonroot/contracts'
import type { Placement } from './placement.ts'

// Access rights as VMX keeps them: type, S, DPL, P, then AVL, L, D/B, G. (SDM Vol. 3C, "Guest Register State")
const CODE_32 = 0xc09b
const CODE_64 = 0xa09b
const DATA = 0xc093
const BUSY_TSS = 0x008b
const UNUSABLE = 0x10000

const flat = (selector: number, attributes: number): SegmentState => ({
  selector,
  base: 0n,
  limit: 0xffffffff,
  attributes,
})

/** Linux asks for these selectors (__BOOT_CS, __BOOT_DS); others do not care. */
const CODE_SELECTOR = 0x10
const DATA_SELECTOR = 0x18

const GDT_32 = [0n, 0n, 0x00cf9b000000ffffn, 0x00cf93000000ffffn]
const GDT_64 = [0n, 0n, 0x00af9b000000ffffn, 0x00cf93000000ffffn]

const toBytes = (words: readonly bigint[]): Uint8Array => new Uint8Array(BigUint64Array.from(words).buffer)

type Entry = Pick<VcpuStatePatch, 'rax' | 'rbx' | 'rcx' | 'rdx' | 'rsi' | 'rdi' | 'rbp' | 'rsp'> & {
  readonly rip: bigint
}

const NO_REGISTERS = { rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n, rsi: 0n, rdi: 0n, rbp: 0n, rsp: 0n }

const common = (placement: Placement, gdt: readonly bigint[], code: number): VcpuStatePatch => {
  const table = toBytes(gdt)
  return {
    ...NO_REGISTERS,
    rflags: BigInt(FLAGS_FIXED),
    cs: flat(CODE_SELECTOR, code),
    ss: flat(DATA_SELECTOR, DATA),
    ds: flat(DATA_SELECTOR, DATA),
    es: flat(DATA_SELECTOR, DATA),
    fs: flat(DATA_SELECTOR, DATA),
    gs: flat(DATA_SELECTOR, DATA),
    ldtr: { selector: 0, base: 0n, limit: 0, attributes: UNUSABLE },
    tr: { selector: 0, base: 0n, limit: 0x67, attributes: BUSY_TSS },
    gdtr: { base: BigInt(placement.low('GDT', table)), limit: table.length - 1 },
    idtr: { base: 0n, limit: 0 },
    cr2: 0n,
    cr3: 0n,
    cr4: 0n,
    efer: 0n,
    activity: 'active',
    interruptShadow: 'none',
    nmiBlocked: false,
  }
}

/** 32-bit protected mode, flat segments, no paging, interrupts off. */
export const protectedMode = (placement: Placement, entry: Entry): VcpuStatePatch => ({
  ...common(placement, GDT_32, CODE_32),
  cr0: CR0_64.pe | CR0_64.et,
  ...entry,
})

/** 64-bit mode, interrupts off, the first 4 GiB mapped to themselves in 2 MiB pages. */
export const longMode = (placement: Placement, entry: Entry): VcpuStatePatch => ({
  ...common(placement, GDT_64, CODE_64),
  cr0: CR0_64.pe | CR0_64.et | CR0_64.ne | CR0_64.pg,
  cr3: BigInt(identityMap(placement)),
  cr4: CR4_64.pae,
  efer: EFER_64.lme | EFER_64.lma,
  ...entry,
})

const GIBIBYTES = 4 // all that 32-bit structures can name
const PRESENT_WRITABLE = BigInt(PAGE_ENTRY.present | PAGE_ENTRY.writable)
const LARGE = BigInt(PAGE_ENTRY.large)

/** PML4, one page-directory-pointer table, four page directories; gives the PML4's address. */
function identityMap(placement: Placement): number {
  const ENTRIES = 512
  const tables = new BigUint64Array((2 + GIBIBYTES) * ENTRIES)
  const start = placement.low('page tables', new Uint8Array(tables.buffer), 4096)
  const address = (table: number) => BigInt(start + table * 4096) | PRESENT_WRITABLE
  tables[0] = address(1)
  for (let gibibyte = 0; gibibyte < GIBIBYTES; gibibyte++) {
    tables[ENTRIES + gibibyte] = address(2 + gibibyte)
    for (let page = 0; page < ENTRIES; page++) {
      tables[(2 + gibibyte) * ENTRIES + page] =
        BigInt((gibibyte * ENTRIES + page) * 0x200000) | PRESENT_WRITABLE | LARGE
    }
  }
  placement.write(start, new Uint8Array(tables.buffer))
  return start
}
