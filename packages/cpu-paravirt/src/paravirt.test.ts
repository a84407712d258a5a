/** The paravirtual interface by what guest code meets: registers, frames on its stack, and what its hypervisor is asked. */

import { describe, expect, it } from 'vitest'
import {
  call,
  handlerOf,
  IRET,
  KERNEL_CODE,
  KERNEL_STACK,
  pvBench,
  SLOT,
  stop,
  USER_CODE,
  USER_STACK,
} from './testing/bench.ts'

const CODE = 0xe033n
const DATA = 0xe02bn
const [MASK, PENDING] = [1, 0]
const IF = 0x200n
const FLAGS = 0x202n
const [UD, GP, PF, BP] = [6, 13, 14, 3]
const at = (offset: number): bigint => BigInt(KERNEL_CODE + offset)

/** Words of a bounce's frame from RSP on, without error code. */
const frameOf = (bench: ReturnType<typeof pvBench>, rsp: bigint, words = 7): bigint[] =>
  Array.from({ length: words }, (_, n) => bench.word(rsp + BigInt(n * 8)))
/** rax, r11, rcx, flags, rip, cs, rflags, rsp, ss */
const toUser = (bench: ReturnType<typeof pvBench>, rip: bigint, flags = FLAGS, cs = CODE): bigint =>
  bench.returnFrame([0n, 0n, 0n, 0n, rip, cs, flags, USER_STACK, DATA])

describe('an exception of the kernel', () => {
  it('goes to its handler, with a frame below RSP aligned to 16', () => {
    const bench = pvBench()
    const { state } = bench.run([0x0f, 0x0b], { rsp: KERNEL_STACK - 8n, rcx: 1n, r11: 2n })
    const rsp = KERNEL_STACK - 16n - 56n
    expect(state).toMatchObject({ rsp, rip: handlerOf(UD) + 7n })
    expect(frameOf(bench, rsp)).toEqual([1n, 2n, at(0), CODE & ~3n, FLAGS, KERNEL_STACK - 8n, DATA])
  })
  it('has its error code behind RCX and R11, and the interrupt flag that the upcall mask stands for', () => {
    const bench = pvBench()
    bench.setInfo(MASK, 1)
    // mov [0x8_0000_0000], eax by moffs64
    const { state } = bench.run([0xa3, 0, 0, 0, 0, 8, 0, 0, 0])
    const frame = frameOf(bench, state.rsp, 8)
    expect([frame[2], frame[4]! >> 32n, frame[5]! & IF, bench.faultAddress()]).toEqual([2n, 1n, 0n, 0x8_0000_0000n])
    expect(state.rip).toBe(handlerOf(PF) + 7n)
  })
  it('ends the guest where there is no handler, and where the stack cannot be written', () => {
    const bench = pvBench()
    bench.pv.clearTraps()
    expect(bench.run([0x0f, 0x0b]).reason).toBe('failure')
    expect(pvBench().run([0x0f, 0x0b], { rsp: 0x2_0000n }).reason).toBe('failure')
  })
  it('XSA-444: has no frame in the hypervisor’s part of the address space', () => {
    const bench = pvBench()
    expect(bench.run([0x0f, 0x0b], { rsp: 0xffff_8200_0000_1000n }).reason).toBe('failure')
    expect(bench.pv.setDebugRegister(0, 0xffff_8200_0000_0000n)).toBe(false)
    expect(bench.pv.setDebugRegister(0, 0xffff_7fff_ffff_fffcn)).toBe(false)
    expect(bench.pv.setDebugRegister(0, 0xffff_8800_0000_0000n)).toBe(true)
  })
})

