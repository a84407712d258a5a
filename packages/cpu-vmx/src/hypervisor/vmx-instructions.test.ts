/** VMX instructions in non-root operation: their exits, and what the guest sees of them. */
import { describe, expect, it } from 'vitest'
import { EXIT_REASON_NAMES, type ExitReasonName } from '../tables/exit-reasons.ts'
import { createBench } from '../testing/bench.ts'
import { createLongModeBench, handler64 } from '../testing/long-mode.ts'
import { recordExits } from '../testing/record-exits.ts'

const HLT = 0xf4
const ADDRESS_64 = 2 << 7
const DS = 3 << 15
const SS = 2 << 15
const NO_INDEX = 1 << 22
const NO_BASE = 1 << 27
const REGISTER = 1 << 10
const VMXE = 0x2000n

interface Case {
  name: string
  code: number[]
  reason: ExitReasonName
  qualification?: bigint
  information?: number
}
const CASES: Case[] = [
  { name: 'VMLAUNCH', code: [0x0f, 0x01, 0xc2], reason: 'vmlaunch' },
  { name: 'VMRESUME', code: [0x0f, 0x01, 0xc3], reason: 'vmresume' },
  { name: 'VMXOFF', code: [0x0f, 0x01, 0xc4], reason: 'vmxoff' },
  {
    name: 'VMXON [RSP + 8]',
    code: [0xf3, 0x0f, 0xc7, 0x74, 0x24, 0x08],
    reason: 'vmxon',
    qualification: 8n,
    information: ADDRESS_64 | SS | NO_INDEX | (4 << 23),
  },
  {
    name: 'VMCLEAR [RAX]',
    code: [0x66, 0x0f, 0xc7, 0x30],
    reason: 'vmclear',
    information: ADDRESS_64 | DS | NO_INDEX,
  },
  {
    name: 'VMPTRLD [RBX + RCX * 8 - 4]',
    code: [0x0f, 0xc7, 0x74, 0xcb, 0xfc],
    reason: 'vmptrld',
    qualification: 0xffff_ffff_ffff_fffcn,
    information: 3 | ADDRESS_64 | DS | (1 << 18) | (3 << 23),
  },
  {
    name: 'VMPTRST [RIP + 0x20]',
    code: [0x0f, 0xc7, 0x3d, 0x20, 0, 0, 0],
    reason: 'vmptrst',
    qualification: 0x1027n,
    information: ADDRESS_64 | DS | NO_INDEX | NO_BASE,
  },
  {
    name: 'VMREAD R9, RDX',
    code: [0x41, 0x0f, 0x78, 0xd1],
    reason: 'vmread',
    information: REGISTER | (9 << 3) | (2 << 28),
  },
  {
    name: 'VMREAD [RSI], R12',
    code: [0x44, 0x0f, 0x78, 0x26],
    reason: 'vmread',
    information: (ADDRESS_64 | DS | NO_INDEX | (6 << 23) | (12 << 28)) >>> 0,
  },
  {
    name: 'VMWRITE RAX, [GS:RDI]',
    code: [0x65, 0x0f, 0x79, 0x07],
    reason: 'vmwrite',
    information: ADDRESS_64 | (5 << 15) | NO_INDEX | (7 << 23),
  },
  {
    name: 'INVEPT R8, [RAX + 0x10]',
    code: [0x66, 0x44, 0x0f, 0x38, 0x80, 0x40, 0x10],
    reason: 'invept',
    qualification: 0x10n,
    information: (ADDRESS_64 | DS | NO_INDEX | (8 << 28)) >>> 0,
  },
  {
    name: 'INVVPID RCX, [RAX]',
    code: [0x66, 0x0f, 0x38, 0x81, 0x08],
    reason: 'invvpid',
    information: ADDRESS_64 | DS | NO_INDEX | (1 << 28),
  },
]
const REASONS = [...new Set(CASES.map(({ reason }) => reason))]

describe.each(CASES)('$name', ({ code, reason, qualification = 0n, information }) => {
  it.each<{ cpl: 0 | 3; vmxe: bigint; vector: number }>([
    { cpl: 0, vmxe: 0n, vector: 6 },
    { cpl: 3, vmxe: 0n, vector: 6 },
    { cpl: 3, vmxe: VMXE, vector: 13 },
    // Nested VMX is not offered.
    { cpl: 0, vmxe: VMXE, vector: 6 },
  ])('exits at CPL $cpl; with CR4.VMXE $vmxe the guest gets exception $vector', ({ cpl, vmxe, vector }) => {
    const { vcpu } = createLongModeBench([...code, HLT], {}, cpl)
    vcpu.writeState({ cr4: 0x6a0n | vmxe, rax: 0xdead_0000_0000n })
    const seen = recordExits(vcpu, REASONS)
    vcpu.run(100)
    expect(seen).toMatchObject([{ exit: { reason }, rip: 0x1000n, length: code.length, qualification }])
    if (information !== undefined) expect(seen[0]!.instruction).toBe(information)
    expect(vcpu.readState().rip).toBe(BigInt(handler64(vector) + 1))
  })
})

describe('no exit where they are undefined', () => {
  const VMXON_PTR = [0xf3, 0x0f, 0xc7, 0x30]
  it('in real-address mode', () => {
    const bench = createBench([...VMXON_PTR, HLT])
    bench.setVector(6, 0x1300)
    bench.guestMemory.writeU8(0x1300, HLT)
    const seen = recordExits(bench.vcpu, REASONS)
    bench.vcpu.run(100)
    expect([seen, bench.vcpu.readState().rip]).toEqual([[], 0x1301n])
  })
  it('in compatibility mode', () => {
    const { vcpu } = createLongModeBench([0x0f, 0x01, 0xc2, HLT])
    vcpu.writeState({ cs: { selector: 8, base: 0n, limit: 0xffff_ffff, attributes: 0xc09b } })
    const seen = recordExits(vcpu, REASONS)
    vcpu.run(100)
    expect([seen, vcpu.readState().rip]).toEqual([[], BigInt(handler64(6) + 1)])
  })
  it('with a register where memory is asked for', () => {
    const { vcpu } = createLongModeBench([0x66, 0x0f, 0x38, 0x80, 0xc0, HLT])
    const seen = recordExits(vcpu, REASONS)
    vcpu.run(100)
    expect([seen, vcpu.readState().rip]).toEqual([[], BigInt(handler64(6) + 1)])
  })
  it('VMFUNC, whose control is not there', () => {
    const { vcpu } = createLongModeBench([0x0f, 0x01, 0xd4, HLT])
    const seen = recordExits(
      vcpu,
      EXIT_REASON_NAMES.filter((name) => name !== 'eptViolation' && name !== 'hlt'),
    )
    vcpu.run(100)
    expect([seen, vcpu.readState().rip]).toEqual([[], BigInt(handler64(6) + 1)])
  })
})

describe('VMCALL', () => {
  it('exits at CPL 3, too', () => {
    const { vcpu } = createLongModeBench([0x0f, 0x01, 0xc1, HLT], {}, 3)
    const seen = recordExits(vcpu, ['vmcall'])
    vcpu.run(100)
    expect(seen).toMatchObject([{ exit: { reason: 'vmcall' }, length: 3 }])
  })
})
