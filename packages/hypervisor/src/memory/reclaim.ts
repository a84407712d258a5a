/** Calls the host's reclaim policies: periodically, and when a vCPU finds no free frame. */

import { FRAME_SIZE, formatSize, NonrootError, RECLAIM_PATIENCE_MS, RECLAIM_PERIOD_MS } from '@nonroot/contracts'
import type {
  HostMemory,
  Log,
  Metrics,
  ReclaimedMemory,
  ReclaimPolicy,
  ReclaimPressure,
  ReclaimReport,
  ReclaimSubject,
} from '@nonroot/contracts'

/** Frames that guests leave to devices and page tables, where there is a policy to bring others back: so many, and this part of the host. */
const RESERVE = 64
const RESERVE_PART = 1 / 256
/** Policies that bring back less than this part of what is wanted, so often in a row, bring back nothing: the vCPU would wait forever. */
const POOR_PART = 1 / 16
const MOST_POOR = 4
/** How long other VMs wait for the memory of one that ends for want of it. Milliseconds. */
const END_MS = 2000
const POLL_MS = 20

/** What came of a shortage: nothing to say, or why there are no frames and which VM ends. */
interface Relief {
  readonly failure?: string
  readonly ending?: ReclaimSubject | undefined
}

export class Reclaim {
  /** `GuestMemoryOptions.reserve` of every VM. */
  readonly reserve: number
  readonly #host: HostMemory
  readonly #log: Log
  readonly #policies: ReclaimPolicy[]
  readonly #timer: ReturnType<typeof setInterval> | undefined
  readonly #subjects = new Set<ReclaimSubject>()
  /** The sum of their minimums. */
  #promisedFrames = 0
  #relieving: Promise<Relief> | undefined
  /** VMs that wait for frames. */
  readonly #waiting = new Set<ReclaimSubject>()
  /** How often in a row nearly nothing came back for them. */
  #poor = 0

  constructor(host: HostMemory, policies: readonly ReclaimPolicy[], metrics: Metrics, log: Log) {
    this.#host = host
    this.#log = log
    this.#policies = [...policies]
    this.reserve = policies.length === 0 ? 0 : Math.max(RESERVE, Math.floor(host.guestFrames * RESERVE_PART))
    for (const policy of policies) policy.attach(host, metrics)
    if (policies.length === 0) return
    this.#timer = setInterval(() => this.#sample(), RECLAIM_PERIOD_MS)
    // It is no reason for the process to stay.
    ;(this.#timer as { unref?: () => void }).unref?.()
  }

  /** Throws `host.memory` if the VMs' minimums are more than the host has. */
  add(subject: ReclaimSubject): void {
    const promised = this.#promisedFrames + subject.minimumFrames
    const most = this.#host.guestFrames - this.reserve
    if (subject.minimumFrames > 0 && promised > most) {
      const [wanted, had] = [promised, most].map((frames) => formatSize(frames * FRAME_SIZE))
      throw new NonrootError({
        code: 'host.memory',
        message: `${subject.name} would bring the minimums of all VMs to ${wanted}, but the host has ${had} for guests`,
        thing: 'host.memory',
        value: promised,
        remedy: 'make host.memory larger, or reclaim.minimum of the VMs smaller',
      })
    }
    this.#promisedFrames = promised
    this.#subjects.add(subject)
    this.#each((policy) => policy.addSubject(subject))
  }
  remove(subject: ReclaimSubject): void {
    if (!this.#subjects.delete(subject)) return
    this.#promisedFrames -= subject.minimumFrames
    this.#each((policy) => policy.removeSubject(subject))
  }

  /** What each technique has taken from the VM. */
  reclaimed(vm: string): ReclaimedMemory[] {
    const frames = new Map<string, number>()
    this.#each((policy) => {
      for (const { technique, frames: taken } of policy.reclaimed?.(vm) ?? [])
        frames.set(technique, (frames.get(technique) ?? 0) + taken)
    })
    return [...frames].map(([technique, taken]) => ({ technique, frames: taken }))
  }

  /** False: no policy asks the guest. */
  requestTarget(vm: string, frames: number | undefined): boolean {
    let isTaken = false
    this.#each((policy) => (isTaken ||= policy.requestTarget?.(vm, frames) ?? false))
    return isTaken
  }

  dispose(): void {
    clearInterval(this.#timer)
  }

  /** `ahead`: so many frames will be taken at once. */
  #pressure(ahead = 0): ReclaimPressure {
    const { freeGuestFrames: freeFrames, guestFrames: totalFrames } = this.#host
    // Twice the reserve, so that who waits does not wait again at once.
    const wantedFrames = Math.max(0, 2 * this.reserve + ahead - freeFrames)
    return { wantedFrames, freeFrames, totalFrames, reservedFrames: this.reserve }
  }

