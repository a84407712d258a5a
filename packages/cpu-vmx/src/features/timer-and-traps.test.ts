/** Exits that no instruction asks for: the preemption timer, the monitor trap flag. */
import { EVENT, NEXT, PROCEED } from '@nonroot/x86'
import { describe, expect, it } from 'vitest'
import { ExitControl, PinControl, ProcessorControl } from '../tables/controls.ts'
import { interruptionInfo, InterruptionType } from '../tables/interruption-info.ts'
import { createBench } from '../testing/bench.ts'
import { createLongModeBench, handler64 } from '../testing/long-mode.ts'
import { recordExits } from '../testing/record-exits.ts'
import { setControls } from '../testing/set-controls.ts'

const HLT = 0xf4
const NOP = 0x90
const UD2 = [0x0f, 0x0b]
const CPUID = [0x0f, 0xa2]
const SPIN = [0xeb, 0xfe]

/** A vCPU whose TSC counts instructions, under the timer. */
function timed(program: readonly number[], ticks: number, save = false) {
  const bench = createBench(program)
  const { vcpu, ports } = bench
  Object.assign(ports.clock, { tsc: () => BigInt(vcpu.instructionsRetired) })
  setControls(vcpu, { pin: PinControl.activatePreemptionTimer, exit: save ? ExitControl.savePreemptionTimer : 0 })
  vcpu.vmcs.write('preemptionTimer', ticks)
  return bench
}

describe('the preemption timer', () => {
  it.each([1000, 12_345, 100_000])('%i ticks: exits then, and not much later', (ticks) => {
    const { vcpu } = timed(SPIN, ticks)
    const at: number[] = []
    recordExits(vcpu, [], { preemptionTimer: () => (at.push(vcpu.instructionsRetired), PROCEED) })
    expect(vcpu.run(ticks * 2 + 2000)).toEqual({ reason: 'budget' })
    // Every entry loads it anew.
    expect(at.length).toBeGreaterThan(0)
    expect(at[0]).toBeGreaterThanOrEqual(ticks)
    expect(at[0]).toBeLessThan(ticks + 600)
    if (at[1] !== undefined) expect(at[1] - at[0]!).toBeGreaterThanOrEqual(ticks)
  })
  it('0: exits before the first instruction, but behind what the entry injects', () => {
    const { vcpu, setVector, guestMemory } = timed([NOP, HLT], 0)
    setVector(0x30, 0x1300)
    guestMemory.writeU8(0x1300, HLT)
    vcpu.vmcs.write('entryInterruptionInfo', interruptionInfo(EVENT.software, 0x30))
    const seen = recordExits(vcpu, ['preemptionTimer'])
    vcpu.run(1000)
    expect(seen[0]).toMatchObject({ rip: 0x1300n, length: 0, vectoring: 0 })
    expect(vcpu.accounting.counts()).toMatchObject({ preemptionTimer: 1, hlt: 1 })
  })
  it('saved: goes on where it was; otherwise every exit begins it anew', () => {
    const program = [
      ...Array.from({ length: 100 }, () => [NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, NOP, ...CPUID]).flat(),
    ]
    for (const save of [true, false]) {
      const { vcpu } = timed([...program, ...SPIN], 600, save)
      const at: number[] = []
      recordExits(vcpu, [], {
        preemptionTimer: (v) => {
          at.push(vcpu.instructionsRetired)
          v.vmcs.write32('preemptionTimer', 0xffff_ffff)
          return PROCEED
        },
      })
      vcpu.run(500)
      if (save) expect(vcpu.vmcs.read('preemptionTimer')).toBe(600 - vcpu.instructionsRetired)
      else expect(vcpu.vmcs.read('preemptionTimer')).toBe(600)
      vcpu.run(10_000)
      if (save) expect(at[0]).toBeLessThan(600 + 300)
      else expect(at[0]).toBeGreaterThan(1000 + 500)
    }
  })
  it('does nothing without its control', () => {
    const { vcpu } = timed(SPIN, 10)
    setControls(vcpu, { pin: PinControl.activatePreemptionTimer }, false)
    vcpu.run(5000)
    expect(vcpu.accounting.counts().preemptionTimer).toBeUndefined()
  })
})

describe('the monitor trap flag', () => {
  const trap = { processor: ProcessorControl.monitorTrapFlag }
  const rips = (seen: ReturnType<typeof recordExits>) => seen.map(({ rip }) => Number(rip))

  it('exits behind each instruction, those that exit by themselves included', () => {
    const { vcpu } = createBench([NOP, ...CPUID, NOP, 0xeb, 0x00, HLT])
    setControls(vcpu, trap)
    const seen = recordExits(vcpu, ['monitorTrapFlag'])
    vcpu.run(100)
    expect(rips(seen)).toEqual([0x1001, 0x1003, 0x1004, 0x1006, 0x1007])
    expect(seen.every(({ length, interruption }) => length === 0 && interruption === 0)).toBe(true)
  })
  it('behind each round of a repeated instruction', () => {
    const { vcpu } = createLongModeBench([0xf3, 0xaa, NOP, HLT])
    vcpu.writeState({ rcx: 3n, rdi: 0x5000n })
    setControls(vcpu, trap)
    const seen = recordExits(vcpu, ['monitorTrapFlag'])
    vcpu.run(100)
    expect(rips(seen).slice(0, 4)).toEqual([0x1000, 0x1000, 0x1002, 0x1003])
  })
  it('behind the delivery of the exception that the instruction ends in', () => {
    const { vcpu } = createLongModeBench([NOP, ...UD2, HLT])
    setControls(vcpu, trap)
    const seen = recordExits(vcpu, ['monitorTrapFlag'])
    vcpu.run(100)
    expect(rips(seen).slice(0, 2)).toEqual([0x1001, handler64(6)])
  })
  it('behind an injected event, before the first instruction of its handler', () => {
    const { vcpu } = createLongModeBench([NOP, HLT])
    setControls(vcpu, trap)
    vcpu.inject({ kind: 'exception', vector: 6 })
    const seen = recordExits(vcpu, ['monitorTrapFlag'])
    vcpu.run(100)
    expect(rips(seen)[0]).toBe(handler64(6))
  })
  it('can be injected itself: before the first instruction, without the control', () => {
    const { vcpu } = createBench([NOP, HLT])
    vcpu.vmcs.write('entryInterruptionInfo', interruptionInfo(InterruptionType.otherEvent, 0))
    const seen = recordExits(vcpu, ['monitorTrapFlag'])
    vcpu.run(100)
    expect(rips(seen)).toEqual([0x1000])
  })
  it('ends when its handler says so', () => {
    const { vcpu } = createBench([NOP, NOP, NOP, HLT])
    setControls(vcpu, trap)
    let times = 0
    recordExits(vcpu, [], {
      monitorTrapFlag: (v) => {
        if (++times === 2) v.setProcessorControl(ProcessorControl.monitorTrapFlag, false)
        return NEXT
      },
    })
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(times).toBe(2)
  })
})
