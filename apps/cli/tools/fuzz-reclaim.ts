/**
 * VMs on a host that is too small for them, under reclaim policies: whatever is shared, swapped and ballooned, each VM must read what it wrote. A model
 * of each VM keeps a copy of its memory and goes to the frames by translations that it caches as a processor does, until the kernel revokes them.
 *
 *   npm run fuzz:reclaim -- --minutes 10 --seed 1 [--rounds N] [--steps 3000]
 *
 * A round is a host, some VMs in some groups, and one composition of techniques. What the models do is decided by the seed; how they meet is not.
 */

import { randomFillSync } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Balloon as balloonToken, FRAME_SIZE, gpa, hpa } from '@nonroot/contracts'
import type {
  Balloon,
  Device,
  HostMemory,
  MemoryChange,
  MemoryLease,
  MemoryRange,
  ReclaimPolicy,
  ReclaimSubject,
} from '@nonroot/contracts'
import { openSwap } from '@nonroot/host-node'
import { createHostMemory, DemandGuestMemory } from '../../../packages/hypervisor/src/memory/index.ts'
import { Reclaim } from '../../../packages/hypervisor/src/memory/reclaim.ts'
import { createLog } from '../../../packages/hypervisor/src/metrics/log.ts'
import { createMetrics } from '../../../packages/hypervisor/src/metrics/metrics.ts'
import { Ballooning, MemoryPolicy, Sharing, Swapping } from '@nonroot/mem-reclaim'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: 'Infinity' },
    rounds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    steps: { type: 'string', default: '3000' },
  },
})
const PAGES = 192
const folder = mkdtempSync(join(tmpdir(), 'nonroot-fuzz-reclaim-'))
const steps = Number(values.steps)
const totals = new Map<string, number>()
const count = (what: string, by = 1): void => void totals.set(what, (totals.get(what) ?? 0) + by)
const turn = (): Promise<void> => new Promise((resolve) => void setImmediate(resolve))

/** A generator of its own for each VM, so that they do not depend on each other. */
function randomOf(seed: number): (below: number) => number {
  let state = Math.imul(seed + 1, 0x9e37_79b1) | 1
  return (below) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % below
  }
}

interface Cached {
  readonly frame: number
  readonly isWritable: boolean
}

/** A VM: its memory, what it must hold, and the translations that its processor has. */
class Model implements ReclaimSubject, Balloon {
  readonly name: string
  readonly group: string | undefined
  readonly minimumFrames: number
  readonly maximumFrames: number
  readonly shares: number
  readonly isDeterministic: boolean
  readonly frames: DemandGuestMemory
  readonly devices: ReadonlyMap<string, Device>
  failure: string | undefined
  targetFrames = 0
  readonly #host: HostMemory
  readonly #random: (below: number) => number
  readonly #expected = new Uint8Array(PAGES * FRAME_SIZE)
  readonly #cached = new Map<number, Cached>()
  readonly #accessed = new Set<number>()
  readonly #ballooned = new Set<number>()
  readonly #pinned = new Set<number>()
  #lease: { readonly page: number; readonly lease: MemoryLease } | undefined

