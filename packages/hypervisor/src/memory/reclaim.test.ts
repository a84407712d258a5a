import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { FRAME_SIZE, gpa, RECLAIM_PATIENCE_MS, RECLAIM_PERIOD_MS } from '@nonroot/contracts'
import type {
  HostBackends,
  HostMemory,
  Hpa,
  ReclaimPolicy,
  ReclaimPressure,
  ReclaimReport,
  ReclaimSubject,
} from '@nonroot/contracts'
import { createHypervisor } from '../vm/hypervisor.ts'
import { HALT, scriptedStack } from '../testing/scripted-stack.ts'
import type { Guest } from '../testing/scripted-stack.ts'

const MIB = 2 ** 20
const backends: HostBackends = {
  open: async (kind) =>
    (kind === 'entropy'
      ? { fill() {} }
      : { readFile: async () => new Uint8Array(), resolve: (path: string) => path }) as never,
}

/** What every policy of these tests has. */
class Policy implements ReclaimPolicy {
  host!: HostMemory
  readonly subjects: ReclaimSubject[] = []
  readonly samples: ReclaimPressure[] = []
  readonly calls: string[] = []
  attach(host: HostMemory): void {
    this.host = host
    this.calls.push('attach')
  }
  addSubject(subject: ReclaimSubject): void {
    this.subjects.push(subject)
    this.calls.push(`add ${subject.name}`)
  }
  removeSubject(subject: ReclaimSubject): void {
    this.subjects.splice(this.subjects.indexOf(subject), 1)
    this.calls.push(`remove ${subject.name}`)
  }
  async onPressure(_pressure: ReclaimPressure): Promise<ReclaimReport> {
    return { reclaimedFrames: 0, reason: 'this policy takes nothing' }
  }
  sample(pressure: ReclaimPressure): void {
    this.samples.push(pressure)
  }
  /** Pages that hold something, in order. */
  *resident({ frames }: ReclaimSubject): Iterable<number> {
    for (const { start, length } of frames.regions)
      for (let at: number = start; at < start + length; at += FRAME_SIZE) if (frames.peek(at) !== undefined) yield at
  }
}

/** Parks pages in memory of its own, those that came first; each comes back a turn of the event loop later. */
class Swap extends Policy {
  readonly store = new Map<string, Uint8Array>()
  fills = 0
  override async onPressure({ wantedFrames }: ReclaimPressure): Promise<ReclaimReport> {
    let reclaimedFrames = 0
    for (const subject of this.subjects) {
      for (const page of this.resident(subject)) {
        if (reclaimedFrames >= wantedFrames || subject.frames.residentFrames <= subject.minimumFrames) break
        const key = `${subject.name} ${page}`
        const parked = subject.frames.park(page, {
          keep: (_, content) => this.store.set(key, content.slice()) !== undefined,
          fillNow: (_, into) => into.set(this.store.get(key)!),
          fill: async () => {
            this.fills++
            await new Promise((resolve) => setImmediate(resolve))
            return this.store.get(key)!
          },
          drop: () => void this.store.delete(key),
        })
        if (parked === 'done') reclaimedFrames++
      }
    }
    return { reclaimedFrames }
  }
}

/** Gives pages of zero content back, and lets equal pages have one frame. */
class Share extends Policy {
  override async onPressure(): Promise<ReclaimReport> {
    const seen = new Map<number, { subject: ReclaimSubject; page: number }>()
    let reclaimedFrames = 0
    for (const subject of this.subjects) {
      for (const page of this.resident(subject)) {
        const first = this.host.words[subject.frames.peek(page)! >>> 2]!
        const twin = seen.get(first)
        if (!twin) seen.set(first, { subject, page })
        else {
          const frame = twin.subject.frames.expose(twin.page)
          if (typeof frame !== 'number') continue
          if (subject.frames.share(page, frame as Hpa) === 'done') reclaimedFrames++
          else this.host.freeFrame(frame)
        }
      }
    }
    return { reclaimedFrames, ...(reclaimedFrames ? {} : { reason: 'no two pages are alike' }) }
  }
}

