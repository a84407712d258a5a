/**
 * Random kernel programs under VMX and translated: complete state and memory must be equal at the end.
 *
 *     npm run fuzz:translate -- [programs] [seed]
 *
 * Prints programs that differ, made as short as leaving out bytes makes them, and exits with 1 if there are any.
 */

import { differences } from '../src/testing/compare.ts'
import { createMachine } from '../src/testing/machines.ts'
import { createRandom, randomProgram, randomStart } from '../src/testing/random-programs.ts'

const [count = 10_000, seed = 1] = process.argv.slice(2).map(Number)
let vmx = createMachine('vmx')
let translate = createMachine('translate')
const random = createRandom(seed * 2_654_435_761)
function check(program: readonly number[], at: number): string[] {
  const expected = vmx.run(program, { at })
  // Where a program without an end is interrupted depends on how instructions are counted; what is accessed by tables that it wrote over, on what the TLB has.
  if (expected.reason !== 'budget' && !expected.changedTables) return differences(expected, translate.run(program, { at }))
  // The next program's tables are written by the host, unseen by paging strategies.
  if (expected.changedTables) [vmx, translate] = [createMachine('vmx'), createMachine('translate')]
  return []
}
const MOST_REPORTS = 10

let differing = 0
const start = performance.now()
for (let n = 0; n < count && differing < MOST_REPORTS; n++) {
  const at = randomStart(random)
  const program = randomProgram(random, 1 + (random() % 24), at)
  const found = check(program, at)
  if (!found.length) continue
  differing++
  for (const line of found.slice(0, 12)) console.log(`  ${line}`)
  const short = shorten(program, at)
  console.log(`program ${n} at ${at}: ${short.map((byte) => byte.toString(16).padStart(2, '0')).join(' ')}`)
  for (const line of check(short, at).slice(0, 12)) console.log(`  ${line}`)
}
const seconds = (performance.now() - start) / 1000
console.log(`${count} programs of seed ${seed}: ${differing} differ (${seconds.toFixed(0)} s)`)
process.exitCode = differing ? 1 : 0

/** NOPs for all that may be left out. */
function shorten(program: readonly number[], start: number): number[] {
  const short = [...program]
  for (let size = 16; size >= 1; size >>= 1) {
    for (let at = 0; at + size <= short.length; at += size) {
      const before = short.slice(at, at + size)
      if (before.every((byte) => byte === 0x90)) continue
      short.fill(0x90, at, at + size)
      if (!check(short, start).length) short.splice(at, size, ...before)
    }
  }
  while (short.at(-1) === 0x90 && check(short.slice(0, -1), start).length) short.pop()
  return short
}
