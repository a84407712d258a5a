/** Disks: formats against a plain buffer, cut short at any write, and against QEMU's where it is installed. */

import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deflateRawSync } from 'node:zlib'
import type { BlockBackend, ByteStore } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { afterAll, describe, expect, it } from 'vitest'
import { createMemoryDisk, createMemoryStore, createOverlay, createQcow2, qcow2 } from './index.ts'
import type { MemoryStore } from './index.ts'
import { checkImage } from './qcow2/check.test.support.ts'
import { rejection } from '../samples.test.support.ts'

const KIB = 1024
const MIB = 1024 * KIB

const noBacking = () => Promise.reject(new Error('no backing file expected'))
const open = (store: ByteStore, readOnly = false, backing?: BlockBackend) =>
  qcow2.open(store, { name: 'test.qcow2', readOnly, openBacking: backing ? () => Promise.resolve(backing) : noBacking })

async function create(size: number, clusterBits = 16, backing = false): Promise<MemoryStore> {
  const store = createMemoryStore()
  await createQcow2(store, { size, clusterBits, ...(backing ? { backing: { file: 'base.img', format: 'raw' } } : {}) })
  return store
}

async function bytesOf(disk: BlockBackend, offset = 0, length = disk.size): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(length)
  await disk.read(offset, bytes)
  return bytes
}

/** Random requests, several at a time, on the disk and on a buffer. */
async function exercise(disk: BlockBackend, reference: Uint8Array, rounds: number, seed: number): Promise<void> {
  const random = createRandom(seed)
  const sectors = disk.size / 512
  for (let round = 0; round < rounds; round++) {
    const taken: [number, number][] = []
    const requests: Promise<unknown>[] = []
    for (let request = 0; request < 1 + random(4); request++) {
      const start = random(sectors)
      const count = 1 + random(Math.min(sectors - start, random(8) === 0 ? 400 : 20))
      // At the same time only where they do not overlap: the order of those that do is nobody's.
      if (taken.some(([other, length]) => start < other + length && other < start + count)) continue
      taken.push([start, count])
      const kind = random(10)
      if (kind < 6) {
        const bytes = new Uint8Array(count * 512).fill(1 + random(255))
        reference.set(bytes, start * 512)
        requests.push(disk.write(start * 512, bytes))
      } else if (kind < 8 && disk.writeZeroes) {
        reference.fill(0, start * 512, (start + count) * 512)
        requests.push(disk.writeZeroes(start * 512, count * 512))
      } else {
        const wanted = reference.slice(start * 512, (start + count) * 512)
        requests.push(bytesOf(disk, start * 512, count * 512).then((found) => expect(found).toEqual(wanted)))
      }
    }
    if (random(12) === 0) requests.push(disk.flush())
    await Promise.all(requests)
  }
  expect(Buffer.compare(await bytesOf(disk), reference)).toBe(0)
}

/**
 * What `qemu-img snapshot -c` makes of an image: a copy of its L1 table, one more use of all that it leads to, and nothing that is one table's own.
 * `snapshot`: the image as the snapshot has it, of what is then in the file. ("The qcow2 image format", "Snapshots")
 */
function takeSnapshot(store: MemoryStore): { shared: MemoryStore; snapshot: () => MemoryStore } {
  const old = store.contents()
  const clusterSize = 2 ** new DataView(old.buffer).getUint32(20)
  const l1Copy = Math.ceil(old.length / clusterSize) * clusterSize
  const [entries, l1] = [new DataView(old.buffer).getUint32(36), new DataView(old.buffer).getUint32(44)]
  const copyBytes = Math.ceil((entries * 8) / clusterSize) * clusterSize
  const bytes = new Uint8Array(l1Copy + copyBytes)
  bytes.set(old)
  const view = new DataView(bytes.buffer)
  const counts = view.getUint32(52)
  const use = (offset: number): void => {
    const cluster = offset / clusterSize
    const perBlock = clusterSize / 2
    const at = view.getUint32(counts + 8 * Math.floor(cluster / perBlock) + 4) + 2 * (cluster % perBlock)
    view.setUint16(at, view.getUint16(at) + 1)
  }
  const share = (at: number): number => {
    view.setUint32(at, view.getUint32(at) & 0x7fff_ffff)
    const offset = (view.getUint32(at + 4) & ~511) >>> 0
    if (offset) use(offset)
    return offset
  }
  for (let entry = 0; entry < entries; entry++) {
    const table = share(l1 + 8 * entry)
    for (let at = table; table && at < table + clusterSize; at += 8) share(at)
  }
  bytes.copyWithin(l1Copy, l1, l1 + 8 * entries)
  for (let at = l1Copy; at < bytes.length; at += clusterSize) use(at)
  view.setUint32(60, 1)
  const shared = createMemoryStore(bytes)
  return {
    shared,
    snapshot: () => {
      const now = shared.contents()
      new DataView(now.buffer).setUint32(44, l1Copy)
      return createMemoryStore(now)
    },
  }
}

