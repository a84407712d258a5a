/**
 * The policy: how much memory each VM has to give (shares, idle tax, minimum and maximum), and by which technique it is taken (the host's state).
 * ("Memory Resource Management in VMware ESX Server", Waldspurger, 2002)
 */

import type {
  HostMemory,
  Metrics,
  ReclaimPolicy,
  ReclaimPressure,
  ReclaimReport,
  ReclaimSubject,
} from '@nonroot/contracts'
import { Member, mib } from '../member.ts'
import type { Technique } from '../technique.ts'
import { divide } from './demand.ts'
import { IdleSampler } from './idle.ts'
import { HYSTERESIS, StateMachine, THRESHOLDS } from './states.ts'

export interface PolicyOptions {
  /** 0 to 1, below 1. */
  readonly idleTax: number
}

/** Idleness is sampled while less than this part of the host is free. */
const WATCHED_PART = 0.25
/** How often guests get memory back while there is plenty, and which part of it. */
const RELAX_MS = 1000
const RELAX_PART = 1 / 8
/** The active part of a VM that counts as busy, even if others are less so. */
const LEAST_BUSY = 0.1
/** Rounds in which what some VMs could not give is asked of the others. */
const ROUNDS = 3

/** `soft`: a guest that still gives is not swapped. `awaited`: a vCPU waits for a frame. */
type Urgency = 'soft' | 'hard' | 'awaited'

type MakeTechniques = (host: HostMemory, metrics: Metrics) => readonly Technique[]

export class MemoryPolicy implements ReclaimPolicy {
  readonly #options: PolicyOptions
  readonly #make: MakeTechniques
  readonly #members = new Map<ReclaimSubject, Member>()
  readonly #samplers = new Map<Member, IdleSampler>()
  readonly #states = new StateMachine()
  #host!: HostMemory
  #techniques: readonly Technique[] = []
  #lastNs: number | undefined
  #sinceRelaxMs = 0
  #reclaiming: Promise<ReclaimReport> | undefined
  #state = { value: 0 }

  constructor(make: MakeTechniques, options: PolicyOptions) {
    this.#make = make
    this.#options = options
  }

  attach(host: HostMemory, metrics: Metrics): void {
    this.#host = host
    this.#techniques = this.#make(host, metrics)
    this.#state = metrics.gauge('state', 'state of the host: 0 high, 1 soft, 2 hard, 3 low')
  }

