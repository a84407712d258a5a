/** A disk behind a ring, as a guest's driver meets it. (Xen, "public/io/blkif.h") */

import type { BlockBackend } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { entry, FrontRing, splitBench } from './backends.test.support.ts'
import { BlockBack } from './block.ts'
import { diskHandle, OPERATION, RESULT } from './block-format.ts'
import { STATE } from './split-device.ts'

const SIZE = 64 * 1024

/** A disk in memory whose requests wait while `hold` is set. */
function memoryDisk({ readOnly = false, sectorSize = 512, now = false } = {}) {
  const bytes = Uint8Array.from({ length: SIZE }, (_, index) => (index >>> 9) & 0xff)
  const waiting: (() => void)[] = []
  let resized: ((size: number) => void) | undefined
  const disk = {
    ...{ bytes, readOnly, sectorSize, size: SIZE, hold: false, failing: false, calls: [] as string[] },
    go: () => {
      for (const resolve of waiting.splice(0)) resolve()
    },
    async pass(call: string) {
      disk.calls.push(call)
      if (disk.hold) await new Promise<void>((resolve) => waiting.push(resolve))
      if (disk.failing) throw new Error('the disk is on fire')
    },
    async read(offset: number, into: Uint8Array) {
      await disk.pass(`read ${offset}+${into.length}`)
      into.set(bytes.subarray(offset, offset + into.length))
    },
    async write(offset: number, from: Uint8Array) {
      await disk.pass(`write ${offset}+${from.length}`)
      bytes.set(from, offset)
    },
    ...(now
      ? {
          readNow(offset: number, into: readonly Uint8Array[]) {
            for (const view of into) {
              view.set(bytes.subarray(offset, offset + view.length))
              offset += view.length
            }
            return true
          },
        }
      : {}),
    flush: () => disk.pass('flush'),
    discard: (offset: number, length: number) => disk.pass(`discard ${offset}+${length}`),
    onResize(listener: (size: number) => void) {
      resized = listener
      return () => {}
    },
    resize: (size: number) => resized!(size),
    close: async () => {},
  }
  return disk satisfies BlockBackend
}
type MemoryDisk = ReturnType<typeof memoryDisk>

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

function start(disk: MemoryDisk = memoryDisk(), order?: number) {
  const made = splitBench('vbd', (context, handle, update) => new BlockBack(disk, handle, context, update))
  const pages = Array.from({ length: 1 << (order ?? 0) }, () => made.page())
  const ring = new FrontRing(made, pages, 112)
  const port = made.port()
  const references = Object.fromEntries(
    pages.map(({ reference }, n) => [order === undefined ? 'ring-ref' : `ring-ref${n}`, reference]),
  )
  made.write({
    ...references,
    ...(order === undefined ? {} : { 'ring-page-order': order }),
    'event-channel': port,
    protocol: 'x86_64-abi',
  })
  made.write({ state: STATE.initialised })
  const kick = async (): Promise<void> => {
    made.events.send(port)
    await settle()
  }
  const statuses = (): [id: number, operation: number, status: number][] =>
    ring.take().map((view) => [Number(view.getBigUint64(0, true)), view.getUint8(8), view.getInt16(10, true)])
  const ask = async (...requests: Uint8Array[]): Promise<[number, number, number][]> => {
    ring.add(...requests)
    await kick()
    return statuses()
  }
  return { ...made, disk, ring, port, kick, statuses, ask }
}

interface Segment {
  readonly reference: number
  readonly first?: number
  readonly last?: number
}
let nextId = 1
const request = (
  operation: number,
  sector: number,
  segments: readonly Segment[],
  count = segments.length,
): Uint8Array =>
  entry(
    112,
    [0, 1, operation],
    [1, 1, count],
    [8, 8, nextId++],
    [16, 8, sector],
    ...segments.flatMap(({ reference, first = 0, last = 7 }, n) => [
      [24 + n * 8, 4, reference] as const,
      [28 + n * 8, 1, first] as const,
      [29 + n * 8, 1, last] as const,
    ]),
  )
const indirect = (operation: number, sector: number, count: number, pages: readonly number[]): Uint8Array =>
  entry(
    112,
    [0, 1, OPERATION.indirect],
    [1, 1, operation],
    [2, 2, count],
    [8, 8, nextId++],
    [16, 8, sector],
    ...pages.map((page, n) => [28 + n * 4, 4, page] as const),
  )

