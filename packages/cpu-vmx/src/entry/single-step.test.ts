/** Single steps among interrupts, exits and halts: the trap of the last instruction comes first, and nothing starves. */
import { describe, expect, it } from 'vitest'
import type { createBench } from '../testing/bench.ts'
import { createLongModeBench, handler64 } from '../testing/long-mode.ts'

const TF = 0x100n
const IF = 0x200n
const STI = 0xfb
const CLI = 0xfa
const NOP = 0x90
const HLT = 0xf4
const CPUID = [0x0f, 0xa2]
const VMCALL = [0x0f, 0x01, 0xc1]
const MOV_CR8 = [0x44, 0x0f, 0x22, 0xc0]
const STEP = 0x91
const INTERRUPT = 0x99

/** Handlers of #DB and of vector 20H that write to a port each and return; code that begins under TF. */
function stepping(program: readonly number[], flags: bigint, override: Parameters<typeof createBench>[1] = {}) {
  const bench = createLongModeBench(program, override)
  bench.guestMemory.writeBytes(handler64(1), Uint8Array.of(0xe6, STEP, 0x48, 0xcf))
  bench.guestMemory.writeBytes(handler64(0x20), Uint8Array.of(0xe6, INTERRUPT, 0x48, 0xcf))
  // The data segment that IRET finds again.
  bench.guestMemory.writeU64(0xd010, 0x00cf_9300_0000_ffffn)
  bench.vcpu.writeState({ rflags: 2n | flags })
  return bench
}
const ports = ({ written }: { written: [number, number, number][] }) => written.map(([port]) => port)

describe('the single step', () => {
  it.each<[string, number[], bigint, number[]]>([
    ['behind STI comes before the interrupt', [STI, NOP, NOP, NOP], TF, [STEP, INTERRUPT, STEP, STEP]],
    ['and before one that waits at once', [NOP, NOP, NOP], TF | IF, [INTERRUPT, STEP, STEP]],
    ['with interrupts closed', [CLI, NOP, NOP], TF, [STEP, STEP, STEP]],
  ])('%s', (_name, program, flags, expected) => {
    const bench = stepping([...program, 0xeb, 0xfe], flags)
    bench.pending.push(0x20)
    bench.vcpu.run(1000)
    expect(ports(bench).slice(0, expected.length)).toEqual(expected)
  })
  it('behind MOV CR8, which opens the way for an interrupt', () => {
    const bench = stepping([...MOV_CR8, NOP, NOP, 0xeb, 0xfe], TF | IF, {
      interrupts: { writeTaskPriority: () => void bench.pending.push(0x20) },
    })
    bench.vcpu.run(1000)
    expect(ports(bench).slice(0, 4)).toEqual([STEP, INTERRUPT, STEP, STEP])
  })
  it('behind HLT ends the halt', () => {
    const bench = stepping([NOP, HLT, NOP, 0xeb, 0xfe], TF)
    expect(bench.vcpu.run(100).reason).toBe('budget')
    expect(ports(bench).slice(0, 3)).toEqual([STEP, STEP, STEP])
  })
  it.each<[string, number[]]>([
    ['CPUID', CPUID],
    ['a hypercall', VMCALL],
  ])('behind %s, which exits', (_name, code) => {
    const bench = stepping([...code, NOP, HLT], TF, { abi: { hypercall: () => 'exit' } })
    while (bench.vcpu.run(100).reason === 'hypercall');
    expect(ports(bench).slice(0, 2)).toEqual([STEP, STEP])
  })
})

it('interrupts under TF: one behind each step', () => {
  const bench = stepping([NOP, 0xeb, 0xfd], TF | IF, {
    io: {
      writePort: (port) => {
        bench.written.push([port, 1, 0])
        if (port === STEP) bench.pending.push(0x20)
        return true
      },
    },
  })
  bench.vcpu.run(3000)
  const count = (port: number) => ports(bench).filter((p) => p === port).length
  expect(count(STEP)).toBeGreaterThan(300)
  expect(Math.abs(count(STEP) - count(INTERRUPT))).toBeLessThan(2)
})