describe('INT n', () => {
  it('is for whoever the handler allows, the kernel counting as 1, and else #GP that names it', () => {
    for (const [privilege, expected] of [
      [0, handlerOf(GP)],
      [1, handlerOf(30)],
    ] as const) {
      const bench = pvBench()
      bench.pv.setTrap({ vector: 0x80, address: handlerOf(30), privilege, masksEvents: false })
      const { state } = bench.run([0xcd, 0x80])
      expect(state.rip).toBe(expected + 7n)
      const [word] = frameOf(bench, state.rsp + 16n, 1)
      expect(word).toBe(privilege ? at(2) : 0x402n)
    }
  })
  it('3 as one byte comes behind the instruction', () => {
    const bench = pvBench()
    const { state } = bench.run([0xcc])
    expect([state.rip, frameOf(bench, state.rsp)[2]]).toEqual([handlerOf(BP) + 7n, at(1)])
  })
})

describe('a program', () => {
  it('is reached by the return call, under its own tables, and comes back by SYSCALL', () => {
    const bench = pvBench()
    bench.put(USER_CODE, [0x0f, 0x05])
    const { state } = bench.run(call(IRET), { rsp: toUser(bench, BigInt(USER_CODE)) })
    expect(bench.calls).toEqual([BigInt(IRET), 100n])
    expect(state).toMatchObject({ rip: handlerOf(SLOT.syscall) + 7n, rsp: KERNEL_STACK - 0x100n - 56n })
    expect(frameOf(bench, state.rsp)).toEqual([
      ...[BigInt(USER_CODE + 2), FLAGS, BigInt(USER_CODE + 2), CODE, FLAGS, USER_STACK, DATA],
    ])
    expect([bench.count('bounces.syscall'), bench.pv.inKernel]).toEqual([1, true])
  })
  it('does not reach what only its kernel has mapped', () => {
    const bench = pvBench()
    // mov eax, [0x1000]
    bench.put(USER_CODE, [0x8b, 0x04, 0x25, 0, 0x10, 0, 0])
    const { state } = bench.run(call(IRET), { rsp: toUser(bench, BigInt(USER_CODE)) })
    expect([state.rip, bench.faultAddress(), bench.word(state.rsp + 16n)]).toEqual([handlerOf(PF) + 7n, 0x1000n, 4n])
  })
  it('keeps its translations while its kernel runs', () => {
    const bench = pvBench()
    bench.put(USER_CODE, [0x0f, 0x05])
    // The kernel returns to the program again: its frame is still at RSP.
    const again = [...[0x48, 0xc7, 0xc4, 0, 0x3f, 0, 0], ...call(IRET)]
    bench.handle(SLOT.syscall, again.slice(0, 16))
    toUser(bench, BigInt(USER_CODE))
    const { reason } = bench.run(call(IRET), { rsp: KERNEL_STACK - 0x100n })
    expect(reason).toBe('budget')
    bench.vcpu.sampleMetrics()
    const fills = bench.count('tiers.tlbFills')
    bench.vcpu.run(10_000)
    bench.vcpu.sampleMetrics()
    expect([bench.count('tiers.tlbFills') - fills, bench.count('modeToggles') > 1000]).toEqual([0, true])
  })
  it('has no system calls before its kernel registered a handler', () => {
    const bench = pvBench()
    bench.pv.setCallback('syscall', 0n, false)
    bench.put(USER_CODE, [0x0f, 0x05])
    const { state } = bench.run(call(IRET), { rsp: toUser(bench, BigInt(USER_CODE)) })
    expect([state.rip, bench.word(state.rsp + 16n)]).toEqual([handlerOf(UD) + 7n, BigInt(USER_CODE)])
  })
  it('XSA-7: at an address that is not canonical is a fault of the guest', () => {
    const bench = pvBench()
    const { reason, state } = bench.run(call(IRET), { rsp: toUser(bench, 0x8000_0000_0000n) })
    expect([reason, state.rip]).toEqual(['halt', handlerOf(GP) + 7n])
    expect(bench.word(state.rsp + 24n)).toBe(0x8000_0000_0000n)
  })
  it('XSA-260: gets no flag that would give privilege', () => {
    const bench = pvBench()
    bench.put(USER_CODE, [0x0f, 0x05])
    const { state } = bench.run(call(IRET), { rsp: toUser(bench, BigInt(USER_CODE), 0x2_3000n) })
    expect(frameOf(bench, state.rsp)[4]).toBe(2n)
    expect(state.rflags & 0x2_3000n).toBe(0n)
  })
})

