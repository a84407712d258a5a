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
  #relieving: Promise<string | undefined> | undefined

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

  /** Resolves when there are more frames than before, or with a sentence that says why there are none. All who ask meanwhile share the answer. */
  relieve(): Promise<string | undefined> {
    this.#relieving ??= this.#relieve().finally(() => (this.#relieving = undefined))
    return this.#relieving
  }

  /** Frees so many frames, as far as policies can, before a caller takes them that cannot wait. */
  async makeRoom(frames: number): Promise<void> {
    await this.#relieving
    this.#relieving ??= this.#relieve(frames).finally(() => (this.#relieving = undefined))
    await this.#relieving
  }

  async #relieve(ahead = 0): Promise<string | undefined> {
    const before = this.#host.freeGuestFrames
    const reasons: string[] = []
    for (const policy of [...this.#policies]) {
      const pressure = this.#pressure(ahead)
      if (pressure.wantedFrames === 0) break
      const report = await this.#ask(policy, pressure)
      if (report?.reason !== undefined) reasons.push(report.reason)
    }
    // Counted here: what a policy reports is its own view.
    const { freeGuestFrames: freeFrames, guestFrames: totalFrames } = this.#host
    if (freeFrames > before || freeFrames > this.reserve) return undefined
    const why = reasons.length > 0 ? `; ${reasons.join('; ')}` : ''
    return `host memory is exhausted: all ${totalFrames} frames are in use, and nothing can be reclaimed${why}; make host.memory larger or machine.memory smaller`
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

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
