import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it, vi } from 'vitest'
import { createNodeBackends, openBlockFile } from './index.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-block-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const image = (name: string, bytes: number): string => {
  writeFileSync(join(folder, name), new Uint8Array(bytes))
  return join(folder, name)
}

describe('a disk in a raw file', () => {
  afterEach(() => void vi.restoreAllMocks())

  it('reads back what was written, and the file has it', async () => {
    const path = image('disk.img', 8 * 512)
    const disk = await openBlockFile(path)
    expect(disk).toMatchObject({ size: 4096, sectorSize: 512, readOnly: false })
    const sector = Uint8Array.from({ length: 512 }, (_, index) => index)
    await disk.write(1024, sector)
    await disk.flush()
    const back = new Uint8Array(512)
    await disk.read(1024, back)
    expect(back).toEqual(sector)
    await disk.close()
    expect(new Uint8Array(readFileSync(path).subarray(1024, 1536))).toEqual(sector)
  })

  it('reads and writes several places of shared memory, now or beside', async () => {
    // No time passes: a request in place is never slow.
    vi.spyOn(performance, 'now').mockReturnValue(0)
    const path = image('parts.img', 8 * 512)
    const disk = await openBlockFile(path)
    const memory = new Uint8Array(new SharedArrayBuffer(4096))
    memory.fill(1, 0, 700).fill(2, 2000, 2324)
    const parts = [memory.subarray(0, 700), memory.subarray(2000, 2324)]
    const whole = new Uint8Array(1024).fill(1, 0, 700).fill(2, 700)
    await disk.writeVector!(512, parts)
    expect(new Uint8Array(readFileSync(path).subarray(512, 1536))).toEqual(whole)
    expect(disk.writeNow!(2048, parts)).toBe(true)
    memory.fill(0)
    expect(disk.readNow!(2048, parts)).toBe(true)
    expect([memory[699], memory[700], memory[2000], memory[2323], memory[2324]]).toEqual([1, 0, 2, 2, 0])
    memory.fill(0)
    await disk.readVector!(512, parts)
    expect([memory[699], memory[700], memory[2000], memory[2323], memory[2324]]).toEqual([1, 0, 2, 2, 0])
    await expect(disk.readVector!(4096 - 512, parts)).rejects.toThrow('ends at 4096')
    expect(() => disk.readNow!(4096 - 512, parts)).toThrow('ends at 4096')
    await disk.close()
  })

  it('leaves requests to a thread for a while after one in place was slow', async () => {
    const disk = await openBlockFile(image('slow.img', 8 * 512))
    const parts = [new Uint8Array(new SharedArrayBuffer(512))]
    let now = 0
    vi.spyOn(performance, 'now').mockImplementation(() => (now += 5))
    expect(disk.readNow!(0, parts)).toBe(true)
    const tries = Array.from({ length: 17 }, () => disk.readNow!(0, parts))
    expect(tries.lastIndexOf(false)).toBe(15)
    expect(tries[16]).toBe(true)
    await disk.close()
  })

  it('fails a read past its end, that request alone', async () => {
    const disk = await openBlockFile(image('short.img', 512))
    await expect(disk.read(512, new Uint8Array(512))).rejects.toThrow('ends at 512')
    await expect(disk.read(0, new Uint8Array(512))).resolves.toBeUndefined()
    await disk.close()
  })

  it('opened read-only it cannot be written', async () => {
    const disk = await openBlockFile(image('ro.img', 512), true)
    await expect(disk.write(0, new Uint8Array(512))).rejects.toThrow()
    await disk.close()
  })

  it('tells of a new size, and can be used up to it', async () => {
    const path = image('grows.img', 1024)
    const disk = await openBlockFile(path)
    const sizes: number[] = []
    const unlisten = disk.onResize!((size) => void sizes.push(size))
    truncateSync(path, 4096 + 100)
    await vi.waitFor(() => expect(sizes).toEqual([4096]), 20_000)
    expect(disk.size).toBe(4096)
    await disk.write(3584, new Uint8Array(512).fill(7))
    truncateSync(path, 512)
    await vi.waitFor(() => expect(sizes).toEqual([4096, 512]), 20_000)
    await expect(disk.read(3584, new Uint8Array(512))).rejects.toThrow('ends at')
    unlisten()
    await disk.close()
  })

  it.each([
    { name: 'an empty file', make: () => image('empty.img', 0), says: 'positive multiple of 512' },
    { name: 'half a sector', make: () => image('half.img', 300), says: 'has 300 bytes' },
    { name: 'no file', make: () => join(folder, 'none.img'), says: 'there is no such file' },
    { name: 'a folder', make: () => folder, says: 'it is a folder' },
  ])('$name is refused', async ({ make, says }) => {
    await expect(openBlockFile(make())).rejects.toThrow(says)
  })
})

describe('back ends', () => {
  it('opens paths relative to its folder, and names what it lacks', async () => {
    image('here.img', 512)
    const backends = createNodeBackends({ folder })
    await (await backends.open('block', { image: 'here.img' })).close()
    await expect(backends.open('network', { network: 'x' })).rejects.toThrow('this host has no network back end')
    const bytes = new Uint8Array(64)
    ;(await backends.open('entropy', {})).fill(bytes)
    expect(bytes.some((byte) => byte !== 0)).toBe(true)
  })
})
