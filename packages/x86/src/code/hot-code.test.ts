/** What one machine found hot, another compiles early; and nothing else of it. */
import type { HotCodeMemory } from '@nonroot/contracts'
import { expect, it } from 'vitest'
import { BareMetal } from '../testing/bare-metal.ts'
import { asm } from '../testing/asm.ts'
import { HotCode, SOONER } from './hot-code.ts'

const LOOP = asm(64, 'l: add eax, 3; dec ecx; jnz l; hlt')
const OTHER = asm(64, 'l: add eax, 5; dec ecx; jnz l; hlt')
const HOT = 100
const KNOWN_HOT = HOT * SOONER

interface Host extends HotCodeMemory {
  readonly hashes: number[]
}
function createHost(hashes: number[] = []): Host {
  return { hashes, known: () => Uint32Array.from(hashes), add: (more) => void hashes.push(...more) }
}

/** The regions that `rounds` of a program lead to, the first of which has run when the block of the loop is entered. */
function regionsOf(host: HotCodeMemory | undefined, program: readonly number[], rounds: number): number {
  const hotCode = host && new HotCode(host)
  const machine = new BareMetal({ compile: true, hotCode })
  machine.enter('long')
  machine.processor.blocks.hotness = HOT
  machine.run([0xb9, rounds & 0xff, rounds >> 8, 0, 0, 0xeb, 0, ...program])
  machine.processor.compiler.flush()
  return machine.processor.compiler.statistics.regions
}

it.each<[string, readonly number[] | undefined, readonly number[], number, number]>([
  ['unknown code is hot after its runs', undefined, LOOP, HOT + 2, 1],
  ['and not before', undefined, LOOP, HOT - 1, 0],
  ['known code is hot early', LOOP, LOOP, KNOWN_HOT + 2, 1],
  ['but not when it has hardly run', LOOP, LOOP, KNOWN_HOT - 1, 0],
  ['other code in the same place is not known', OTHER, LOOP, HOT - 1, 0],
])('%s', (_what, before, program, rounds, regions) => {
  const host = createHost()
  if (before) regionsOf(host, before, HOT + 2)
  expect(regionsOf(host, program, rounds)).toBe(regions)
})

it('what is known is not added again, and what is not compiled is not added', () => {
  const host = createHost()
  regionsOf(host, OTHER, HOT - 1)
  expect(host.hashes).toEqual([])
  regionsOf(host, LOOP, HOT + 2)
  const once = [...host.hashes]
  regionsOf(host, LOOP, HOT + 2)
  expect([once.length, host.hashes]).toEqual([1, once])
})

it('nothing is compiled that must not be', () => {
  const host = createHost()
  regionsOf(host, LOOP, HOT + 2)
  const machine = new BareMetal({ hotCode: new HotCode(host), compile: false })
  machine.enter('long')
  machine.run([0xb9, 0, 8, 0, 0, 0xeb, 0, ...LOOP])
  expect(machine.processor.compiler.statistics.regions).toBe(0)
})