/** Uses of the cluster at an offset. */
function countOf(store: MemoryStore, offset: number): number {
  const view = new DataView(store.contents().buffer)
  const clusterSize = 2 ** view.getUint32(20)
  const perBlock = clusterSize / 2
  const cluster = offset / clusterSize
  const block = view.getUint32(view.getUint32(52) + 8 * Math.floor(cluster / perBlock) + 4)
  return view.getUint16(block + 2 * (cluster % perBlock))
}

describe('a disk in memory', () => {
  it('is zeros, and then what was written', async () => {
    const disk = createMemoryDisk(3 * MIB)
    await exercise(disk, new Uint8Array(disk.size), 200, 1)
    await disk.close()
  })

  it.each([0, 100, -512, 1.5, Number.NaN])('cannot have %d bytes', (size) => {
    expect(() => createMemoryDisk(size)).toThrow('positive multiple of 512')
  })
})

describe('an overlay', () => {
  it('never writes its base', async () => {
    const base = createMemoryDisk(2 * MIB + 512)
    await base.write(0, new Uint8Array(2 * MIB + 512).fill(7))
    await exercise(createOverlay(base), new Uint8Array(2 * MIB + 512).fill(7), 300, 2)
    expect((await bytesOf(base)).every((byte) => byte === 7)).toBe(true)
  })
})

