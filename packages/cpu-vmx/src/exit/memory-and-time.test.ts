/** TPR shadow, TSC offset and scaling, page-modification log. */
import { S } from '@nonroot/x86'
import { describe, expect, it } from 'vitest'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import { HANDLERS } from '../hypervisor/exit-handlers.ts'
import { interruptionInfo, InterruptionType } from '../tables/interruption-info.ts'
import { setMsrExits } from '../tables/msr-bitmap.ts'
import { PML_ENTRIES } from '../features/page-modification-log.ts'
import { VTPR, X2APIC_TPR } from '../features/task-priority.ts'
import { createBench } from '../testing/bench.ts'
import { createLongModeBench, handler64 } from '../testing/long-mode.ts'
import { recordExits } from '../testing/record-exits.ts'
import { setControls } from '../testing/set-controls.ts'

const HLT = 0xf4
const NOP = 0x90
const RDTSC = [0x0f, 0x31]
const RDMSR = [0x0f, 0x32]
const WRMSR = [0x0f, 0x30]
const CR8_FROM_RAX = [0x44, 0x0f, 0x22, 0xc0]
const RBX_FROM_CR8 = [0x44, 0x0f, 0x20, 0xc3]

describe('TPR shadow', () => {
  function shadowed(program: readonly number[], threshold: number, vtpr = 0xf0) {
    const priorities: number[] = []
    const bench = createLongModeBench(program, {
      interrupts: { writeTaskPriority: (_, value) => priorities.push(value) },
    })
    const { vcpu, host } = bench
    const page = host.allocateFrame()!
    host.bytes.fill(0, page, page + 4096)
    host.bytes[page + VTPR] = vtpr
    vcpu.vmcs.write('virtualApicAddress', BigInt(page))
    vcpu.vmcs.write('tprThreshold', threshold)
    setControls(vcpu, { processor: ProcessorControl.useTprShadow })
    return { ...bench, page, priorities, virtualTpr: () => host.bytes[page + VTPR]! }
  }
  it('CR8 is the virtual TPR, without exits and past the interrupt controller', () => {
    const { vcpu, virtualTpr, priorities } = shadowed([...CR8_FROM_RAX, ...RBX_FROM_CR8, HLT], 2)
    vcpu.writeState({ rax: 5n })
    vcpu.run(100)
    expect([virtualTpr(), vcpu.readState().rbx, priorities]).toEqual([0x50, 5n, []])
    expect(vcpu.accounting.counts().crAccess).toBeUndefined()
  })
  it('a write below the threshold exits behind its instruction, IF or not', () => {
    const { vcpu, virtualTpr } = shadowed([...CR8_FROM_RAX, NOP, HLT], 4)
    vcpu.writeState({ rax: 3n })
    const seen = recordExits(vcpu, ['tprBelowThreshold'])
    expect(vcpu.run(100)).toEqual({ reason: 'halt' })
    expect(seen).toMatchObject([{ rip: 0x1004n, length: 0, qualification: 0n }])
    expect([virtualTpr(), vcpu.vmcs.read('tprThreshold')]).toEqual([0x30, 0])
  })
  it('an entry below the threshold fails its check', () => {
    const { vcpu } = shadowed([NOP, HLT], 4, 0x30)
    expect(vcpu.run(100)).toMatchObject({ reason: 'failure', message: expect.stringContaining("'tprShadow.vtpr'") })
  })
  it('and so does one whose handler leaves the threshold as it is', () => {
    const { vcpu } = shadowed([...CR8_FROM_RAX, NOP, HLT], 4)
    recordExits(vcpu, [], { tprBelowThreshold: () => 0 })
    expect(vcpu.run(100)).toMatchObject({ message: expect.stringContaining("'tprShadow.vtpr'") })
  })
  it('a threshold above 15, or a page that is none, fails as well', () => {
    const { vcpu } = shadowed([HLT], 16)
    expect(vcpu.run(100)).toMatchObject({ message: expect.stringContaining("'tprShadow.threshold'") })
    const other = shadowed([HLT], 0).vcpu
    other.vmcs.write('virtualApicAddress', 0x10n)
    expect(other.run(100)).toMatchObject({ message: expect.stringContaining("'tprShadow.address'") })
  })

  describe('MSR 808H in x2APIC mode', () => {
    const through = (bench: ReturnType<typeof shadowed>, exits: boolean) => {
      const { vcpu, host } = bench
      setControls(vcpu, { secondary: SecondaryControl.virtualizeX2apicMode })
      for (const write of [false, true])
        setMsrExits(host.bytes, Number(vcpu.vmcs.read('msrBitmaps')), X2APIC_TPR, write, exits)
      vcpu.writeState({ rcx: BigInt(X2APIC_TPR), rax: 0x35n, rdx: 0n })
    }
    it('is the virtual TPR too, all 8 bits of it', () => {
      const bench = shadowed([...WRMSR, 0x31, 0xc0, ...RDMSR, HLT], 2)
      through(bench, false)
      bench.vcpu.run(100)
      expect([bench.virtualTpr(), bench.vcpu.readState().rax]).toEqual([0x35, 0x35n])
      expect(bench.vcpu.accounting.counts()).not.toHaveProperty('rdmsr')
      expect(bench.vcpu.accounting.counts()).not.toHaveProperty('wrmsr')
    })
    it('exits below the threshold', () => {
      const bench = shadowed([...WRMSR, NOP, HLT], 4)
      through(bench, false)
      const seen = recordExits(bench.vcpu, ['tprBelowThreshold'])
      bench.vcpu.run(100)
      expect(seen).toMatchObject([{ rip: 0x1002n }])
    })
    it('#GP for reserved bits', () => {
      const bench = shadowed([...WRMSR, HLT], 0)
      through(bench, false)
      bench.vcpu.writeState({ rax: 0x100n })
      bench.vcpu.run(100)
      expect(bench.vcpu.readState().rip).toBe(BigInt(handler64(13) + 1))
    })
    it('what the bitmap has exit is the hypervisor’s', () => {
      const bench = shadowed([...WRMSR, HLT], 0)
      through(bench, true)
      bench.vcpu.run(100)
      expect(bench.virtualTpr()).toBe(0xf0)
      expect(bench.vcpu.accounting.counts()).toMatchObject({ wrmsr: 1 })
    })
  })
})

