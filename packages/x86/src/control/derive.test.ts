/** What a write to a control register leaves of the TLB, of segment bounds and of the mode, at both sides of each bit that matters. */
import { beforeEach, describe, expect, it } from 'vitest'
import { writeCr0, writeCr3, writeCr4 } from './control-registers.ts'
import { writeMsr } from './msrs.ts'
import { GuestFault, type Core } from '../state/core.ts'
import { S, SEG, segment, SEGMENT, TLB } from '../state/layout.ts'
import { CR0, CR4, EFER } from '../state/register-bits.ts'
import { BareMetal, PLACE } from '../testing/bare-metal.ts'

const HLT = [0xf4]
let machine: BareMetal
beforeEach(() => void (machine = new BareMetal()))

/** A page of code is in the TLB, not global. */
function filled(mode: 'protected' | 'long'): Core {
  machine.enter(mode)
  machine.run(HLT)
  return machine.core
}
const isKnown = (core: Core): boolean => core.get32(core.get32(S.tlb) - core.base + (PLACE.code >>> 12) * TLB.entry + TLB.execute) !== -1

describe('translations are dropped', () => {
  it.each<[string, boolean, (core: Core) => unknown]>([
    ['CR0.WP', true, (core) => writeCr0(core, core.get64(S.cr0) ^ BigInt(CR0.wp))],
    ['CR0.TS', false, (core) => writeCr0(core, core.get64(S.cr0) ^ BigInt(CR0.ts))],
    ['CR0 as it was', false, (core) => writeCr0(core, core.get64(S.cr0))],
    ['CR3 as it was', true, (core) => writeCr3(core, core.get64(S.cr3))],
    ['CR3 with bit 63 and PCIDs, as it was', false, (core) => (writeCr4(core, core.get64(S.cr4) | BigInt(CR4.pcide)), machine.run(HLT), writeCr3(core, core.get64(S.cr3) | (1n << 63n)))],
    ['CR4.PGE', true, (core) => writeCr4(core, core.get64(S.cr4) ^ BigInt(CR4.pge))],
    ['CR4.SMEP', true, (core) => writeCr4(core, core.get64(S.cr4) ^ BigInt(CR4.smep))],
    ['CR4.TSD', false, (core) => writeCr4(core, core.get64(S.cr4) ^ BigInt(CR4.tsd))],
    ['EFER.NXE', true, (core) => writeMsr(core, 0xc000_0080, core.get64(S.efer) ^ BigInt(EFER.nxe))],
    ['EFER.SCE', false, (core) => writeMsr(core, 0xc000_0080, core.get64(S.efer) ^ BigInt(EFER.sce))],
  ])('%s: %s', (_name, dropped, write) => {
    const core = filled('long')
    expect(isKnown(core)).toBe(true)
    write(core)
    expect(isKnown(core)).toBe(!dropped)
  })
})

it('segments without protection have bounds of their own', () => {
  const core = filled('protected')
  const bound = () => core.get64(segment(SEGMENT.cs) + SEG.writeBound)
  expect(bound()).toBe(0n)
  writeCr0(core, core.get64(S.cr0) & ~BigInt(CR0.pe))
  expect(bound()).not.toBe(0n)
})

it('PDPTEs with reserved bits leave everything as it was', () => {
  const core = filled('protected')
  machine.write64(PLACE.tables, 0x3n)
  core.set64(S.cr3, BigInt(PLACE.tables))
  writeCr4(core, core.get64(S.cr4) | BigInt(CR4.pae))
  const before = [core.get64(S.cr0), core.get64(S.efer), core.paging.kind]
  expect(() => writeCr0(core, core.get64(S.cr0) | BigInt(CR0.pg >>> 0))).toThrow(GuestFault)
  expect([core.get64(S.cr0), core.get64(S.efer), core.paging.kind]).toEqual(before)
})
