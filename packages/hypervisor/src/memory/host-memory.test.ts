import { describe, expect, it, vi } from 'vitest'
import { FRAME_SIZE, gpa, hpa } from '@nonroot/contracts'
import { DemandGuestMemory } from './guest-memory.ts'
import { createHostMemory, defaultHostSize, hostMemoryFor } from './host-memory.ts'

const MIB = 2 ** 20
/** Of 256, without those of the pool itself. */
const FRAMES = 239

describe('host memory', () => {
  it('never hands out the first 64 KiB, nor the table of frames behind them', () => {
    const host = createHostMemory(MIB)
    expect(host.totalFrames).toBe(256)
    expect(host.freeFrames).toBe(FRAMES)
    const all = new Set<number>()
    for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) all.add(frame)
    expect(all.size).toBe(FRAMES)
    expect(Math.min(...all)).toBe(65536 + FRAME_SIZE)
    expect(host.freeFrames).toBe(0)
  })

  it('zeroes what was used before', () => {
    const host = createHostMemory(MIB)
    const frame = host.allocateFrame()!
    host.bytes.fill(7, frame, frame + FRAME_SIZE)
    host.freeFrame(frame)
    expect(host.allocateFrame()).toBe(frame)
    expect(host.bytes.subarray(frame, frame + FRAME_SIZE).every((byte) => byte === 0)).toBe(true)
  })

  it('tells watchers of frames that hold code', () => {
    const host = createHostMemory(MIB)
    const watcher = vi.fn()
    const stop = host.watchWrites(watcher)
    const frame = host.allocateFrame()!
    host.noteWrite(frame, FRAME_SIZE)
    expect(watcher).not.toHaveBeenCalled()
    host.codeHolders[frame >>> 12] = 1
    host.noteWrite(hpa(frame - 1), 1)
    host.noteWrite(hpa(frame + FRAME_SIZE), 8)
    expect(watcher).not.toHaveBeenCalled()
    host.noteWrite(hpa(frame - 1), 2)
    host.freeFrame(frame)
    expect(watcher.mock.calls).toEqual([
      [frame - 1, 2],
      [frame, FRAME_SIZE],
    ])
    stop()
    host.noteWrite(frame, 1)
    expect(watcher).toHaveBeenCalledTimes(2)
  })

  it('gives aligned runs and keeps what it skipped', () => {
    const host = createHostMemory(8 * MIB)
    const before = host.freeFrames
    const run = host.allocateFrames(512, 512)!
    expect(run % (2 * MIB)).toBe(0)
    expect(host.freeFrames).toBe(before - 512)
    expect(host.allocateFrame()! < run).toBe(true)
    expect(host.allocateFrames(512, 512)).toBeDefined()
  })

  it('finds a run among freed frames', () => {
    const host = createHostMemory(MIB)
    const frames = Array.from({ length: FRAMES }, () => host.allocateFrame()!)
    expect(host.allocateFrames(4)).toBeUndefined()
    for (const frame of frames.slice(23, 33)) host.freeFrame(frame)
    const run = host.allocateFrames(8, 4)!
    expect(run % (4 * FRAME_SIZE)).toBe(0)
    expect(host.freeFrames).toBe(2)
    expect(host.allocateFrame()).toBeDefined()
    expect(host.allocateFrame()).toBeDefined()
    expect(host.allocateFrame()).toBeUndefined()
  })

  it('has a size that leaves room beside the guest', () => {
    expect(defaultHostSize(512 * MIB)).toBe(704 * MIB)
    expect(defaultHostSize(2 ** 32)).toBeLessThan(2 ** 32)
  })
})

describe('what guests may use', () => {
  const machine = { memory: 64 * 2 ** 20, vcpus: 1 }
  it('is the host’s memory, whatever processors take beside it', () => {
    const host = hostMemoryFor({ host: { memory: 4 * 2 ** 20 } }, [{ machine }])
    expect([host.guestFrames, host.freeGuestFrames]).toEqual([1024, 1024])
    const code = host.allocateFrames(1000)!
    host.setApart(1000)
    expect([host.guestFrames, host.freeGuestFrames, host.apartFrames]).toEqual([1024, 1024, 1000])
    const guest = Array.from({ length: 1024 }, () => host.allocateFrame()!)
    expect([host.freeGuestFrames, host.freeFrames > 1000]).toEqual([0, true])
    // Who cannot wait may take more.
    guest.push(host.allocateFrame()!)
    expect(host.freeGuestFrames).toBe(-1)
    for (const frame of guest) host.freeFrame(frame)
    for (let frame = 0; frame < 1000; frame++) host.freeFrame(hpa(code + frame * FRAME_SIZE))
    host.setApart(-1000)
    expect([host.freeGuestFrames, host.apartFrames]).toEqual([1024, 0])
  })

  it('is all that processors leave where the host has no limit', () => {
    const host = createHostMemory(2 ** 20)
    const { guestFrames } = host
    expect(host.freeGuestFrames).toBe(guestFrames)
    host.allocateFrames(10)
    host.setApart(10)
    expect([host.guestFrames, host.freeGuestFrames]).toEqual([guestFrames - 10, guestFrames - 10])
  })

  it('ends the wait of a vCPU only when there is room within it', () => {
    const host = hostMemoryFor({ host: { memory: 2 ** 20 } }, [{ machine }])
    const memory = new DemandGuestMemory({
      hostMemory: host,
      regions: [{ start: gpa(0), length: 2 * 2 ** 20, kind: 'ram' }],
    })
    for (let page = 0; page < 256; page++) expect(typeof memory.translate(page * FRAME_SIZE, 'write')).toBe('number')
    expect(memory.translate(256 * FRAME_SIZE, 'write')).toBe('wait')
    memory.release([{ address: gpa(0), length: FRAME_SIZE }])
    expect(typeof memory.translate(256 * FRAME_SIZE, 'write')).toBe('number')
  })
})