/** Fills `pages` pages from 1 MiB with what `value` says, then reads them all again; its status is the number of wrong ones. */
const filling =
  (pages: number, value: (page: number) => number): Guest =>
  (cpu) => {
    const { guestFrames, guestMemory, io } = cpu.ports
    if (cpu.step === 2 * pages) return void io.writePort(0x21, 1, cpu.rip === 0x1000n ? 0 : 1)
    const page = cpu.step % pages
    const address = gpa(MIB + page * FRAME_SIZE)
    const writes = cpu.step < pages
    if (guestFrames.translate(address, writes ? 'write' : 'read') === 'wait') return { reason: 'memory', address }
    if (writes) guestMemory.fill(address, FRAME_SIZE, value(page))
    else if (guestMemory.readU8(address + 99) !== value(page) % 256) cpu.rip = 0x2000n
    cpu.step++
    return undefined
  }

const hypervisorOf = (guest: Guest, reclaim: readonly ReclaimPolicy[], memory = 8 * MIB) =>
  createHypervisor(scriptedStack({ guest, reclaim, machine: { memory }, hostBytes: 4 * MIB }), { backends })

describe('a reclaim policy', () => {
  it('swaps: a guest twice as large as its host finds its memory as it left it', async () => {
    const swap = new Swap()
    const hypervisor = await hypervisorOf(
      filling(1600, (page) => page + 1),
      [swap],
    )
    const free = hypervisor.hostMemory.freeFrames
    const vm = await hypervisor.createVm()
    expect(await vm.run()).toEqual({ state: 'exited', status: 0 })
    expect(swap.fills).toBeGreaterThan(500)
    await vm.dispose()
    expect([swap.store.size, hypervisor.hostMemory.freeFrames, swap.calls]).toEqual([
      0,
      free,
      ['attach', 'add vm0', 'remove vm0'],
    ])
    await hypervisor.dispose()
  })

  it('shares: two guests that hold the same fit where one would', async () => {
    const share = new Share()
    const hypervisor = await hypervisorOf(
      filling(700, (page) => (page % 200) + 1),
      [share],
    )
    const vms = [await hypervisor.createVm(), await hypervisor.createVm()]
    expect(await Promise.all(vms.map((vm) => vm.run()))).toEqual([
      { state: 'exited', status: 0 },
      { state: 'exited', status: 0 },
    ])
    await hypervisor.dispose()
  })

  it('says what it took, and is asked before the balloon is', async () => {
    const requests: unknown[] = []
    class Tells extends Policy {
      reclaimed = (vm: string) => [{ technique: 'swap', frames: vm === 'web' ? 5 : 0 }]
      requestTarget = (vm: string, frames: number | undefined) => requests.push([vm, frames]) > 0
    }
    const hypervisor = await hypervisorOf(() => HALT, [new Tells(), new Tells()])
    const vm = await hypervisor.createVm({ name: 'web', reclaim: { minimumFrames: 100 } })
    const most = (8 * MIB - 0x20000) / FRAME_SIZE
    expect(vm.memory()).toMatchObject({
      maximumFrames: most,
      minimumFrames: 100,
      shares: 1000,
      parkedFrames: 0,
      targetFrames: most,
      techniques: [{ technique: 'swap', frames: 10 }],
    })
    expect([99, 101, most + 1].map((frames) => vm.requestMemory(frames))).toEqual([true, true, true])
    expect(requests).toEqual([
      ['web', 100],
      ['web', 101],
      ['web', undefined],
    ])
    await hypervisor.dispose()
  })

  it('takes nothing below the minimum', async () => {
    const swap = new Swap()
    const hypervisor = await hypervisorOf(
      filling(1600, (page) => page + 1),
      [swap],
    )
    const minimumFrames = hypervisor.hostMemory.freeFrames - 64
    const vm = await hypervisor.createVm({ reclaim: { minimumFrames, shares: 7 } })
    expect(swap.subjects).toMatchObject([{ minimumFrames, maximumFrames: (8 * MIB - 0x20000) / FRAME_SIZE, shares: 7 }])
    expect(await vm.run()).toMatchObject({
      state: 'crashed',
      reason: expect.stringContaining('nothing can be reclaimed') as string,
    })
    await hypervisor.dispose()
  })

  it('VMs whose minimums the host cannot keep are refused', async () => {
    const hypervisor = await hypervisorOf(() => HALT, [new Policy()])
    const most = hypervisor.hostMemory.guestFrames - 64
    const first = await hypervisor.createVm({ reclaim: { minimumFrames: most - 60 } })
    const second = { name: 'db', reclaim: { minimumFrames: 61 } }
    await expect(hypervisor.createVm(second)).rejects.toThrow(
      `db would bring the minimums of all VMs to ${4 * (most + 1)} KiB, but the host has ${4 * most} KiB for guests`,
    )
    await first.dispose()
    await (await hypervisor.createVm(second)).dispose()
    await hypervisor.dispose()
  })

  const failing: [string, () => Promise<ReclaimReport>, string][] = [
    [
      'takes nothing',
      async () => ({ reclaimedFrames: 0, reason: 'all is pinned' }),
      'nothing can be reclaimed; all is pinned',
    ],
    ['reports what it has not done', async () => ({ reclaimedFrames: 500 }), 'nothing can be reclaimed'],
    [
      'rejects',
      () => Promise.reject(new Error('the swap file is full')),
      'a reclaim policy failed: the swap file is full',
    ],
    [
      'throws',
      () => {
        throw new Error('a bug')
      },
      'a reclaim policy failed: a bug',
    ],
  ]
  it.each(failing)('that %s ends the VM that needs a frame, and no other', async (_, onPressure, reason) => {
    const policy = new Policy()
    policy.onPressure = onPressure
    const greedy = filling(1600, (page) => page)
    const hypervisor = await hypervisorOf(
      (cpu) => (cpu.ports.guestMemory.readU8(0) === 1 ? HALT : greedy(cpu)),
      [policy],
    )
    const [one, other] = [await hypervisor.createVm(), await hypervisor.createVm()]
    policy.subjects[1]!.frames.replace(0, pageOfOnes(hypervisor.hostMemory))
    const running = other.run()
    expect(await one.run()).toMatchObject({
      state: 'crashed',
      vcpu: 0,
      reason: expect.stringContaining(reason) as string,
    })
    expect(other.state).toBe('running')
    other.stop()
    expect(await running).toEqual({ state: 'stopped' })
    await hypervisor.dispose()
  })

  it('that finds a frame now and then ends the VM, too: it would wait forever', async () => {
    const policy = new Policy()
    policy.onPressure = async () => {
      const [{ frames }] = policy.subjects as [ReclaimSubject]
      const page = [...policy.resident(policy.subjects[0]!)].at(-1)!
      frames.release([{ address: gpa(page), length: FRAME_SIZE }])
      return { reclaimedFrames: 1, reason: 'the rest is pinned' }
    }
    const hypervisor = await hypervisorOf(
      filling(1600, (page) => page),
      [policy],
    )
    const end = await (await hypervisor.createVm()).run()
    expect(end).toMatchObject({ state: 'crashed', reason: expect.stringContaining('the rest is pinned') as string })
    await hypervisor.dispose()
  })

  it.each([
    ['has the most frames', 1000, 0, 'web'],
    ['has the most frames for its shares', 8000, 0, 'db'],
    ['has the most frames above its minimum', 1000, 700, 'db'],
  ])(
    'that has no more ends the VM that %s; the other goes on with its memory',
    async (_, shares, minimumFrames, ends) => {
      const policy = new Policy()
      const hypervisor = await hypervisorOf(() => HALT, [policy])
      await hypervisor.createVm({ name: 'web', reclaim: { shares, minimumFrames } })
      await hypervisor.createVm({ name: 'db', reclaim: { shares: 1000 } })
      const touch = ({ frames }: ReclaimSubject, page: number) => frames.translate(MIB + page * FRAME_SIZE, 'write')
      const [web, db] = policy.subjects as [ReclaimSubject, ReclaimSubject]
      for (let page = 0; touch(web, page) !== 'wait'; page++) if (page % 4 === 0) touch(db, page)
      const ready = policy.subjects.map(async ({ name, frames }) => {
        const failure = await frames.ready(7 * MIB)
        if (failure !== undefined) frames.release([{ address: gpa(MIB), length: 7 * MIB }])
        return failure === undefined ? `${name} goes on` : `${name} ends`
      })
      expect(await Promise.all(ready)).toEqual(
        ['web', 'db'].map((name) => `${name} ${name === ends ? 'ends' : 'goes on'}`),
      )
      await hypervisor.dispose()
    },
  )

  it('is followed by the next one, in order, until enough is free', async () => {
    const [first, second] = [new Policy(), new Swap()]
    const hypervisor = await hypervisorOf(
      filling(1600, (page) => page + 1),
      [first, second],
    )
    const vm = await hypervisor.createVm()
    expect(await vm.run()).toEqual({ state: 'exited', status: 0 })
    await hypervisor.dispose()
  })
})