describe('the TSC', () => {
  const HOST_TSC = 0x12_3456_789an
  function clocked() {
    const bench = createLongModeBench([...RDTSC, HLT])
    Object.assign(bench.ports.clock, { tsc: () => HOST_TSC })
    const read = () => {
      bench.vcpu.writeState({ rip: 0x1000n, activity: 'active' })
      bench.vcpu.run(100)
      const { rax, rdx } = bench.vcpu.readState()
      return (rdx << 32n) | rax
    }
    return { ...bench, read }
  }
  it.each<{ name: string; offset: bigint; multiplier: bigint | undefined; expected: bigint }>([
    { name: 'offset', offset: -0x1000n, multiplier: undefined, expected: HOST_TSC - 0x1000n },
    { name: 'half as fast', offset: 0n, multiplier: 1n << 47n, expected: HOST_TSC >> 1n },
    { name: 'three times as fast, and offset', offset: 7n, multiplier: 3n << 48n, expected: HOST_TSC * 3n + 7n },
    {
      name: 'by 1 + 2^-48: what is behind the point counts',
      offset: 0n,
      multiplier: (1n << 48n) + (1n << 20n),
      expected: HOST_TSC + ((HOST_TSC << 20n) >> 48n),
    },
  ])('$name', ({ offset, multiplier, expected }) => {
    const { vcpu, read } = clocked()
    vcpu.vmcs.write('tscOffset', BigInt.asUintN(64, offset))
    if (multiplier !== undefined) {
      setControls(vcpu, { secondary: SecondaryControl.useTscScaling })
      vcpu.vmcs.write('tscMultiplier', multiplier)
    }
    expect(read()).toBe(expected)
  })
  it('without TSC offsetting is the host’s, whatever offset and multiplier; the offset comes back with it', () => {
    const { vcpu, read } = clocked()
    vcpu.vmcs.write('tscOffset', 0x55n)
    setControls(vcpu, { secondary: SecondaryControl.useTscScaling })
    vcpu.vmcs.write('tscMultiplier', 3n << 48n)
    setControls(vcpu, { processor: ProcessorControl.useTscOffsetting }, false)
    expect(read()).toBe(HOST_TSC)
    expect([vcpu.vmcs.read('tscOffset'), vcpu.core.get64(S.tscOffset)]).toEqual([0x55n, 0n])
    setControls(vcpu, { processor: ProcessorControl.useTscOffsetting })
    expect(read()).toBe(HOST_TSC * 3n + 0x55n)
  })
  it('a multiplier of 0 fails the entry', () => {
    const { vcpu } = clocked()
    setControls(vcpu, { secondary: SecondaryControl.useTscScaling })
    expect(vcpu.run(100)).toMatchObject({ message: expect.stringContaining("'tscScaling.multiplier'") })
  })
})

