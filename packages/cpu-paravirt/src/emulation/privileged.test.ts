/** Instructions that trap at CPL 3 and are carried out for the guest's kernel, by what its registers then hold. (Xen, "xen/arch/x86/pv/emul-priv-op.c") */

import { describe, expect, it } from 'vitest'
import { call, handlerOf, IRET, KERNEL_CODE, pvBench, SLOT, stop, USER_CODE, USER_STACK } from '../testing/bench.ts'

const [UD, NM, GP] = [6, 7, 13]
const [CODE, DATA, FLAGS] = [0xe033n, 0xe02bn, 0x202n]
const after = (code: readonly number[]): bigint => BigInt(KERNEL_CODE + code.length + stop.length)
const refused = handlerOf(GP) + BigInt(stop.length)

/** Runs one instruction of the kernel, then stops. */
function kernel(code: readonly number[], patch = {}, prepare = (_bench: ReturnType<typeof pvBench>): void => {}) {
  const bench = pvBench()
  prepare(bench)
  const { state } = bench.run([...code, ...stop], patch)
  return { bench, state, isDone: state.rip === after(code), isRefused: state.rip === refused }
}
/** Runs one instruction of a program, then a system call. */
function user(code: readonly number[], prepare = (_bench: ReturnType<typeof pvBench>): void => {}) {
  const bench = pvBench()
  prepare(bench)
  bench.put(USER_CODE, [...code, 0x0f, 0x05])
  const rsp = bench.returnFrame([0n, 0n, 0n, 0n, BigInt(USER_CODE), CODE, FLAGS, USER_STACK, DATA])
  const { state } = bench.run(call(IRET), { rsp })
  return {
    bench,
    state,
    isDone: state.rip === handlerOf(SLOT.syscall) + BigInt(stop.length),
    isRefused: state.rip === refused,
  }
}

describe('an MSR', () => {
  const RDMSR = [0x0f, 0x32]
  const WRMSR = [0x0f, 0x30]
  it.each([
    ['IA32_EFER', 0xc000_0080, 0xd01n],
    ['IA32_APIC_BASE', 0x1b, 0xfee0_0900n],
    ['IA32_PAT', 0x277, 0x0501_0007_0406n],
    ['IA32_MCG_STATUS', 0x17a, 0n],
  ])('%s reads as the hypervisor has it, and takes nothing else', (_name, index, value) => {
    // The call that stops has its number in RAX: a copy is in RBX.
    const { state } = kernel([...RDMSR, 0x89, 0xc3], { rcx: BigInt(index) })
    expect((state.rdx << 32n) | state.rbx).toBe(value)
    const write = (written: bigint) =>
      kernel(WRMSR, { rcx: BigInt(index), rax: written & 0xffff_ffffn, rdx: written >> 32n })
    expect([write(value).isDone, write(value ^ 1n).isRefused]).toEqual([true, true])
  })
  it.each([
    ['IA32_LSTAR', 0xc000_0082],
    ['IA32_SYSENTER_EIP', 0x176],
  ])('%s takes whatever is written, and reads 0: entries are registered by call', (_name, index) => {
    const { state, isDone } = kernel([...WRMSR, ...RDMSR, 0x89, 0xc3], { rcx: BigInt(index), rax: 5n, rdx: 6n })
    expect([isDone, state.rbx, state.rdx]).toEqual([true, 0n, 0n])
  })
  it('that there is none of is #GP, and reads 0 before the kernel has a handler for that', () => {
    const unknown = { rcx: 0xc001_1234n, rdx: 7n }
    expect([kernel(RDMSR, unknown).isRefused, kernel(WRMSR, unknown).isRefused]).toEqual([true, true])
    const { isDone, state } = kernel(RDMSR, unknown, ({ pv }) => pv.clearTraps())
    expect([isDone, state.rdx]).toEqual([true, 0n])
  })
  it('is not a program’s to read', () => {
    expect(user(RDMSR).isRefused).toBe(true)
  })
})

