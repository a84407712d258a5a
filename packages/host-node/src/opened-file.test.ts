import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openForReading } from './opened-file.ts'

let folder: string
beforeAll(() => (folder = mkdtempSync(join(tmpdir(), 'nonroot-'))))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

describe('a file', () => {
  const content = Uint8Array.from({ length: 300_000 }, (_, at) => at * 7)
  const path = () => join(folder, 'file')
  beforeAll(() => writeFileSync(path(), content))

  it('is read into several views of shared memory', async () => {
    const file = openForReading(path())!
    const memory = new Uint8Array(new SharedArrayBuffer(200_000))
    await file.readInto(5, [memory.subarray(100_000), memory.subarray(0, 1), memory.subarray(7, 7)])
    expect(Buffer.compare(file.read(299_990, 10), content.subarray(299_990))).toBe(0)
    file.close()
    expect(file.length).toBe(content.length)
    expect(Buffer.compare(memory.subarray(100_000), content.subarray(5, 100_005))).toBe(0)
    expect([...memory.subarray(0, 3)]).toEqual([content[100_005], 0, 0])
  })

  it('that became shorter throws', async () => {
    const file = openForReading(path())!
    truncateSync(path(), 10)
    expect(() => file.read(5, 6)).toThrow(`${path()} ends at 10`)
    await expect(file.readInto(5, [new Uint8Array(6)])).rejects.toThrow(`${path()} ends at 10`)
    file.close()
  })
})

it('what has no size is not opened', () => {
  const pipe = join(folder, 'pipe')
  execFileSync('mkfifo', [pipe])
  for (const path of [pipe, folder, '/proc/version']) expect(openForReading(path)).toBeUndefined()
})

it('what is not there throws', () => {
  expect(() => openForReading(join(folder, 'none'))).toThrow('ENOENT')
})
