import { expect, it } from 'vitest'
import { differences } from './testing/compare.ts'
import { createMachine } from './testing/machines.ts'
import { createRandom, randomProgram } from './testing/random-programs.ts'

it('random kernel programs end in the state that they have under VMX', { timeout: 60_000 }, () => {
  const vmx = createMachine('vmx')
  const translate = createMachine('translate')
  const random = createRandom(0x1234_5677)
  for (let n = 0; n < 300; n++) {
    const program = randomProgram(random, 1 + (random() % 24))
    const differing = differences(vmx.run(program), translate.run(program))
    expect({ n, program: differing.length ? program : [], differing }).toEqual({ n, program: [], differing: [] })
  }
})

const bytes = (text: string): number[] => text.split(' ').map((byte) => Number.parseInt(byte, 16))

/** Programs that random ones were reduced to when they differed. */
it.each([
  ['a REX prefix before another, with a RIP-relative operand', '40 48 8b 15 90 90 90 00'],
  ['a REX prefix before a legacy one, with a RIP-relative operand', '4a 66 8b 15 00 00 00 00'],
  ['a store over the PUSHF that follows it', '90 90 90 0f 20 d8 90 22 d8 c6 04 25 11 00 02 80 90 9c'],
  ['a store over the RET that follows it', '68 00 00 02 80 c6 04 25 0d 00 02 80 90 c3'],
  ['XBEGIN, which is undefined', '90 c7 f8 00 00 00 00'],
  ['a store over the JMP that follows it', '90 c6 04 25 09 00 02 80 90 eb 10 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 90 48 ff c0'],
])('%s', (_what, program) => {
  expect(differences(createMachine('vmx').run(bytes(program)), createMachine('translate').run(bytes(program)))).toEqual([])
})
