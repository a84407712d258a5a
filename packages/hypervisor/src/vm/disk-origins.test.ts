import { FRAME_SIZE } from '@nonroot/contracts'
import type { BlockBackend, FrameFiller } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { DiskOrigins } from './disk-origins.ts'

const PAGES = 64

/** A disk of which each sector has its number, and that may say that it is too slow. */
function testDisk() {
  const bytes = new Uint8Array(PAGES * FRAME_SIZE)
  for (let at = 0; at < bytes.length; at += 512) bytes.fill(at / 512 + 1, at, at + 512)
  const state = { bytes, isSlow: false, isBroken: false, writes: [] as (() => void)[], holdsWrites: false, reads: 0 }
  const copy = (offset: number, views: readonly Uint8Array[]): void => {
    state.reads++
    if (state.isBroken) throw new Error('EIO')
    for (let [at, index] = [offset, 0]; index < views.length; at += views[index++]!.length)
      views[index]!.set(bytes.subarray(at, at + views[index]!.length))
  }
  const backend: BlockBackend = {
    ...{ size: bytes.length, sectorSize: 512, readOnly: false },
    read: async (offset, into) => copy(offset, [into]),
    readVector: async (offset, into) => copy(offset, into),
    readNow: (offset, into) => !state.isSlow && (copy(offset, into), true),
    readBlocking: (offset, into) => copy(offset, [into]),
    async write(offset, from) {
      const content = from.slice()
      if (state.holdsWrites) await new Promise<void>((resolve) => state.writes.push(resolve))
      bytes.set(content, offset)
    },
    writeNow: (offset, from) => (bytes.set(from[0]!, offset), true),
    discard: async (offset, length) => void bytes.fill(0, offset, offset + length),
    flush: async () => {},
    close: async () => {},
  }
  return Object.assign(state, { backend })
}

function start() {
  const hostMemory = createTestHostMemory(PAGES * 2)
  const failures: string[] = []
  const memory = createTestGuestMemory({
    ...{ hostMemory, ram: PAGES * FRAME_SIZE },
    onFailure: (message) => failures.push(message),
  })
  const origins = new DiskOrigins(hostMemory, PAGES, () => memory)
  const file = testDisk()
  const disk = origins.disk(file.backend)
  /** As a device reads: into memory that it was lent. */
  const read = async (offset: number, address: number, length = FRAME_SIZE, now = false): Promise<void> => {
    const lease = memory.lease([{ address, length }], 'write')!
    if (now) expect(disk.readNow!(offset, lease.views)).toBe(true)
    else await disk.readVector!(offset, lease.views)
    lease.end()
  }
  const park = (page: number): string => memory.park(page * FRAME_SIZE, origins)
  /** As a vCPU reads. */
  const bytesOf = async (page: number): Promise<number[]> => {
    const address = page * FRAME_SIZE
    while (memory.translate(address, 'read') === 'wait') {
      const failure = await memory.ready(address)
      if (failure !== undefined) throw new Error(failure)
    }
    return [memory.readU8(address)!, memory.readU8(address + 4095)!]
  }
  return { memory, origins, file, disk, read, park, bytesOf, failures, host: hostMemory }
}

describe('the back ends of a host', () => {
  it('are as they were but for disks', async () => {
    const hostMemory = createTestHostMemory(PAGES * 2)
    const memory = createTestGuestMemory({ hostMemory, ram: PAGES * FRAME_SIZE })
    const noted = new DiskOrigins(hostMemory, PAGES, () => memory)
    const disk = testDisk()
    const files = { readFile: async () => new Uint8Array(0) }
    const requests: unknown[] = []
    const host = { name: 'host', open: async (kind: string, request: unknown) => (requests.push(request), kind === 'block' ? disk.backend : files) }
    const wrapped = noted.wrap(host as never) as unknown as typeof host
    expect(wrapped.name).toBe('host')
    expect(await wrapped.open('files', 1)).toBe(files)
    const opened = (await wrapped.open('block', 2)) as BlockBackend
    expect(opened).not.toBe(disk.backend)
    expect(opened.size).toBe(disk.backend.size)
    await opened.flush()
    expect(requests).toEqual([1, 2])
  })
})

