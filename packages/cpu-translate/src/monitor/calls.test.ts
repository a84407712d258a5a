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
