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