describe('a port', () => {
  // in al, 0x60; out 0x60, al
  const [IN, OUT] = [
    [0xe4, 0x60],
    [0xe6, 0x60],
  ] as const
  it.each<[level: number, kernelMay: boolean, userMay: boolean]>([
    [0, false, false],
    [1, true, false],
    [2, true, false],
    [3, true, true],
  ])('with a virtual IOPL of %i', (level, kernelMay, userMay) => {
    const privilege = ({ pv }: ReturnType<typeof pvBench>): void => pv.setIoPrivilege(level)
    for (const code of [IN, OUT]) {
      const [inKernel, inProgram] = [kernel(code, {}, privilege), user(code, privilege)]
      expect([inKernel.isDone, inKernel.isRefused]).toEqual([kernelMay, !kernelMay])
      expect([inProgram.isDone, inProgram.isRefused]).toEqual([userMay, !userMay])
    }
  })
  it.each<[name: string, code: number[], value: bigint]>([
    ['IN AL', [0xec], 0x1122_33ffn],
    ['IN AX', [0x66, 0xed], 0x1122_ffffn],
    ['IN EAX', [0xed], 0xffff_ffffn],
  ])('that no domain has answers ones: %s', (_name, code, value) => {
    const { state } = kernel([...code, 0x89, 0xc3], { rax: 0x1122_3344n, rdx: 0xcf8n }, ({ pv }) =>
      pv.setIoPrivilege(1),
    )
    expect(state.rbx).toBe(value)
  })
  it.each<[what: string, bitmap: number[], ports: number, code: number[], may: boolean]>([
    ['its bit is clear', [0xff, 0xfe], 16, [0xe4, 8], true],
    ['its bit is set', [0xff, 0xfe], 16, [0xe4, 9], false],
    ['it is the last of the bitmap', [0xff, 0x7f], 16, [0xe4, 15], true],
    ['it is beyond the bitmap', [0, 0], 15, [0xe4, 15], false],
    ['all bits of a wider access are clear', [0x7f, 0xfe], 16, [0x66, 0xe5, 7], true],
    ['one bit of a wider access is set', [0x7f, 0xff], 16, [0x66, 0xe5, 7], false],
    ['a wider access ends beyond the bitmap', [0, 0], 16, [0x66, 0xe5, 15], false],
  ])('is a program’s where %s', (_what, bitmap, ports, code, may) => {
    const { isDone, isRefused } = user(code, ({ pv, put }) => {
      put(0x6000, bitmap)
      pv.setIoBitmap(0x6000n, ports)
    })
    expect([isDone, isRefused]).toEqual([may, !may])
  })
  it('is refused where the bitmap cannot be read', () => {
    expect(user([0xe4, 8], ({ pv }) => pv.setIoBitmap(0x2_0000n, 256)).isRefused).toBe(true)
  })
})

describe('control of the processor', () => {
  it('CR0.TS is set and cleared, and the next use of the FPU comes as #NM once', () => {
    // mov rax, cr0; or al, 8; mov cr0, rax; fnop
    const code = [0x0f, 0x20, 0xc0, 0x0c, 8, 0x0f, 0x22, 0xc0, 0xd9, 0xd0]
    const { state, bench } = kernel(code)
    expect([state.rip, state.cr0 & 8n, bench.count('bounces.exception7')]).toEqual([handlerOf(NM) + 7n, 0n, 1])
    // The same with CLTS before: no #NM.
    expect(kernel([...code.slice(0, 8), 0x0f, 0x06, ...code.slice(8)]).isDone).toBe(true)
  })
  it('CR2 and CR3 read as the guest has them', () => {
    // mov rax, cr3; mov rbx, rax; mov rcx, cr2
    const { state, bench } = kernel([0x0f, 0x20, 0xd8, 0x48, 0x89, 0xc3, 0x0f, 0x20, 0xd1, 0x48, 0x89, 0xca])
    expect([state.rbx, state.rdx]).toEqual([bench.vcpu.readState().cr3, bench.faultAddress()])
  })
  it.each([
    ['CLI', [0xfa]],
    ['STI', [0xfb]],
  ])('%s is skipped where the virtual IOPL allows it, and else #GP', (_name, code) => {
    expect([kernel(code).isRefused, kernel(code, {}, ({ pv }) => pv.setIoPrivilege(1)).isDone]).toEqual([true, true])
  })
  it.each([
    ['WBINVD', [0x0f, 0x09]],
    ['INVD', [0x0f, 0x08]],
  ])('%s does nothing', (_name, code) => {
    expect(kernel(code).isDone).toBe(true)
    expect(user(code).isRefused).toBe(true)
  })
  it('XCR0 has x87, and SSE', () => {
    const xsetbv = (value: bigint) => kernel([0x0f, 0x01, 0xd1], { rcx: 0n, rax: value, rdx: 0n })
    expect([1n, 3n, 2n, 7n, 0n].map((value) => xsetbv(value).isDone)).toEqual([true, true, false, false, false])
  })
  it('debug registers are read and written, and DR4 is none', () => {
    // mov dr0, rax; mov rbx, dr0
    const { state } = kernel([0x0f, 0x23, 0xc0, 0x0f, 0x21, 0xc3], { rax: 0x1234n })
    expect(state.rbx).toBe(0x1234n)
  })
})

describe('SYSENTER of a program', () => {
  const SYSENTER = [0x0f, 0x34]
  it('is #GP without a handler', () => {
    expect(user(SYSENTER).isRefused).toBe(true)
  })
  it('comes to its handler, with nothing of where it was left', () => {
    const { state, bench } = user(SYSENTER, ({ pv, handle }) => {
      pv.setCallback('sysenter', handlerOf(42), false)
      handle(42)
    })
    expect([state.rip, bench.word(state.rsp + 16n), bench.count('bounces.sysenter')]).toEqual([
      handlerOf(42) + 7n,
      0n,
      1,
    ])
  })
  it('is none in the kernel', () => {
    expect([handlerOf(UD) + 7n, refused]).toContain(kernel(SYSENTER).state.rip)
  })
})
