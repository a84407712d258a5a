/** Instructions that begin on one page and end on the next, as under VMX, and translated like others. */

import { describe, expect, it } from 'vitest'
import { differences } from './testing/compare.ts'
import { CODE, createMachine, KERNEL, little, type Outcome } from './testing/machines.ts'

const vmx = createMachine('vmx')
const translate = createMachine('translate')
const same = (program: readonly number[], at: number): Outcome => {
  const outcome = translate.run(program, { at })
  expect(differences(vmx.run(program, { at }), outcome)).toEqual([])
  return outcome
}
const emulated = (): number => translate.metrics.scope('instructions').counter('emulated', '').value

/** The second page's first byte. */
const PAGE = 0x1000
const absolute = (offset: number): number[] => little(BigInt.asUintN(32, KERNEL + BigInt(CODE + offset)), 4)
const CROSSING: readonly (readonly [name: string, code: readonly number[]])[] = [
  ['MOV of a constant', [0x48, 0xb8, 1, 2, 3, 4, 5, 6, 7, 8]],
  ['a RIP-relative operand', [0x48, 0x8b, 0x15, 4, 0, 0, 0]],
  ['a conditional branch', [0x0f, 0x84, 1, 0, 0, 0]],
  ['JMP', [0xe9, 1, 0, 0, 0]],
  ['CALL', [0xe8, 1, 0, 0, 0]],
  ['CALL of a register', [0x41, 0xff, 0xd0]],
  ['a sensitive instruction', [0x0f, 0x01, 0xe0]],
  ['an undefined one', [0x0f, 0x0b]],
  ['one of 16 bytes', [...Array.from({ length: 14 }, () => 0x66), 0x89, 0xc0]],
]
describe.each(CROSSING)('%s', (_name, code) => {
  it.each(code.slice(1).map((_, n) => n + 1))('with %d bytes before the boundary', (before) => {
    // lea r8, [rip + 1]; the instruction; three INC RSI
    const lea = [0x4c, 0x8d, 0x05, ...little(BigInt(code.length + 3), 4)]
    same([...lea, ...code, 0x48, 0xff, 0xc6, 0x48, 0xff, 0xc6, 0x48, 0xff, 0xc6], PAGE - lea.length - before)
  })
})

it('a loop over one is not left to the virtual CPU', () => {
  // mov ecx, 1000; add rsi, 1 (its last byte behind the boundary); dec ecx; jnz
  const program = [0xb9, 0xe8, 3, 0, 0, 0x48, 0x83, 0xc6, 1, 0xff, 0xc9, 0x75, 0xf8]
  const before = emulated()
  expect(same(program, PAGE - 8).state.rsi).toBe(1000n)
  expect(emulated() - before).toBeLessThan(10)
})

it.each([
  ['the first page', -1, 0xc7, 'rdi'],
  ['the second page', 0, 5, 'rsi'],
] as const)('one that is written over on %s is another', (_page, offset, value, register) => {
  // add rsi, 1, whose last byte is on the second page; twice, then written over, and once more.
  const program = [
    ...[0xb9, 3, 0, 0, 0], // mov ecx, 3
    ...[0x48, 0x83, 0xc6, 1], // add rsi, 1
    ...[0xff, 0xc9], // dec ecx
    ...[0x83, 0xf9, 1], // cmp ecx, 1
    ...[0x75, 0x08], // jne over the store
    ...[0xc6, 0x04, 0x25, ...absolute(PAGE + offset), value],
    ...[0x85, 0xc9], // test ecx, ecx
    ...[0x75, 0xe9], // jnz to add
  ]
  const { state } = same(program, PAGE - 8)
  expect([state.rsi, state.rdi]).toEqual(register === 'rdi' ? [2n, 1n] : [7n, 0n])
})

it('one whose second page is mapped elsewhere is another', () => {
  const TABLE = 0xd000
  // The second page's copy at 22000H differs in the first byte: add rsi, 5.
  const program = [
    // Entries of 4 KiB for the first 2 MiB: mov rdi, KERNEL + TABLE; mov eax, 3; mov ecx, 512; L: mov [rdi], rax; add rdi, 8; add rax, 4096; loop L
    ...[0x48, 0xc7, 0xc7, ...little(BigInt.asUintN(32, KERNEL + BigInt(TABLE)), 4)],
    ...[0xb8, 3, 0, 0, 0, 0xb9, 0, 2, 0, 0],
    ...[0x48, 0x89, 0x07, 0x48, 0x83, 0xc7, 8, 0x48, 0x05, 0, 0x10, 0, 0, 0xe2, 0xf1],
    // The directory's first entry leads to them: mov qword [KERNEL + f000H], TABLE | 3; mov rax, cr3; mov cr3, rax
    ...[0x48, 0xc7, 0x04, 0x25, ...little(BigInt.asUintN(32, KERNEL + 0xf000n), 4), ...little(BigInt(TABLE | 3), 4)],
    ...[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8],
    // The copy: mov byte [KERNEL + 22000H], 5; mov qword [KERNEL + 22001H], the bytes behind
    ...[0xc6, 0x04, 0x25, ...absolute(0x2000), 5],
    ...[0xc7, 0x04, 0x25, ...absolute(0x2001), 0xff, 0xe2, 0xf4, 0xf4],
    // lea rdx, first; jmp over to the instruction
    ...[0x48, 0x8d, 0x15, 5, 0, 0, 0],
    ...[0xe9, 0, 0, 0, 0],
    // first: mov qword [entry 21H], 22000H | 3; invlpg [KERNEL + 21000H]; lea rdx, last; jmp over
    ...[0x48, 0xc7, 0x04, 0x25, ...little(BigInt.asUintN(32, KERNEL + BigInt(TABLE + 0x21 * 8)), 4), 3, 0x20, 2, 0],
    ...[0x0f, 0x01, 0x3c, 0x25, ...absolute(PAGE)],
    ...[0x48, 0x8d, 0x15, 5, 0, 0, 0],
    ...[0xe9, 0, 0, 0, 0],
    // last:
    0xf4,
  ]
  const start = PAGE - 3 - program.length
  // Both jumps lead to the instruction, right before the boundary: add rsi, 1; jmp rdx
  const jumps = program.flatMap((byte, n) => (byte === 0xe9 ? [n] : []))
  for (const n of jumps) program.splice(n + 1, 4, ...little(BigInt(program.length - (n + 5)), 4))
  expect(same([...program, 0x48, 0x83, 0xc6, 1, 0xff, 0xe2], start).state.rsi).toBe(6n)
})
