/** A bench whose vCPU runs 64-bit code on identity-mapped pages, its exceptions taken by handlers that halt. */

import type { VcpuStatePatch } from '@nonroot/contracts'
import { createBench, type PortsOverride } from './bench.ts'

const PML4 = 0x9000
const PDPT = 0xa000
const DIRECTORY = 0xb000
const IDT = 0xc000
const GDT = 0xd000
const TSS = 0xe000
const CODE_SELECTOR = 8
/** The handler of vector n is at HANDLERS + 4 n, and halts. */
export const HANDLERS_64 = 0x3000
export const handler64 = (vector: number): number => HANDLERS_64 + vector * 4

const PRESENT_WRITABLE_USER = 7n
const LARGE = 0x80n
const HLT = 0xf4

const flat = (selector: number, attributes: number) => ({ selector, base: 0n, limit: 0xffff_ffff, attributes })

export function createLongModeBench(program: readonly number[], override: PortsOverride = {}, cpl: 0 | 3 = 0) {
  const bench = createBench(program, override)
  const { guestMemory, vcpu } = bench
  guestMemory.writeU64(PML4, BigInt(PDPT) | PRESENT_WRITABLE_USER)
  guestMemory.writeU64(PDPT, BigInt(DIRECTORY) | PRESENT_WRITABLE_USER)
  guestMemory.writeU64(DIRECTORY, LARGE | PRESENT_WRITABLE_USER)
  guestMemory.writeU64(GDT + CODE_SELECTOR, 0x00af_9b00_0000_ffffn)
  for (let vector = 0; vector < 256; vector++) {
    const offset = handler64(vector)
    guestMemory.writeU32(IDT + vector * 16, (CODE_SELECTOR << 16) | (offset & 0xffff))
    guestMemory.writeU32(IDT + vector * 16 + 4, (offset & 0xffff_0000) | 0x8e00)
    guestMemory.writeU64(IDT + vector * 16 + 8, 0n)
    guestMemory.writeU8(offset, HLT)
  }
  // The TSS: RSP0, and no I/O bitmap.
  guestMemory.writeU64(TSS + 4, 0x7000n)
  guestMemory.writeU16(TSS + 0x66, 0xffff)
  const dpl = cpl << 5
  const data = flat(0x10 | cpl, 0xc093 | dpl)
  const state: VcpuStatePatch = {
    cr0: 0x8000_0033n,
    cr3: BigInt(PML4),
    cr4: 0x6a0n,
    efer: 0xd00n,
    cs: flat(CODE_SELECTOR | cpl, 0xa09b | dpl),
    ss: data,
    ds: data,
    es: data,
    fs: data,
    gs: data,
    tr: { selector: 0x18, base: BigInt(TSS), limit: 0x67, attributes: 0x8b },
    idtr: { base: BigInt(IDT), limit: 0xfff },
    gdtr: { base: BigInt(GDT), limit: 0xff },
    rflags: 2n,
    rsp: 0x8000n,
    rip: 0x1000n,
  }
  vcpu.writeState(state)
  return bench
}
