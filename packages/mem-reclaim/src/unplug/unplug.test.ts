import { describe, expect, it } from 'vitest'
import { Bench, createTestBalloon, createTestPluggable } from '../testing/bench.ts'
import type { TestVm, TestVmOptions } from '../testing/bench.ts'
import { Unplugging } from './unplug.ts'

const PAGES = 256
const BLOCK = 16

/** A VM of which all pages have frames, and whose guest can unplug so many blocks. */
function start(freeBlocks: number, options: TestVmOptions = {}, availablePages = PAGES) {
  const bench = new Bench(PAGES + 64, (_host, metrics) => [new Unplugging(metrics)])
  const guest = { blockFrames: BLOCK, pages: PAGES, freeBlocks }
  const memory = () => vm.memory
  const pluggable = createTestPluggable(memory, guest)
  const vm: TestVm = bench.vm('web', {
    ...{ pages: PAGES, pluggable, balloon: createTestBalloon(memory, { availablePages }) },
    ...options,
  })
  for (let page = 0; page < PAGES; page++) vm.fill(page, page + 1)
  return { bench, vm, pluggable }
}

describe('unplugging', () => {
  it.each([
    ['a block for a page', 1, BLOCK],
    ['one block', BLOCK, BLOCK],
    ['two for a page more', BLOCK + 1, 2 * BLOCK],
  ])('takes whole blocks: %s', async (_, more, expected) => {
    const { bench, vm } = start(16)
    expect(await bench.want(more)).toMatchObject({ reclaimedFrames: expected })
    expect([vm.frames.residentFrames, bench.techniques(vm)]).toEqual([PAGES - expected, { unplug: expected }])
  })

  it('says how much a guest could not empty, and asks for no more than that', async () => {
    const { bench, vm, pluggable } = start(2)
    const report = await bench.want(8 * BLOCK)
    expect(report.reclaimedFrames).toBe(2 * BLOCK)
    expect(report.reason).toContain('its guest unplugs no more')
    expect([pluggable.requestedFrames, vm.frames.residentFrames]).toEqual([PAGES - 2 * BLOCK, PAGES - 2 * BLOCK])
  })

  it.each<[string, TestVmOptions, number, string]>([
    ['without a memory device', { pluggable: undefined as never }, PAGES, 'has no memory device'],
    ['without statistics', { balloon: undefined as never }, PAGES, 'does not answer'],
    ['with nothing to spare', {}, -2048, 'no memory to spare'],
    ['with less to spare than a block', {}, BLOCK - 1, 'has no block to spare'],
    ['at its minimum', { minimumFrames: PAGES - BLOCK + 1 }, PAGES, 'has no block to spare'],
    ['with a deterministic clock', { isDeterministic: true }, PAGES, 'has a deterministic clock'],
  ])('takes nothing of a guest %s, and says why', async (_, options, available, reason) => {
    const { bench } = start(16, options, available)
    expect(await bench.want(4)).toMatchObject({ reclaimedFrames: 0, reason: expect.stringContaining(reason) })
  })

  it('gives blocks back when there is plenty, up to what the guest had', async () => {
    const { bench, vm, pluggable } = start(16)
    await bench.want(6 * BLOCK)
    expect(pluggable.pluggedFrames).toBe(PAGES - 6 * BLOCK)
    vm.memory.release([{ address: 0 as never, length: 100 * 4096 }])
    bench.pass(30)
    expect([pluggable.pluggedFrames, bench.techniques(vm)]).toEqual([PAGES, { unplug: 0 }])
  })
})
