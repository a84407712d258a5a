/** Exits in the middle of event delivery, the exception bitmap, and the windows that events wait for. */
import { VcpuSignal } from '@nonroot/contracts'
import { EVENT, NEXT, S } from '@nonroot/x86'
import { describe, expect, it } from 'vitest'
import { ProcessorControl } from '../tables/controls.ts'
import { HANDLERS } from '../hypervisor/exit-handlers.ts'
import { InterruptionBit, interruptionInfo } from '../tables/interruption-info.ts'
import { createBench } from '../testing/bench.ts'
import { recordExits } from '../testing/record-exits.ts'

const HLT = 0xf4
const STI = 0xfb
const NOP = 0x90
const IRET = 0xcf
const UD2 = [0x0f, 0x0b]
const INT3 = 0xcc
const INT = (vector: number) => [0xcd, vector]
const OUT_AL = (port: number) => [0xe6, port]
/** Where handlers lie: not on the program's page. */
const HANDLER = 0x2300
const STACK = 0x8000

type Bench = ReturnType<typeof createBench>
/** A handler that tells of itself and returns. */
const handle = (bench: Bench, vector: number, code: readonly number[] = [...OUT_AL(0x99), IRET]): void => {
  bench.setVector(vector, HANDLER)
  bench.guestMemory.writeBytes(HANDLER, Uint8Array.from(code))
}
const ports = (bench: Bench) => bench.written.map(([port]) => port)

