import type { CpuidResult, EoiAssist, GuestAbiVcpu, X86InterruptController } from '@nonroot/contracts'
import { createTestClock, createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { createBareAbi } from './bare.ts'
import { timeScale } from './kvm-clock.ts'
import { KvmAbi } from './kvm.ts'
import { kvmOptions } from './options.ts'

function start({ vcpuCount = 2, options = {} as Record<string, unknown> } = {}) {
  const guestMemory = createTestGuestMemory({ hostMemory: createTestHostMemory(64), ram: 1 << 16 })
  const clock = createTestClock()
  let assist: EoiAssist | undefined
  const sent: [number, number][] = []
  const interrupts = {
    setEoiAssist: (given: EoiAssist) => void (assist = given),
    messages: { send: (address: number, data: number) => void sent.push([address, data]) },
  } as unknown as X86InterruptController
  const abi = new KvmAbi(kvmOptions.parse(options))
  abi.attach({ ...{ guestMemory, clock, interrupts, vcpuCount }, power: {} as never, paging: {} as never, capability: () => ({}) as never })
  const cpuid = (leaf: number): CpuidResult => {
    const result = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
    abi.cpuid(0, leaf, 0, result)
    return result
  }
  const call = (number: number, args: number[] = [], { cpl = 0, longMode = true } = {}): bigint => {
    const [rbx, rcx, rdx, rsi] = [0, 1, 2, 3].map((index) => BigInt(args[index] ?? 0)) as [
      bigint,
      bigint,
      bigint,
      bigint,
    ]
    const registers = { rax: BigInt(number), rbx, rcx, rdx, rsi, rdi: 0n, r8: 0n, r9: 0n, r10: 0n }
    const vcpu: GuestAbiVcpu = { index: 0, registers, cpl, longMode, translate: () => undefined }
    expect(abi.hypercall(vcpu)).toBe('done')
    return longMode ? BigInt.asIntN(64, registers.rax) : registers.rax
  }
  return { abi, guestMemory, clock, sent, cpuid, call, assist: () => assist! }
}

/** What Linux's `pvclock_clocksource_read` computes. */
function readClock({ guestMemory, clock }: ReturnType<typeof start>, address: number): bigint {
  expect(guestMemory.readU32(address)! & 1).toBe(0)
  const timestamp = guestMemory.readU64(address + 8)!
  const system = guestMemory.readU64(address + 16)!
  const multiplier = BigInt(guestMemory.readU32(address + 24)!)
  const shift = (guestMemory.readU8(address + 28)! << 24) >> 24
  const delta = clock.tsc() - timestamp
  return system + (((shift >= 0 ? delta << BigInt(shift) : delta >> BigInt(-shift)) * multiplier) >> 32n)
}

describe('CPUID', () => {
  it('says KVM', () => {
    const { cpuid } = start()
    const { eax, ebx, ecx, edx } = cpuid(0x40000000)
    expect(eax).toBe(0x40000010)
    expect(new TextDecoder().decode(new Uint32Array([ebx, ecx, edx]))).toBe('KVMKVMKVM\0\0\0')
    expect(cpuid(1).ecx).toBe(0x80000000)
    expect(cpuid(0x40000010)).toEqual({ eax: 1e6, ebx: 1e6, ecx: 0, edx: 0 })
    expect(cpuid(0x40000002)).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 })
  })

  it.each([
    { name: 'two vCPUs', vcpuCount: 2, options: {}, features: 0x0100386b },
    { name: 'one vCPU', vcpuCount: 1, options: {}, features: 0x0100106b },
    { name: 'nothing', vcpuCount: 1, options: { clock: false, stealTime: false, pvEoi: false }, features: 0x1002 },
  ])('features: $name', ({ vcpuCount, options, features }) => {
    expect(start({ vcpuCount, options }).cpuid(0x40000001).eax).toBe(features)
  })

  it('bare says nothing', () => {
    const bare = createBareAbi()
    const result = { eax: 1, ebx: 1, ecx: 0xffffffff, edx: 1 }
    bare.cpuid(0, 1, 0, result)
    expect(result.ecx).toBe(0x7fffffff)
    bare.cpuid(0, 0x40000000, 0, result)
    expect(result).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 })
    expect(bare.readMsr(0, 0x4b564d01)).toBeUndefined()
  })
})

describe('kvm-clock', () => {
  it.each([1e9, 2e9, 1e6, 999e6, 2_500e6, 4_294e6])('scale of %d Hz is right to a billionth', (hz) => {
    const { multiplier, shift } = timeScale(hz)
    expect(multiplier).toBeGreaterThanOrEqual(2 ** 31)
    expect(multiplier).toBeLessThan(2 ** 32)
    expect(Math.abs((multiplier * 2 ** shift * hz) / 2 ** 32 / 1e9 - 1)).toBeLessThan(1e-9)
  })

  it.each([0x12, 0x4b564d01])('MSR %d: the time, stable and exact', (msr) => {
    const vm = start()
    vm.clock.advanceNs(12345)
    expect(vm.abi.writeMsr(1, msr, 0x1001n)).toBe(true)
    expect(vm.abi.readMsr(1, msr)).toBe(0x1001n)
    expect(vm.guestMemory.readU8(0x1000 + 29)).toBe(1)
    vm.clock.advanceNs(1e12)
    expect(readClock(vm, 0x1000)).toBe(BigInt(vm.clock.nowNs()))
  })

  it('wall clock: the time at zero', () => {
    const { abi, clock, guestMemory } = start()
    clock.advanceNs(5_700_000_000)
    expect(abi.writeMsr(0, 0x4b564d00, 0x2000n)).toBe(true)
    expect(guestMemory.readU32(0x2004)).toBe(Date.UTC(2024, 0, 1) / 1000)
    expect(guestMemory.readU32(0x2008)).toBe(0)
  })

  it.each([0xfffffffffffffff1n, 0x10001n, 0xfff1n, 1n << 60n])('an address outside RAM (%d) does nothing', (value) => {
    const { abi } = start()
    for (const msr of [0x11, 0x12, 0x4b564d03, 0x4b564d04]) abi.writeMsr(0, msr, value | 1n)
    expect(abi.readMsr(0, 0x12)).toBe(value | 1n)
  })
})