describe('a disk', () => {
  it('says what it can, and how long it is', () => {
    const { read } = start()
    const names = [
      'mode',
      'feature-flush-cache',
      'feature-discard',
      'feature-max-indirect-segments',
      'max-ring-page-order',
    ]
    expect([...names, 'sectors', 'sector-size', 'info'].map(read)).toEqual([
      'w',
      '1',
      '1',
      '256',
      '4',
      '128',
      '512',
      '0',
    ])
    const other = start(memoryDisk({ readOnly: true }))
    expect([...names, 'info'].map(other.read)).toEqual(['r', '1', undefined, '256', '4', '4'])
  })

  it.each([
    { index: 0, handle: 51_712 },
    { index: 1, handle: 51_728 },
    { index: 15, handle: 51_952 },
    { index: 16, handle: 268_439_552 },
  ])('has number $handle as disk $index', ({ index, handle }) => {
    expect(diskHandle(index)).toBe(handle)
  })

  it.each([{ now: false }, { now: true }])('reads and writes by pieces of pages, now: $now', async ({ now }) => {
    const { ask, disk, memory, page, uses, notified, port } = start(memoryDisk({ now }))
    const [one, other] = [page(), page({ readOnly: true })]
    expect(
      await ask(
        request(OPERATION.read, 2, [
          { ...one, first: 1, last: 2 },
          { ...one, first: 5, last: 5 },
        ]),
      ),
    ).toEqual([[expect.any(Number), OPERATION.read, RESULT.ok]])
    expect([0, 1, 2, 3, 4, 5, 6].map((sector) => memory.readU8(one.address + sector * 512))).toEqual([
      0, 2, 3, 0, 0, 4, 0,
    ])
    expect(notified(port)).toBe(true)
    memory.fill(other.address, 4096, 0xee)
    // For writing to the disk, a grant for reading is enough.
    expect(await ask(request(OPERATION.write, 8, [other]))).toEqual([[expect.any(Number), OPERATION.write, RESULT.ok]])
    expect([disk.bytes[8 * 512 - 1], disk.bytes[8 * 512], disk.bytes[16 * 512 - 1], disk.bytes[16 * 512]]).toEqual([
      7, 0xee, 0xee, 16,
    ])
    // The ring's page alone is still used.
    expect(uses.size).toBe(1)
  })

  it.each([1, 11, 12, 128])('reads %i sectors by a list in a page', async (count) => {
    const { ask, memory, page } = start()
    const [list, target] = [page(), page()]
    for (let n = 0; n < count; n++) {
      memory.writeU32(list.address + n * 8, target.reference)
      memory.writeU8(list.address + n * 8 + 4, n % 8)
      memory.writeU8(list.address + n * 8 + 5, n % 8)
    }
    // The response names what was done, not how it was asked for.
    expect(await ask(indirect(OPERATION.read, 0, count, [list.reference]))).toEqual([
      [expect.any(Number), OPERATION.read, RESULT.ok],
    ])
    expect(memory.readU8(target.address + ((count - 1) % 8) * 512)).toBe(count - 1)
  })

  it('has a ring of several pages', async () => {
    const { ask, page } = start(memoryDisk(), 2)
    const target = page()
    const answers = await ask(...Array.from({ length: 128 }, () => request(OPERATION.read, 0, [target])))
    expect(answers.map(([, , status]) => status)).toEqual(new Array(128).fill(RESULT.ok))
  })

  it('flushes and discards', async () => {
    const { ask, disk } = start()
    const discard = entry(112, [0, 1, OPERATION.discard], [16, 8, 8], [24, 8, 16])
    expect((await ask(request(OPERATION.flush, 0, []), discard)).map(([, , status]) => status)).toEqual([0, 0])
    expect(disk.calls).toEqual(['flush', 'discard 4096+8192'])
  })

  it('answers an error of the back end as one of the request', async () => {
    const { ask, disk, page, uses, count } = start()
    disk.failing = true
    expect((await ask(request(OPERATION.read, 0, [page()])))[0]![2]).toBe(RESULT.error)
    expect([uses.size, count('errors')]).toEqual([1, 1])
  })

  it.each<[what: string, status: number, make: (bench: ReturnType<typeof start>) => Uint8Array]>([
    ['no segment', -1, () => request(OPERATION.read, 0, [])],
    ['a twelfth segment', -1, ({ page }) => request(OPERATION.read, 0, [page()], 12)],
    ['a page that is not granted', -1, () => request(OPERATION.read, 0, [{ reference: 7 }])],
    ['a second page that is not granted', -1, ({ page }) => request(OPERATION.read, 0, [page(), { reference: 7 }])],
    ['a page that may only be read', -1, ({ page }) => request(OPERATION.read, 0, [page({ readOnly: true })])],
    ['a sector behind the page', -1, ({ page }) => request(OPERATION.read, 0, [{ ...page(), first: 0, last: 8 }])],
    [
      'a last sector before the first',
      -1,
      ({ page }) => request(OPERATION.read, 0, [{ ...page(), first: 3, last: 2 }]),
    ],
    ['sectors up to the end', 0, ({ page }) => request(OPERATION.read, 120, [page()])],
    ['a sector behind the end', -1, ({ page }) => request(OPERATION.read, 121, [page()])],
    ['a sector that no disk has', -1, ({ page }) => request(OPERATION.read, 2 ** 53, [page()])],
    ['a list that is not granted', -1, () => indirect(OPERATION.read, 0, 1, [7])],
    ['a list of none', -1, ({ page }) => indirect(OPERATION.read, 0, 0, [page().reference])],
    ['a list of 257', -1, ({ page }) => indirect(OPERATION.read, 0, 257, [page().reference])],
    ['a list of flushes', -2, ({ page }) => indirect(OPERATION.flush, 0, 1, [page().reference])],
    ['a list of lists', -2, ({ page }) => indirect(OPERATION.indirect, 0, 1, [page().reference])],
    ['a barrier', -2, () => request(2, 0, [])],
    ['a flush with data', -2, ({ page }) => request(OPERATION.flush, 0, [page()])],
    ['an unknown operation', -2, () => request(99, 0, [])],
    ['a secure discard', -2, () => entry(112, [0, 1, OPERATION.discard], [1, 1, 1], [24, 8, 8])],
    ['a discard of nothing', -1, () => entry(112, [0, 1, OPERATION.discard])],
    ['a discard behind the end', -1, () => entry(112, [0, 1, OPERATION.discard], [16, 8, 121], [24, 8, 8])],
  ])('answers %s with %i', async (_what, status, make) => {
    const bench = start()
    expect((await bench.ask(make(bench))).map((answer) => answer[2])).toEqual([status])
    expect([bench.uses.size, bench.read('state')]).toEqual([1, '4'])
  })

  it.each([
    { what: 'a write', make: (reference: number) => request(OPERATION.write, 0, [{ reference }]), status: -1 },
    { what: 'a discard', make: () => entry(112, [0, 1, OPERATION.discard], [24, 8, 8]), status: -1 },
  ])('refuses $what where it may only be read', async ({ make, status }) => {
    const { ask, page, disk } = start(memoryDisk({ readOnly: true }))
    expect((await ask(make(page().reference)))[0]![2]).toBe(status)
    expect(disk.calls).toEqual([])
  })

  it('refuses a part of one of its sectors', async () => {
    const { ask, page, read } = start(memoryDisk({ sectorSize: 4096 }))
    expect(read('sector-size')).toBe('4096')
    const answers = await ask(
      request(OPERATION.read, 0, [{ ...page(), last: 6 }]),
      request(OPERATION.read, 1, [page()]),
      request(OPERATION.read, 8, [page()]),
    )
    expect(answers.map(([, , status]) => status)).toEqual([-1, -1, 0])
  })

  it('takes no more requests at a time than 64, and all in the end', async () => {
    const { ask, page, disk, statuses } = start(memoryDisk(), 2)
    disk.hold = true
    const target = page()
    expect(await ask(...Array.from({ length: 100 }, () => request(OPERATION.read, 0, [target])))).toEqual([])
    expect(disk.calls).toHaveLength(64)
    disk.hold = false
    disk.go()
    await settle()
    expect(statuses()).toHaveLength(100)
  })

  it('is left alone by a guest whose ring is none', async () => {
    const { ring, kick, read, log, uses } = start()
    ring.say(33)
    await kick()
    expect([read('state'), log.lines.length, uses.size]).toEqual(['5', 1, 0])
  })

  it('parts when what is under way has ended, and answers nothing then', async () => {
    const { ask, page, disk, write, read, uses, statuses, driver } = start()
    disk.hold = true
    await ask(request(OPERATION.read, 0, [page()]))
    write({ state: STATE.closing })
    expect([read('state'), uses.size]).toEqual(['4', 2])
    const quiet = driver.quiesce()
    disk.go()
    await quiet
    await settle()
    expect([read('state'), uses.size, statuses()]).toEqual(['5', 0, []])
  })

  it('uses no grant of a domain that has ended, whatever is under way', async () => {
    const { ask, page, disk, backends, uses, statuses } = start()
    disk.hold = true
    await ask(request(OPERATION.read, 0, [page()]))
    backends.end()
    expect(uses.size).toBe(0)
    disk.go()
    await settle()
    expect([uses.size, statuses()]).toEqual([0, []])
  })

  it('tells of its new length', () => {
    const { disk, read, states } = start()
    disk.resize(2 * SIZE)
    expect([read('sectors'), states.at(-1)]).toEqual(['256', '4'])
  })

  it.each([
    { what: 'another layout', nodes: { protocol: 'x86_32-abi' } },
    { what: 'a ring of 32 pages', nodes: { 'ring-page-order': 5 } },
    { what: 'a ring that is not granted', nodes: { 'ring-ref': 7 } },
    { what: 'a port that waits for no one', nodes: { 'event-channel': 99 } },
  ])('does not connect by $what', ({ nodes }) => {
    const made = splitBench('vbd', (context, handle, update) => new BlockBack(memoryDisk(), handle, context, update))
    const usual: Record<string, string | number> = { 'ring-ref': made.page().reference, 'event-channel': made.port() }
    made.write({ ...usual, ...(nodes as unknown as Record<string, string | number>), state: STATE.initialised })
    expect([made.read('state'), made.uses.size]).toEqual(['5', 0])
  })
})
