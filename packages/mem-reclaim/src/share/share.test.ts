import { FRAME_SIZE } from '@nonroot/contracts'
import { describe, expect, it, vi } from 'vitest'
import { Bench } from '../testing/bench.ts'
import type { TestVm, TestVmOptions } from '../testing/bench.ts'
import { Member } from '../member.ts'
import { Sharing } from './share.ts'
import { Candidates, SharedFrames } from './tables.ts'

const hostOf = (pagesPerSecond = 100_000) =>
  new Bench(2048, (host, metrics) => [new Sharing(host, metrics, { pagesPerSecond })])

/** Two VMs of one group with the same 100 pages. */
function twins(options: TestVmOptions = { group: 'a' }, others: TestVmOptions = options): [Bench, TestVm, TestVm] {
  const bench = hostOf()
  const vms = [bench.vm('web', options), bench.vm('db', others)] as const
  for (const vm of vms) for (let page = 0; page < 100; page++) vm.fill(page, page + 7)
  return [bench, ...vms]
}
const stateOf = (vm: TestVm, page: number): string => vm.frames.state(page * FRAME_SIZE)!.kind

describe('sharing', () => {
  it('gives pages of the same content one frame', () => {
    const [bench, web, db] = twins()
    const free = bench.host.freeFrames
    bench.pass(1)
    expect([bench.host.freeFrames - free, bench.metric('share.merged')]).toEqual([100, 100])
    expect([bench.techniques(web)['share'], bench.techniques(db)['share']]).toEqual([50, 50])
  })

  it.each<[string, TestVmOptions, TestVmOptions, number]>([
    ['of one group share', { group: 'a' }, { group: 'a' }, 100],
    ['of different groups do not', { group: 'a' }, { group: 'b' }, 0],
    ['without a group do not', {}, {}, 0],
    ['of which one has a group do not', { group: 'a' }, {}, 0],
  ])('VMs %s', (_, one, other, merged) => {
    const [bench] = twins(one, other)
    bench.pass(2)
    expect(bench.metric('share.merged')).toBe(merged)
  })

  it('scans ahead when frames are wanted, but not all the time, unless a vCPU has nothing else to wait for', async () => {
    const bench = new Bench(2048, () => [])
    const share = new Sharing(bench.host, bench.metrics, { pagesPerSecond: 1 })
    const vm = bench.vm('web', { pages: 1000 })
    for (let page = 0; page < 1000; page++) vm.fill(page, page + 1)
    const member = new Member(vm)
    share.add(member)
    const scanned = async (isLastResort: boolean): Promise<number> => {
      const before = bench.metric('share.scanned')
      await share.take(member, 500, isLastResort)
      return bench.metric('share.scanned') - before
    }
    // Each scan of 512 pages takes 1 ms.
    let ms = 0
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => ms++)
    expect([await scanned(false), await scanned(false), await scanned(true)]).toEqual([2000, 0, 2000])
    ms += 40
    expect([await scanned(false), await scanned(false)]).toEqual([2000, 0])
    clock.mockRestore()
  })

  it('shares within a VM that has no group', () => {
    const bench = hostOf()
    const vm = bench.vm('web')
    for (let page = 0; page < 100; page++) vm.fill(page, 5)
    bench.pass(1)
    expect(bench.metric('share.merged')).toBe(99)
    expect(bench.host.totalFrames - bench.host.freeFrames).toBe(2)
  })

  it('leaves one’s own content to whoever writes', async () => {
    const [bench, web, db] = twins()
    bench.pass(1)
    web.fill(3, 1)
    web.memory.writeU32(4 * FRAME_SIZE + 8, 2)
    expect([await web.read(3), await db.read(3), db.memory.readU32(4 * FRAME_SIZE + 8)]).toEqual([1, 10, 11])
    expect([stateOf(web, 3), stateOf(web, 5)]).toEqual(['private', 'shared'])
    // The table still has the frame: who writes the content again gets it back.
    web.fill(3, 10)
    bench.pass(1)
    expect([stateOf(web, 3), bench.metric('share.merged')]).toEqual(['shared', 101])
  })

  it('leaves pages alone that change from pass to pass', () => {
    const [bench, web, db] = twins()
    for (let round = 1; round < 20; round++) {
      web.fill(9, round)
      db.fill(9, round)
      bench.pass(0.1)
    }
    expect([stateOf(web, 9), stateOf(web, 10)]).toEqual(['private', 'shared'])
    expect(bench.metric('share.volatile')).toBeGreaterThan(10)
  })

  it('releases pages of zeros, which need no frame and no twin', async () => {
    const bench = hostOf()
    const vm = bench.vm('web')
    for (let page = 0; page < 50; page++) vm.fill(page, 0)
    vm.fill(50, 1)
    bench.pass(1)
    expect([bench.metric('share.zeros'), vm.frames.residentFrames, bench.techniques(vm)['share']]).toEqual([50, 1, 50])
    expect([await vm.read(7), await vm.read(50)]).toEqual([0, 1])
  })

  it('leaves pinned pages and those that a transfer uses', () => {
    const bench = hostOf()
    const vm = bench.vm('web')
    for (let page = 0; page < 4; page++) vm.fill(page, 5)
    for (let page = 4; page < 6; page++) vm.fill(page, 0)
    vm.frames.pin(0)
    vm.frames.pin(4 * FRAME_SIZE)
    const lease = vm.memory.lease(
      [
        { address: FRAME_SIZE, length: 8 },
        { address: 5 * FRAME_SIZE, length: 8 },
      ],
      'write',
    )!
    bench.pass(1)
    const states = () => [0, 1, 2, 3, 4, 5].map((page) => stateOf(vm, page))
    expect(states()).toEqual(['private', 'private', 'shared', 'shared', 'private', 'private'])
    // What the transfer writes is in the page.
    lease.views[0]!.fill(9)
    lease.end()
    bench.pass(1)
    expect(vm.memory.readU8(FRAME_SIZE)).toBe(9)
    expect(states()).toEqual(['private', 'private', 'shared', 'shared', 'private', 'absent'])
  })

  it('frees frames that nobody uses any more, and all of them when the VMs go', () => {
    const [bench, web, db] = twins()
    bench.pass(1)
    for (const vm of [web, db])
      for (let page = 0; page < 100; page++) vm.fill(page, 1000 + page * 2 + Number(vm === web))
    bench.pass(1)
    expect([bench.metric('share.frames'), bench.host.totalFrames - bench.host.freeFrames]).toEqual([0, 201])
    const [again, one, other] = twins()
    again.pass(1)
    for (const vm of [one, other]) {
      again.policy.removeSubject(vm)
      vm.memory.release([{ address: 0 as never, length: vm.memory.size }])
    }
    expect(again.host.freeFrames).toBe(again.host.totalFrames - 1)
  })

  it('scans no more than it may', () => {
    const bench = hostOf(1000)
    const vm = bench.vm('web')
    for (let page = 0; page < 256; page++) vm.fill(page, page)
    bench.pass(0.3)
    expect(bench.metric('share.scanned')).toBe(200)
  })

  it('needs little memory itself', () => {
    const [bench] = twins()
    bench.pass(1)
    // The tables of 512 pages and 2048 frames; small ones have their least size.
    expect(bench.metric('share.metadata')).toBeLessThan(8192)
  })
})

describe('the tables', () => {
  it('find each value by its hash, through collisions, growth and removal', () => {
    const table = new SharedFrames()
    const hash = (frame: number): number => (frame % 7) * 64
    for (let frame = 1; frame <= 200; frame++) table.insert(hash(frame), frame)
    for (let frame = 1; frame <= 200; frame += 2) expect(table.remove(hash(frame), frame)).toBe(true)
    expect([table.count, table.remove(hash(1), 1)]).toEqual([100, false])
    for (let frame = 1; frame <= 200; frame++)
      expect(table.find(hash(frame), (other) => other === frame)).toBe(frame % 2 === 0 ? frame : 0)
  })

  it('forget candidates beyond their room, until the next pass', () => {
    const table = new Candidates()
    table.clear(10)
    const kept = (): number =>
      Array.from({ length: 200 }, (_, value) => table.find(value, (other) => other === value + 1)).filter(Boolean)
        .length
    for (let value = 0; value < 200; value++) table.insert(value, value + 1)
    expect(kept()).toBe(48)
    table.clear(200)
    for (let value = 0; value < 200; value++) table.insert(value, value + 1)
    expect(kept()).toBe(200)
  })
})
