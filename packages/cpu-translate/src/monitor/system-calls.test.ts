/** SYSCALL and SYSRET between user code and translated code: complete state and memory are those of the processor under VMX. */

import { describe, expect, it } from 'vitest'
import { CODE, createMachine, KERNEL, little, SELECTOR } from '../testing/machines.ts'

const STAR = 0xc000_0081
const LSTAR = 0xc000_0082
const FMASK = 0xc000_0084
const EFER_BASE = 0xd01n
const KERNEL_AT = 0x100
const kernel = KERNEL + BigInt(CODE + KERNEL_AT)
const [SYSCALL, SYSRET, SYSRET_32] = [[0x0f, 0x05], [0x48, 0x0f, 0x07], [0x0f, 0x07]]
const [PUSHF, POPF, CLI, STI, INC_RBX, HLT, SWAPGS] = [[0x9c], [0x9d], [0xfa], [0xfb], [0x48, 0xff, 0xc3], [0xf4], [0x0f, 0x01, 0xf8]]
const push = (value: number): number[] => [0x68, ...little(BigInt(value), 4)]
/** MOV SS, EAX, which holds back what comes next. */
const MOV_SS = [0xb8, ...little(BigInt(SELECTOR.userData), 4), 0x8e, 0xd0]
/** MOV R11, and RCX, imm32 (sign-extended). */
const r11 = (value: number): number[] => [0x49, 0xc7, 0xc3, ...little(BigInt(value), 4)]
const rcx = (value: number): number[] => [0x48, 0xc7, 0xc1, ...little(BigInt(value), 4)]
/** MOV RCX, imm64. */
const rcx64 = (value: bigint): number[] => [0x48, 0xb9, ...little(value, 8)]
const selectors = (kernelCode: number, userCode: number): bigint => (BigInt(userCode) << 48n) | (BigInt(kernelCode) << 32n)

interface Case {
  readonly name: string
  readonly user?: readonly number[]
  readonly kernel?: readonly number[]
  readonly rflags?: bigint
  readonly star?: bigint
  readonly lstar?: bigint
  readonly fmask?: bigint
  readonly efer?: bigint
}
const there = [...SYSCALL, ...INC_RBX]
const CASES: readonly Case[] = [
  { name: 'there and back', user: [...there, ...there] },
  { name: 'flags there: all that FMASK leaves', kernel: HLT, rflags: 0x3ed7n, fmask: 0n },
  { name: 'flags there: none', kernel: HLT, rflags: 0x3ed7n, fmask: 0x3_7fd5n },
  { name: 'flags back: IOPL, ID, DF, NT', kernel: [...r11(0x20_7ed7), ...SYSRET], user: [...SYSCALL, ...PUSHF] },
  { name: 'flags back: AC', kernel: [...r11(0x4_0202), ...SYSRET], user: [...SYSCALL, ...PUSHF] },
  { name: 'flags back: TF', kernel: [...r11(0x302), ...SYSRET] },
  { name: 'flags back: RF and VM', kernel: [...r11(0x3_0202), ...SYSRET], user: [...SYSCALL, ...PUSHF] },
  { name: 'IOPL of user code, which the kernel sees', rflags: 0x3202n, fmask: 0x200n, kernel: [...PUSHF, ...SYSRET], user: [...SYSCALL, ...CLI, ...STI] },
  { name: 'user code with AC', rflags: 0x4_0202n },
  { name: 'user code with TF', rflags: 0x302n },
  { name: 'after STI of user code', rflags: 0x3002n, user: [...STI, ...there] },
  { name: 'after MOV SS', user: [...MOV_SS, ...there] },
  { name: 'STI before SYSRET', kernel: [...CLI, ...STI, ...SYSRET] },
  { name: 'POPF and SWAPGS in the kernel', kernel: [...SWAPGS, ...push(0x3246), ...POPF, ...PUSHF, ...SWAPGS, ...SYSRET] },
  { name: 'to 32-bit code', kernel: SYSRET_32, user: [...SYSCALL, 0x90, 0x90, ...HLT] },
  { name: 'RCX that is not canonical', kernel: [...rcx64(0x8000_0000_0000n), ...SYSRET] },
  { name: 'RCX in the kernel, where user code may not be', kernel: [...rcx(-0x7ffe_0000), ...SYSRET] },
  { name: 'SYSRET of a kernel that SYSCALL did not enter', user: HLT, kernel: [...SYSRET, ...HLT] },
  { name: 'LSTAR in a page that is not there', lstar: 0xffff_ffff_9000_0000n },
  { name: 'STAR with privilege levels', star: selectors(0x0b, 0x13) },
  { name: 'STAR with selectors at the end', star: selectors(0xffff, 0xfff4), kernel: HLT },
  { name: 'STAR that SYSRET carries over', star: selectors(8, 0xfff4) },
  { name: 'without EFER.SCE', efer: EFER_BASE & ~1n },
  {
    name: 'EFER.SCE cleared in the kernel',
    kernel: [0x50, 0x51, 0x52, ...rcx(-0x3fff_ff80), 0x0f, 0x32, 0x24, 0xfe, 0x0f, 0x30, 0x5a, 0x59, 0x58, ...SYSRET],
  },
]

const vmx = createMachine('vmx')
const translate = createMachine('translate')

describe.each(CASES)('$name', ({ user = there, kernel: code = SYSRET, rflags = 0x202n, star = selectors(SELECTOR.code, 0x13), lstar = kernel, fmask = 0x200n, efer = EFER_BASE }) => {
  const program = Array.from({ length: KERNEL_AT + code.length }, () => HLT[0]!)
  program.splice(0, user.length, ...user)
  program.splice(KERNEL_AT, code.length, ...code)
  // Twice: the second time the kernel's code is there already.
  it.each(['first', 'again'])('%s', () => {
    const state = {
      rflags,
      efer,
      msrs: new Map([
        [STAR, star],
        [LSTAR, lstar],
        [FMASK, fmask],
      ]),
    }
    const expected = vmx.run(program, { cpl: 3, state })
    expect(expected.reason).toBe('halt')
    expect(translate.run(program, { cpl: 3, state })).toEqual(expected)
  })
})
