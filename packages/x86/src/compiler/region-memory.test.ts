/** What one machine compiled, another installs; and nothing else of it. */
import type { CodeMemory, CodeRecord } from '@nonroot/contracts'
import { expect, it } from 'vitest'
import { SOONER } from '../code/blocks.ts'
import { asm } from '../testing/asm.ts'
import { BareMetal } from '../testing/bare-metal.ts'
import { RegionMemory } from './region-memory.ts'

const LOOP = asm(64, 'l: add eax, 3; dec ecx; jnz l; hlt')
const OTHER = asm(64, 'l: add eax, 5; dec ecx; jnz l; hlt')
const HOT = 160
const SOON = HOT * SOONER

interface Host extends CodeMemory {
  readonly records: CodeRecord[]
}
function createHost(records: CodeRecord[] = []): Host {
  return {
    records,
    has: (key) => records.some((record) => record.key === key),
    find: (key) => records.filter((record) => record.key === key).map(({ bytes }) => bytes),
    add: (more) => void records.push(...more),
    dispose() {},
  }
}

/** `rounds` of a program, the first of which has run when the block of the loop is entered. */
function run(host: CodeMemory | undefined, program: readonly number[], rounds: number, compile = true) {
  const machine = new BareMetal({ compile, regionMemory: host && new RegionMemory(host) })
  machine.enter('long')
  if (compile) machine.processor.blocks.hotness = HOT
  machine.run([0xb9, rounds & 0xff, rounds >> 8, 0, 0, 0xeb, 0, ...program])
  machine.processor.compiler.flush()
  const { regions, remembered } = machine.processor.compiler.statistics
  return { regions, remembered, machine }
}

it.each<[string, readonly number[] | undefined, readonly number[], number, number, number]>([
  ['unknown code is hot after its runs', undefined, LOOP, HOT + 2, 1, 0],
  ['and not before', undefined, LOOP, HOT - 1, 0, 0],
  ['known code is hot early', LOOP, LOOP, SOON + 2, 1, 1],
  ['but not when it has hardly run', LOOP, LOOP, SOON - 1, 0, 0],
  ['other code in the same place is not known', OTHER, LOOP, HOT - 1, 0, 0],
  ['and is compiled in its time', OTHER, LOOP, HOT + 2, 1, 0],
])('%s', (_what, before, program, rounds, regions, remembered) => {
  const host = createHost()
  if (before) run(host, before, HOT + 2)
  expect(run(host, program, rounds)).toMatchObject({ regions, remembered })
})

it('a remembered region computes what it did', () => {
  const host = createHost()
  run(host, LOOP, HOT + 2)
  const { machine, remembered } = run(host, LOOP, SOON + 2)
  // Now in the region.
  machine.run([0xb9, 0xe8, 3, 0, 0, 0xeb, 0, ...LOOP])
  expect([remembered, machine.register(0)]).toEqual([1, (BigInt(SOON + 2) + 1000n) * 3n])
})

it('what is known is not added again, and what is not compiled is not added', () => {
  const host = createHost()
  run(host, OTHER, HOT - 1)
  expect(host.records).toEqual([])
  run(host, LOOP, HOT + 2)
  const once = [...host.records]
  run(host, LOOP, HOT + 2)
  expect([once.length, host.records]).toEqual([1, once])
})

it.each<[string, (record: Uint8Array) => Uint8Array]>([
  ['cut short', (record) => record.slice(0, -1)],
  ['empty', () => new Uint8Array()],
])('where a record is %s the code is compiled again', (_what, damage) => {
  const host = createHost()
  run(host, LOOP, HOT + 2)
  const damaged = createHost(host.records.map(({ key, bytes }) => ({ key, bytes: damage(bytes) })))
  expect(run(damaged, LOOP, HOT + 2)).toMatchObject({ regions: 1, remembered: 0 })
})

it('nothing is compiled that must not be', () => {
  const host = createHost()
  run(host, LOOP, HOT + 2)
  expect(run(host, LOOP, 8192, false).regions).toBe(0)
})