describe('a page that is as it was read from a disk', () => {
  it.each([
    ['beside the guest', false],
    ['in place', true],
  ])('goes without being kept, and is read again: read %s', async (_, now) => {
    const { read, park, bytesOf, memory } = start()
    await read(8192, 0, 3 * FRAME_SIZE, now)
    expect([park(0), park(1), park(2)]).toEqual(['done', 'done', 'done'])
    expect(memory.residentFrames).toBe(0)
    expect([await bytesOf(1), await bytesOf(0), await bytesOf(2)]).toEqual([
      [25, 32],
      [17, 24],
      [33, 40],
    ])
  })

  it.each<[string, (made: ReturnType<typeof start>) => unknown]>([
    ['was written by the guest since', ({ memory }) => memory.writeU8(FRAME_SIZE - 1, 99)],
    ['differs from what is on the disk now', ({ disk }) => disk.write(0, new Uint8Array(512).fill(9))],
    ['cannot be read any more', ({ file }) => (file.isBroken = true)],
    [
      'lies where the disk is being written',
      ({ file, disk }) => ((file.holdsWrites = true), void disk.write(4096 - 512, new Uint8Array(1024))),
    ],
    ['has another frame now', ({ memory, host }) => memory.replace(0, host.allocateFrame()!)],
  ])('is kept elsewhere if it %s', async (_, change) => {
    const made = start()
    await made.read(0, 0)
    await change(made)
    expect(made.park(0)).toBe('declined')
  })

  it.each([
    ['starts within a page', 512, FRAME_SIZE],
    ['ends within a page', 0, FRAME_SIZE - 512],
  ])('is only one that was read as a whole: a transfer that %s', async (_, address, length) => {
    const { read, park, memory } = start()
    memory.fill(0, 2 * FRAME_SIZE, 0)
    await read(0, address, length)
    expect(park(0)).toBe('declined')
  })

  it.each<[string, (disk: BlockBackend) => Promise<void>, number[]]>([
    ['writes its last sector', (disk) => disk.write(4096 - 512, new Uint8Array(512).fill(99)), [1, 8]],
    ['writes more than it', (disk) => disk.write(0, new Uint8Array(16384).fill(99)), [1, 8]],
    ['discards the disk', (disk) => disk.discard!(0, PAGES * FRAME_SIZE), [1, 8]],
  ])('comes back before its disk changes: %s', async (_, change, expected) => {
    const { read, park, bytesOf, disk, memory, file } = start()
    await read(0, 0)
    await read(0, 5 * FRAME_SIZE)
    park(0)
    park(5)
    await change(disk)
    expect(memory.residentFrames).toBe(2)
    expect([await bytesOf(0), await bytesOf(5)]).toEqual([expected, expected])
    expect(file.bytes[4095]).not.toBe(8)
  })

  it('leaves a write in place alone that changes other sectors, and declines one of its own', async () => {
    const { read, park, disk } = start()
    await read(FRAME_SIZE, 0)
    park(0)
    const sector = [new Uint8Array(512)]
    expect([512 * 7, 512 * 8, 512 * 15, 512 * 16].map((at) => disk.writeNow!(at, sector))).toEqual([
      true,
      false,
      false,
      true,
    ])
  })

  it('is read for a device that cannot wait, from a slow disk too', async () => {
    const { read, park, memory, file } = start()
    await read(0, 0)
    park(0)
    file.isSlow = true
    expect(memory.readU8(0)).toBe(1)
  })

  it.each([
    ['for a vCPU, slowly', true],
    ['for a vCPU, from the page cache', false],
  ])('ends its VM if the disk was changed beneath it: %s', async (_, isSlow) => {
    const { read, park, bytesOf, file } = start()
    await read(0, 0)
    park(0)
    file.isSlow = isSlow
    file.bytes[7] = 99
    await expect(bytesOf(0)).rejects.toThrow('changed beneath the VM')
  })

  it('ends its VM for a device, too', async () => {
    const { read, park, memory, file, failures } = start()
    await read(0, 0)
    park(0)
    file.bytes[7] = 99
    memory.readU8(0)
    expect(failures.join()).toContain('changed beneath the VM')
  })

  it('is forgotten when it is overwritten or released', async () => {
    const { read, park, memory, disk, file } = start()
    await read(0, 0, 2 * FRAME_SIZE)
    park(0)
    park(1)
    const before = file.reads
    memory.fill(0, FRAME_SIZE, 7)
    memory.release([{ address: FRAME_SIZE as never, length: FRAME_SIZE }])
    expect(file.reads).toBe(before)
    expect(disk.writeNow!(0, [new Uint8Array(8192)])).toBe(true)
  })
})

it('a disk that nobody can wait for is left as it is', () => {
  const { origins } = start()
  const { backend } = testDisk()
  const { readBlocking: _, ...other } = backend
  expect(origins.disk(other)).toBe(other)
})

it('keeps nothing of frames that no disk was read into', () => {
  const { memory, origins, park } = start()
  memory.writeU8(0, 1)
  expect([park(0), origins.mayKeep(memory.peek(0)!)]).toEqual(['declined', false])
  expect((origins as FrameFiller).keep!(0 as never, new Uint8Array(FRAME_SIZE))).toBe(false)
})
