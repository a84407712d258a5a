/** Local APICs alone: what is there, and what is not. */

import { VcpuVectors, type IoModelContext } from '@nonroot/contracts'
import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import type { PcInterruptController } from './apic/interrupt-controller.ts'
import { createLocalApics } from './local-apics.ts'

const SVR = 0x80f
const APIC_BASE = 0x1b
const X2APIC = 0xfee0_0d00n
const [SLEEP_ENABLE, S5] = [0x20, 5 << 2]

function create() {
  const bench = createDeviceBench()
  const model = createLocalApics(undefined, {
    ...bench.context,
    vcpuCount: 2,
    child: () => bench.context,
  } as unknown as IoModelContext)
  return { bench, model, apics: model.interruptController as PcInterruptController }
}

describe('local APICs', () => {
  it('are all there is: no lines, no I/O APIC, no 8259', () => {
    const { apics, model } = create()
    expect([apics.lines, apics.line(0)]).toEqual([0, undefined])
    expect(Object.keys(model.describe!())).toEqual(['localApic', 'reducedAcpi'])
  })

  it("keep a vector of the hypervisor's until the guest enables them", () => {
    const { model, apics } = create()
    const offered = model.offers!.get(VcpuVectors)!({} as never) as VcpuVectors
    const raise = (vcpu: number, vector: number): void => offered.raise(vcpu, vector)
    apics.writeMsr(1, APIC_BASE, X2APIC)
    raise(1, 0xf3)
    expect(apics.hasPending(1)).toBe(false)
    apics.writeMsr(1, SVR, 0x1ffn)
    expect([apics.hasPending(1), apics.hasPending(0), apics.acknowledge(1)]).toEqual([true, false, 0xf3])
    apics.writeMsr(1, 0x80b, 0n)
    apics.writeMsr(1, SVR, 0xffn)
    apics.writeMsr(1, SVR, 0x1ffn)
    expect(apics.hasPending(1)).toBe(false)
    raise(1, 0xf4)
    expect(apics.acknowledge(1)).toBe(0xf4)
  })

  it.each([
    ['before the guest enabled them', false],
    ['after', true],
  ])('keep a vector over INIT that was raised %s and not taken', (_when, enabled) => {
    const { model, apics } = create()
    const { raise } = model.offers!.get(VcpuVectors)!({} as never) as VcpuVectors
    const enable = (): void => {
      apics.writeMsr(1, APIC_BASE, X2APIC)
      apics.writeMsr(1, SVR, 0x1ffn)
    }
    if (enabled) enable()
    raise.call(apics, 1, 0xf3)
    apics.reset(1)
    expect(apics.hasPending(1)).toBe(false)
    enable()
    expect(apics.acknowledge(1)).toBe(0xf3)
    apics.reset(1)
    enable()
    expect(apics.hasPending(1)).toBe(false)
  })

  it('do not see an external vector: it needs no APIC and no end, and the last one counts', () => {
    const { apics, model } = create()
    const { raiseExternal } = model.offers!.get(VcpuVectors)!({} as never) as VcpuVectors
    raiseExternal.call(apics, 1, 0xf2)
    raiseExternal.call(apics, 1, 0xf3)
    expect([apics.hasPending(0), apics.hasPending(1), apics.acknowledge(1)]).toEqual([false, true, 0xf3])
    expect([apics.hasPending(1), apics.acknowledge(1)]).toEqual([false, -1])
    raiseExternal.call(apics, 1, 0xf3)
    apics.reset(1)
    expect(apics.hasPending(1)).toBe(false)
  })

  it('switch off at S5, and at nothing else', () => {
    const { bench } = create()
    for (const value of [S5, SLEEP_ENABLE, SLEEP_ENABLE | (3 << 2)]) bench.writePort(0x600, value)
    bench.writePort(0x601, SLEEP_ENABLE | S5)
    expect(bench.power).toEqual([])
    bench.writePort(0x600, SLEEP_ENABLE | S5)
    expect(bench.power).toEqual(['powerOff'])
  })
})
