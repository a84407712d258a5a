import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import { createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { Bench, createTestDiskPages, createTestSwap } from '../testing/bench.ts'
import type { TestVm } from '../testing/bench.ts'
import { PackedFrames, LARGEST } from './packed-frames.ts'
import { Slots } from './slots.ts'
import { Swapping } from './swap.ts'

/** Does not compress in the test's way. */
const mixed = (vm: TestVm, page: number): void => {
  vm.fill(page, page + 1)
  vm.memory.writeU8(page * FRAME_SIZE + 5, 99)
}

function swapping(
  filePages = 0,
  compressed = 0.25,
): { bench: Bench; vm: TestVm; swap: ReturnType<typeof createTestSwap> } {
  const swap = createTestSwap(filePages)
  const bench = new Bench(600, (host, metrics) => [
    new Swapping(host, swap, metrics, { compressed, dropUnchanged: true, pagesPerSecond: 5000 }),
  ])
  return { bench, vm: bench.vm('web', { pages: 500 }), swap }
}

describe('swapping', () => {
  it('compresses idle pages, which come back as they were', async () => {
    const { bench, vm } = swapping()
    for (let page = 0; page < 500; page++) vm.fill(page, page + 1)
    const report = await bench.want(300)
    expect(report.reclaimedFrames).toBeGreaterThanOrEqual(300 - 99)
    expect(bench.host.freeFrames).toBeGreaterThanOrEqual(300)
    for (let page = 0; page < 500; page++) expect(await vm.read(page)).toBe(page + 1)
    expect([bench.metric('swap.faults'), bench.techniques(vm)['swap'], vm.frames.residentFrames]).toEqual([
      bench.metric('swap.compressed'),
      0,
      500,
    ])
  })

  it('writes what does not compress to the file, from which a vCPU waits for it', async () => {
    const { bench, vm, swap } = swapping(1000)
    for (let page = 0; page < 500; page++) mixed(vm, page)
    await bench.want(300)
    expect([bench.metric('swap.compressed'), swap.pages.size]).toEqual([0, bench.metric('swap.written')])
    expect(vm.memory.translate(0, 'read')).toBe('wait')
    for (let page = 0; page < 500; page++) expect(await vm.read(page)).toBe(page + 1)
    expect(bench.metric('swap.stalls')).toBe(bench.metric('swap.written'))
  })

  it.each([
    ['not kept', true, 200],
    ['written like others, if so configured', false, 0],
  ])('pages that are as on a disk of the guest are %s', async (_, dropUnchanged, dropped) => {
    const swap = createTestSwap(1000)
    const bench = new Bench(600, (host, metrics) => [
      new Swapping(host, swap, metrics, { compressed: 0, dropUnchanged, pagesPerSecond: 5000 }),
    ])
    const onDisk = createTestDiskPages(() => vm.memory, 200)
    const vm: TestVm = bench.vm('web', { pages: 500, onDisk })
    for (let page = 0; page < 500; page++) mixed(vm, page)
    await bench.want(590)
    expect([bench.metric('swap.dropped'), bench.metric('swap.dropped') + swap.pages.size]).toEqual([dropped, 500])
    expect(bench.techniques(vm)['swap']).toBe(500)
    for (let page = 0; page < 500; page++) expect(await vm.read(page)).toBe(page + 1)
    expect([bench.metric('swap.faults'), bench.techniques(vm)['swap'], onDisk.kept.size]).toEqual([500, 0, 0])
  })

  it('takes idle pages before those in use', async () => {
    const { bench, vm } = swapping()
    for (let page = 0; page < 500; page++) vm.fill(page, page + 1)
    vm.memory.release([{ address: 0 as never, length: 0 }])
    const filler = Array.from({ length: bench.host.freeFrames - 60 }, () => bench.host.allocateFrame()!)
    for (let second = 0; second < 4; second++) {
      for (let page = 0; page < 500; page += 2) vm.accessed.add(page)
      ;(bench.policy as unknown as { sample: Bench['policy']['sample'] }).sample(
        { ...bench.pressure, freeFrames: 55, wantedFrames: 0 },
        second * 1e8,
      )
    }
    await bench.want(150)
    const gone = (from: number): number => {
      let count = 0
      for (let page = from; page < 500; page += 2) if (vm.frames.peek(page * FRAME_SIZE) === undefined) count++
      return count
    }
    expect([gone(0), gone(1) > 80]).toEqual([0, true])
    for (const frame of filler) bench.host.freeFrame(frame)
  })

  it('releases pages of zeros instead', async () => {
    const { bench, vm } = swapping()
    for (let page = 0; page < 500; page++) vm.fill(page, 0)
    await bench.want(300)
    expect([bench.metric('swap.compressed'), bench.metric('swap.zeros') >= 200]).toEqual([0, true])
    expect(await vm.read(5)).toBe(0)
  })

  it('leaves pinned, lent and shared pages', async () => {
    const { bench, vm } = swapping()
    for (let page = 0; page < 10; page++) vm.fill(page, page + 1)
    vm.frames.pin(0)
    const lease = vm.memory.lease([{ address: FRAME_SIZE, length: 8 }], 'write')!
    const shared = vm.frames.expose(2 * FRAME_SIZE) as number
    await bench.want(599)
    const there = [...Array(10).keys()].filter((page) => vm.frames.peek(page * FRAME_SIZE) !== undefined)
    expect(there).toEqual([0, 1, 2])
    lease.end()
    bench.host.freeFrame(hpa(shared))
  })

  it.each([
    ['is full', 20, '', 'the swap file is full'],
    ['has no space on its disk', 1000, 'ENOSPC: no space left on device', 'the swap file takes no more: ENOSPC'],
  ])('says so when the file %s, and keeps the page', async (_, pages, fails, reason) => {
    const { bench, vm, swap } = swapping(pages)
    for (let page = 0; page < 500; page++) mixed(vm, page)
    swap.fails = fails
    expect((await bench.want(400)).reason).toContain(reason)
    swap.fails = ''
    expect(vm.frames.residentFrames).toBe(500 - swap.pages.size)
    for (let page = 0; page < 500; page++) expect(await vm.read(page)).toBe(page + 1)
  })

  it('ends the VM whose page is lost, for a vCPU and for a device', async () => {
    const { bench, vm, swap } = swapping(1000)
    for (let page = 0; page < 500; page++) mixed(vm, page)
    await bench.want(400)
    swap.fails = 'page 3 does not match its checksum'
    await expect(vm.read(0)).rejects.toThrow('page 3 does not match its checksum')
    vm.memory.readU32(FRAME_SIZE)
    expect(vm.failure).toContain('does not match its checksum')
  })

  it('counts pages that come back within a second', async () => {
    const { bench, vm } = swapping()
    for (let page = 0; page < 500; page++) vm.fill(page, page + 1)
    await bench.want(200)
    for (let page = 0; page < 50; page++) await vm.read(page)
    expect(bench.metric('swap.refaults')).toBe(bench.metric('swap.faults'))
    expect(bench.metric('swap.faults')).toBeGreaterThan(0)
  })

  it('keeps nothing of a VM that has gone', async () => {
    const { bench, vm, swap } = swapping(1000, 0.1)
    for (let page = 0; page < 250; page++) mixed(vm, page)
    for (let page = 250; page < 500; page++) vm.fill(page, page)
    await bench.want(500)
    expect(swap.pages.size).toBeGreaterThan(0)
    bench.policy.removeSubject(vm)
    vm.memory.release([{ address: 0 as never, length: vm.memory.size }])
    expect(bench.host.freeFrames).toBe(bench.host.totalFrames - 1)
  })
})

describe('frames of compressed pages', () => {
  it('hold pages of any length up to half a frame, and are freed with the last', () => {
    const host = createTestHostMemory(64)
    const free = host.freeFrames
    const store = new PackedFrames(host)
    const lengths = [1, 100, 130, 167, 500, 501, 1000, 1363, 1364, LARGEST - 1, LARGEST]
    const cells = lengths.map((length) => store.put(new Uint8Array(length).fill(length))!)
    for (const [index, length] of lengths.entries())
      expect([...new Set(store.get(cells[index]!)), store.get(cells[index]!).length]).toEqual([length & 255, length])
    expect(store.put(new Uint8Array(LARGEST + 1))).toBe(undefined)
    for (const cell of cells) store.free(cell)
    expect([store.frames, host.freeFrames]).toEqual([0, free])
    for (const length of lengths) store.put(new Uint8Array(length))
    store.dispose()
    expect([store.frames, host.freeFrames]).toEqual([0, free])
  })

  it('are used to the last cell, and again when one is free', () => {
    const host = createTestHostMemory(64)
    const store = new PackedFrames(host)
    const small = new Uint8Array(100)
    const cells = Array.from({ length: 62 }, () => store.put(small)!)
    expect([store.frames, new Set(cells).size]).toEqual([2, 62])
    store.free(cells[40]!)
    expect([store.put(small), store.frames]).toEqual([cells[40], 2])
    store.put(small)
    expect(store.frames).toBe(3)
  })
})

describe('slots of the file', () => {
  it('are taken in order, and again when free', () => {
    const slots = new Slots(3)
    expect([slots.take(), slots.take(), slots.take(), slots.take()]).toEqual([0, 1, 2, -1])
    slots.free(1)
    slots.free(1)
    expect([slots.used, slots.take(), slots.used]).toEqual([2, 1, 3])
  })
})
