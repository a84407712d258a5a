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

  it.each([
    { leaf: 0, kvm: 'kept', bare: 'kept' },
    { leaf: 1, kvm: { eax: 1, ebx: 1, ecx: 0xffff_ffff, edx: 1 }, bare: { eax: 1, ebx: 1, ecx: 0x7fff_ffff, edx: 1 } },
    { leaf: 2, kvm: 'kept', bare: 'kept' },
    { leaf: 0x3fff_ffff, kvm: 'kept', bare: 'kept' },
    { leaf: 0x4000_0011, kvm: 'none', bare: 'none' },
    { leaf: 0x4fff_ffff, kvm: 'none', bare: 'none' },
    { leaf: 0x5000_0000, kvm: 'kept', bare: 'kept' },
    { leaf: 0x8000_0000, kvm: 'kept', bare: 'kept' },
  ])('leaf $leaf of the processor: kvm $kvm, bare $bare', ({ leaf, kvm, bare }) => {
    const named = { kept: { eax: 1, ebx: 1, ecx: 0xffff_ffff, edx: 1 }, none: { eax: 0, ebx: 0, ecx: 0, edx: 0 } }
    for (const [abi, expected] of [[start().abi, kvm], [createBareAbi(), bare]] as const) {
      const result = { ...named.kept }
      abi.cpuid(0, leaf, 0, result)
      expect(result).toEqual(typeof expected === 'string' ? named[expected as keyof typeof named] : expected)
    }
  })

  it('bare says nothing', () => {
    const bare = createBareAbi()
    const result = { eax: 1, ebx: 1, ecx: 1, edx: 1 }
    bare.cpuid(0, 0x40000000, 0, result)
    expect(result).toEqual({ eax: 0, ebx: 0, ecx: 0, edx: 0 })
    expect([bare.readMsr(0, 0x4b564d01), bare.writeMsr(0, 0x4b564d01, 1n)]).toEqual([undefined, undefined])
    const registers = { rax: 1n, rbx: 0n, rcx: 0n, rdx: 0n, rsi: 0n, rdi: 0n, r8: 0n, r9: 0n, r10: 0n }
    expect(bare.hypercall({ index: 0, registers, cpl: 0, longMode: true, translate: () => undefined })).toBe('unknown')
    bare.reset()
    bare.restore(bare.save())
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

  it.each([
    // Nanoseconds since 1970 at which the clock was 0: that of the host less what the clock shows.
    { wallMs: 5000, nowNs: 0, seconds: 5, nanoseconds: 0 },
    { wallMs: 5250, nowNs: 750_000_000, seconds: 4, nanoseconds: 500_000_000 },
    { wallMs: 5750, nowNs: 3_250_000_000, seconds: 2, nanoseconds: 500_000_000 },
    { wallMs: 5250, nowNs: 250_000_000, seconds: 5, nanoseconds: 0 },
  ])('wall clock: $wallMs ms at $nowNs ns began at $seconds.$nanoseconds', ({ wallMs, nowNs, seconds, nanoseconds }) => {
    const { abi, clock, guestMemory } = start()
    Object.assign(clock, { nowNs: () => nowNs, wallClockMs: () => wallMs })
    abi.writeMsr(0, 0x4b564d00, 0x2000n)
    expect([guestMemory.readU32(0x2004), guestMemory.readU32(0x2008)]).toEqual([seconds, nanoseconds])
  })

  it.each([
    { name: 'time', msr: 0x12, enabled: 1n, version: 0, bytes: 32 },
    { name: 'wall clock', msr: 0x11, enabled: 0n, version: 0, bytes: 12 },
    { name: 'steal time', msr: 0x4b564d03, enabled: 1n, version: 8, bytes: 64 },
  ])('$name: a later version each time, even when complete, and nothing where it does not fit into memory', ({ msr, enabled, version, bytes }) => {
    const { abi, guestMemory } = start()
    const at = 0x3000
    let before = 0x41
    guestMemory.writeU32(at + version, before)
    for (let n = 0; n < 3; n++) {
      expect(abi.writeMsr(0, msr, BigInt(at) | enabled)).toBe(true)
      const after = guestMemory.readU32(at + version)!
      expect([after & 1, after > before]).toEqual([0, true])
      before = after
    }
    // Its last four bytes lie beyond the end of memory, or none.
    const end = (1 << 16) - (bytes & -64 || 64)
    for (const [where, fits] of [[end + (bytes === 64 ? 0 : 64 - bytes), true], [end + 64 - (bytes - 4), false]] as const) {
      guestMemory.writeBytes(end, new Uint8Array(64).fill(0xee))
      abi.writeMsr(0, msr, BigInt(where) | enabled)
      const found = new Uint8Array(64)
      guestMemory.readBytes(end, found)
      expect(found.every((byte) => byte === 0xee)).toBe(!fits)
    }
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

  it('keep what was written, each its own', () => {
    const { abi } = start()
    const written: [number, bigint][] = [[0x4b564d00, 0x1000n], [0x4b564d01, 0x2001n], [0x4b564d03, 0x3001n], [0x4b564d04, 0x4001n], [0x4b564d05, 0n]]
    for (const [msr, value] of written) expect(abi.writeMsr(1, msr, value)).toBe(true)
    for (const [msr, value] of written) expect(abi.readMsr(1, msr)).toBe(value)
    expect([abi.readMsr(0, 0x4b564d01), abi.readMsr(0, 0x4b564d05), abi.readMsr(0, 0x4b564d00)]).toEqual([0n, 1n, 0x1000n])
  })

  it.each([
    { offered: 'clock', there: [0x11, 0x12, 0x4b564d00, 0x4b564d01] },
    { offered: 'stealTime', there: [0x4b564d03] },
    { offered: 'pvEoi', there: [0x4b564d04] },
  ])('only $offered', ({ offered, there }) => {
    const vm = start({ options: { clock: false, stealTime: false, pvEoi: false, [offered]: true } })
    const all = [0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04]
    expect(all.filter((msr) => vm.abi.readMsr(0, msr) !== undefined)).toEqual(there)
    // Nothing of what is not offered is missed.
    vm.abi.reset()
    vm.abi.restore(vm.abi.save())
    expect(all.filter((msr) => vm.abi.writeMsr(0, msr, 0n) === true)).toEqual(there)
  })

  it('steal time is shown when its place is set, when it has grown, and not otherwise', () => {
    const { abi, guestMemory } = start()
    const shown = (): unknown[] => [guestMemory.readU64(0x3000), guestMemory.readU32(0x3008)]
    abi.accountSteal(1, 700)
    abi.writeMsr(1, 0x4b564d03, 0x3001n)
    const [first, version] = shown()
    expect(first).toBe(700n)
    abi.onEntry(1)
    expect(shown()).toEqual([first, version])
    abi.accountSteal(0, 5)
    abi.onEntry(0)
    expect(shown()).toEqual([first, version])
    abi.accountSteal(1, 1)
    abi.reset()
    abi.writeMsr(1, 0x4b564d03, 0x3001n)
    const fresh = shown()
    abi.onEntry(1)
    expect([fresh[0], shown()]).toEqual([0n, fresh])
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

  it('with one processor: nobody to send to, polling and yielding do no harm', () => {
    const { call, sent } = start({ vcpuCount: 1 })
    expect([call(1), call(10, [1, 0, 0, 0x40]), call(11)]).toEqual([0n, -1000n, 0n])
    expect(sent).toEqual([])
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
  const saved = first.abi.save()
  for (const [vcpuCount, wrong] of [[3, saved], [2, { ...saved, type: 'other' }], [2, { ...saved, version: 2 }], [2, { ...saved, data: {} }]] as const)
    expect(() => start({ vcpuCount }).abi.restore(wrong)).toThrow(/does not fit/)
})
