/** qcow2's header by its fields' places, at both sides of each bound. (QEMU, "The qcow2 image format") */
import { describe, expect, it } from 'vitest'
import { rejection } from '../../samples.test.support.ts'
import { createMemoryStore } from '../memory.ts'
import type { MemoryStore } from '../memory.ts'
import { clearAutomatic, createQcow2, readHeader, writeTablePlaces } from './header.ts'
import type { Qcow2Options } from './header.ts'

const MIB = 1024 * 1024

async function create(options: Qcow2Options): Promise<MemoryStore> {
  const store = createMemoryStore()
  await createQcow2(store, options)
  return store
}
async function changed(change: (view: DataView, bytes: Uint8Array) => void, options: Qcow2Options = { size: MIB }): Promise<MemoryStore> {
  const bytes = (await create(options)).contents()
  change(new DataView(bytes.buffer), bytes)
  return createMemoryStore(bytes)
}
const read = (store: MemoryStore, readOnly = false) => readHeader(store, 'disk.qcow2', readOnly)
const put = (bytes: Uint8Array, at: number, text: string): void => bytes.set(new TextEncoder().encode(text), at)

describe('what is made', () => {
  it.each([
    { size: MIB, clusterBits: 16, l1Entries: 1, clusters: 4 },
    { size: 512 * MIB, clusterBits: 16, l1Entries: 1, clusters: 4 },
    { size: 512 * MIB + 512, clusterBits: 16, l1Entries: 2, clusters: 4 },
    { size: 2 ** 42, clusterBits: 16, l1Entries: 8192, clusters: 4 },
    { size: 2 ** 42 + 512, clusterBits: 16, l1Entries: 8193, clusters: 5 },
    { size: 32 * 1024, clusterBits: 9, l1Entries: 1, clusters: 4 },
  ])('has the fields of $size bytes in clusters of 2^$clusterBits', async ({ size, clusterBits, l1Entries, clusters }) => {
    const store = await create({ size, clusterBits })
    const view = new DataView(store.contents().buffer)
    const clusterSize = 2 ** clusterBits
    const words = (...at: number[]): number[] => at.map((offset) => view.getUint32(offset))
    expect(words(0, 4, 8, 12, 16, 20)).toEqual([0x514649fb, 3, 0, 0, 0, clusterBits])
    expect([view.getBigUint64(24), ...words(32, 36), view.getBigUint64(40)]).toEqual([BigInt(size), 0, l1Entries, BigInt(3 * clusterSize)])
    expect([view.getBigUint64(48), ...words(56, 60), view.getBigUint64(64)]).toEqual([BigInt(clusterSize), 1, 0, 0n])
    expect([view.getBigUint64(72), view.getBigUint64(80), view.getBigUint64(88), ...words(96, 100)]).toEqual([0n, 0n, 0n, 4, 104])
    // One block of counts, which counts all that is there and nothing else.
    expect(view.getBigUint64(clusterSize)).toBe(BigInt(2 * clusterSize))
    const counts = Array.from({ length: clusterSize / 2 }, (_, n) => view.getUint16(2 * clusterSize + 2 * n))
    expect([store.size, counts.filter((count) => count === 1).length, counts.lastIndexOf(1)]).toEqual([clusters * clusterSize, clusters, clusters - 1])
    expect(await read(store)).toEqual({
      ...{ version: 3, clusterBits, clusterSize, size, l1Entries, l1Offset: 3 * clusterSize },
      ...{ refcountTableOffset: clusterSize, refcountTableClusters: 1, refcountBits: 16, snapshots: 0 },
    })
  })

  it.each([
    ['base.raw', 'raw'], ['a', 'qcow2'], ['ä folder/with a name', 'x'.repeat(8)], ['b'.repeat(1023), 'vmdk'],
  ])('leads to its backing file %s, of format %s', async (file, format) => {
    expect((await read(await create({ size: MIB, backing: { file, format } }))).backing).toEqual({ file, format })
  })

  it.each([
    [{ size: 0 }, 'positive multiple of 512'],
    [{ size: -512 }, 'positive multiple of 512'],
    [{ size: 1000 }, 'positive multiple of 512'],
    [{ size: MIB, backing: { file: 'b'.repeat(1024), format: 'raw' } }, 'too long'],
    // 253 clusters of L1 table and three more are as many as one block counts.
    [{ size: 32768 * 64 * 253 + 512, clusterBits: 9 }, 'clusters too small'],
  ])('is not made: %j', async (options, says) => {
    await expect(create(options)).rejects.toThrow(says)
  })
  it('is made with as many clusters as one block counts', async () => {
    expect((await create({ size: 32768 * 64 * 253, clusterBits: 9 })).size).toBe(256 * 512)
  })
})

describe('version 2', () => {
  /** Its header ends at 72; what is behind are extensions. */
  const old = (backing: boolean) =>
    changed((view, bytes) => {
      view.setUint32(4, 2)
      bytes.fill(0xff, 72, 104)
      // An extension of 5 bytes that nobody knows, one with the format, the end.
      for (const [at, word] of [[72, 0x1234_5678], [76, 5], [88, 0xe279_2aca], [92, 3], [104, 0], [108, 0]] as const) view.setUint32(at, word)
      put(bytes, 96, 'raw')
      if (!backing) return
      view.setUint32(12, 200)
      view.setUint32(16, 4)
      put(bytes, 200, 'base')
    })
  it('has no features, counts of 16 bits, and extensions where version 3 has features', async () => {
    expect(await read(await old(true))).toMatchObject({ version: 2, refcountBits: 16, backing: { file: 'base', format: 'raw' } })
    expect((await read(await old(false))).backing).toBe(undefined)
  })
  it('keeps what is where version 3 has features that are cleared', async () => {
    for (const [version, kept] of [[2, 0xff], [3, 0]] as const) {
      const store = await changed((_view, bytes) => bytes.fill(0xff, 88, 96))
      await clearAutomatic(store, { ...(await read(store)), version })
      expect([...store.contents().subarray(86, 98)]).toEqual([0, 0, ...Array<number>(8).fill(kept), 0, 0])
    }
  })
})

