import { describe, expect, it } from 'vitest'
import { Bench, createTestBalloon, createTestSwap } from '../testing/bench.ts'
import type { TestVm } from '../testing/bench.ts'
import { Ballooning } from '../balloon/balloon.ts'
import { Swapping } from '../swap/swap.ts'
import { divide } from './demand.ts'
import { StateMachine } from './states.ts'

describe('the state of a host', () => {
  it('changes at its thresholds, and back only above them', () => {
    const machine = new StateMachine()
    const seen = [0.5, 0.041, 0.0399, 0.06, 0.0649, 0.065, 0.019, 0.04, 0.0449, 0.045, 0.0099, 0.0249, 0.025, 0.9]
    expect(seen.map((part) => `${part} ${machine.update(part)}`)).toEqual([
      ...['0.5 high', '0.041 high', '0.0399 soft', '0.06 soft', '0.0649 soft', '0.065 high', '0.019 hard'],
      ...['0.04 hard', '0.0449 hard', '0.045 soft', '0.0099 low', '0.0249 low', '0.025 hard', '0.9 high'],
    ])
  })
})

const claim = { residentFrames: 1000, minimumFrames: 0, maximumFrames: 4000, shares: 1000, activePart: 1 }

describe('what is taken of whom', () => {
  const cases: [string, Partial<typeof claim>[], number, number, number[]][] = [
    ['equal VMs give alike', [{}, {}], 640, 0.75, [320, 320]],
    ['who has more gives first', [{ residentFrames: 2000 }, {}], 1000, 0.75, [1000, 0]],
    ['shares weigh: a third of them keeps a third', [{ shares: 2000 }, {}], 500, 0.75, [0, 500]],
    ['idle memory is taxed', [{ activePart: 0 }, {}], 640, 0.75, [640, 0]],
    ['without a tax it is not', [{ activePart: 0 }, {}], 640, 0, [320, 320]],
    ['a minimum holds, and the others give', [{ minimumFrames: 900 }, {}], 640, 0.75, [100, 540]],
    ['two minimums hold', [{ minimumFrames: 900 }, { minimumFrames: 1000 }], 640, 0.75, [100, 0]],
    ['beyond its maximum a VM gives without need', [{ maximumFrames: 700 }, {}], 0, 0.75, [300, 0]],
    ['what it gives counts', [{ maximumFrames: 700 }, {}], 300, 0.75, [300, 0]],
    ['one frame is one frame', [{}, {}], 1, 0.75, [1, 0]],
    ['no VMs', [], 10, 0.75, []],
  ]
  it.each(cases)('%s', (_, claims, wanted, tax, expected) => {
    expect(
      divide(
        claims.map((change) => ({ ...claim, ...change })),
        wanted,
        tax,
      ),
    ).toEqual(expected)
  })
})