describe('other MSRs', () => {
  it.each([
    { msr: 0x4b564d02, value: 1n, written: undefined },
    { msr: 0x4b564d03, value: 0x1021n, written: false },
    { msr: 0x4b564d04, value: 0x1003n, written: false },
    { msr: 0x4b564d05, value: 2n, written: false },
    { msr: 0x4b564d05, value: 0n, written: true },
    { msr: 0x10, value: 0n, written: undefined },
  ])('$msr = $value: $written', ({ msr, value, written }) => {
    expect(start().abi.writeMsr(0, msr, value)).toBe(written)
  })

  it('are not there when not offered', () => {
    const { abi } = start({ options: { clock: false, stealTime: false, pvEoi: false } })
    for (const msr of [0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04]) {
      expect(abi.readMsr(0, msr)).toBeUndefined()
      expect(abi.writeMsr(0, msr, 1n)).toBeUndefined()
    }
  })

  it('steal time', () => {
    const { abi, guestMemory } = start()
    abi.writeMsr(1, 0x4b564d03, 0x3001n)
    abi.accountSteal(1, 5e9)
    abi.onEntry(1)
    expect(guestMemory.readU64(0x3000)).toBe(5_000_000_000n)
    expect(guestMemory.readU32(0x3008)! & 1).toBe(0)
  })

  it('PV EOI', () => {
    const { abi, assist, guestMemory } = start()
    expect(assist().offer(1)).toBe(false)
    abi.writeMsr(1, 0x4b564d04, 0x4001n)
    expect(assist().offer(1)).toBe(true)
    expect(guestMemory.readU8(0x4000)).toBe(1)
    expect(assist().taken(1)).toBe(false)
    guestMemory.writeU8(0x4000, 0)
    abi.writeMsr(1, 0x4b564d04, 0n) // too late to forget what was taken
    expect(assist().taken(1)).toBe(true)
    abi.writeMsr(1, 0x4b564d04, 0x4001n)
    assist().offer(1)
    assist().withdraw(1)
    expect(guestMemory.readU8(0x4000)).toBe(0)
    expect(assist().taken(1)).toBe(false)
  })

  it('PV EOI: the other bits of the byte are the guest\'s, and there is no offer outside memory', () => {
    const { abi, assist, guestMemory } = start()
    abi.writeMsr(1, 0x4b564d04, 0x4001n)
    guestMemory.writeU8(0x4000, 0xa4)
    expect([assist().offer(1), guestMemory.readU8(0x4000)]).toEqual([true, 0xa5])
    assist().withdraw(1)
    expect(guestMemory.readU8(0x4000)).toBe(0xa4)
    abi.writeMsr(1, 0x4b564d04, 0x1_0001n)
    expect([assist().offer(1), assist().taken(1)]).toEqual([false, false])
  })
})

describe('hypercalls', () => {
  it.each([
    { name: 'poll', number: 1, result: 0n },
    { name: 'kick, without PV unhalt', number: 5, result: -1000n },
    { name: 'clock pairing', number: 9, result: -1000n },
    { name: 'yield', number: 11, result: 0n },
    { name: 'unknown', number: 99, result: -1000n },
  ])('$name', ({ number, result }) => {
    expect(start().call(number)).toBe(result)
  })

  it('are for the kernel only, and 32 bits wide outside long mode', () => {
    const { call } = start()
    expect(call(1, [], { cpl: 3 })).toBe(-1n)
    expect(call(99, [], { longMode: false })).toBe(0xfffffc18n)
  })

  it('send interrupts to a set of processors', () => {
    const { call, sent } = start({ vcpuCount: 4 })
    expect(call(10, [0b1011, 0, 1, 0x40fd])).toBe(2n)
    expect(sent).toEqual([
      [0xfee01000, 0xfd],
      [0xfee02000, 0xfd],
    ])
  })
})

it('saves and restores', () => {
  const first = start()
  first.abi.writeMsr(0, 0x12, 0x1001n)
  first.abi.writeMsr(1, 0x4b564d04, 0x2001n)
  const second = start()
  second.abi.restore(structuredClone(first.abi.save()))
  expect(second.abi.readMsr(0, 0x4b564d01)).toBe(0x1001n)
  expect(second.assist().offer(1)).toBe(true)
  expect(() => start({ vcpuCount: 3 }).abi.restore(first.abi.save())).toThrow(/does not fit/)
})
