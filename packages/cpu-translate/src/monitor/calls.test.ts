/** What translated code leaves to the virtual CPU does not stop the processor, and gives what it gives under VMX. */

import { expect, it } from 'vitest'
import { differences } from '../testing/compare.ts'
import { createMachine, little } from '../testing/machines.ts'

const TURNS = 200
/** mov r15, TURNS; the code; dec r15; jnz to the code */
const loop = (code: readonly number[]): number[] => [
  ...[0x49, 0xc7, 0xc7, ...little(BigInt(TURNS), 4)],
  ...code,
  ...[0x49, 0xff, 0xcf, 0x0f, 0x85, ...little(BigInt.asUintN(32, BigInt(-(code.length + 9))), 4)],
]

it.each([
  ['STR', [0x0f, 0x00, 0xc8]],
  ['SGDT', [0x0f, 0x01, 0x03]],
  ['RDMSR', [0xb9, 0x00, 0x01, 0x00, 0xc0, 0x0f, 0x32]],
  ['WRMSR', [0x31, 0xc0, 0x31, 0xd2, 0xb9, 0x02, 0x01, 0x00, 0xc0, 0x0f, 0x30]],
  ['MOV to CR3', [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]],
  ['MOV to CR0', [0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0]],
  ['INVLPG', [0x0f, 0x01, 0x3b]],
  ['MOV to DS', [0xb8, 0x10, 0, 0, 0, 0x8e, 0xd8]],
  ['a port', [0xe4, 0x80, 0xe6, 0x80]],
  ['INT n', [0xcd, 0x40]],
  ['LAR', [0xb8, 0x10, 0, 0, 0, 0x0f, 0x02, 0xd0]],
])('%s', (_what, code) => {
  const machine = createMachine('translate')
  const program = loop(code)
  expect(differences(createMachine('vmx').run(program), machine.run(program))).toEqual([])
  const count = (scope: string, name: string): number => machine.metrics.scope(scope).counter(name, '').value
  expect(count('instructions', 'emulated')).toBeGreaterThanOrEqual(TURNS)
  expect(count('traps', 'vector13')).toBeLessThan(5)
})

it.each([
  ['MOV from CS', [0x8c, 0xc8]],
  ['MOV from SS to R9', [0x41, 0x8c, 0xd1]],
  ['MOV from FS', [0x8c, 0xe0]],
  ['MOV from CR2', [0x0f, 0x20, 0xd0]],
  ['MOV from CR3 to R9', [0x41, 0x0f, 0x20, 0xd9]],
])('%s needs no virtual CPU', (_what, code) => {
  const machine = createMachine('translate')
  const program = loop(code)
  expect(differences(createMachine('vmx').run(program), machine.run(program))).toEqual([])
  expect(machine.metrics.scope('instructions').counter('emulated', '').value).toBeLessThan(5)
})

const GS_BASE = 0xc000_0101
it.each([
  ['CALL and RET', [0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3]],
  ['RET n', [0x50, 0xe8, 2, 0, 0, 0, 0xeb, 3, 0xc2, 8, 0]],
  ['RET across two pages', [0x48, 0x8d, 0xa4, 0x24, ...little(BigInt.asUintN(32, -0xffcn), 4), 0xe8, 2, 0, 0, 0, 0xeb, 1, 0xc3, 0x48, 0x8d, 0xa4, 0x24, ...little(0xffcn, 4)], 0],
  ['JMP to a register', [0x48, 0x8d, 0x05, 2, 0, 0, 0, 0xff, 0xe0]],
  ['CALL of R9', [0x4c, 0x8d, 0x0d, 3, 0, 0, 0, 0x41, 0xff, 0xd1, 0x48, 0x83, 0xc4, 0x08]],
  ['CLI, STI and PUSHF', [0xfa, 0x9c, 0x58, 0xfb, 0x90, 0x9c, 0x59]],
  ['POPF of each status flag', [0x44, 0x89, 0xf8, 0x25, 0xd5, 8, 0, 0, 0x0d, 2, 2, 0, 0, 0x50, 0x9d, 0x9c, 0x5a, 0x01, 0xd6]],
  ['POPF of DF, NT, ID and IF', [0x44, 0x89, 0xf8, 0xc1, 0xe0, 9, 0x25, 0, 0x46, 0x20, 0, 0x0d, 2, 0, 0, 0, 0x50, 0x9d, 0x9c, 0x5a, 0x01, 0xd6]],
  ['POPF that changes AC', [0x68, ...little(0x4_0202n, 4), 0x9d, 0x9c, 0x5a, 0x68, ...little(0x202n, 4), 0x9d, 0x9c, 0x5a], TURNS],
  ['SWAPGS', [0x0f, 0x01, 0xf8, 0xf3, 0x48, 0x0f, 0xae, 0xc8]],
])('%s', (_what, code, least = TURNS - 1) => {
  const machine = createMachine('translate')
  const program = loop(code)
  const options = { state: { msrs: new Map([[GS_BASE, 0xffff_ffff_8002_8100n]]) } }
  expect(differences(createMachine('vmx').run(program, options), machine.run(program, options))).toEqual([])
  machine.vcpu.sampleMetrics?.()
  expect(machine.metrics.scope('instructions').counter('quick', '').value).toBeGreaterThanOrEqual(least)
})

it.each([
  ['without SMAP', 0n],
  ['with it', 1n << 21n],
])('STAC and CLAC %s', (_what, smap) => {
  // A read of a user page between STAC and CLAC: allowed.
  const program = loop([0x0f, 0x01, 0xcb, 0x8b, 0x04, 0x25, ...little(0x28000n, 4), 0x9c, 0x0f, 0x01, 0xca, 0x9c, 0x5a, 0x59])
  // Then another, which SMAP refuses.
  const then = [...program, 0x8b, 0x04, 0x25, ...little(0x28000n, 4)]
  const options = { state: { cr4: 0x1_06a0n | smap } }
  expect(differences(createMachine('vmx').run(then, options), createMachine('translate').run(then, options))).toEqual([])
})

it('POPF of AC lets the kernel read user pages under SMAP, and no longer', () => {
  const read = [0x8b, 0x04, 0x25, ...little(0x28000n, 4)]
  const flags = (image: bigint): number[] => [0x68, ...little(image, 4), 0x9d]
  const program = [...loop([...flags(0x4_0202n), ...read, ...flags(0x202n)]), ...read]
  const options = { state: { cr4: 0x21_06a0n } }
  expect(differences(createMachine('vmx').run(program, options), createMachine('translate').run(program, options))).toEqual([])
})

it('PUSHF shows the IOPL of a kernel, and POPF may change it', () => {
  const program = loop([0x9c, 0x58, 0x68, ...little(0x3202n, 4), 0x9d, 0x9c, 0x59, 0x68, ...little(0x202n, 4), 0x9d, 0x9c, 0x5a])
  expect(differences(createMachine('vmx').run(program), createMachine('translate').run(program))).toEqual([])
})
