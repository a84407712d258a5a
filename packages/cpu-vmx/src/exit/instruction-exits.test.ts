/** Exits that instructions cause: reason, qualification, instruction information, and what comes before an exit. */
import { NEXT, PROCEED } from '@nonroot/x86'
import { describe, expect, it } from 'vitest'
import { ProcessorControl as P, SecondaryControl as X } from '../tables/controls.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'
import { createBench } from '../testing/bench.ts'
import { createLongModeBench, handler64 } from '../testing/long-mode.ts'
import { recordExits } from '../testing/record-exits.ts'
import { setControls, type ControlBits } from '../testing/set-controls.ts'

const HLT = 0xf4
const NO_INDEX = 1 << 22
const NO_BASE = 1 << 27
const ADDRESS_64 = 2 << 7
const ADDRESS_32 = 1 << 7
const DS = 3 << 15

interface Case {
  name: string
  code: number[]
  controls?: ControlBits
  reason: ExitReasonName
  qualification?: bigint
  information?: number
  linear?: bigint
  state?: Record<string, bigint>
}

describe('of 64-bit code', () => {
  const tables = { secondary: X.descriptorTableExiting }
  const cases: Case[] = [
    { name: 'IN AL, imm8', code: [0xe4, 0x71], reason: 'ioInstruction', qualification: 0x71_0048n },
    { name: 'OUT imm8, EAX', code: [0xe7, 0x80], reason: 'ioInstruction', qualification: 0x80_0043n },
    {
      name: 'IN AX, DX',
      code: [0x66, 0xed],
      state: { rdx: 0x1f0n },
      reason: 'ioInstruction',
      qualification: 0x1f0_0009n,
    },
    { name: 'OUT DX, AL', code: [0xee], state: { rdx: 0x3f8n }, reason: 'ioInstruction', qualification: 0x3f8_0000n },
    {
      name: 'REP INSW',
      code: [0x66, 0xf3, 0x6d],
      state: { rdx: 0x1f0n, rcx: 1n, rdi: 0x5000n },
      reason: 'ioInstruction',
      qualification: 0x1f0_0039n,
      information: ADDRESS_64,
      linear: 0x5000n,
    },
    {
      name: 'OUTSB from FS with 32-bit addresses',
      code: [0x64, 0x67, 0x6e],
      state: { rdx: 0x80n, rsi: 0xffff_ffff_0000_5004n },
      reason: 'ioInstruction',
      qualification: 0x80_0010n,
      information: ADDRESS_32 | (4 << 15),
      linear: 0x5004n,
    },
    {
      name: 'MOV RAX, DR6',
      code: [0x0f, 0x21, 0xf0],
      controls: { processor: P.movDrExiting },
      reason: 'movDr',
      qualification: 0x16n,
    },
    {
      name: 'MOV DR0, R11',
      code: [0x41, 0x0f, 0x23, 0xc3],
      controls: { processor: P.movDrExiting },
      reason: 'movDr',
      qualification: 0xb00n,
    },
    {
      name: 'MOV CR8, RCX',
      code: [0x44, 0x0f, 0x22, 0xc1],
      controls: { processor: P.cr8LoadExiting },
      reason: 'crAccess',
      qualification: 0x108n,
    },
    {
      name: 'MOV R9, CR8',
      code: [0x45, 0x0f, 0x20, 0xc1],
      controls: { processor: P.cr8StoreExiting },
      reason: 'crAccess',
      qualification: 0x918n,
    },
    {
      name: 'MOV CR3, RAX',
      code: [0x0f, 0x22, 0xd8],
      state: { rax: 0x9000n },
      controls: { processor: P.cr3LoadExiting },
      reason: 'crAccess',
      qualification: 3n,
    },
    {
      name: 'MOV RBX, CR3',
      code: [0x0f, 0x20, 0xdb],
      controls: { processor: P.cr3StoreExiting },
      reason: 'crAccess',
      qualification: 0x313n,
    },
    {
      name: 'INVLPG: all 64 bits of the address',
      code: [0x0f, 0x01, 0x38],
      state: { rax: 0xffff_8000_1234_5000n },
      controls: { processor: P.invlpgExiting },
      reason: 'invlpg',
      qualification: 0xffff_8000_1234_5000n,
    },
    { name: 'RDTSC', code: [0x0f, 0x31], controls: { processor: P.rdtscExiting }, reason: 'rdtsc' },
    { name: 'RDTSCP', code: [0x0f, 0x01, 0xf9], controls: { processor: P.rdtscExiting }, reason: 'rdtscp' },
    { name: 'RDPMC', code: [0x0f, 0x33], reason: 'rdpmc' },
    { name: 'WBINVD', code: [0x0f, 0x09], controls: { secondary: X.wbinvdExiting }, reason: 'wbinvd' },
    { name: 'PAUSE', code: [0xf3, 0x90], controls: { processor: P.pauseExiting }, reason: 'pause' },
    {
      name: 'RDRAND R10',
      code: [0x49, 0x0f, 0xc7, 0xf2],
      controls: { secondary: X.rdrandExiting },
      reason: 'rdrand',
      information: (10 << 3) | (2 << 11),
    },
    {
      name: 'RDSEED EBX',
      code: [0x0f, 0xc7, 0xfb],
      controls: { secondary: X.rdseedExiting },
      reason: 'rdseed',
      information: (3 << 3) | (1 << 11),
    },
    {
      name: 'LGDT [RIP + 0x100]',
      code: [0x0f, 0x01, 0x15, 0x00, 0x01, 0, 0],
      controls: tables,
      reason: 'gdtrIdtrAccess',
      qualification: 0x1107n,
      information: ADDRESS_64 | DS | NO_INDEX | NO_BASE | (1 << 11) | (2 << 28),
    },
    {
      name: 'SIDT [RBX + R12 * 4 - 8]',
      code: [0x42, 0x0f, 0x01, 0x4c, 0xa3, 0xf8],
      state: { rbx: 0x5008n, r12: 0n },
      controls: tables,
      reason: 'gdtrIdtrAccess',
      qualification: 0xffff_ffff_ffff_fff8n,
      information: 2 | ADDRESS_64 | DS | (12 << 18) | (3 << 23) | (1 << 11) | (1 << 28),
    },
    {
      name: 'LLDT R8W',
      code: [0x41, 0x0f, 0x00, 0xd0],
      state: { r8: 0n },
      controls: tables,
      reason: 'ldtrTrAccess',
      qualification: 0n,
      information: (1 << 10) | (8 << 3) | (2 << 28),
    },
    {
      name: 'STR [RSI]',
      code: [0x0f, 0x00, 0x0e],
      state: { rsi: 0x5000n },
      controls: tables,
      reason: 'ldtrTrAccess',
      qualification: 0n,
      information: ADDRESS_64 | DS | NO_INDEX | (6 << 23) | (1 << 28),
    },
    {
      name: 'INVPCID RDX, [RSP + 0x10]',
      code: [0x66, 0x0f, 0x38, 0x82, 0x54, 0x24, 0x10],
      state: { rdx: 2n, rsp: 0x5000n },
      controls: { processor: P.invlpgExiting },
      reason: 'invpcid',
      qualification: 0x10n,
      information: (ADDRESS_64 | (2 << 15) | NO_INDEX | (4 << 23) | (2 << 28)) >>> 0,
    },
  ]
  it.each(cases)('$name', ({ code, controls = {}, reason, qualification = 0n, information, linear, state = {} }) => {
    const { vcpu } = createLongModeBench([...code, HLT])
    vcpu.writeState(state)
    setControls(vcpu, controls)
    const seen = recordExits(vcpu, [reason])
    vcpu.run(1000)
    expect(seen).toMatchObject([{ exit: { reason }, rip: 0x1000n, length: code.length, qualification }])
    if (information !== undefined) expect(seen[0]!.instruction).toBe(information)
    if (linear !== undefined) expect(vcpu.vmcs.read('guestLinearAddress')).toBe(linear)
  })

  it('LMSW tells its source, and its address where that is memory', () => {
    const { vcpu, guestMemory } = createLongModeBench([0x0f, 0x01, 0xf0, 0x0f, 0x01, 0x33, HLT])
    guestMemory.writeU16(0x5000, 0x1f)
    vcpu.writeState({ rax: 0x1fn, rbx: 0x5000n })
    vcpu.vmcs.write('cr0Mask', 0x2en)
    const seen = recordExits(vcpu, ['crAccess'])
    vcpu.run(1000)
    // The first sets EM and TS; the second, with nothing left to change, does not exit.
    expect(seen.map(({ qualification }) => qualification)).toEqual([0x1f_0030n])
    vcpu.writeState({ cr0: 0x8000_0033n, rip: 0x1003n, activity: 'active' })
    vcpu.run(1000)
    expect(seen.map(({ qualification }) => qualification)).toEqual([0x1f_0030n, 0x1f_0070n])
    expect(vcpu.vmcs.read('guestLinearAddress')).toBe(0x5000n)
  })

  describe('LMSW exits where it would change a bit that the hypervisor owns', () => {
    const BITS = { PE: 1, MP: 2, EM: 4, TS: 8 } as const
    const cases = (Object.keys(BITS) as (keyof typeof BITS)[]).flatMap((name) =>
      [true, false].flatMap((owned) => [0, 1].flatMap((from) => [0, 1].map((to) => ({ name, owned, from, to })))),
    )
    // PE cannot be cleared by it. (SDM Vol. 3C, "Instructions That Cause VM Exits Conditionally")
    it.each(cases)('$name from $from to $to, owned: $owned', ({ name, owned, from, to }) => {
      const bit = BITS[name]
      // Without paging, as PE is clear in some; the other bits stay as they are.
      const { vcpu } = createBench([0x0f, 0x01, 0xf0, HLT])
      const others = 0x10n
      const value = to ? BigInt(bit) : 0n
      vcpu.writeState({ rax: value })
      if (owned) vcpu.vmcs.write('cr0Mask', BigInt(bit))
      vcpu.vmcs.write('cr0ReadShadow', others | (from ? BigInt(bit) : 0n))
      const seen = recordExits(vcpu, ['crAccess'])
      expect(vcpu.run(1000)).toEqual({ reason: 'halt' })
      const exits = owned && from !== to && !(name === 'PE' && to === 0)
      expect(seen.map(({ qualification }) => qualification)).toEqual(exits ? [(value << 16n) | 0x30n] : [])
    })
  })

  it('MONITOR, MWAIT: the latter tells whether the hardware is armed', () => {
    const MONITOR = [0x0f, 0x01, 0xc8]
    const MWAIT = [0x0f, 0x01, 0xc9]
    const { vcpu } = createLongModeBench([...MWAIT, ...MONITOR, ...MWAIT, HLT])
    vcpu.writeState({ rax: 0x5000n, rcx: 0n, rdx: 0n })
    const seen = recordExits(vcpu, ['monitor', 'mwait'])
    for (let n = 0; n < 3; n++) {
      expect(vcpu.run(100)).toEqual({ reason: 'halt' })
      vcpu.writeState({ activity: 'active' })
    }
    expect(seen.map(({ exit, qualification }) => [exit.reason, qualification])).toEqual([
      ['mwait', 0n],
      ['monitor', 0n],
      ['mwait', 1n],
    ])
  })
  it('MONITOR exits before it looks at its address', () => {
    const { vcpu } = createLongModeBench([0x0f, 0x01, 0xc8, HLT])
    vcpu.writeState({ rax: 0x4000_0000n, rcx: 0n })
    const seen = recordExits(vcpu, ['monitor'], { monitor: () => NEXT })
    vcpu.run(100)
    expect([seen.length, vcpu.readState().rip]).toEqual([1, 0x1004n])
  })

  it('CR3 targets are loaded without an exit, as many as count', () => {
    const program = [0x0f, 0x22, 0xd8, 0x0f, 0x22, 0xd9, 0x0f, 0x22, 0xda, HLT]
    const { vcpu, guestMemory } = createLongModeBench(program)
    for (const root of [0x11000, 0x12000, 0x13000]) guestMemory.writeU64(root, 0xa007n)
    vcpu.writeState({ rax: 0x11000n, rcx: 0x12000n, rdx: 0x13000n })
    setControls(vcpu, { processor: P.cr3LoadExiting })
    vcpu.vmcs.write('cr3Target0', 0x13000n)
    vcpu.vmcs.write('cr3Target1', 0x11000n)
    vcpu.vmcs.write('cr3Target2', 0x12000n)
    vcpu.vmcs.write('cr3TargetCount', 2)
    const seen = recordExits(vcpu, ['crAccess'])
    vcpu.run(1000)
    expect(seen.map(({ rip }) => rip)).toEqual([0x1003n])
    expect(vcpu.readState().cr3).toBe(0x13000n)
  })
})

