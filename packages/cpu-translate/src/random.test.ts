import { expect, it } from 'vitest'
import { differences } from './testing/compare.ts'
import { createMachine } from './testing/machines.ts'
import { createRandom, randomProgram, randomStart } from './testing/random-programs.ts'

/** The smoke runs more of them. */
const PROGRAMS = process.env['NONROOT_SMOKE'] ? 300 : 60
it.each([
  ['a cache of 1 MiB', 1 << 20, PROGRAMS],
  ['a cache of two frames, which is emptied again and again', 2 << 12, 100],
])('random kernel programs end in the state that they have under VMX: %s', { timeout: 60_000 }, (_what, cache, programs) => {
  const vmx = createMachine('vmx')
  const translate = createMachine('translate', { cache })
  const random = createRandom(0x1234_5677)
  for (let n = 0; n < programs; n++) {
    const at = randomStart(random)
    const program = randomProgram(random, 1 + (random() % 24), at)
    const differing = differences(vmx.run(program, { at }), translate.run(program, { at }))
    expect({ n, program: differing.length ? program : [], differing }).toEqual({ n, program: [], differing: [] })
  }
  const flushes = translate.metrics.scope('translator').counter('flushes', '').value
  expect(flushes > 0).toBe(cache < 1 << 20)
})

it('a program finds the accessed flags of its tables as at the start, whatever ran before', () => {
  // mov rax, cr3; mov cr3, rax; stac; mov eax, the first entry; movzx eax, byte [rax]
  const program = bytes('0f 20 d8 0f 22 d8 0f 01 cb b8 00 00 01 00 0f b6 00')
  const machine = createMachine('vmx')
  // Present, writable, user, and accessed by this very read.
  expect([1, 2, 3].map(() => machine.run(program).state.rax)).toEqual([0x27n, 0x27n, 0x27n])
})

const bytes = (text: string): number[] => text.split(' ').map((byte) => Number.parseInt(byte, 16))

/** Programs that random ones were reduced to when they differed. */
it.each([
  ['a REX prefix before another, with a RIP-relative operand', '40 48 8b 15 90 90 90 00'],
  ['a REX prefix before a legacy one, with a RIP-relative operand', '4a 66 8b 15 00 00 00 00'],
  ['a store over the PUSHF that follows it', '90 90 90 0f 20 d8 90 22 d8 c6 04 25 11 00 02 80 90 9c'],
  ['a store over the RET that follows it', '68 00 00 02 80 c6 04 25 0d 00 02 80 90 c3'],
  ['SMSW at the end of a full block', `${'90 '.repeat(63)}0f 01 e0 48 ff c0`],
  ['XBEGIN, which is undefined', '90 c7 f8 00 00 00 00'],
  ['a store over the JMP that follows it', '90 c6 04 25 09 00 02 80 90 eb 10 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 48 ff c0'],
])('%s', (_what, program) => {
  expect(differences(createMachine('vmx').run(bytes(program)), createMachine('translate').run(bytes(program)))).toEqual([])
})