describe('IDT-vectoring information', () => {
  it.each([
    {
      name: 'an external interrupt',
      program: [STI, NOP, NOP, HLT],
      cause: (b: Bench) => b.pending.push(0x20),
      vector: 0x20,
      vectoring: interruptionInfo(EVENT.external, 0x20),
      length: 0,
    },
    {
      name: 'an NMI',
      program: [NOP, HLT],
      cause: (b: Bench) => (b.signals.bits = VcpuSignal.nmi),
      vector: 2,
      vectoring: interruptionInfo(EVENT.nmi, 2),
      length: 0,
    },
    {
      name: 'an exception',
      program: [NOP, ...UD2, HLT],
      cause: () => {},
      vector: 6,
      vectoring: interruptionInfo(EVENT.exception, 6),
      length: 0,
    },
    {
      name: 'INT n',
      program: [NOP, ...INT(0x40), HLT],
      cause: () => {},
      vector: 0x40,
      vectoring: interruptionInfo(EVENT.software, 0x40),
      length: 2,
    },
    {
      name: 'INT3',
      program: [NOP, INT3, HLT],
      cause: () => {},
      vector: 3,
      vectoring: interruptionInfo(EVENT.softwareException, 3),
      length: 1,
    },
  ])('$name: an EPT violation on the way to the handler', ({ program, cause, vector, vectoring, length }) => {
    const bench = createBench(program)
    handle(bench, vector, [...OUT_AL(0x99), HLT])
    const seen = recordExits(bench.vcpu, ['eptViolation'])
    cause(bench)
    bench.vcpu.run(1000)
    // The vector table, then the stack.
    const during = seen.filter((exit) => exit.vectoring)
    expect(during.map((exit) => [exit.vectoring, exit.length])).toEqual([
      [vectoring, length],
      [vectoring, length],
    ])
    expect(during.map(({ exit }) => 'guestPhysical' in exit && exit.guestPhysical >> 12)).toEqual([0, 7])
    expect(ports(bench)).toEqual([0x99])
    // The instruction fetch that follows belongs to no delivery.
    expect(seen.at(-1)!.vectoring).toBe(0)
  })

  it.each([
    { name: 'an external interrupt', program: [STI, NOP, NOP, HLT], vector: 0x20, returnTo: 0x1002 },
    { name: 'INT n', program: [NOP, ...INT(0x40), HLT], vector: 0x40, returnTo: 0x1003 },
    { name: 'INT3', program: [NOP, INT3, HLT], vector: 3, returnTo: 0x1002 },
    { name: 'an exception', program: [NOP, ...UD2, HLT], vector: 6, returnTo: 0x1001 },
  ])('$name is injected again when the handler of such an exit leaves', ({ program, vector, returnTo }) => {
    const bench = createBench(program)
    const { vcpu } = bench
    handle(bench, vector, [...OUT_AL(0x99), HLT])
    let left = 0
    const held: number[] = []
    recordExits(vcpu, [], {
      eptViolation: (v) => {
        if (!v.core.delivering || left++ > 2) return HANDLERS.eptViolation(v)
        held.push(v.vmcs.read('idtVectoringInfo'))
        return v.leave()
      },
    })
    if (vector === 0x20) bench.pending.push(vector)
    vcpu.run(1000)
    expect(held).toHaveLength(3)
    expect(new Set(held).size).toBe(1)
    expect(ports(bench)).toEqual([0x99])
    expect(vcpu.readState().rsp).toBe(BigInt(STACK - 6))
    expect(bench.guestMemory.readU16(STACK - 6)).toBe(returnTo)
    expect(vcpu.events.isInjecting).toBe(false)
  })

  it('an NMI that was cut short does not stand in its own way', () => {
    // When it is injected again nothing blocks it. (SDM Vol. 3C, "Checks on Guest Non-Register State")
    const blocked: number[] = []
    let left = false
    const bench = createBench([NOP, NOP, HLT], {
      interrupts: {
        signals: () => {
          if (left) blocked.push(bench.vcpu.core.get32(S.nmiBlocked))
          return bench.signals.bits
        },
      },
    })
    handle(bench, 2, [...OUT_AL(0x99), HLT])
    recordExits(bench.vcpu, [], {
      eptViolation: (v) => {
        if (!v.core.delivering || left) return HANDLERS.eptViolation(v)
        left = true
        expect(v.core.get32(S.nmiBlocked)).toBe(1)
        return v.leave()
      },
    })
    bench.signals.bits = VcpuSignal.nmi
    bench.vcpu.run(1000)
    expect(ports(bench)).toEqual([0x99])
    expect(bench.vcpu.readState().nmiBlocked).toBe(true)
    expect(blocked[0]).toBe(0)
  })

  it('a device on the way that takes its time: the event is neither lost nor delivered twice', () => {
    // The stack lies behind the end of memory.
    let deferred = false
    const stack: number[] = []
    const bench = createBench([STI, NOP, NOP, HLT], {
      io: {
        writeMmio: (address) => {
          if (deferred) return (stack.push(address), true)
          return !(deferred = true)
        },
      },
    })
    const { vcpu } = bench
    handle(bench, 0x20, [...OUT_AL(0x99), HLT])
    vcpu.writeState({ ss: { selector: 0xffff, base: 0xffff0n, limit: 0xffff, attributes: 0x93 } })
    bench.pending.push(0x20)
    const first = vcpu.run(1000)
    expect(first).toMatchObject({ reason: 'mmio', write: true, address: 0xffff0 + 0x7ffe, size: 2 })
    expect(vcpu.events.isInjecting).toBe(true)
    const saved = vcpu.save()
    expect(vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(ports(bench)).toEqual([0x99])
    expect(stack).toEqual([0xffff0 + 0x7ffc, 0xffff0 + 0x7ffa])
    // A snapshot taken in between holds the event, too.
    vcpu.restore(structuredClone(saved))
    expect(vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(ports(bench)).toEqual([0x99, 0x99])
  })

  it('an event that its injection alone names is delivered', () => {
    const bench = createBench([NOP, HLT])
    handle(bench, 0x55, [...OUT_AL(0x99), IRET])
    bench.vcpu.vmcs.write('entryInterruptionInfo', interruptionInfo(EVENT.software, 0x55))
    bench.vcpu.vmcs.write('entryInstructionLength', 1)
    bench.vcpu.run(1000)
    expect(ports(bench)).toEqual([0x99])
    expect(bench.vcpu.readState().rip).toBe(0x1002n)
  })
})

describe('the exception bitmap', () => {
  it.each([
    { name: '#UD', vector: 6, program: [...UD2, HLT], info: interruptionInfo(EVENT.exception, 6), length: 0 },
    { name: 'INT3', vector: 3, program: [INT3, HLT], info: interruptionInfo(EVENT.softwareException, 3), length: 1 },
    { name: 'INT1', vector: 1, program: [0xf1, HLT], info: interruptionInfo(EVENT.privilegedSoftware, 1), length: 1 },
    { name: '#DE', vector: 0, program: [0xf6, 0xf3, HLT], info: interruptionInfo(EVENT.exception, 0), length: 0 },
  ])('$name exits and is given back to the guest', ({ vector, program, info, length }) => {
    const bench = createBench(program)
    handle(bench, vector, [...OUT_AL(0x99), HLT])
    bench.vcpu.vmcs.write('exceptionBitmap', 1 << vector)
    const seen = recordExits(bench.vcpu, ['exceptionOrNmi'])
    bench.vcpu.run(1000)
    expect(seen).toMatchObject([{ exit: { vector }, interruption: info, rip: 0x1000n, length, vectoring: 0 }])
    expect(ports(bench)).toEqual([0x99])
  })
  it('lets the hypervisor deal with it', () => {
    const bench = createBench([...UD2, ...OUT_AL(0x80), INT3, ...OUT_AL(0x81), HLT])
    const { vcpu } = bench
    vcpu.vmcs.write('exceptionBitmap', (1 << 6) | (1 << 3))
    recordExits(vcpu, [], {
      exceptionOrNmi: ({ vmcs }) => {
        const skipped = vmcs.read('exitInstructionLength') || 2
        vmcs.write('guestRip', vmcs.read('guestRip') + BigInt(skipped))
        return NEXT
      },
    })
    expect(vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(ports(bench)).toEqual([0x80, 0x81])
  })
  it('a fault during delivery exits with both', () => {
    // The vector table ends before the vector: #GP on the way.
    const bench = createBench([...INT(0x80), HLT])
    bench.vcpu.writeState({ idtr: { base: 0n, limit: 0x80 * 4 } })
    handle(bench, 13, [...OUT_AL(0x99), HLT])
    bench.vcpu.vmcs.write('exceptionBitmap', 1 << 13)
    const seen = recordExits(bench.vcpu, ['exceptionOrNmi'])
    bench.vcpu.run(1000)
    expect(seen).toMatchObject([
      {
        interruption: interruptionInfo(EVENT.exception, 13),
        vectoring: interruptionInfo(EVENT.software, 0x80),
        length: 2,
        rip: 0x1000n,
      },
    ])
    expect(ports(bench)).toEqual([0x99])
  })
  it('double and triple faults are not exits during delivery', () => {
    const bench = createBench([...UD2, HLT])
    bench.vcpu.writeState({ idtr: { base: 0n, limit: 8 * 4 + 3 } })
    // #UD, whose vector is an exception that faults again while its frame is pushed: a stack of one byte.
    bench.vcpu.writeState({ rsp: 1n, ss: { selector: 0, base: 0n, limit: 0, attributes: 0x93 } })
    const seen = recordExits(bench.vcpu, ['tripleFault'])
    expect(bench.vcpu.run(1000)).toEqual({ reason: 'shutdown' })
    expect(seen).toMatchObject([{ exit: { reason: 'tripleFault' }, vectoring: 0, interruption: 0 }])
  })
  describe('of page faults', () => {
    it.each([
      { mask: 0, match: 0, bit: true, exits: true },
      { mask: 0, match: 0, bit: false, exits: false },
      { mask: 2, match: 2, bit: true, exits: true },
      { mask: 2, match: 0, bit: true, exits: false },
      { mask: 2, match: 0, bit: false, exits: true },
    ])('mask $mask, match $match, bit $bit: a write $exits', ({ mask, match, bit, exits }) => {
      const { vcpu } = createBench([])
      vcpu.vmcs.write('exceptionBitmap', bit ? 1 << 14 : 0)
      vcpu.vmcs.write('pageFaultErrorCodeMask', mask)
      vcpu.vmcs.write('pageFaultErrorCodeMatch', match)
      vcpu.guest.applyControls()
      expect(vcpu.guest.controls.exceptionExits(vcpu.core, 14, 2)).toBe(exits)
    })
  })
})

describe('windows', () => {
  it('an interrupt that waits exits where its window opens', () => {
    const bench = createBench([NOP, ...OUT_AL(0x80), STI, NOP, ...OUT_AL(0x81), HLT])
    handle(bench, 0x20)
    const seen = recordExits(bench.vcpu, ['interruptWindow'])
    bench.pending.push(0x20)
    bench.vcpu.run(1000)
    expect(ports(bench)).toEqual([0x80, 0x99, 0x81])
    expect(seen).toMatchObject([{ exit: { reason: 'interruptWindow' }, rip: 0x1005n, length: 0 }])
    expect(bench.vcpu.vmcs.has('processorControls', ProcessorControl.interruptWindowExiting)).toBe(false)
  })
  it('an NMI that waits exits behind the IRET of the one before, even with IF clear', () => {
    const bench = createBench([NOP, NOP, ...OUT_AL(0x80), HLT])
    bench.setVector(2, HANDLER)
    bench.guestMemory.writeBytes(HANDLER, Uint8Array.of(...OUT_AL(0x99), 0xeb, 0, NOP, IRET))
    const seen = recordExits(bench.vcpu, ['nmiWindow', 'ioInstruction'], {
      ioInstruction: (v) => {
        // Another arrives while the first is served.
        if (bench.written.length === 0) bench.vcpu.inject({ kind: 'nmi' })
        return HANDLERS.ioInstruction(v)
      },
    })
    bench.signals.bits = VcpuSignal.nmi
    bench.vcpu.run(1000)
    expect(ports(bench)).toEqual([0x99, 0x99, 0x80])
    expect(seen.map(({ exit }) => exit.reason)).toEqual([
      'ioInstruction',
      'nmiWindow',
      'ioInstruction',
      'ioInstruction',
    ])
    expect(seen[1]!.rip).toBe(0x1000n)
  })
  it('a hypervisor that asks for a window gets its exit, and again until it stops asking', () => {
    const bench = createBench([STI, NOP, NOP, HLT])
    const { vcpu } = bench
    let times = 0
    recordExits(vcpu, [], { interruptWindow: (v) => (++times < 3 ? NEXT : HANDLERS.interruptWindow(v)) })
    vcpu.vmcs.write('processorControls', (vcpu.vmcs.read('processorControls') | 4) >>> 0)
    vcpu.run(1000)
    expect(times).toBe(3)
  })
  it('IRET that faults ends the blocking, says so, and blocks again when it leaves', () => {
    const bench = createBench([NOP, HLT])
    const { vcpu } = bench
    // The handler's IRET finds its frame in a page that is not mapped yet.
    bench.setVector(2, HANDLER)
    bench.guestMemory.writeBytes(HANDLER, Uint8Array.of(0xbc, 0x00, 0x60, IRET)) // mov sp, 0x6000
    bench.guestMemory.writeBytes(0x6000, Uint8Array.of(0x01, 0x10, 0, 0, 2, 0))
    let left = false
    const seen = recordExits(vcpu, ['eptViolation'], {
      eptViolation: (v) => {
        if (v.current.physical >> 12 !== 6 || left) return HANDLERS.eptViolation(v)
        left = true
        return v.leave()
      },
    })
    bench.signals.bits = VcpuSignal.nmi
    vcpu.run(1000)
    const ofStack = seen.filter(({ exit }) => 'guestPhysical' in exit && exit.guestPhysical >> 12 === 6)
    expect(ofStack).toHaveLength(2)
    for (const { qualification } of ofStack) expect(Number(qualification) & InterruptionBit.nmiUnblocking).not.toBe(0)
    expect(vcpu.readState()).toMatchObject({ rip: 0x1002n, nmiBlocked: false })
  })
})