  constructor(name: string, seed: number, host: HostMemory, reclaim: () => Reclaim) {
    this.name = name
    this.#host = host
    const random = (this.#random = randomOf(seed))
    this.group = [undefined, 'a', 'a', 'b'][random(4)]
    this.minimumFrames = random(3) === 0 ? random(30) : 0
    this.maximumFrames = random(4) === 0 ? 60 + random(PAGES) : PAGES
    this.shares = 100 + random(2000)
    this.isDeterministic = random(5) === 0
    this.frames = new DemandGuestMemory({
      hostMemory: host,
      regions: [
        { start: gpa(0), length: 32 * FRAME_SIZE, kind: 'ram' },
        { start: gpa(64 * FRAME_SIZE), length: (PAGES - 32) * FRAME_SIZE, kind: 'ram' },
      ],
      largeRuns: false,
      reserve: reclaim().reserve,
      onShortage: () => reclaim().relieve(),
      onFailure: (message) => void (this.failure ??= message),
    })
    this.frames.setPaging({ onMemoryChange: (ranges, change) => this.#revoke(ranges, change) })
    const device = { offers: new Map([[balloonToken, this]]) } as unknown as Device
    this.devices = new Map(random(4) === 0 ? [] : [['balloon', device]])
  }

  #revoke(ranges: readonly MemoryRange[], change: MemoryChange): void {
    for (const { address, length } of ranges)
      for (let at = address - (address % FRAME_SIZE); at < address + length; at += FRAME_SIZE) {
        const cached = this.#cached.get(at)
        if (!cached) continue
        if (change === 'unmapped') this.#cached.delete(at)
        else this.#cached.set(at, { ...cached, isWritable: false })
      }
  }
  takeAccessed(address: number): boolean | undefined {
    return this.#cached.has(address) ? this.#accessed.delete(address) : undefined
  }

  // Its balloon: takes pages at random, whose content is lost.

  get actualFrames(): number {
    return this.#ballooned.size
  }
  setTarget(frames: number): void {
    this.targetFrames = Math.min(frames, PAGES - 20)
  }
  onChange(): () => void {
    return () => {}
  }
  statistics(): Promise<{ availableBytes: number; totalBytes: number }> {
    const spare = Math.max(0, PAGES - 40 - this.#ballooned.size)
    return Promise.resolve({ availableBytes: spare * FRAME_SIZE + 8 * 2 ** 20, totalBytes: PAGES * FRAME_SIZE })
  }
  freePages(): Promise<undefined> {
    return Promise.resolve(undefined)
  }
  #followTarget(): void {
    if (this.#ballooned.size > this.targetFrames) this.#ballooned.delete([...this.#ballooned][0]!)
    else if (this.#ballooned.size < this.targetFrames) {
      const page = this.#anyPage()
      if (page === undefined) return
      this.#ballooned.add(page)
      this.#release(page)
    }
  }

  // What it does

  #address(page: number): number {
    return (page < 32 ? page : page + 32) * FRAME_SIZE
  }
  #content(page: number): Uint8Array {
    return this.#expected.subarray(page * FRAME_SIZE, (page + 1) * FRAME_SIZE)
  }
  /** A page that is its own to use: not in the balloon, not under a transfer. */
  #anyPage(): number | undefined {
    const page = this.#random(PAGES)
    return this.#ballooned.has(page) || this.#lease?.page === page ? undefined : page
  }