  addSubject(subject: ReclaimSubject): void {
    const member = new Member(subject)
    this.#members.set(subject, member)
    this.#samplers.set(member, new IdleSampler(member))
    for (const technique of this.#techniques) technique.add(member)
  }

  removeSubject(subject: ReclaimSubject): void {
    const member = this.#members.get(subject)
    if (!member) return
    this.#members.delete(subject)
    this.#samplers.delete(member)
    for (const technique of this.#techniques) technique.remove(member)
  }

  dispose(): void {
    for (const technique of this.#techniques) technique.dispose?.()
  }

  sample(pressure: ReclaimPressure, nowNs: number): void {
    const { freeFrames, totalFrames } = pressure
    const sinceMs = this.#lastNs === undefined ? 0 : (nowNs - this.#lastNs) / 1e6
    this.#lastNs = nowNs
    const freePart = freeFrames / totalFrames
    const state = this.#states.update(freePart)
    this.#state.value = ['high', 'soft', 'hard', 'low'].indexOf(state)
    if (freePart < WATCHED_PART) for (const sampler of this.#samplers.values()) sampler.tick(sinceMs)
    for (const technique of this.#techniques) technique.sample?.(pressure, sinceMs)
    const excess = this.#excess
    if (state !== 'high' || excess > 0)
      void this.#reclaim(
        Math.max(excess, state === 'high' ? 0 : this.#missing),
        state === 'hard' || state === 'low' ? 'hard' : 'soft',
      )
    else this.#relax(freePart, sinceMs)
  }

  async onPressure({ wantedFrames }: ReclaimPressure): Promise<ReclaimReport> {
    // What the background does may be too little: the vCPU that waits needs a frame in any case.
    const going = this.#reclaiming && (await this.#reclaiming)
    if (going && going.reclaimedFrames >= wantedFrames) return going
    return this.#reclaim(Math.max(wantedFrames, this.#missing), 'awaited')
  }

  /** Frames that VMs have beyond their maximum. */
  get #excess(): number {
    let excess = 0
    for (const { subject, frames } of this.#members.values())
      excess += Math.max(0, frames.residentFrames - subject.maximumFrames)
    return excess
  }
  /** Frames that the host lacks for its high state. */
  get #missing(): number {
    const { freeGuestFrames, guestFrames } = this.#host
    return Math.max(0, Math.ceil(guestFrames * (THRESHOLDS.high + HYSTERESIS)) - freeGuestFrames)
  }

  #reclaim(wanted: number, urgency: Urgency): Promise<ReclaimReport> {
    this.#reclaiming ??= this.#takeAll(wanted, urgency).finally(() => (this.#reclaiming = undefined))
    return this.#reclaiming
  }

  async #takeAll(wanted: number, urgency: Urgency): Promise<ReclaimReport> {
    const before = this.#host.freeGuestFrames
    const came = (): number => Math.max(0, this.#host.freeGuestFrames - before)
    let taken = 0
    const reasons = new Set<string>()
    /** Those that gave less than they were asked for by every technique. */
    const exhausted = new Set<Member>()
    for (let round = 0; round < ROUNDS && came() < wanted; round++) {
      const members = [...this.#members.values()].filter((member) => !exhausted.has(member))
      const busiest = Math.max(LEAST_BUSY, ...members.map(({ activePart }) => activePart))
      const claims = members.map((member) => claimOf(member, busiest))
      const demands = divide(claims, wanted - came(), this.#options.idleTax)
      if (demands.every((demand) => demand === 0)) {
        for (const { name, subject, spareFrames } of this.#members.values())
          if (spareFrames === 0) reasons.add(`${name} is at its minimum of ${mib(subject.minimumFrames)}`)
        break
      }
      // Each VM by itself: one that takes its time does not delay the others.
      await Promise.all(
        members.map(async (member, index) => {
          const demand = demands[index]!
          if (demand === 0) return
          const frames = await this.#takeFrom(member, demand, urgency, reasons)
          taken += frames
          if (frames < demand) exhausted.add(member)
        }),
      )
    }
    // Guests take frames meanwhile.
    const reclaimedFrames = Math.max(came(), taken)
    return reclaimedFrames < wanted && reasons.size > 0
      ? { reclaimedFrames, reason: [...reasons].join('; ') }
      : { reclaimedFrames }
  }

  /** The techniques in order. Returns how many frames it gave. */
  async #takeFrom(member: Member, demand: number, urgency: Urgency, reasons: Set<string>): Promise<number> {
    let left = demand
    for (const technique of this.#techniques) {
      if (left <= 0 || !this.#members.has(member.subject)) break
      if (technique.name === 'swap' && urgency === 'soft' && left < demand) break
      const { frames, reason } = await technique.take(
        member,
        left,
        urgency === 'awaited' && technique === this.#techniques.at(-1),
      )
      left -= frames
      if (reason !== undefined) reasons.add(reason)
    }
    return demand - left
  }

  /** Gives back slowly what there is above the high state, while it lasts. */
  #relax(freePart: number, sinceMs: number): void {
    this.#sinceRelaxMs += sinceMs
    if (this.#sinceRelaxMs < RELAX_MS) return
    this.#sinceRelaxMs = 0
    const spare = Math.floor((freePart - THRESHOLDS.high - HYSTERESIS) * this.#host.guestFrames * RELAX_PART)
    if (spare > 0) for (const technique of this.#techniques) technique.relax?.(spare)
  }

  // For operators

  reclaimed(vm: string): { readonly technique: string; readonly frames: number }[] {
    const member = this.#named(vm)
    if (!member) return []
    return this.#techniques.map((technique) => ({ technique: technique.name, frames: technique.heldFrames(member) }))
  }

  requestTarget(vm: string, frames: number | undefined): boolean {
    const member = this.#named(vm)
    const floor = member && Math.max(0, member.pages.count - (frames ?? member.pages.count))
    return member !== undefined && this.#techniques.some((technique) => technique.hold?.(member, floor!) ?? false)
  }

  #named(vm: string): Member | undefined {
    return [...this.#members.values()].find(({ name }) => name === vm)
  }
}

/** `busiest`: the active part of the busiest VM. On a slow host no VM accesses much between two samples: it counts who accesses more than others. */
const claimOf = ({ frames, subject, activePart }: Member, busiest: number) => ({
  residentFrames: frames.residentFrames,
  minimumFrames: subject.minimumFrames,
  maximumFrames: subject.maximumFrames,
  shares: subject.shares,
  activePart: Math.min(1, activePart / busiest),
})