describe('a trapped instruction', () => {
  const wrmsr = (index: number, value: bigint) => ({
    code: [0x0f, 0x30, ...stop],
    patch: { rcx: BigInt(index), rax: value & 0xffff_ffffn, rdx: value >> 32n },
  })
  it.each([
    ['FS', 0xc000_0100],
    ['GS', 0xc000_0101],
    ['the other GS', 0xc000_0102],
  ])('XSA-193: the base of %s is canonical or #GP', (_what, index) => {
    for (const [value, rip] of [
      [0x7fff_ffff_f000n, at(9)],
      [0x8000_0000_0000n, handlerOf(GP) + 7n],
    ] as const) {
      const { code, patch } = wrmsr(index, value)
      expect(pvBench().run(code, patch).state.rip).toBe(rip)
    }
  })
  it('XSA-193: so are bases set by call', () => {
    const { pv } = pvBench()
    expect((['fs', 'gsUser', 'gsKernel'] as const).map((which) => pv.setSegmentBase(which, 1n << 47n))).toEqual([
      ...[false, false, false],
    ])
    expect(pv.setSegmentBase('fs', (1n << 64n) - (1n << 47n))).toBe(true)
  })
  it('XSA-293: CR4 reads as what is on; what the guest may not have stays off', () => {
    const bench = pvBench()
    // mov cr4, rax; mov rbx, cr4; rdfsbase rcx
    const code = [0x0f, 0x22, 0xe0, 0x0f, 0x20, 0xe3, 0xf3, 0x48, 0x0f, 0xae, 0xc1]
    const { state } = bench.run(code, { rax: 0x1_0000n | 4n })
    expect(state.rbx & 0x1_0004n).toBe(4n)
    expect(state.rip).toBe(handlerOf(UD) + 7n)
  })
  it.each([
    ['HLT', [0xf4]],
    ['LGDT', [0x0f, 0x01, 0x14, 0x25, 0, 0x30, 0, 0]],
    ['MOV CR0 that changes more than TS', [0x0f, 0x22, 0xc0]],
    ['XSETBV without x87', [0x0f, 0x01, 0xd1]],
  ])('%s is #GP', (_what, code) => {
    expect(pvBench().run(code).state.rip).toBe(handlerOf(GP) + 7n)
  })
  it('CPUID behind its prefix is carried out, and a plain #UD is not', () => {
    const bench = pvBench()
    const { state } = bench.run([0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2, ...stop])
    expect([state.rip, bench.count('emulated.cpuid')]).toEqual([at(14), 1])
  })
})

describe('an event', () => {
  it('comes as soon as it is unmasked by the return call, and masks itself', () => {
    const bench = pvBench()
    bench.setInfo(PENDING, 1)
    bench.setInfo(MASK, 1)
    const rsp = bench.returnFrame([0n, 0n, 0n, 0n, at(0x100), CODE & ~3n, FLAGS, KERNEL_STACK - 0x200n, DATA])
    bench.put(KERNEL_CODE + 0x100, stop)
    const { state } = bench.run(call(IRET), { rsp })
    expect([state.rip, bench.info(MASK)]).toEqual([handlerOf(SLOT.event) + 7n, 1])
    expect(frameOf(bench, state.rsp)[2]).toBe(at(0x100))
  })
  it('waits while it is masked', () => {
    const bench = pvBench()
    bench.setInfo(PENDING, 1)
    bench.setInfo(MASK, 1)
    expect(bench.run(stop).state.rip).toBe(at(7))
  })
})