describe('what comes before an exit', () => {
  it.each<{ name: string; code: number[]; cr4: bigint; controls: ControlBits; vector: number; cpl: 0 | 3 }>([
    {
      name: 'RDTSC, CR4.TSD',
      code: [0x0f, 0x31],
      cr4: 0x6a4n,
      controls: { processor: P.rdtscExiting },
      vector: 13,
      cpl: 3,
    },
    {
      name: 'RDTSCP, CR4.TSD',
      code: [0x0f, 0x01, 0xf9],
      cr4: 0x6a4n,
      controls: { processor: P.rdtscExiting },
      vector: 13,
      cpl: 3,
    },
    { name: 'RDPMC without CR4.PCE', code: [0x0f, 0x33], cr4: 0x6a0n, controls: {}, vector: 13, cpl: 3 },
    { name: 'HLT at CPL 3', code: [HLT], cr4: 0x6a0n, controls: {}, vector: 13, cpl: 3 },
    {
      name: 'MOV DR4 under CR4.DE',
      code: [0x0f, 0x21, 0xe0],
      cr4: 0x6a8n,
      controls: { processor: P.movDrExiting },
      vector: 6,
      cpl: 0,
    },
    { name: 'XSETBV without CR4.OSXSAVE', code: [0x0f, 0x01, 0xd1], cr4: 0x6a0n, controls: {}, vector: 6, cpl: 0 },
    { name: 'IN without permission', code: [0xe4, 0x80], cr4: 0x6a0n, controls: {}, vector: 13, cpl: 3 },
  ])('$name: the fault', ({ code, cr4, controls, vector, cpl }) => {
    const { vcpu } = createLongModeBench([...code, HLT], {}, cpl)
    vcpu.writeState({ cr4 })
    setControls(vcpu, controls)
    const seen = recordExits(vcpu, ['rdtsc', 'rdtscp', 'rdpmc', 'movDr', 'xsetbv', 'ioInstruction', 'hlt'])
    vcpu.run(1000)
    expect(vcpu.readState().rip).toBe(BigInt(handler64(vector) + 1))
    // The handler's own HLT.
    expect(seen.map(({ exit }) => exit.reason)).toEqual(['hlt'])
  })
  it.each([
    { name: 'RDTSCP', code: [0x0f, 0x01, 0xf9], control: X.enableRdtscp },
    { name: 'INVPCID', code: [0x66, 0x0f, 0x38, 0x82, 0x10], control: X.enableInvpcid },
  ])('$name is undefined without its control, and there again with it', ({ code, control }) => {
    const { vcpu, start } = createLongModeBench([...code, HLT])
    void start
    const restart = () => vcpu.writeState({ rip: 0x1000n, rsp: 0x8000n, rax: 0x5000n, rdx: 2n, activity: 'active' })
    const ends: bigint[] = []
    for (const on of [true, false, true]) {
      setControls(vcpu, { secondary: control }, on)
      restart()
      vcpu.run(1000)
      ends.push(vcpu.readState().rip)
    }
    const behind = BigInt(0x1000 + code.length + 1)
    expect(ends).toEqual([behind, BigInt(handler64(6) + 1), behind])
  })
})