describe('qcow2', () => {
  it.each([
    { clusterBits: 9, size: 300 * KIB },
    { clusterBits: 12, size: 2 * MIB + 512 },
    { clusterBits: 16, size: 8 * MIB },
    { clusterBits: 21, size: 5 * MIB },
  ])('is what was written, now and when opened again: clusters of 2^$clusterBits', async ({ clusterBits, size }) => {
    const store = await create(size, clusterBits)
    const reference = new Uint8Array(size)
    for (let session = 0; session < 3; session++) {
      const disk = await open(store)
      await exercise(disk, reference, 60, session + 3)
      await disk.close()
      expect(await checkImage(store)).toEqual({ errors: [], leaks: 0 })
    }
    expect(Buffer.compare(await bytesOf(await open(store, true)), reference)).toBe(0)
  })

  it('grows by what is written only', async () => {
    const store = await create(64 * MIB * KIB)
    expect(store.size).toBeLessThan(2 * MIB)
    const disk = await open(store)
    await disk.write(50 * MIB * KIB, new Uint8Array(512).fill(1))
    await disk.close()
    expect(store.size).toBeLessThan(2 * MIB)
  })

  it('counts more clusters than one table of counts has room for', async () => {
    // 512-byte clusters: a refcount table of one cluster covers 8 MiB.
    const store = await create(12 * MIB, 9)
    const disk = await open(store)
    const bytes = new Uint8Array(64 * KIB).fill(3)
    for (let offset = 0; offset < 12 * MIB; offset += bytes.length) await disk.write(offset, bytes)
    await disk.close()
    expect(await checkImage(store)).toEqual({ errors: [], leaks: 0 })
    expect((await bytesOf(await open(store, true), 11 * MIB, 64 * KIB)).every((byte) => byte === 3)).toBe(true)
  }, 60_000)

  it('a disk in memory, and an overlay, give back what is discarded', async () => {
    const base = createMemoryDisk(MIB)
    await base.write(0, new Uint8Array(MIB).fill(1))
    const over = createOverlay(base)
    await over.write(0, new Uint8Array(MIB).fill(2))
    await over.discard!(512, MIB / 2)
    const bytes = await bytesOf(over, 0, MIB)
    // Up to whole pages, whatever size those have.
    expect([bytes[0], bytes[511], bytes[MIB / 4], bytes[MIB - 1]]).toEqual([2, 2, 1, 2])
    await base.discard!(0, MIB)
    expect((await bytesOf(base, 0, MIB)).every((byte) => byte === 0)).toBe(true)
  })

  it('reuses what was given up', async () => {
    const store = await create(4 * MIB, 12)
    const disk = await open(store)
    for (let round = 0; round < 20; round++) {
      await disk.write(0, new Uint8Array(MIB).fill(round))
      await disk.discard!(0, MIB)
      await disk.flush()
    }
    await disk.close()
    expect(store.size).toBeLessThan(2 * MIB)
    expect(await checkImage(store)).toEqual({ errors: [], leaks: 0 })
  })

  it('lies over a backing file, which may be shorter, and which it never writes', async () => {
    const base = createMemoryDisk(MIB + 512)
    await base.write(0, new Uint8Array(MIB + 512).fill(9))
    const store = await create(3 * MIB, 12, true)
    const reference = new Uint8Array(3 * MIB).fill(9, 0, MIB + 512)
    const disk = await open(store, false, base)
    await exercise(disk, reference, 150, 5)
    await disk.flush()
    expect((await bytesOf(base)).every((byte) => byte === 9)).toBe(true)
    expect(await checkImage(store)).toEqual({ errors: [], leaks: 0 })
  })

  it('gives zeros beyond a shorter backing file, whatever was in the buffer', async () => {
    const base = createMemoryDisk(4096)
    await base.write(0, new Uint8Array(4096).fill(9))
    const disk = await open(await create(MIB, 16, true), false, base)
    for (const [offset, nines] of [
      [0, 4096],
      [3584, 512],
      [4096, 0],
      [64 * KIB, 0],
    ] as const) {
      const buffer = new Uint8Array(8192).fill(7)
      await disk.read(offset, buffer)
      expect(buffer).toEqual(new Uint8Array(8192).fill(9, 0, nines))
    }
  })

  it('keeps both of two writes at once to a cluster that was not there', async () => {
    const disk = await open(await create(MIB))
    await Promise.all([
      disk.write(512, new Uint8Array(512).fill(1)),
      disk.write(2048, new Uint8Array(512).fill(2)),
      disk.write(8192, new Uint8Array(512).fill(3)),
    ])
    const expected = new Uint8Array(64 * KIB).fill(1, 512, 1024).fill(2, 2048, 2560).fill(3, 8192, 8704)
    expect(await bytesOf(disk, 0, 64 * KIB)).toEqual(expected)
  })

  it.each([9, 12])(
    'leaves a snapshot as it was, whose tables and clusters it shares: clusters of 2^%d',
    async (clusterBits) => {
      const store = await create(256 * KIB, clusterBits)
      const reference = new Uint8Array(256 * KIB)
      const first = await open(store)
      await exercise(first, reference, 40, 11)
      await first.close()
      const before = reference.slice()
      const { shared, snapshot } = takeSnapshot(store)
      for (let session = 0; session < 3; session++) {
        const disk = await open(shared)
        await exercise(disk, reference, 40, session + 12)
        await disk.close()
        expect(Buffer.compare(await bytesOf(await open(snapshot(), true)), before)).toBe(0)
      }
      expect(Buffer.compare(await bytesOf(await open(shared, true)), reference)).toBe(0)
    },
  )

  it('does not write to the place of a cluster of zeros that a snapshot shares', async () => {
    const store = await create(64 * KIB, 12)
    const first = await open(store)
    await first.write(0, new Uint8Array(4096).fill(7))
    await first.close()
    // Bit 0: it reads as zeros, wherever it is. ("The qcow2 image format", "Standard Cluster Descriptor")
    const view = new DataView(store.contents().buffer)
    const table = view.getUint32(3 * 4096 + 4)
    const place = view.getUint32(table + 4)
    await store.write(table + 7, Uint8Array.of((place & 0xff) | 1))
    const { shared } = takeSnapshot(store)
    const disk = await open(shared)
    expect(await bytesOf(disk, 0, 4096)).toEqual(new Uint8Array(4096))
    await disk.write(512, new Uint8Array(512).fill(9))
    await disk.close()
    expect(shared.contents().subarray(place, place + 4096)).toEqual(new Uint8Array(4096).fill(7))
    // The snapshot's alone from now on.
    expect([countOf(shared, table), countOf(shared, place)]).toEqual([1, 1])
    const again = await open(shared, true)
    expect(await bytesOf(again, 0, 1024)).toEqual(new Uint8Array(1024).fill(9, 512))
  })

  it('keeps what is written while tables make room for others', async () => {
    // 128 tables, of which half are in memory.
    const [TABLES, SPAN] = [128, 32 * KIB]
    const store = await create(TABLES * SPAN, 9)
    const disk = await open(store)
    const reference = new Uint8Array(disk.size)
    const write = async (at: number, value: number): Promise<void> => {
      reference.fill(value, at, at + 512)
      await disk.write(at, new Uint8Array(512).fill(value))
    }
    for (let table = 0; table < TABLES; table++) await write(table * SPAN, 1)
    await disk.flush()
    let isOver = false
    const read = async (first: number): Promise<void> => {
      for (let table = first; !isOver; table = (table + 1) % TABLES) await bytesOf(disk, table * SPAN, 512)
    }
    const readers = [read(0), read(50), read(100)]
    const random = createRandom(23)
    for (let round = 0; round < 400; round++) {
      await write(random(TABLES) * SPAN + 512 * (1 + random(60)), 2 + random(250))
      if (round % 8 === 0) await disk.flush()
    }
    isOver = true
    await Promise.all(readers)
    await disk.close()
    expect(Buffer.compare(await bytesOf(await open(store, true)), reference)).toBe(0)
  })

  it('gives a cluster to nobody while a write is on its way to it', async () => {
    const store = await create(64 * KIB, 12)
    let isHeld = false
    let go = (): void => {}
    const gate = new Promise<void>((resolve) => (go = resolve))
    const slow: ByteStore = {
      get size() {
        return store.size
      },
      read: (offset, into) => store.read(offset, into),
      async write(offset, from) {
        const wait = isHeld
        isHeld = false
        if (wait) await gate
        await store.write(offset, from)
      },
      flush: () => store.flush(),
      close: () => store.close(),
    }
    const disk = await open(slow)
    await disk.write(0, new Uint8Array(4096).fill(1))
    await disk.flush()
    isHeld = true
    const late = disk.write(0, new Uint8Array(4096).fill(2))
    await new Promise((resolve) => setTimeout(resolve))
    const later = [disk.discard!(0, 4096), disk.flush(), disk.write(8192, new Uint8Array(4096).fill(3)), disk.flush()]
    await new Promise((resolve) => setTimeout(resolve, 20))
    go()
    await Promise.all([late, ...later])
    expect(await bytesOf(disk, 8192, 4096)).toEqual(new Uint8Array(4096).fill(3))
    expect(await bytesOf(disk, 0, 4096)).toEqual(new Uint8Array(4096))
    await disk.close()
  })

  it('reads compressed clusters, and writes over them', async () => {
    const store = await create(256 * KIB)
    const disk = await open(store)
    await disk.write(0, new Uint8Array(64 * KIB).fill(1))
    await disk.close()
    // What qemu-img convert -c does: the first data cluster, packed, at an odd place of the same cluster.
    const plain = Uint8Array.from({ length: 64 * KIB }, (_, index) => (index >> 5) & 0xff)
    const packed = deflateRawSync(plain)
    const view = new DataView(store.contents().buffer)
    const table = view.getUint32(3 * 65536 + 4)
    const data = view.getUint32(table + 4) & ~511
    await store.write(data + 100, packed)
    const sectors = Math.ceil(((data % 512) + 100 + packed.length) / 512) - 1
    const entry = new DataView(new ArrayBuffer(8))
    entry.setBigUint64(0, (1n << 62n) | (BigInt(sectors) << 54n) | BigInt(data + 100))
    await store.write(table, new Uint8Array(entry.buffer))
    const again = await open(store)
    expect(await bytesOf(again, 0, 64 * KIB)).toEqual(plain)
    await again.write(512, new Uint8Array(512).fill(5))
    await again.flush()
    plain.fill(5, 512, 1024)
    expect(await bytesOf(again, 0, 64 * KIB)).toEqual(plain)
    await again.close()
    expect(await checkImage(store)).toEqual({ errors: [], leaks: 0 })
  })

  it('holds what was flushed, whichever later write is the last that arrives', async () => {
    for (let cut = 0; cut < 90; cut += 1) {
      const store = await create(MIB, 12)
      const disk = await open(store)
      const random = createRandom(17)
      const durable = new Uint8Array(MIB)
      for (let round = 0; round < 12; round++) {
        const offset = random(240) * 4096
        const bytes = new Uint8Array((1 + random(3)) << 12).fill(1 + random(255)).subarray(0, MIB - offset)
        await disk.write(offset, bytes)
        durable.set(bytes, offset)
      }
      await disk.flush()
      // From here on only `cut` writes reach the file, in their order, each perhaps half.
      const torn = cutAfter(store, cut)
      try {
        const later = await open(torn)
        for (let round = 0; round < 12; round++) {
          const offset = (241 + round) * 4096
          await later.write(offset, new Uint8Array(4096).fill(0xee))
          if (round % 4 === 2) await later.writeZeroes!(offset, 4096)
          if (round % 3 === 0) await later.flush()
        }
      } catch {
        // The power is off.
      }
      const { errors } = await checkImage(store)
      expect(errors, `cut after ${cut} writes`).toEqual([])
      const found = await bytesOf(await open(store, true), 0, 241 * 4096)
      expect(Buffer.compare(found, durable.subarray(0, 241 * 4096))).toBe(0)
    }
  })

  const damaged: { name: string; change: (view: DataView) => void; says: RegExp }[] = [
    { name: 'another magic', change: (view) => view.setUint32(0, 1), says: /not a qcow2 image/ },
    { name: 'another version', change: (view) => view.setUint32(4, 4), says: /version 4/ },
    { name: 'encryption', change: (view) => view.setUint32(32, 1), says: /encrypted/ },
    { name: 'huge clusters', change: (view) => view.setUint32(20, 31), says: /2\^31/ },
    { name: 'no size', change: (view) => view.setUint32(28, 0), says: /0 bytes/ },
    { name: 'an L1 table without end', change: (view) => view.setUint32(36, 0xffff_ffff), says: /L1 table/ },
    { name: 'an L1 table elsewhere', change: (view) => view.setUint32(44, 0x7000_0000), says: /L1 table is at/ },
    { name: 'a refcount table elsewhere', change: (view) => view.setUint32(48, 1), says: /refcount table/ },
    { name: 'counts of another width', change: (view) => view.setUint32(96, 6), says: /64 bits/ },
    { name: 'data in another file', change: (view) => view.setUint32(76, 4), says: /another file/ },
    { name: 'a dirty image', change: (view) => view.setUint32(76, 1), says: /reference counts/ },
    { name: 'a feature nobody knows', change: (view) => view.setUint32(72, 1), says: /not known/ },
    {
      name: 'a backing name beyond the header',
      change: (view) => (view.setUint32(12, 4000), view.setUint32(16, 500)),
      says: /backing file/,
    },
    {
      name: 'an L1 entry into a cluster',
      change: (view) => view.setUint32(3 * 65536 + 4, 0x10200),
      says: /no cluster/,
    },
  ]
  it.each(damaged)('refuses $name', async ({ change, says }) => {
    const bytes = (await create(MIB)).contents()
    change(new DataView(bytes.buffer))
    await expect(open(createMemoryStore(bytes))).rejects.toThrow(says)
  })

  it('refuses what is too short, and noise', async () => {
    const random = createRandom(3)
    for (let round = 0; round < 300; round++) {
      const bytes = (await create(64 * KIB, 9)).contents()
      for (let change = 0; change < 8; change++) bytes[random(round % 2 ? 112 : bytes.length)] = random(256)
      const outcome = await open(createMemoryStore(bytes.subarray(0, random(3) ? bytes.length : random(bytes.length))))
        .then(async (disk) => {
          if (disk.size > MIB) return
          await disk.write(0, new Uint8Array(1024))
          await bytesOf(disk)
        })
        .catch((error: unknown) => error)
      if (outcome !== undefined) expect(outcome).toBeInstanceOf(Error)
    }
  })

  it('opened read-only it is not written', async () => {
    const store = await create(MIB)
    const before = store.contents()
    const disk = await open(store, true)
    await expect(disk.write(0, new Uint8Array(512))).rejects.toThrow('reading only')
    await disk.flush()
    await disk.close()
    expect(store.contents()).toEqual(before)
  })
})

