import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { openCodeFolder } from './code-memory.ts'

const newFolder = (): string => join(mkdtempSync(join(tmpdir(), 'code-memory-')), 'cache', 'code')
const record = (key: number, length: number) => ({
  key,
  bytes: Uint8Array.from({ length }, (_, n) => (key + 7 * n) & 0xff),
})
const bytesOf = (found: readonly Uint8Array[]): string[] => found.map((bytes) => Buffer.from(bytes).toString('latin1'))
const HEAD = 16

it('gives what was added, to others as well, in a folder that it makes, the newest first', () => {
  const open = openCodeFolder(newFolder())
  const [one, other, empty] = [record(1, 9), record(1, 2_000_000), record(0xffff_ffff, 0)]
  const memory = open('build')
  memory.add([one, empty])
  memory.add([other])
  for (const reader of [memory, open('build')]) {
    expect(bytesOf(reader.find(1))).toEqual(bytesOf([other.bytes, one.bytes]))
    expect(reader.find(0xffff_ffff)).toHaveLength(1)
    expect([reader.has(1), reader.has(2), reader.find(2)]).toEqual([true, false, []])
  }
})

it('keeps what two add at once', () => {
  const open = openCodeFolder(newFolder())
  const [one, two] = [open('build'), open('build')]
  one.add([record(1, 10)])
  two.add([record(2, 20)])
  one.add([record(3, 30)])
  for (const key of [1, 2, 3]) expect(bytesOf(open('build').find(key))).toEqual(bytesOf([record(key, 10 * key).bytes]))
  expect(bytesOf(one.find(3))).toEqual(bytesOf([record(3, 30).bytes]))
})

it('does not give one build what another made', () => {
  const open = openCodeFolder(newFolder())
  open('one').add([record(1, 4)])
  expect(open('two').has(1)).toBe(false)
})

describe('a file', () => {
  const file = (change: (bytes: Buffer) => Uint8Array): string => {
    const folder = newFolder()
    openCodeFolder(folder)('build').add([record(1, 40), record(2, 40), record(3, 40)])
    writeFileSync(join(folder, 'build'), change(readFileSync(join(folder, 'build'))))
    return folder
  }
  const size = HEAD + 40
  it.each<[string, (bytes: Buffer) => Uint8Array, number[]]>([
    ['that is whole', (bytes) => bytes, [1, 2, 3]],
    ['that is empty', () => new Uint8Array(), []],
    ['without its last byte', (bytes) => bytes.subarray(0, -1), [1, 2]],
    ['without its first byte', (bytes) => bytes.subarray(1), [2, 3]],
    ['with another byte in a record', (bytes) => bytes.fill(0xee, size + HEAD + 5, size + HEAD + 6), [1, 3]],
    ['with another key', (bytes) => bytes.fill(9, size + 4, size + 5), [1, 3, 9]],
    ['with a length beyond its end', (bytes) => bytes.fill(0xff, size + 8, size + 12), [1, 3]],
    [
      'of which half a record was written before others',
      (bytes) => Buffer.concat([bytes.subarray(0, size + 30), bytes]),
      [1, 2, 3],
    ],
    [
      'of which a record was cut short before others',
      (bytes) => Buffer.concat([bytes.subarray(0, 2 * size - 1), bytes.subarray(2 * size)]),
      [1, 3],
    ],
    ['behind much else', (bytes) => Buffer.concat([Buffer.alloc(3 << 20, 'nrc1'), bytes]), [1, 2, 3]],
    ['of something else', () => Buffer.alloc(100_000, 'nrc1'), []],
  ])('%s', (_what, change, keys) => {
    const memory = openCodeFolder(file(change))('build')
    for (const key of [1, 2, 3, 9]) {
      const found = bytesOf(memory.find(key))
      expect(found.length > 0, `record ${key}`).toBe(keys.includes(key))
      if (found.length) expect(found[0]).toEqual(bytesOf([record(key === 9 ? 2 : key, 40).bytes])[0])
    }
    memory.add([record(7, 5)])
    expect(bytesOf(memory.find(7))).toEqual(bytesOf([record(7, 5).bytes]))
  })

  it.each([
    ['is kept whole', 10 * size, 10],
    ['keeps its newest half', 10 * size - 1, 4],
  ])('that is long %s', (_what, most, kept) => {
    const folder = newFolder()
    const add = openCodeFolder(folder)('build')
    for (let key = 0; key < 10; key++) add.add([record(key, 40)])
    const memory = openCodeFolder(folder, { most })('build')
    expect(Array.from({ length: 10 }, (_, key) => key).filter((key) => memory.has(key))).toEqual(
      Array.from({ length: kept }, (_, n) => 10 - kept + n),
    )
    expect(readdirSync(folder)).toEqual(['build'])
  })

  it('of another build goes once nothing was added for a month', () => {
    const folder = newFolder()
    for (const build of ['old', 'month', 'own']) openCodeFolder(folder)(build).add([record(1, 4)])
    const day = 24 * 3600
    const now = Date.now() / 1000
    utimesSync(join(folder, 'old'), now, now - 31 * day)
    utimesSync(join(folder, 'month'), now, now - 29 * day)
    utimesSync(join(folder, 'own'), now, now - 31 * day)
    openCodeFolder(folder)('own')
    expect(readdirSync(folder)).toEqual(['month', 'own'])
  })
})

it('remembers nothing where there is a file in place of the folder', () => {
  const file = join(mkdtempSync(join(tmpdir(), 'code-memory-')), 'file')
  writeFileSync(file, '')
  const memory = openCodeFolder(join(file, 'code'))('build')
  memory.add([record(1, 4)])
  expect([memory.has(1), memory.find(1)]).toEqual([false, []])
  memory.dispose()
})

it.runIf(process.platform === 'linux')('reads a file that it cannot write', async () => {
  const folder = newFolder()
  mkdirSync(folder, { recursive: true })
  const file = join(folder, 'build')
  // Nobody writes a program that runs. The records are behind it.
  copyFileSync('/bin/sleep', file)
  const writable = openCodeFolder(folder)('build')
  writable.add([record(1, 4)])
  writable.dispose()
  const program = spawn(file, ['60'])
  try {
    await once(program, 'spawn')
    expect(() => openSync(file, 'a')).toThrow('ETXTBSY')
    const memory = openCodeFolder(folder)('build')
    memory.add([record(2, 4)])
    expect([bytesOf(memory.find(1)), memory.has(2)]).toEqual([bytesOf([record(1, 4).bytes]), false])
    memory.dispose()
  } finally {
    program.kill('SIGKILL')
  }
})

it('gives nothing once it was disposed of', () => {
  const folder = newFolder()
  mkdirSync(folder, { recursive: true })
  const memory = openCodeFolder(folder)('build')
  memory.add([record(1, 4)])
  memory.dispose()
  memory.add([record(2, 4)])
  expect([memory.find(1), memory.has(2)]).toEqual([[], false])
  memory.dispose()
})
