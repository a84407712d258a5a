/**
 * STI, MOV SS and POP SS hold events off for exactly one instruction, whatever that is and however it ends. (SDM Vol. 2B, "STI"; Vol. 3A, "Masking
 * Exceptions and Interrupts When Switching Stacks")
 */
import { IO_DEFERRED, VcpuSignal } from '@nonroot/contracts'
import { FLAG, PROCEED, S, shadowOf } from '@nonroot/x86'
import { describe, expect, it } from 'vitest'
import { HANDLERS } from '../hypervisor/exit-handlers.ts'
import { ProcessorControl } from '../tables/controls.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'
import { createBench } from '../testing/bench.ts'
import { recordExits } from '../testing/record-exits.ts'
import type { VmxGuest } from '../guest.ts'

const CODE = 0x1000
const HANDLER = 0x1300
const STI = 0xfb
const CLI = 0xfa
const NOP = 0x90
const HLT = 0xf4
const IRET = 0xcf
const MOV_SS = [0x8e, 0xd0]
const POP_SS = [0x17]
const PUSH_SS = 0x16
const OUT = [0xe6, 0x80]
const IN = [0xe4, 0x71]
const CPUID = [0x0f, 0xa2]
/** mov al, [0x40] with DS at FFFFH: no memory is there. */
const MMIO = [0xa0, 0x40, 0x00]
const SETUP = [0xb8, 0xff, 0xff, 0x8e, 0xd8, 0x31, 0xc0]

/** `cli; nop; nop; BEFORE` and then some, over and over, with an interrupt that comes again and again. RIPs at which interrupts came, less that of `cli`. */
function boundaries(shadowed: readonly number[], rest: readonly number[], slice: number): Set<number> {
  const at = new Set<number>()
  let next = 0
  const loop = [CLI, NOP, NOP, ...shadowed, ...rest]
  const program = [...SETUP, ...loop, 0xeb, -(loop.length + 2) & 0xff]
  const bench = createBench(program, {
    interrupts: {
      hasPending: () => bench.vcpu.instructionsRetired >= next,
      acknowledge: () => {
        at.add(Number(bench.vcpu.core.get64(S.rip)) - CODE - SETUP.length)
        // IRET and one more: a line that is always up stops the program.
        next = bench.vcpu.instructionsRetired + 2
        return 0x20
      },
    },
  })
  for (const vector of [0x20, 0x30]) bench.setVector(vector, HANDLER)
  bench.guestMemory.writeU8(HANDLER, IRET)
  for (let n = 0; n < 150; n++) bench.vcpu.run(slice + (n % 3))
  return at
}

/** Instructions behind the shadow. */
const COVERED: [string, number[]][] = [
  ['NOP', [NOP]],
  ['a load of MMIO', MMIO],
  ['OUT', OUT],
  ['IN', IN],
  ['CPUID', CPUID],
  ['JMP', [0xeb, 0]],
  ['JZ, taken or not', [0x74, 0]],
  ['LOOP', [0xe2, 0]],
  ['CALL', [0xe8, 0, 0, 0x5b]],
  ['PUSH', [0x50, 0x58]],
  ['PUSHF and POPF', [0x9c, 0x9d]],
  ['MOV to SS and back', [0x8c, 0xd3]],
  ['CLC', [0xf8]],
  ['INT n', [0xcd, 0x30]],
  ['REP MOVSB with nothing to do', [0xf3, 0xa4]],
  ['WBINVD', [0x0f, 0x09]],
  ['MOV CR0', [0x0f, 0x20, 0xc3]],
]

