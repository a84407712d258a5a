import { IO_DEFERRED, VcpuSignal } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { createBench } from './testing/bench.ts'

const HLT = 0xf4
const STI = 0xfb
const CLI = 0xfa
const NOP = 0x90
const OUT_AL = (port: number) => [0xe6, port]
const IN_AL = (port: number) => [0xe4, port]
const MOV_AL = (value: number) => [0xb0, value]
const CPUID = [0x0f, 0xa2]
const MOV_ECX = (value: number) => [0x66, 0xb9, value & 0xff, (value >>> 8) & 0xff, (value >>> 16) & 0xff, value >>> 24]
const RDMSR = [0x0f, 0x32]
const VMCALL = [0x0f, 0x01, 0xc1]
const IRET = 0xcf

describe('exits that the roles settle', () => {
  it('CPUID: the processor model, then the ABI', () => {
    const { vcpu } = createBench([0x66, 0x31, 0xc0, ...CPUID, HLT], {
      abi: { cpuid: (_v, _leaf, _sub, result) => void (result.ecx = 0x1234) },
    })
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    const { rbx, rcx } = vcpu.readState()
    expect(rbx).toBe(BigInt(0x756e_6547))
    expect(rcx).toBe(0x1234n)
    expect(vcpu.accounting.counts()).toMatchObject({ cpuid: 1, hlt: 1 })
  })

  it('ports', () => {
    const { vcpu, written } = createBench([...IN_AL(0x71), ...OUT_AL(0x80), HLT])
    vcpu.run(100)
    expect(written).toEqual([[0x80, 1, 0x71]])
    expect(vcpu.accounting.counts()).toMatchObject({ ioInstruction: 2 })
  })

  it('memory that is none: MMIO', () => {
    // mov ax, 0xffff; mov ds, ax; mov al, [0x10 + ...]: above 1 MiB there is no RAM.
    const { vcpu, written } = createBench([0xb8, 0xff, 0xff, 0x8e, 0xd8, 0xa0, 0x34, 0x00, 0xa2, 0x40, 0x00, HLT])
    vcpu.run(100)
    expect(written).toEqual([[0x10_0030, 1, 0x24]])
    expect(vcpu.accounting.counts().eptViolation).toBeGreaterThan(1)
  })

  it('an MSR that nobody knows is #GP', () => {
    const { vcpu, setVector, guestMemory } = createBench([...MOV_ECX(0x4b56_4d99), ...RDMSR, HLT])
    setVector(13, 0x1100)
    guestMemory.writeU8(0x1100, HLT)
    vcpu.run(100)
    expect(vcpu.readState().rip).toBe(0x1101n)
  })

  it('a hypercall: to the ABI, to the VM, or undefined', () => {
    const done = createBench([...VMCALL, HLT], { abi: { hypercall: (v) => ((v.registers.rax = 9n), 'done') } })
    done.vcpu.run(100)
    expect(done.vcpu.readState().rax).toBe(9n)

    const exit = createBench([...VMCALL, HLT], { abi: { hypercall: () => 'exit' } })
    exit.vcpu.writeState({ rax: 5n })
    expect(exit.vcpu.run(100)).toMatchObject({ reason: 'hypercall', number: 5n })
    exit.vcpu.completeHypercall(77n)
    expect(exit.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(exit.vcpu.readState()).toMatchObject({ rax: 77n, rip: 0x1004n })

    const unknown = createBench([...VMCALL, HLT])
    unknown.setVector(6, 0x1200)
    unknown.guestMemory.writeU8(0x1200, HLT)
    unknown.vcpu.run(100)
    expect(unknown.vcpu.readState().rip).toBe(0x1201n)
  })

  it('VMX instructions are undefined: it is not advertised', () => {
    const { vcpu, setVector, guestMemory } = createBench([0x0f, 0x01, 0xc2, HLT])
    setVector(6, 0x1200)
    guestMemory.writeU8(0x1200, HLT)
    vcpu.run(100)
    expect(vcpu.readState().rip).toBe(0x1201n)
  })
})

describe('interrupts', () => {
  const handler = (bench: ReturnType<typeof createBench>, vector: number) => {
    bench.setVector(vector, 0x1300)
    bench.guestMemory.writeBytes(0x1300, Uint8Array.of(...MOV_AL(0xaa), ...OUT_AL(0x99), IRET))
  }

  it('go in while IF is set, and wake from HLT', () => {
    const bench = createBench([STI, HLT, ...MOV_AL(1), ...OUT_AL(0x80), CLI, HLT])
    handler(bench, 0x20)
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(bench.vcpu.interruptWindow).toBe(true)
    bench.pending.push(0x20)
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(bench.written).toEqual([
      [0x99, 1, 0xaa],
      [0x80, 1, 1],
    ])
    expect(bench.vcpu.interruptWindow).toBe(false)
  })

  it('wait for the window: not before IF, not in the shadow of STI', () => {
    const bench = createBench([CLI, NOP, ...OUT_AL(0x80), STI, ...OUT_AL(0x81), ...OUT_AL(0x82), HLT])
    handler(bench, 0x20)
    bench.pending.push(0x20)
    bench.vcpu.run(1000)
    expect(bench.written.map(([port]) => port)).toEqual([0x80, 0x81, 0x99, 0x82])
  })

  it('that a device raises in the middle of a slice go in soon', () => {
    const bench = createBench([STI, ...OUT_AL(0x80), 0xeb, 0xfe], {
      io: { writePort: (port) => (port === 0x80 ? bench.pending.push(0x20) : bench.written.push([port, 1, 0]), true) },
    })
    handler(bench, 0x20)
    bench.vcpu.run(1000)
    expect(bench.written.map(([port]) => port)).toEqual([0x99])
  })

  it('NMI: once, until IRET', () => {
    const bench = createBench([NOP, NOP, NOP, HLT])
    bench.setVector(2, 0x1300)
    bench.guestMemory.writeBytes(0x1300, Uint8Array.of(...OUT_AL(0x99), HLT, IRET))
    bench.signals.bits = VcpuSignal.nmi
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(bench.vcpu.readState().nmiBlocked).toBe(true)
    bench.vcpu.inject({ kind: 'nmi' })
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(bench.written).toHaveLength(1)
  })

  it.each([
    { before: 1, during: 0, runs: 1 },
    { before: 2, during: 0, runs: 2 },
    { before: 3, during: 0, runs: 2 },
    { before: 1, during: 1, runs: 2 },
    { before: 1, during: 3, runs: 2 },
    { before: 2, during: 3, runs: 2 },
  ])('NMIs: $before before it runs, $during in the handler: one runs, one waits', ({ before, during, runs }) => {
    let left = during
    const bench = createBench([NOP, NOP, HLT], {
      io: {
        writePort: (port, size, value) => {
          for (; left > 0; left--) bench.vcpu.inject({ kind: 'nmi' })
          return (bench.written.push([port, size, value]), true)
        },
      },
    })
    bench.setVector(2, 0x1300)
    bench.guestMemory.writeBytes(0x1300, Uint8Array.of(...OUT_AL(0x99), IRET))
    for (let count = 0; count < before; count++) bench.vcpu.inject({ kind: 'nmi' })
    expect(bench.vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(bench.written).toHaveLength(runs)
  })

  const FNCLEX = [0xdb, 0xe2]
  const FWAIT = 0x9b
  /** From a word at this address. */
  const fldcw = (at: number): number[] => [0xd9, 0x2e, at & 0xff, at >> 8]
  const UNMASKED = 0x1200
  const MASKED = 0x1202
  const DIVIDE_BY_ZERO = [0xd9, 0xee, 0xd9, 0xe8, 0xd8, 0xf1]
  it.each([
    {
      what: 'waits for the interrupt that FERR# brings',
      program: [FWAIT, ...OUT_AL(0x80), FWAIT],
      handler: [...FNCLEX, ...OUT_AL(0x99)],
      ignored: [false],
      ports: [0x99, 0x80],
      isNew: [true],
    },
    {
      what: 'goes on under IGNNE#, with the exception pending',
      program: [FWAIT, ...OUT_AL(0x80), FWAIT],
      handler: OUT_AL(0x99),
      ignored: [false, true, true],
      ports: [0x99, 0x80],
      isNew: [true, false, false],
    },
    {
      what: 'is another one behind FNCLEX',
      program: [FWAIT, ...FNCLEX, ...DIVIDE_BY_ZERO, FWAIT],
      handler: [],
      ignored: [true, true],
      ports: [],
      isNew: [true, true],
    },
    {
      what: 'is another one once it was masked',
      program: [FWAIT, ...fldcw(MASKED), ...fldcw(UNMASKED), FWAIT],
      handler: [],
      ignored: [true, true, true],
      ports: [],
      isNew: [true, false, true],
    },
    {
      what: 'is the same one behind a control word that leaves it unmasked',
      program: [FWAIT, ...fldcw(UNMASKED), FWAIT],
      handler: [],
      ignored: [true, true, true],
      ports: [],
      isNew: [true, false, false],
    },
  ])('an x87 exception with CR0.NE clear $what', ({ program, handler: code, ignored, ports, isNew }) => {
    const seen: boolean[] = []
    const answers = [...ignored]
    const bench = createBench([STI, 0xdb, 0xe3, ...fldcw(UNMASKED), ...DIVIDE_BY_ZERO, ...program, HLT], {
      numericErrors: {
        assertFerr(_vcpu, fresh) {
          seen.push(fresh)
          const answer = answers.shift()!
          if (!answer) bench.pending.push(0x20)
          return answer
        },
      },
    })
    bench.guestMemory.writeU16(UNMASKED, 0x37b)
    bench.guestMemory.writeU16(MASKED, 0x37f)
    bench.setVector(0x20, 0x1300)
    bench.guestMemory.writeBytes(0x1300, Uint8Array.of(...code, IRET))
    expect(bench.vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(bench.written.map(([port]) => port)).toEqual(ports)
    expect(seen).toEqual(isNew)
  })

  it('an exception can be injected', () => {
    const bench = createBench([NOP, HLT])
    bench.setVector(6, 0x1300)
    bench.guestMemory.writeU8(0x1300, HLT)
    bench.vcpu.inject({ kind: 'exception', vector: 6 })
    bench.vcpu.run(100)
    expect(bench.vcpu.readState().rip).toBe(0x1301n)
  })

  it('an application processor waits for INIT and SIPI', () => {
    const bench = createBench([], {}, 1)
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    bench.guestMemory.writeBytes(0x5000, Uint8Array.of(...OUT_AL(0x80), HLT))
    bench.signals.bits = VcpuSignal.init | VcpuSignal.startup
    bench.signals.startup = 5
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(bench.written).toHaveLength(1)
    expect(bench.vcpu.readState().cs).toMatchObject({ selector: 0x500, base: 0x5000n })
    expect(bench.vcpu.accounting.counts()).toMatchObject({ init: 1, startup: 1 })
  })
})

describe('the neutral exits', () => {
  it('budget: exact to a block, and time goes on for the least of them', () => {
    const { vcpu } = createBench([...Array<number>(32).fill(NOP), HLT])
    expect(vcpu.run(5)).toEqual({ reason: 'budget' })
    expect(vcpu.instructionsRetired).toBe(5)
    for (let i = 6; i <= 10; i++) {
      vcpu.run(1)
      expect(vcpu.instructionsRetired).toBe(i)
    }
  })

  it('kick: the next run ends at once', () => {
    const { vcpu } = createBench([0xeb, 0xfe])
    vcpu.kick()
    expect(vcpu.run(1000)).toEqual({ reason: 'budget' })
    expect(vcpu.instructionsRetired).toBe(0)
    vcpu.run(1000)
    expect(vcpu.instructionsRetired).toBeGreaterThan(900)
  })

  it('a triple fault is a shutdown', () => {
    const { vcpu } = createBench([0x0f, 0x0b])
    vcpu.writeState({ idtr: { base: 0n, limit: 0 } })
    expect(vcpu.run(100)).toEqual({ reason: 'shutdown' })
    expect(vcpu.run(100)).toEqual({ reason: 'shutdown' })
    vcpu.reset('powerUp')
    expect(vcpu.readState()).toMatchObject({ rip: 0xfff0n, activity: 'active' })
  })

  it('a failed entry names its check', () => {
    const { vcpu } = createBench([NOP, HLT])
    vcpu.writeState({ tr: { selector: 0, base: 0n, limit: 0x67, attributes: 0x89 } })
    expect(vcpu.run(100)).toMatchObject({ reason: 'failure', message: expect.stringContaining("'guest.tr.type'") })
  })

  it('a deferred port read is completed by its caller', () => {
    const { vcpu, written } = createBench([...IN_AL(0x42), ...OUT_AL(0x80), HLT], {
      io: { readPort: () => IO_DEFERRED },
    })
    const exit = vcpu.run(100)
    expect(exit).toEqual({ reason: 'portIo', write: false, port: 0x42, size: 1, data: 0 })
    if (exit.reason === 'portIo') exit.data = 0x66
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(written).toEqual([[0x80, 1, 0x66]])
    expect(vcpu.instructionsRetired).toBe(3)
  })

  it('a deferred MMIO write is done once', () => {
    let tries = 0
    const program = [0xb8, 0xff, 0xff, 0x8e, 0xd8, ...MOV_AL(0x77), 0xa2, 0x40, 0x00, HLT]
    const { vcpu } = createBench(program, { io: { writeMmio: () => ++tries > 1 } })
    expect(vcpu.run(100)).toMatchObject({ reason: 'mmio', write: true, address: 0x10_0030, size: 1, data: 0x77 })
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(tries).toBe(1)
  })
})

describe('state', () => {
  it('goes out and in again', () => {
    const bench = createBench([...MOV_AL(3), NOP, NOP, HLT])
    bench.vcpu.run(2)
    const saved = bench.vcpu.save()
    const before = bench.vcpu.readState()
    bench.vcpu.reset('powerUp')
    bench.vcpu.restore(structuredClone(saved))
    expect(bench.vcpu.readState()).toEqual(before)
    expect(bench.vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(() => bench.vcpu.restore({ type: 'vcpu.kvm', version: 1, data: {} })).toThrow(/does not fit vcpu/)
  })

  it('is seen through the VMCS by field name, and synchronised into its region', () => {
    const { vcpu } = createBench([NOP, HLT])
    vcpu.writeState({ rbx: 1n, rip: 0x1001n })
    expect(vcpu.vmcs.read('guestRip')).toBe(0x1001n)
    expect(vcpu.vmcs.read('guestCr4') & 0x2000n).toBe(0x2000n)
    expect(vcpu.vmcs.read('cr4ReadShadow') & 0x2000n).toBe(0n)
    expect(vcpu.vmcs.stored('guestRip')).toBe(0n)
    vcpu.synchronise()
    expect(vcpu.vmcs.stored('guestRip')).toBe(0x1001n)
  })

  it('leaves no frame behind', () => {
    const { vcpu, host, guestMemory, tableFrames } = createBench([NOP, HLT])
    vcpu.run(100)
    vcpu.dispose()
    expect(host.totalFrames - host.freeFrames - 1).toBe(guestMemory.residentFrames + tableFrames())
  })
})
