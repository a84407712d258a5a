/**
 * Power that fails: of the writes since the last flush any may have arrived, whole or in part, in any order, at every point of a run. What was flushed
 * is there, what was not is old or new, sector by sector, and the image's own tables hold.
 */

import type { BlockBackend, ByteStore } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { createMemoryStore, createQcow2, qcow2 } from './index.ts'
import type { MemoryStore } from './index.ts'
import { checkImage } from './qcow2/check.test.support.ts'

const SECTOR = 512
const KIB = 1024

/** A store whose power fails with its `cutAt`th write or flush, after which nothing works. */
class FailingStore implements ByteStore {
  /** What has surely arrived. */
  readonly #durable: MemoryStore
  /** What is read back while there is power. */
  readonly #current: MemoryStore
  #pending: { offset: number; bytes: Uint8Array }[] = []
  #left: number

  constructor(content: Uint8Array, cutAt: number) {
    this.#durable = createMemoryStore(content)
    this.#current = createMemoryStore(content)
    this.#left = cutAt
  }

  get size(): number {
    return this.#current.size
  }

  get failed(): boolean {
    return this.#left <= 0
  }

  #step(): void {
    if (this.#left > 0) this.#left--
    if (this.failed) throw new Error('the power is off')
  }

  async read(offset: number, into: Uint8Array): Promise<void> {
    if (this.failed) throw new Error('the power is off')
    await this.#current.read(offset, into)
  }

  async write(offset: number, from: Uint8Array): Promise<void> {
    // The one that is cut may have arrived, too.
    this.#pending.push({ offset, bytes: from.slice() })
    this.#step()
    await this.#current.write(offset, from)
  }

  async flush(): Promise<void> {
    this.#step()
    for (const { offset, bytes } of this.#pending.splice(0)) await this.#durable.write(offset, bytes)
  }

  close(): Promise<void> {
    return Promise.resolve()
  }

  /** What the medium holds: of what was not flushed any writes, some of them in part. */
  async remains(random: (limit: number) => number): Promise<MemoryStore> {
    const medium = createMemoryStore(this.#durable.contents())
    const order = this.#pending.map((write) => ({ write, at: random(1 << 20) })).sort((a, b) => a.at - b.at)
    for (const { write } of order) {
      const { offset, bytes } = write
      const kind = random(4)
      if (kind === 0) continue
      for (let at = 0; at < bytes.length; at += SECTOR)
        if (kind !== 1 || random(2) === 0) await medium.write(offset + at, bytes.subarray(at, at + SECTOR))
    }
    return medium
  }
}

const context = {
  name: 'test.qcow2',
  readOnly: false,
  openBacking: (): Promise<BlockBackend> => Promise.reject(new Error('no backing file expected')),
}

/** What each sector may hold: what was flushed last, and all that was written since. */
class Expected {
  readonly #values: number[][]

  constructor(sectors: number) {
    this.#values = Array.from({ length: sectors }, () => [0])
  }

  wrote(from: number, count: number, value: number): void {
    for (let sector = from; sector < from + count; sector++) this.#values[sector]!.push(value)
  }

  flushed(): void {
    for (const values of this.#values) values.splice(0, values.length - 1)
  }

  /** From now on it is this. */
  settle(content: Uint8Array): void {
    this.#values.forEach((values, sector) => values.splice(0, values.length, content[sector * SECTOR]!))
  }

  wrong(content: Uint8Array): string[] {
    return this.#values.flatMap((values, sector) => {
      const found = new Set(content.subarray(sector * SECTOR, (sector + 1) * SECTOR))
      return found.size === 1 && values.includes([...found][0]!)
        ? []
        : [`sector ${sector} is ${[...found].join('|')}, not ${values.join(' or ')}`]
    })
  }
}

async function use(disk: BlockBackend, expected: Expected, random: (limit: number) => number): Promise<void> {
  const sectors = disk.size / SECTOR
  for (let step = 0; step < 60; step++) {
    const from = random(sectors)
    const count = 1 + random(Math.min(sectors - from, 24))
    const kind = random(8)
    if (kind < 5) {
      const value = 1 + random(255)
      expected.wrote(from, count, value)
      await disk.write(from * SECTOR, new Uint8Array(count * SECTOR).fill(value))
    } else if (kind < 7) {
      expected.wrote(from, count, 0)
      await disk.writeZeroes!(from * SECTOR, count * SECTOR)
    } else {
      await disk.flush()
      expected.flushed()
    }
  }
}

describe('when the power fails', () => {
  it.each([
    { clusterBits: 9, size: 200 * KIB, cuts: 70 },
    { clusterBits: 12, size: 512 * KIB, cuts: 50 },
    { clusterBits: 16, size: 1024 * KIB, cuts: 25 },
  ])(
    'qcow2 has what was flushed, at every point: clusters of 2^$clusterBits',
    async ({ clusterBits, size, cuts }) => {
      const empty = createMemoryStore()
      await createQcow2(empty, { size, clusterBits })
      for (let cut = 1; cut <= cuts; cut++) {
        const random = createRandom(cut)
        const expected = new Expected(size / SECTOR)
        let content = empty.contents()
        // Twice: what the first failure left behind is what the second run begins with.
        for (const round of [1, 2]) {
          const store = new FailingStore(content, round === 1 ? cut : 1 + random(cuts))
          const used = qcow2.open(store, context).then((disk) => use(disk, expected, random))
          await used.catch((error: Error) => expect(error.message).toBe('the power is off'))
          const medium = await store.remains(random)
          expect((await checkImage(medium)).errors, `cut ${cut}, round ${round}`).toEqual([])
          const after = await qcow2.open(medium, { ...context, readOnly: true })
          const bytes = new Uint8Array(size)
          await after.read(0, bytes)
          expect(expected.wrong(bytes), `cut ${cut}, round ${round}`).toEqual([])
          expected.settle(bytes)
          content = medium.contents()
        }
      }
    },
    120_000,
  )
})
