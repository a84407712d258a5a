/** A vCPU that is saved and restored in the midst of translated code goes on as if it had not been. */

import { expect, it } from 'vitest'
import { differences } from './testing/compare.ts'
import { createMachine } from './testing/machines.ts'
import { createRandom, randomProgram } from './testing/random-programs.ts'

it.each([1, 3])('every %d instructions', (savesEvery) => {
  const vmx = createMachine('vmx')
  const translate = createMachine('translate')
  const random = createRandom(savesEvery)
  let ended = 0
  for (let n = 0; n < 30; n++) {
    const program = randomProgram(random, 1 + (random() % 24))
    const expected = vmx.run(program)
    // A program without an end would be saved 20,000 times.
    if (expected.reason !== 'halt') continue
    const differing = differences(expected, translate.run(program, { savesEvery }))
    expect({ program: differing.length ? program : [], differing }).toEqual({ program: [], differing: [] })
    ended++
  }
  expect(ended).toBeGreaterThan(15)
})
