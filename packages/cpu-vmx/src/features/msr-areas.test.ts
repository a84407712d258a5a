/** MSRs that exits store and entries load. */
import { describe, expect, it } from 'vitest'
import { decodeExit } from '../exit/exit-qualification.ts'
import { HANDLERS } from '../hypervisor/exit-handlers.ts'
import { createLongModeBench } from '../testing/long-mode.ts'
import { recordExits } from '../testing/record-exits.ts'

const HLT = 0xf4
const CPUID = [0x0f, 0xa2]
const RDTSCP = [0x0f, 0x01, 0xf9]
const LSTAR = 0xc000_0082
const TSC_AUX = 0xc000_0103
const GS_BASE = 0xc000_0101
const X2APIC_TPR = 0x808
const UNKNOWN = 0x1234

function areas(program: readonly number[], store: [number, bigint][], load: [number, bigint][]) {
  const bench = createLongModeBench(program)
  const { vcpu, host } = bench
  const page = host.allocateFrame()!
  const put = (at: number, entries: [number, bigint][]) =>
    entries.forEach(([index, value], n) => {
      host.view.setUint32(page + at + n * 16, index, true)
      host.view.setUint32(page + at + n * 16 + 4, 0, true)
      host.view.setBigUint64(page + at + n * 16 + 8, value, true)
    })
  put(0, store)
  put(0x800, load)
  vcpu.vmcs.write('exitMsrStoreAddress', BigInt(page))
  vcpu.vmcs.write('exitMsrStoreCount', store.length)
  vcpu.vmcs.write('entryMsrLoadAddress', BigInt(page + 0x800))
  vcpu.vmcs.write('entryMsrLoadCount', load.length)
  const stored = (n: number): bigint => host.view.getBigUint64(page + n * 16 + 8, true)
  return { ...bench, stored, put }
}

describe('MSR areas', () => {
  it('are loaded by the entry, and stored by each exit as its handler begins', () => {
    const { vcpu, stored } = areas(
      [...CPUID, ...RDTSCP, HLT],
      [
        [LSTAR, 0n],
        [TSC_AUX, 0n],
      ],
      [
        [TSC_AUX, 0x77n],
        [LSTAR, 0xffff_8000_0000_1000n],
      ],
    )
    const seen: bigint[][] = []
    recordExits(vcpu, [], { cpuid: (v) => (seen.push([stored(0), stored(1)]), HANDLERS.cpuid(v)) })
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(seen).toEqual([[0xffff_8000_0000_1000n, 0x77n]])
    expect(vcpu.readState().rcx).toBe(0x77n)
  })
  it('what a handler changes in the area, the entry after it loads', () => {
    const { vcpu, put } = areas([...CPUID, ...RDTSCP, HLT], [], [[TSC_AUX, 1n]])
    recordExits(vcpu, [], { cpuid: (v) => (put(0x800, [[TSC_AUX, 2n]]), HANDLERS.cpuid(v)) })
    vcpu.run(100)
    expect(vcpu.readState().rcx).toBe(2n)
  })
  it.each([
    {
      name: 'an MSR that is none',
      entries: [
        [TSC_AUX, 1n],
        [UNKNOWN, 1n],
      ],
      failing: 2,
    },
    { name: 'a value it does not take', entries: [[TSC_AUX, 1n << 40n]], failing: 1 },
    { name: 'GS.base, which is in the guest state', entries: [[GS_BASE, 0n]], failing: 1 },
    { name: 'an MSR of the x2APIC', entries: [[X2APIC_TPR, 0n]], failing: 1 },
  ] as { name: string; entries: [number, bigint][]; failing: number }[])(
    '$name fails the entry',
    ({ entries, failing }) => {
      const { vcpu } = areas([HLT], [], entries)
      expect(vcpu.run(100)).toMatchObject({
        reason: 'failure',
        message: expect.stringContaining(`entry ${failing} of`),
      })
      expect(decodeExit(vcpu.vmcs)).toEqual({ reason: 'entryFailureMsrLoading', entry: failing })
      expect(vcpu.vmcs.read('exitReason')).toBe(0x8000_0022)
    },
  )
  it('what cannot be stored is a VMX abort, which ends the VM', () => {
    const { vcpu } = areas([...CPUID, HLT], [[UNKNOWN, 0n]], [])
    expect(vcpu.run(100)).toMatchObject({ reason: 'failure', message: expect.stringContaining('VMX abort: entry 1') })
  })
})