describe('the page-modification log', () => {
  function logged(program: readonly number[], index = PML_ENTRIES - 1, bench = createLongModeBench(program)) {
    const { vcpu, host } = bench
    const page = host.allocateFrame()!
    host.bytes.fill(0, page, page + 4096)
    vcpu.vmcs.write('pmlAddress', BigInt(page))
    vcpu.vmcs.write('pmlIndex', index)
    setControls(vcpu, { secondary: SecondaryControl.enablePml })
    return { ...bench, page }
  }
  /** mov [rdi], al; add rdi, 0x1000; loop; hlt */
  const WRITE_PAGES = [0x88, 0x07, 0x48, 0x81, 0xc7, 0x00, 0x10, 0, 0, 0xe2, 0xf5, HLT]
  const writes = (start: bigint, count: bigint) => ({ rdi: start, rcx: count })

  it('takes each page once, as its dirty flag is set: what the guest wrote, and its page tables', () => {
    const { vcpu } = logged([...WRITE_PAGES])
    vcpu.writeState(writes(0x2_0123n, 3n))
    vcpu.run(1000)
    vcpu.writeState({ ...writes(0x2_0000n, 3n), rip: 0x1000n, activity: 'active' })
    vcpu.run(1000)
    // Accessed and dirty flags of the guest's own entries are writes of its tables.
    expect(vcpu.guest.modificationLog.drain()).toEqual([0x9000n, 0xa000n, 0xb000n, 0x2_0000n, 0x2_1000n, 0x2_2000n])
    expect([vcpu.guest.modificationLog.drain(), vcpu.vmcs.read('pmlIndex')]).toEqual([[], PML_ENTRIES - 1])
  })
  it('exits when it is full, before the write, and the dirty log has it all', () => {
    const { vcpu, guestMemory } = logged([...WRITE_PAGES], 4)
    vcpu.writeState(writes(0x2_0000n, 6n))
    guestMemory.setDirtyLog(true)
    guestMemory.takeDirty()
    const seen = recordExits(vcpu, ['pageModificationLogFull'])
    expect(vcpu.run(1000)).toEqual({ reason: 'halt' })
    expect(seen).toMatchObject([{ exit: { reason: 'pageModificationLogFull' }, qualification: 0n }])
    const dirty = guestMemory.takeDirty().map(Number)
    for (const page of [0x9000, 0xa000, 0xb000, 0x2_0000, 0x2_1000]) expect(dirty).toContain(page)
    expect(vcpu.guest.modificationLog.drain()).toEqual([0x2_2000n, 0x2_3000n, 0x2_4000n, 0x2_5000n])
    expect([2, 3, 4, 5].map((n) => guestMemory.readU8(0x2_0000 + n * 0x1000))).toEqual([0, 0, 0, 0])
  })
  it('full during the delivery of an event: the event is told of, and injected again when the handler leaves', () => {
    const bench = createBench([NOP, 0xcd, 0x40, HLT])
    const { vcpu, setVector, guestMemory } = logged([], 0xffff, bench as never) as unknown as typeof bench
    setVector(0x40, 0x2300)
    guestMemory.writeU8(0x2300, HLT)
    let left = false
    const seen = recordExits(vcpu, ['pageModificationLogFull'], {
      pageModificationLogFull: (v) => {
        if (left) return HANDLERS.pageModificationLogFull(v)
        left = true
        return v.leave()
      },
    })
    vcpu.run(1000)
    // The stack's page is the first that is written.
    const vectoring = interruptionInfo(InterruptionType.softwareInterrupt, 0x40)
    expect(seen.map((exit) => [exit.vectoring, exit.length])).toEqual([
      [vectoring, 2],
      [vectoring, 2],
    ])
    expect(vcpu.readState()).toMatchObject({ rip: 0x2301n, rsp: 0x7ffan })
    expect(guestMemory.readU16(0x7ffa)).toBe(0x1003)
    expect(vcpu.guest.modificationLog.drain()).toEqual([0x7000n])
  })
  it.each<[string, string]>([
    ['pml', 'an address that is no frame'],
    ['pml', 'no EPT'],
  ])('entry fails its check %s with %s', (id, what) => {
    const { vcpu } = logged([HLT])
    if (what === 'no EPT') setControls(vcpu, { secondary: SecondaryControl.enableEpt }, false)
    else vcpu.vmcs.write('pmlAddress', 0x800n)
    expect(vcpu.run(100)).toMatchObject({ message: expect.stringContaining(`'${id}'`) })
  })
})