  #sample(): void {
    const pressure = this.#pressure()
    const nowNs = Math.floor(performance.now() * 1e6)
    this.#each((policy) => policy.sample?.(pressure, nowNs))
    if (this.#pressure().wantedFrames > 0) void this.relieve()
  }

  /**
   * Resolves when there are more frames than before, or with a sentence that says why there are none. All who ask meanwhile share the answer, but only
   * one VM has to end: the one with the most frames for its shares. Its memory is for the others.
   */
  async relieve(who?: ReclaimSubject): Promise<string | undefined> {
    if (who) this.#waiting.add(who)
    this.#relieving ??= this.#relieve().finally(() => (this.#relieving = undefined))
    const { failure, ending } = await this.#relieving
    if (failure === undefined || ending === undefined || ending === who) return failure
    for (let ms = 0; ms < END_MS && this.#host.freeGuestFrames <= this.reserve; ms += POLL_MS)
      await new Promise((resolve) => void setTimeout(resolve, POLL_MS))
    return undefined
  }

  /** Frees so many frames, as far as policies can, before a caller takes them that cannot wait. */
  async makeRoom(frames: number): Promise<void> {
    await this.#relieving
    this.#relieving ??= this.#relieve(frames).finally(() => (this.#relieving = undefined))
    await this.#relieving
  }

  async #relieve(ahead = 0): Promise<Relief> {
    const before = this.#host.freeGuestFrames
    const { wantedFrames } = this.#pressure(ahead)
    const reasons: string[] = []
    let reported = 0
    for (const policy of [...this.#policies]) {
      const pressure = this.#pressure(ahead)
      if (pressure.wantedFrames === 0) break
      const report = await this.#ask(policy, pressure)
      reported += report?.reclaimedFrames ?? 0
      if (report?.reason !== undefined) reasons.push(report.reason)
    }
    const { freeGuestFrames: freeFrames } = this.#host
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    const isPoor = Math.max(freeFrames - before, reported) < wantedFrames * POOR_PART
    if (waiting.length > 0) this.#poor = isPoor ? this.#poor + 1 : 0
    // Counted here: what a policy reports is its own view.
    if ((freeFrames > before || freeFrames > this.reserve) && this.#poor < MOST_POOR) return {}
    this.#poor = 0
    return { failure: this.#failureOf(reasons), ending: mostFor(waiting) }
  }

  #failureOf(reasons: readonly string[]): string {
    const { guestFrames } = this.#host
    const why = reasons.length > 0 ? `; ${reasons.join('; ')}` : ''
    return `host memory is exhausted: all ${guestFrames} frames are in use, and nothing can be reclaimed${why}; make host.memory larger or machine.memory smaller`
  }

  /** Undefined: it failed, or did not answer in time. */
  async #ask(policy: ReclaimPolicy, pressure: ReclaimPressure): Promise<ReclaimReport | undefined> {
    let timeout: ReturnType<typeof setTimeout> | undefined
    try {
      return await Promise.race([
        policy.onPressure(pressure),
        new Promise<ReclaimReport>((resolve) => {
          const seconds = RECLAIM_PATIENCE_MS / 1000
          const late = { reclaimedFrames: 0, reason: `a reclaim policy did not answer in ${seconds} s` }
          timeout = setTimeout(() => resolve(late), RECLAIM_PATIENCE_MS)
        }),
      ])
    } catch (error) {
      this.#passOver(policy, error)
      return { reclaimedFrames: 0, reason: `a reclaim policy failed: ${messageOf(error)}` }
    } finally {
      clearTimeout(timeout)
    }
  }

  #each(act: (policy: ReclaimPolicy) => void): void {
    for (const policy of [...this.#policies]) {
      try {
        act(policy)
      } catch (error) {
        this.#passOver(policy, error)
      }
    }
  }
  #passOver(policy: ReclaimPolicy, error: unknown): void {
    this.#policies.splice(this.#policies.indexOf(policy), 1)
    this.#log.warn(`a reclaim policy failed and is not asked again: ${messageOf(error)}`)
  }
}

/** The VM with the most frames above its minimum, for its shares. */
function mostFor(waiting: readonly ReclaimSubject[]): ReclaimSubject | undefined {
  const claim = ({ frames, minimumFrames, shares }: ReclaimSubject): number =>
    (frames.residentFrames - minimumFrames) / shares
  return waiting.toSorted((one, other) => claim(other) - claim(one))[0]
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