  /**
   * Calls `act` with the host address of a page by the processor's cache, which the kernel fills. In the same call as the translation: a policy may take
   * the frame away in any other. Not called if the VM has ended.
   */
  async #access(page: number, write: boolean, act: (frame: number) => void): Promise<void> {
    const address = this.#address(page)
    for (;;) {
      this.#accessed.add(address)
      const cached = this.#cached.get(address)
      if (cached && (!write || cached.isWritable)) return act(cached.frame)
      const frame = this.frames.translate(address, write ? 'write' : 'read')
      if (typeof frame === 'number') {
        this.#cached.set(address, { frame, isWritable: write || this.frames.isWritable(address) })
        return act(frame)
      }
      count('waits')
      const failure = await this.frames.ready(address)
      if (failure !== undefined) {
        this.failure ??= failure
        return
      }
    }
  }

  async step(): Promise<void> {
    const random = this.#random
    this.#followTarget()
    const page = this.#anyPage()
    if (page === undefined) return
    const kind = random(100)
    if (kind < 25) await this.#store(page, (content) => content.fill(random(4), 0, FRAME_SIZE))
    else if (kind < 35)
      await this.#store(
        page,
        (content) => void new Int32Array(content.buffer, content.byteOffset, 1024).fill(random(8)),
      )
    else if (kind < 45) await this.#store(page, (content) => void randomFillSync(content))
    else if (kind < 60) await this.#store(page, (content) => void (content[random(FRAME_SIZE)] = random(256)))
    else if (kind < 75) await this.#check(page)
    else if (kind < 85) this.#device(page)
    else if (kind < 89) this.#transfer(page)
    else if (kind < 91) this.#pin(page)
    else if (kind < 94 && !this.#pinned.has(page)) this.#release(page)
    else if (kind === 99 && random(40) === 0) this.#reset()
  }

  #store(page: number, change: (content: Uint8Array) => void): Promise<void> {
    return this.#access(page, true, (frame) => {
      count('stores')
      change(this.#content(page))
      this.#host.bytes.set(this.#content(page), frame)
      // The generation of code, as the processor's own stores have it, is not modelled.
    })
  }

  #check(page: number): Promise<void> {
    return this.#access(page, false, (frame) =>
      this.#compare(page, this.#host.bytes.subarray(frame, frame + FRAME_SIZE), 'processor'),
    )
  }
  #compare(page: number, found: Uint8Array, by: string): void {
    count('checks')
    const expected = this.#content(page)
    const at = expected.findIndex((byte, index) => found[index] !== byte)
    if (at >= 0)
      throw new Error(
        `${this.name}: page ${page} has ${found[at]} at ${at}, not ${expected[at]}, to the ${by}; it is ${this.frames.state(this.#address(page))?.kind}`,
      )
  }

  #device(page: number): void {
    const bytes = new Uint8Array(1 + this.#random(FRAME_SIZE))
    const offset = this.#random(FRAME_SIZE - bytes.length + 1)
    if (this.#random(2) === 0) {
      bytes.fill(this.#random(256))
      if (this.frames.writeBytes(this.#address(page) + offset, bytes)) this.#content(page).set(bytes, offset)
    } else {
      const whole = new Uint8Array(FRAME_SIZE)
      if (this.frames.readBytes(this.#address(page), whole)) this.#compare(page, whole, 'device')
    }
    count('device accesses')
  }

  #transfer(page: number): void {
    if (this.#lease) {
      const { lease, page: lent } = this.#lease
      const value = this.#random(256)
      lease.views[0]!.fill(value)
      lease.end()
      this.#content(lent).fill(value)
      this.#lease = undefined
      return
    }
    const lease = this.frames.lease([{ address: this.#address(page), length: FRAME_SIZE }], 'write')
    if (lease) this.#lease = { page, lease }
    count('transfers')
  }

  #pin(page: number): void {
    const address = this.#address(page)
    if (this.#pinned.delete(page)) this.frames.unpin(address)
    else if (this.#pinned.size < 5 && typeof this.frames.pin(address) === 'number') this.#pinned.add(page)
  }

  #release(page: number): void {
    if (this.#pinned.has(page)) return
    this.frames.release([{ address: gpa(this.#address(page)), length: FRAME_SIZE }])
    this.#content(page).fill(0)
    count('released')
  }

  #reset(): void {
    if (this.#lease) this.#transfer(0)
    for (const page of this.#pinned) this.frames.unpin(this.#address(page))
    this.#pinned.clear()
    this.#ballooned.clear()
    for (let page = 0; page < PAGES; page++) this.#release(page)
    count('resets')
  }

  /** Everything, at the end. */
  checkAll(): void {
    if (this.#lease) this.#transfer(0)
    const whole = new Uint8Array(FRAME_SIZE)
    for (let page = 0; page < PAGES; page++)
      if (this.frames.readBytes(this.#address(page), whole)) this.#compare(page, whole, 'end')
  }
  frameOf(page: number): number | undefined {
    return this.frames.peek(this.#address(page))
  }
  end(): void {
    if (this.#lease) this.#transfer(0)
    this.#cached.clear()
    this.frames.dispose()
  }
}

type Composition = (host: HostMemory, file: string) => ReclaimPolicy[]
const policyOf =
  (...names: ('balloon' | 'share' | 'swap' | 'file')[]): Composition =>
  (host, file) => [
    new MemoryPolicy(
      (_, metrics) =>
        names.map((name) => {
          if (name === 'balloon') return new Ballooning(metrics)
          if (name === 'share') return new Sharing(host, metrics, { pagesPerSecond: 50_000 })
          const swap = name === 'file' ? openSwap(file, 300 * FRAME_SIZE) : openSwap(undefined)
          return new Swapping(host, swap, metrics, {
            compressed: name === 'file' ? 0.05 : 0.3,
            dropUnchanged: true,
            pagesPerSecond: 5000,
          })
        }),
      { idleTax: 0.75 },
    ),
  ]
const COMPOSITIONS: [string, Composition][] = [
  ['all, with a file', policyOf('balloon', 'share', 'file')],
  ['all', policyOf('share', 'balloon', 'swap')],
  ['swap first', policyOf('file', 'share')],
  ['share', policyOf('share')],
  ['balloon', policyOf('balloon')],
  ['swap', policyOf('swap')],
  ['apart', (host, file) => [policyOf('share')(host, file), policyOf('swap')(host, file)].flat()],
]

async function round(seed: number): Promise<void> {
  const random = randomOf(seed)
  const [name, compose] = COMPOSITIONS[seed % COMPOSITIONS.length]!
  count(`rounds of ${name}`)
  const host = createHostMemory((2 + random(2)) * 2 ** 20)
  const before = host.freeFrames
  const policies = compose(host, join(folder, 'swap'))
  const metrics = createMetrics()
  const reclaim = new Reclaim(
    host,
    policies,
    metrics,
    createLog((_, message) => report(seed, message), 'warn'),
  )
  const vms: Model[] = []
  const add = (): void => {
    const vm = new Model(`vm${vms.length}`, seed * 100 + vms.length, host, () => reclaim)
    vms.push(vm)
    try {
      reclaim.add(vm)
    } catch {
      // Its minimum is too much: it does not run.
      vm.failure = 'refused'
    }
  }
  for (let index = 0; index < 2 + random(4); index++) add()
  const live = (): Model[] => vms.filter(({ failure }) => failure === undefined)
  let isOver = false
  const run = async (vm: Model): Promise<void> => {
    for (let step = 0; step < steps && vm.failure === undefined; step++) {
      await vm.step()
      if (step % 8 === 0) await turn()
    }
  }
  const press = async (): Promise<void> => {
    for (let nowNs = 0; !isOver; nowNs += 2e7) {
      const { guestFrames: totalFrames, freeGuestFrames: freeFrames } = host
      const pressure = { wantedFrames: 0, freeFrames, totalFrames, reservedFrames: reclaim.reserve }
      for (const policy of policies) policy.sample?.(pressure, nowNs)
      if (random(30) === 0)
        for (const policy of policies) await policy.onPressure({ ...pressure, wantedFrames: random(200) })
      await turn()
    }
  }
  const pressing = press()
  const runs = await Promise.allSettled(live().map(run))
  isOver = true
  await pressing
  try {
    for (const ended of runs) if (ended.status === 'rejected') throw ended.reason
    for (const vm of live()) vm.checkAll()
    // The file is whole: no page may be lost.
    for (const { failure } of vms) if (failure?.includes('cannot be brought back')) throw new Error(failure)
    checkGroups(live())
  } finally {
    // The next round uses the file.
    for (const vm of vms) {
      if (vm.failure !== 'refused') reclaim.remove(vm)
      vm.end()
    }
    reclaim.dispose()
    for (const policy of policies) policy.dispose?.()
  }
  for (const vm of vms)
    count(vm.failure === undefined ? 'VMs that ran to the end' : `VMs that ended: ${vm.failure.replace(/[\d;].*/, '')}`)
  for (const { name: metric, value } of metrics.samples())
    if (/merged|zeros|compressed|written|faults|taken/.test(metric)) count(metric, value)
  if (host.freeFrames !== before) throw new Error(`${before - host.freeFrames} frames are lost`)
}

/** Frames are shared only within a group. */
function checkGroups(vms: readonly Model[]): void {
  const owner = new Map<number, Model>()
  for (const vm of vms)
    for (let page = 0; page < PAGES; page++) {
      const frame = vm.frameOf(page)
      if (frame === undefined) continue
      const other = owner.get(frame)
      if (other && other !== vm && (other.group === undefined || other.group !== vm.group))
        throw new Error(`${vm.name} of ${vm.group} shares a frame with ${other.name} of ${other.group}`)
      owner.set(hpa(frame), vm)
    }
}

let bugs = 0
function report(seed: number, what: string): void {
  bugs++
  console.error(`seed ${seed}: ${what}`)
}
const text = (): string => [...totals].map(([what, value]) => `${value} ${what}`).join(', ')
const end = Date.now() + Number(values.minutes) * 60_000
const first = Number(values.seed)
let rounds = 0
const progress = setInterval(() => console.log(`${rounds} rounds, ${bugs} bugs`), 60_000)
progress.unref()
while (rounds < Number(values.rounds) && Date.now() < end) {
  const seed = first + rounds++
  try {
    await round(seed)
  } catch (error) {
    report(seed, (error as Error).stack ?? String(error))
    if (bugs > 5) break
  }
}
console.log(`${rounds} rounds, ${bugs} bugs: ${text()}`)
rmSync(folder, { recursive: true })
process.exit(bugs === 0 ? 0 : 1)