describe('PAUSE-loop exiting', () => {
  /** A PAUSE and a jump to it: two instructions, two ticks. */
  const loop = [0xf3, 0x90, 0xeb, 0xfc]
  it.each<{ name: string; cpl: 0 | 3; gap: number; exits: boolean }>([
    { name: 'a kernel that spins', cpl: 0, gap: 10, exits: true },
    { name: 'PAUSEs far apart are no loop', cpl: 0, gap: 1, exits: false },
    { name: 'user code may', cpl: 3, gap: 10, exits: false },
  ])('$name', ({ cpl, gap, exits }) => {
    const { vcpu, ports } = createLongModeBench(loop, {}, cpl)
    Object.assign(ports.clock, { tsc: () => BigInt(vcpu.instructionsRetired) })
    setControls(vcpu, { secondary: X.pauseLoopExiting })
    vcpu.vmcs.write('pleGap', gap)
    vcpu.vmcs.write('pleWindow', 100)
    const retired: number[] = []
    recordExits(vcpu, [], { pause: () => (retired.push(vcpu.instructionsRetired), PROCEED) })
    vcpu.run(300)
    expect(retired.length > 0).toBe(exits)
    if (exits) expect(retired[0]).toBeGreaterThan(100)
  })
  it('the hypervisor lets others run', () => {
    const { vcpu } = createLongModeBench(loop)
    setControls(vcpu, { processor: P.pauseExiting })
    expect(vcpu.run(100_000)).toEqual({ reason: 'budget' })
    expect(vcpu.instructionsRetired).toBeLessThan(10)
  })
})