it('when a page comes back does not change the order in which deterministic vCPUs run', async () => {
  const traces: string[] = []
  for (const isSwapped of [false, true]) {
    const trace: number[] = []
    const guest: Guest = (cpu) => {
      const { guestFrames, io } = cpu.ports
      const address = gpa(MIB + ((cpu.step * 7 + cpu.index) % 400) * FRAME_SIZE)
      if (guestFrames.translate(address, 'write') === 'wait') return { reason: 'memory', address }
      // One entry for each turn, with how long it was.
      if (trace.length > 0 && trace.at(-2) === cpu.index) trace[trace.length - 1]!++
      else trace.push(cpu.index, 1)
      if (++cpu.step === 60_000) io.writePort(0x21, 1, 0)
      return undefined
    }
    const swap = new Swap()
    const machine = { memory: 8 * MIB, vcpus: 2, clock: 'deterministic' as const }
    const hypervisor = await createHypervisor(scriptedStack({ guest, reclaim: [swap], machine, hostBytes: 4 * MIB }), {
      backends,
    })
    const vm = await hypervisor.createVm()
    // Room for some of its pages only.
    const taken: Hpa[] = []
    while (isSwapped && hypervisor.hostMemory.freeGuestFrames > 300) taken.push(hypervisor.hostMemory.allocateFrame()!)
    expect(await vm.run()).toEqual({ state: 'exited', status: 0 })
    expect(swap.fills > 100).toBe(isSwapped)
    traces.push(trace.join(' '))
    await hypervisor.dispose()
  }
  expect(traces[1]).toBe(traces[0])
})