describe('interrupts come behind the covered instruction, not before it', () => {
  it.each(COVERED)('STI; %s', (_name, bytes) => {
    for (const slice of [1, 7]) {
      const at = boundaries([STI], [...bytes, NOP, NOP], slice)
      expect([slice, at.has(4), at.size > 0]).toEqual([slice, false, true])
    }
  })
  it.each<[string, number[], number[], number[]]>([
    ['STI; MOV SS; NOP', [STI, ...MOV_SS], [4, 6], [7]],
    ['STI; POP SS; NOP', [PUSH_SS, STI, ...POP_SS], [5, 6], [7]],
    ['STI; STI: the second does nothing', [STI, STI], [4], [5]],
    ['MOV SS under IF', [STI, NOP, ...MOV_SS], [4, 7], [5, 8]],
    ['MOV SS; MOV SS: the second covers nothing', [STI, NOP, ...MOV_SS, ...MOV_SS], [4, 7], [5, 9]],
    ['MOV DS covers nothing', [STI, NOP, 0x8e, 0xc0], [4], [5, 7]],
    // lss sp, [bx]: from memory that holds SP and 0.
    ['LSS covers nothing', [0x16, 0x1f, 0x89, 0x26, 0, 0x60, STI, NOP, 0x0f, 0xb2, 0x26, 0, 0x60], [10], [11, 16]],
  ])('%s', (_name, shadowed, never, always) => {
    for (const slice of [1, 7]) {
      const at = boundaries(shadowed, [NOP, NOP, NOP], slice)
      expect([slice, never.filter((rip) => at.has(rip))]).toEqual([slice, []])
      if (slice === 1) expect([slice, always.filter((rip) => !at.has(rip))]).toEqual([slice, []])
    }
  })
  it('NMIs wait as well, even with IF clear', () => {
    const at: number[] = []
    const bench = createBench([CLI, NOP, ...MOV_SS, NOP, HLT])
    bench.setVector(2, HANDLER)
    bench.guestMemory.writeU8(HANDLER, HLT)
    bench.vcpu.run(3)
    bench.signals.bits = VcpuSignal.nmi
    recordExits(bench.vcpu, [], {
      nmiWindow: (v) => (
        at.push(Number(v.core.get64(S.rip)) - CODE),
        v.setProcessorControl(ProcessorControl.nmiWindowExiting, false),
        PROCEED
      ),
    })
    expect(bench.vcpu.readState().interruptShadow).toBe('movSs')
    bench.vcpu.run(1000)
    expect([at, bench.vcpu.readState().rip]).toEqual([[5], BigInt(HANDLER + 1)])
  })
  it('STI; HLT: the halt is entered, and the interrupt ends it', () => {
    const bench = createBench([CLI, NOP, STI, HLT, ...OUT, CLI, HLT])
    bench.setVector(0x20, HANDLER)
    bench.guestMemory.writeBytes(HANDLER, Uint8Array.of(0xe6, 0x99, IRET))
    const seen = recordExits(bench.vcpu, ['hlt'])
    bench.pending.push(0x20)
    bench.vcpu.run(1000)
    expect(seen.map(({ rip }) => Number(rip) - CODE)).toEqual([3, 7])
    expect(bench.written.map(([port]) => port)).toEqual([0x99, 0x80])
  })
  it('a device that takes its time: its instruction is covered until it is done', () => {
    let tries = 0
    const at: number[] = []
    const bench = createBench([CLI, NOP, STI, ...IN, NOP, NOP, CLI, HLT], {
      io: { readPort: () => (tries++ ? 0x66 : IO_DEFERRED) },
      interrupts: {
        acknowledge: () => (at.push(Number(bench.vcpu.core.get64(S.rip)) - CODE), bench.pending.shift() ?? -1),
      },
    })
    bench.setVector(0x20, HANDLER)
    bench.guestMemory.writeU8(HANDLER, IRET)
    bench.pending.push(0x20)
    const exit = bench.vcpu.run(1000)
    expect([exit.reason, bench.vcpu.readState().interruptShadow, bench.vcpu.readState().rip]).toEqual([
      'portIo',
      'sti',
      BigInt(CODE + 3),
    ])
    if (exit.reason === 'portIo') exit.data = 0x66
    bench.vcpu.run(1000)
    expect(at).toEqual([5])
  })
})

describe('what an exit of the covered instruction tells', () => {
  const STI_BLOCKS = 1
  const MOV_SS_BLOCKS = 2
  it.each<[string, ExitReasonName, number[]]>([
    ['CPUID', 'cpuid', CPUID],
    ['OUT', 'ioInstruction', OUT],
    ['a load of MMIO', 'eptViolation', MMIO],
    ['RDMSR', 'rdmsr', [0xb1, 0x10, 0x0f, 0x32].slice(2)],
    ['HLT', 'hlt', [HLT]],
  ])('%s', (_name, reason, bytes) => {
    for (const [shadow, blocks] of [
      [[STI], STI_BLOCKS],
      [MOV_SS, MOV_SS_BLOCKS],
      [[STI, ...MOV_SS], MOV_SS_BLOCKS],
      [[STI, NOP], 0],
    ] as const) {
      const bench = createBench([...SETUP, 0x31, 0xc9, 0xb1, 0x10, CLI, NOP, ...shadow, ...bytes, ...bytes, CLI, HLT])
      const { core } = bench.vcpu
      const seen: number[] = []
      recordExits(bench.vcpu, [], {
        [reason]: (v: VmxGuest) => {
          if (core.get32(S.flags) & FLAG.IF || shadowOf(core)) seen.push(Number(v.vmcs.read('guestInterruptibility')))
          return HANDLERS[reason](v)
        },
      })
      bench.vcpu.run(1000)
      // What is read of the memory's tables is no access of the instruction's.
      const device = reason === 'eptViolation' ? seen.slice(-2) : seen.slice(0, 2)
      const both = reason === 'hlt' || blocks === MOV_SS_BLOCKS ? device.slice(0, 1) : device
      expect([shadow, both]).toEqual([shadow, both.length === 1 ? [blocks] : [blocks, 0]])
      expect(bench.vcpu.readState().interruptShadow).toBe('none')
    }
  })
})