describe('extensions', () => {
  const withFormat = (change: (view: DataView) => void) => changed(change, { size: MIB, backing: { file: 'base', format: 'raw' } })
  it.each<[string, (view: DataView) => void, string | undefined]>([
    ['as made', () => {}, 'raw'],
    ['the end first', (view) => view.setUint32(104, 0), undefined],
    ['one that goes beyond what is read', (view) => view.setUint32(108, 4096 - 111), undefined],
    ['another kind', (view) => view.setUint32(104, 7), undefined],
    ['right where the name begins', (view) => view.setBigUint64(8, 112n), 'raw'],
    ['behind the name', (view) => view.setBigUint64(8, 111n), undefined],
  ])('%s', async (_name, change, format) => {
    expect((await read(await withFormat(change))).backing?.format).toBe(format)
  })
  it.each<[string, (view: DataView) => void, string | undefined]>([
    ['no name', (view) => view.setUint32(16, 0), undefined],
    ['nowhere', (view) => view.setBigUint64(8, 0n), undefined],
  ])('no backing file: %s', async (_name, change, backing) => {
    expect((await read(await withFormat(change))).backing).toBe(backing)
  })
  it('a name may end where what is read ends, and not behind', async () => {
    expect((await read(await withFormat((view) => view.setBigUint64(8, 4092n)))).backing?.file).toBe('\0\0\0\0')
    await expect(read(await withFormat((view) => view.setBigUint64(8, 4093n)))).rejects.toThrow('4 bytes at 4093')
    await expect(read(await withFormat((view) => view.setUint32(16, 1024)))).rejects.toThrow('1024 bytes')
  })
})

describe('bounds', () => {
  // One cluster each: header, refcount table, refcount block, L1 table.
  it.each<[string, (view: DataView) => void, string | undefined]>([
    ['clusters of 256 bytes', (view) => view.setUint32(20, 8), '2^8 bytes'],
    ['clusters of 4 MiB', (view) => view.setUint32(20, 22), '2^22 bytes'],
    ['a size of half a sector more', (view) => view.setUint32(28, MIB + 256), `${MIB + 256} bytes`],
    ['a size of 2^53', (view) => view.setUint32(24, 2 ** 21), 'bytes'],
    ['as much as the L1 table leads to', (view) => view.setUint32(28, 512 * MIB), undefined],
    ['a sector more', (view) => view.setUint32(28, 512 * MIB + 512), '1 entries of its L1 table'],
    ['an L1 table up to the end', (view) => view.setUint32(36, 8192), undefined],
    ['an L1 table over the end', (view) => view.setUint32(36, 8193), 'L1 table is at'],
    ['an L1 table at 0', (view) => view.setUint32(44, 0), 'L1 table is at 0'],
    ['an L1 table within a cluster', (view) => view.setUint32(44, 3 * 65536 - 512), 'L1 table is at'],
    ['an L1 table above 4 GiB', (view) => view.setUint32(40, 1), 'L1 table is at'],
    ['no refcount table', (view) => view.setUint32(56, 0), 'refcount table'],
    ['a refcount table up to the end', (view) => view.setUint32(56, 3), undefined],
    ['a refcount table over the end', (view) => view.setUint32(56, 4), 'refcount table'],
    ['counts of 8 bits', (view) => view.setUint32(96, 3), '8 bits'],
  ])('%s', async (_name, change, says) => {
    const opening = read(await changed(change))
    if (says === undefined) expect((await opening).version).toBe(3)
    else await expect(opening).rejects.toThrow(says)
  })

  it.each([
    [0, undefined, undefined],
    [1, 'not written when it was last closed', 'check -r all'],
    [2, 'marked as corrupt', 'check -r all'],
    [3, 'not written when it was last closed', 'check -r all'],
    [4, 'in another file', 'convert -O qcow2 IMAGE'],
    [8, 'zstd', 'compression_type=zlib'],
    [16, 'subclusters', 'extended_l2=off'],
    [32, 'not known', 'convert'],
  ])('incompatible features %i', async (features, says, remedy) => {
    const store = await changed((view) => view.setUint32(76, features))
    const error = await rejection(read(store))
    expect([error?.message, error?.remedy]).toEqual([says && (expect.stringContaining(says) as string), remedy && (expect.stringContaining(remedy) as string)])
    // To read, no counts are needed.
    const readOnly = await rejection(read(store, true))
    expect(readOnly === undefined).toBe(features <= 1)
    if (features === 3) expect(readOnly!.message).toContain('corrupt')
  })
  it('a feature of the upper half is not known, to read either', async () => {
    const store = await changed((view) => view.setUint32(72, 1))
    for (const readOnly of [false, true]) expect((await rejection(read(store, readOnly)))!.message).toContain('not known')
  })
})

it('tables that moved are in their fields, and nothing else is touched', async () => {
  const store = await create({ size: MIB })
  const before = store.contents()
  await writeTablePlaces(store, { ...(await read(store)), l1Entries: 0x11, l1Offset: 0x2_0000_0022, refcountTableOffset: 0x3_0000_0033, refcountTableClusters: 0x44 })
  const view = new DataView(before.buffer)
  for (const [at, word] of [[36, 0x11], [40, 2], [44, 0x22], [48, 3], [52, 0x33], [56, 0x44]] as const) view.setUint32(at, word)
  expect(store.contents()).toEqual(before)
})