/** Of the writes from now on, the first `count` reach the store, the next one half, the others not at all. */
function cutAfter(store: ByteStore, count: number): ByteStore {
  let left = count
  return {
    get size() {
      return store.size
    },
    read: (offset, into) => store.read(offset, into),
    async write(offset, from) {
      if (left-- > 0) return store.write(offset, from)
      if (left === -1) await store.write(offset, from.subarray(0, Math.min(from.length, 512)))
      throw new Error('cut')
    },
    flush: async () => {},
    close: async () => {},
  }
}

const hasQemu = spawnSync('qemu-system-x86_64', ['--version']).status === 0

/** QEMU's own block layer, by its monitor protocol: what a file in one format reads as. */
function convertWithQemu(folder: string, from: string, format: string, size: number): Uint8Array {
  const out = join(folder, 'out.raw')
  writeFileSync(out, new Uint8Array(size))
  const commands = [
    { execute: 'qmp_capabilities' },
    {
      execute: 'blockdev-add',
      arguments: { driver: format, 'node-name': 'in', 'read-only': true, file: { driver: 'file', filename: from } },
    },
    {
      execute: 'blockdev-add',
      arguments: { driver: 'raw', 'node-name': 'out', file: { driver: 'file', filename: out } },
    },
    { execute: 'blockdev-backup', arguments: { 'job-id': 'job', device: 'in', target: 'out', sync: 'full' } },
  ]
  const script = `(${commands.map((command) => `echo '${JSON.stringify(command)}'; sleep 0.2`).join('; ')}; sleep 3; echo '{"execute":"quit"}')`
  const said = execFileSync(
    'sh',
    ['-c', `${script} | qemu-system-x86_64 -M none -nodefaults -display none -qmp stdio`],
    { encoding: 'utf8' },
  )
  if (!said.includes('BLOCK_JOB_COMPLETED') || said.includes('"error"')) throw new Error(said)
  return new Uint8Array(readFileSync(out))
}

