import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { FRAME_SIZE } from '@nonroot/contracts'
import { FramePool } from './frame-pool.ts'
import { PoolLock } from './pool-lock.ts'

const memoryOf = (pages: number, shared = true): WebAssembly.Memory =>
  new WebAssembly.Memory({ initial: pages, maximum: pages, shared })
const MIB_PAGES = 16
const takeAll = (pool: FramePool): number[] => {
  const frames: number[] = []
  for (let frame = pool.take(); frame >= 0; frame = pool.take()) frames.push(frame)
  return frames
}
const giveBack = (pool: FramePool, frame: number): void => {
  if (pool.drop(frame)) pool.recycle(frame)
}

describe('a pool of frames that lies in the memory', () => {
  it.each([
    ['a memory that is not shared', () => FramePool.create(memoryOf(MIB_PAGES, false)), 'is not shared'],
    ['a memory that its tables fill', () => FramePool.create(memoryOf(1)), "which the pool's own tables fill"],
    ['a memory without a pool', () => FramePool.open(memoryOf(MIB_PAGES)), 'it has no pool of frames'],
    [
      'a second pool in the same memory',
      () => FramePool.create(FramePool.create(memoryOf(MIB_PAGES)).memory),
      'it has a pool already',
    ],
    [
      'a pool of another version',
      () => {
        const { memory } = FramePool.create(memoryOf(MIB_PAGES))
        new Int32Array(memory.buffer)[(0x1000 >>> 2) + 1] = 77
        return FramePool.open(memory)
      },
      'its pool has version 77',
    ],
  ])('refuses %s', (_, act, message) => {
    expect(act).toThrow(
      expect.objectContaining({ code: 'host.memory', message: expect.stringContaining(message) as string }),
    )
  })

  it('has two pages for the smallest pool', () => {
    const pool = FramePool.create(memoryOf(2))
    expect([pool.freeFrames, takeAll(pool).length, pool.freeFrames]).toEqual([15, 15, 0])
  })

  it('gives views of one memory different frames, and each what the other gave back', () => {
    const one = FramePool.create(memoryOf(MIB_PAGES))
    const other = FramePool.open(one.memory)
    const total = one.freeFrames
    const taken: number[] = []
    for (let round = 0; round < 100; round++) taken.push(one.take(), other.take())
    expect(new Set(taken).size).toBe(200)
    expect([one.freeFrames, other.freeFrames]).toEqual([total - 200, total - 200])
    // Each gives back what the other took, and all of it can be taken by either, the magazine of the other one included.
    for (const [index, frame] of taken.entries()) giveBack(index % 2 ? one : other, frame)
    expect(one.freeFrames).toBe(total)
    expect(new Set(takeAll(other)).size).toBe(total)
    expect([one.take(), one.freeFrames]).toEqual([-1, 0])
  })

  it('gives adjoining frames one after the other, while fresh ones are left', () => {
    const pool = FramePool.create(memoryOf(MIB_PAGES))
    const frames = Array.from({ length: 100 }, () => pool.take())
    expect(frames.map((frame, index) => frame - frames[0]! - index * FRAME_SIZE)).toEqual(frames.map(() => 0))
  })

  it('zeroes what was used, whoever used it', () => {
    const one = FramePool.create(memoryOf(2))
    const other = FramePool.open(one.memory)
    const bytes = new Uint8Array(one.memory.buffer)
    for (const frame of takeAll(one)) {
      bytes.fill(0xee, frame, frame + FRAME_SIZE)
      giveBack(one, frame)
    }
    const run = other.takeRun(4, 4)
    expect(bytes.subarray(run, run + 4 * FRAME_SIZE).every((byte) => byte === 0)).toBe(true)
    for (const frame of takeAll(other))
      expect(bytes.subarray(frame, frame + FRAME_SIZE).every((byte) => byte === 0)).toBe(true)
  })

  it('leaves frames of magazines out of runs, until their thread closes', () => {
    const one = FramePool.create(memoryOf(3))
    const other = FramePool.open(one.memory)
    const total = one.freeFrames
    // A frame taken is a batch in the magazine of whoever took it.
    giveBack(one, one.take())
    expect(other.takeRun(total, 1)).toBe(-1)
    expect(other.freeFrames).toBe(total)
    one.close()
    expect(other.takeRun(total, 1)).toBe(other.firstFrame * FRAME_SIZE)
    expect(other.takeRun(1, 1)).toBe(-1)
  })

  it.each([
    ['a frame given back before', (pool: FramePool) => (giveBack(pool, pool.take()), pool.take(), 0x13000)],
    ["the pool's own frame", () => 0x10000],
    ['address 0', () => 0],
    ['an address in a frame', (pool: FramePool) => pool.take() + 8],
    ['an address behind the memory', () => MIB_PAGES * 65536],
    ['no number', () => NaN],
  ])('neither takes back nor shares %s', (_, addressIn) => {
    const pool = FramePool.create(memoryOf(MIB_PAGES))
    const address = addressIn(pool)
    const free = pool.freeFrames
    expect(() => pool.drop(address)).toThrow(expect.objectContaining({ code: 'internal' }))
    expect(() => pool.share(address)).toThrow(expect.objectContaining({ code: 'internal' }))
    expect(pool.freeFrames).toBe(free)
  })

  it('serves more threads than it has magazines', () => {
    const { memory } = FramePool.create(memoryOf(MIB_PAGES))
    const views = Array.from({ length: 70 }, () => FramePool.open(memory))
    const frames = views.map((view) => view.take())
    expect(new Set(frames).size).toBe(70)
    views.forEach((view, index) => giveBack(view, frames[(index + 7) % 70]!))
    expect(new Set(takeAll(views[69]!)).size).toBe(239)
  })

  it('says so when a thread was ended with the lock', () => {
    const words = new Int32Array(new SharedArrayBuffer(4))
    const lock = new PoolLock(words, 0, 20)
    lock.acquire()
    expect(() => lock.acquire()).toThrow(
      expect.objectContaining({
        code: 'host.memory',
        message: expect.stringContaining('a thread was ended') as string,
      }),
    )
    lock.release()
    lock.acquire()
  })

  it('keeps frames of two threads apart, and loses none (npm run fuzz:frames)', { timeout: 120_000 }, () => {
    const tool = fileURLToPath(new URL('../../tools/fuzz-frames.ts', import.meta.url))
    const args = ['--conditions=@nonroot/source', tool, '--rounds', '2', '--seed', '1']
    const { status, stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/ 0 bugs/)
    expect(status).toBe(0)
  })
})