function pageOfOnes(host: HostMemory): Hpa {
  const frame = host.allocateFrame()!
  host.bytes.fill(1, frame, frame + FRAME_SIZE)
  return frame
}

describe('in time', () => {
  beforeEach(() => void vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval', 'setTimeout', 'clearTimeout'] }))
  afterEach(() => void vi.useRealTimers())

  it('policies sample in their period, with the figures of the host, and those that throw no more', async () => {
    const [policy, broken] = [new Policy(), new Policy()]
    broken.sample = () => {
      broken.calls.push('sample')
      throw new Error('a bug')
    }
    const hypervisor = await hypervisorOf(() => HALT, [broken, policy])
    await hypervisor.createVm()
    vi.advanceTimersByTime(RECLAIM_PERIOD_MS - 1)
    expect(policy.samples).toEqual([])
    vi.advanceTimersByTime(1)
    const { freeGuestFrames: freeFrames, guestFrames: totalFrames } = hypervisor.hostMemory
    expect(policy.samples).toEqual([{ wantedFrames: 0, freeFrames, totalFrames, reservedFrames: 64 }])
    vi.advanceTimersByTime(3 * RECLAIM_PERIOD_MS)
    expect([policy.samples.length, broken.calls]).toEqual([4, ['attach', 'add vm0', 'sample']])
    await hypervisor.dispose()
    vi.advanceTimersByTime(3 * RECLAIM_PERIOD_MS)
    expect(policy.samples.length).toBe(4)
  })

  it('frames are asked for before there is a shortage', async () => {
    const swap = new Swap()
    const hypervisor = await hypervisorOf(() => HALT, [swap])
    await hypervisor.createVm()
    const [{ frames }] = swap.subjects as [ReclaimSubject]
    for (let page = 0; hypervisor.hostMemory.freeFrames > 100; page++)
      frames.translate(MIB + page * FRAME_SIZE, 'write')
    vi.advanceTimersByTime(RECLAIM_PERIOD_MS)
    expect(hypervisor.hostMemory.freeFrames).toBe(128)
    await hypervisor.dispose()
  })

  it('a policy that never answers is passed over', async () => {
    const policy = new Policy()
    policy.onPressure = () => new Promise(() => {})
    const hypervisor = await hypervisorOf(() => HALT, [policy])
    await hypervisor.createVm()
    const [{ frames }] = policy.subjects as [ReclaimSubject]
    for (let page = 0; frames.translate(MIB + page * FRAME_SIZE, 'write') !== 'wait'; page++);
    const ready = frames.ready(7 * MIB)
    vi.advanceTimersByTime(RECLAIM_PATIENCE_MS)
    expect(await ready).toContain('a reclaim policy did not answer in 30 s')
    await hypervisor.dispose()
  })
})
