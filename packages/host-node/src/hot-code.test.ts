import { existsSync, mkdirSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openHotCode } from './hot-code.ts'

const MOST = 1 << 16
const newFile = (): string => join(mkdtempSync(join(tmpdir(), 'hot-code-')), 'cache', 'hot-code')
function fileOf(bytes: Uint8Array): string {
  const file = newFile()
  mkdirSync(join(file, '..'))
  writeFileSync(file, bytes)
  return file
}
const numbers = (count: number): Uint32Array => Uint32Array.from({ length: count }, (_, n) => n)

it('gives what was added, to others as well, in a folder that it makes', () => {
  const file = newFile()
  openHotCode(file).add(Uint32Array.of(1, 0xffff_ffff))
  openHotCode(file).add(Uint32Array.of(2))
  expect([...openHotCode(file).known()]).toEqual([1, 0xffff_ffff, 2])
})

it.each<[string, () => string, number[]]>([
  ['that is not there', newFile, []],
  ['that is empty', () => fileOf(new Uint8Array()), []],
  ['that is a folder', () => (mkdirSync(join(newFile(), '..', 'a'), { recursive: true }), mkdtempSync(join(tmpdir(), 'hot-code-'))), []],
  ['of which half a hash was written', () => fileOf(Uint8Array.of(1, 0, 0, 0, 2, 0)), []],
])('of a file %s knows nothing, and remembers on', (_what, make, expected) => {
  const memory = openHotCode(make())
  expect([...memory.known()]).toEqual(expected)
  expect(() => memory.add(Uint32Array.of(7))).not.toThrow()
})

it('that was written in part is used again from then on', () => {
  const file = fileOf(Uint8Array.of(1, 0, 0, 0, 2, 0))
  openHotCode(file).known()
  openHotCode(file).add(Uint32Array.of(7))
  expect([...openHotCode(file).known()]).toEqual([7])
})

describe('a long file', () => {
  it.each([
    ['is kept whole', MOST, MOST],
    ['keeps its newest half', MOST + 1, MOST / 2],
  ])('%s', (_what, count, kept) => {
    const file = fileOf(new Uint8Array(numbers(count).buffer))
    const known = openHotCode(file).known()
    expect([known.length, known.at(-1)]).toEqual([kept, count - 1])
    expect(readFileSync(file).length).toBe(4 * kept)
    expect(existsSync(`${file}.${process.pid}`)).toBe(false)
  })
})