describe('the policy', () => {
  const swapOptions = { compressed: 0.25, dropUnchanged: true, pagesPerSecond: 5000 }
  const full = (vm: TestVm, pages: number): void => {
    for (let page = 0; page < pages; page++) vm.fill(page, page + 1)
  }
  const settle = async (bench: Bench): Promise<void> => {
    await bench.want(0)
    await new Promise((resolve) => void setTimeout(resolve, 20))
  }

  it('asks guests first, and swaps what they do not give', async () => {
    const guest = { availablePages: 30 }
    const bench = new Bench(1024, (host, metrics) => [
      new Ballooning(metrics),
      new Swapping(host, createTestSwap(), metrics, swapOptions),
    ])
    const vm: TestVm = bench.vm('web', { pages: 512, balloon: createTestBalloon(() => vm.memory, guest) })
    full(vm, 512)
    await bench.want(600)
    expect(bench.techniques(vm)).toMatchObject({ balloon: 30 })
    expect(bench.metric('swap.compressed')).toBeGreaterThan(50)
    for (let page = 0; page < 482; page++) expect(await vm.read(page)).toBe(page + 1)
  })

  it.each([
    ['much', 400, 0],
    ['little, but more than others', 40, 0],
    ['nothing, but its swapped pages come back', 0, 100],
  ])('takes idle memory first: a VM that accesses %s keeps more', async (_, accessed, returned) => {
    const bench = new Bench(1100, (host, metrics) => [new Swapping(host, createTestSwap(), metrics, swapOptions)])
    const [web, db] = [bench.vm('web', { pages: 500 }), bench.vm('db', { pages: 500 })]
    for (const vm of [web, db]) full(vm, 500)
    // Sampled every 5 s. Frames are wanted only at the end.
    const filler = Array.from({ length: bench.host.freeFrames - 80 }, () => bench.host.allocateFrame()!)
    if (returned > 0) await bench.want(300)
    for (let sample = 0; sample < 20; sample++) {
      for (let page = 0; page < accessed; page++) web.accessed.add((page * 11 + sample) % 500)
      for (let page = 0; page < returned; page++) await web.read((page * 11 + sample) % 500)
      bench.pass(2.5)
      await settle(bench)
    }
    await bench.want(300)
    expect(web.frames.residentFrames).toBeGreaterThan(1.5 * db.frames.residentFrames)
    for (const frame of filler) bench.host.freeFrame(frame)
  })

  it('takes nothing below minimums and says so', async () => {
    const bench = new Bench(1024, (host, metrics) => [new Swapping(host, createTestSwap(), metrics, swapOptions)])
    const [web, db] = [bench.vm('web', { minimumFrames: 200 }), bench.vm('db', { minimumFrames: 256 })]
    for (const vm of [web, db]) full(vm, 256)
    const report = await bench.want(900)
    expect([web.frames.residentFrames, db.frames.residentFrames]).toEqual([200, 256])
    expect(report.reason).toContain('web is at its minimum')
    expect(report.reclaimedFrames).toBeLessThanOrEqual(56)
  })

  it('takes back what exceeds a maximum without pressure', async () => {
    const bench = new Bench(2048, (host, metrics) => [new Swapping(host, createTestSwap(), metrics, swapOptions)])
    const vm = bench.vm('web', { maximumFrames: 100 })
    full(vm, 256)
    bench.pass(0.2)
    await settle(bench)
    expect(vm.frames.residentFrames).toBeLessThanOrEqual(110)
  })

  it('keeps the host in its high state, and gives balloons back when there is plenty', async () => {
    const guest = { availablePages: 400 }
    const bench = new Bench(1024, (_, metrics) => [new Ballooning(metrics)])
    const vm: TestVm = bench.vm('web', { pages: 1000, balloon: createTestBalloon(() => vm.memory, guest) })
    full(vm, 995)
    bench.pass(0.1)
    await settle(bench)
    const held = bench.host.freeFrames
    expect(held).toBeGreaterThanOrEqual(66)
    vm.memory.release([{ address: 0 as never, length: 500 * 4096 }])
    const balloon = bench.techniques(vm)['balloon']!
    expect(balloon).toBeGreaterThan(0)
    bench.pass(30)
    expect(bench.techniques(vm)['balloon']).toBe(0)
  })

  it.each([
    ['without a balloon', undefined, false, 'web has no balloon'],
    ['whose driver is gone', { availablePages: 9, isDead: true }, false, "web's guest does not answer"],
    ['that has nothing to spare', { availablePages: -2048 }, false, "web's guest has no memory to spare"],
    ['with a deterministic clock', { availablePages: 9 }, true, 'web has a deterministic clock'],
  ])('says why a guest %s gives nothing', async (_, guest, isDeterministic, reason) => {
    const bench = new Bench(512, (_host, metrics) => [new Ballooning(metrics)])
    const vm: TestVm = bench.vm('web', {
      isDeterministic,
      ...(guest ? { balloon: createTestBalloon(() => vm.memory, guest) } : {}),
    })
    full(vm, 256)
    expect(await bench.want(400)).toMatchObject({ reclaimedFrames: 0, reason: expect.stringContaining(reason) })
  })

  it('follows an operator: the balloon holds what was asked, and is let go', () => {
    const bench = new Bench(1024, (_, metrics) => [new Ballooning(metrics)])
    const vm: TestVm = bench.vm('web', { balloon: createTestBalloon(() => vm.memory, { availablePages: 256 }) })
    expect(bench.policy.requestTarget('web', 200)).toBe(true)
    bench.pass(10)
    expect(bench.policy.requestTarget('nobody', 200)).toBe(false)
    expect(vm.memory.regions.length).toBe(1)
    expect(bench.policy.requestTarget('web', undefined)).toBe(true)
  })
})