describe.skipIf(!hasQemu)('qcow2 and QEMU', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-qcow2-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it('QEMU reads what we wrote', async () => {
    const store = await create(4 * MIB)
    const reference = new Uint8Array(4 * MIB)
    const disk = await open(store)
    await exercise(disk, reference, 60, 11)
    await disk.close()
    const file = join(folder, 'ours.qcow2')
    writeFileSync(file, store.contents())
    expect(Buffer.compare(convertWithQemu(folder, file, 'qcow2', 4 * MIB), reference)).toBe(0)
  }, 60_000)
})

const hasQemuImg = spawnSync('qemu-img', ['--version']).status === 0

describe.skipIf(!hasQemuImg)('the remedy for an image that cannot be used helps', () => {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-qcow2-'))
  afterAll(() => rmSync(folder, { recursive: true, force: true }))
  const openFile = async (file: string): Promise<BlockBackend> => {
    const store = createMemoryStore()
    await store.write(0, new Uint8Array(readFileSync(file)))
    return open(store)
  }

  it.each([
    { what: 'zstd', options: 'compression_type=zstd', says: 'compressed by zstd' },
    { what: 'subclusters', options: 'extended_l2=on', says: 'subclusters' },
    { what: 'a data file', options: `data_file=${join(folder, 'data.raw')}`, says: 'in another file' },
    { what: 'marked as corrupt', options: 'compat=1.1', incompatible: 2, says: 'marked as corrupt' },
    { what: 'reference counts of 1 bit', options: 'refcount_bits=1', says: 'reference counts of 1 bits' },
  ])('$what', async ({ what, options, incompatible, says }) => {
    const file = join(folder, `${what}.qcow2`)
    const made = join(folder, `${what}-new.qcow2`)
    execFileSync('qemu-img', ['create', '-q', '-f', 'qcow2', '-o', options, file, '4M'])
    if (incompatible !== undefined) {
      const bytes = readFileSync(file)
      bytes.writeUInt32BE(incompatible, 76)
      writeFileSync(file, bytes)
    }
    const error = await rejection(openFile(file))
    expect(error!.message).toContain(says)
    const [, command] = /^(qemu-img .*?)( makes .*)?$/.exec(error!.remedy!)!
    const words = command!.split(' ').map((word) => ({ IMAGE: file, NEW: made })[word] ?? word)
    const ran = spawnSync(words[0]!, words.slice(1), { encoding: 'utf8' })
    expect([ran.status, ran.stderr]).toEqual([0, ''])
    const disk = await openFile(words.includes(made) ? made : file)
    expect(disk.size).toBe(4 * MIB)
    await disk.close()
  })
})
