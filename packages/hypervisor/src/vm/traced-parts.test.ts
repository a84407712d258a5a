import { gpa } from '@nonroot/contracts'
import type { InterruptController } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import type { KernelIoBus } from '../bus/index.ts'
import { TracedBus, traceInterrupts } from './traced-parts.ts'

const ADDRESS = gpa(0xfebf_0000)

describe('a traced bus', () => {
  it.each([
    ['readPort', [0x60, 1], 7, 'read'],
    ['writePort', [0x60, 1, 2], true, 'write'],
    ['readMmio', [ADDRESS, 4], 8, 'read'],
    ['writeMmio', [ADDRESS, 4, 9], false, 'write'],
    ['readMmio64', [ADDRESS], 10n, 'read'],
    ['writeMmio64', [ADDRESS, 11n], true, 'write'],
  ] as const)('%s passes, and is a span where a device answered', (method, args, answer, what) => {
    const spans: unknown[][] = []
    const calls: unknown[][] = []
    const bus = { currentOwner: 'uart' as string | undefined, [method]: (...given: unknown[]) => (calls.push(given), answer) }
    const traced = new TracedBus(bus as unknown as KernelIoBus, 2, (...span) => void spans.push(span))
    const call = () => (traced as unknown as Record<string, (...given: readonly unknown[]) => unknown>)[method]!(...args)
    expect(call()).toBe(answer)
    expect(spans.map(([track, name]) => [track, name])).toEqual([['vcpu2', `uart ${what}`]])
    const [, , started, ended] = spans[0] as [string, string, number, number]
    expect(ended).toBeGreaterThanOrEqual(started)
    bus.currentOwner = undefined
    expect(call()).toBe(answer)
    expect([calls, spans.length]).toEqual([[args, args], 1])
  })
})

describe('traced interrupts', () => {
  it('last from the first notice to the vector, each vCPU’s on a track of its own', async () => {
    let next = -1
    const woken: number[] = []
    const controller = { acknowledge: () => next } as unknown as InterruptController
    const spans: [string, string, number, number][] = []
    const sink = traceInterrupts(controller, { wake: (vcpu: number) => void woken.push(vcpu) } as never, (...span) => void spans.push(span))
    const before = performance.now()
    sink.wake(1)
    await new Promise((resolve) => setTimeout(resolve, 5))
    const later = performance.now()
    sink.wake(1)
    expect(woken).toEqual([1, 1])
    next = 0x31
    expect(controller.acknowledge(1)).toBe(0x31)
    const [track, name, started, ended] = spans[0]!
    expect([track, name]).toEqual(['vcpu1 interrupts', 'vector 0x31'])
    expect(started >= before && started < later && ended >= later).toBe(true)
    // Without notice: an instant. Vector 0 is one; none is no span.
    next = 0
    expect(controller.acknowledge(1)).toBe(0)
    expect(spans[1]!.slice(0, 2)).toEqual(['vcpu1 interrupts', 'vector 0x0'])
    expect(spans[1]![2]).toBe(spans[1]![3])
    next = -1
    expect([controller.acknowledge(0), spans.length]).toEqual([-1, 2])
  })
})
