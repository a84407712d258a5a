/** Ballooning: the guest chooses what it can do without. Its statistics say how much it is asked for. */

import type { Balloon, Counter, Metrics } from '@nonroot/contracts'
import type { Member } from '../member.ts'
import { mib } from '../member.ts'
import type { Taken, Technique } from '../technique.ts'
import { madeProgress } from './progress.ts'
import { roomOf } from './room.ts'

/** A guest that makes no progress for so long is asked no further. Milliseconds. */
const PATIENCE_MS = 500
/** A guest gives pages first that it never used, and for which the host has no frame: it is asked again, for more. */
const ROUNDS = 16

/** A VM's balloon, and what was asked of it. */
interface Held {
  readonly balloon: Balloon
  /** Frames that came back when it was inflated. */
  gained: number
  /** What an operator wants it to hold at least. */
  floor: number
}

export class Ballooning implements Technique {
  readonly name = 'balloon'
  readonly #held = new Map<Member, Held>()
  readonly #taken: Counter
  readonly #returned: Counter
  readonly #refused: Counter

  constructor(metrics: Metrics) {
    const own = metrics.scope('balloon')
    this.#taken = own.counter('taken', 'frames that came back because balloons were inflated', 'frames')
    this.#returned = own.counter('returned', 'frames that balloons were told to give back to their guests', 'frames')
    this.#refused = own.counter('refused', 'times that a guest gave less than it was asked for')
  }

  add(member: Member): void {
    if (member.balloon) this.#held.set(member, { balloon: member.balloon, gained: 0, floor: 0 })
  }
  remove(member: Member): void {
    this.#held.delete(member)
  }

  async take(member: Member, wanted: number): Promise<Taken> {
    const held = this.#held.get(member)
    if (!held) return { frames: 0, reason: `${member.name} has no balloon` }
    // What a balloon does is seen by its guest.
    if (member.subject.isDeterministic)
      return { frames: 0, reason: `${member.name} has a deterministic clock, so its balloon stays as it is` }
    const before = member.frames.residentFrames
    const came = (): number => before - member.frames.residentFrames
    let reason: string | undefined
    let step = wanted
    for (let round = 0; round < ROUNDS && came() < wanted && reason === undefined; round++) {
      reason = await this.#inflate(member, held.balloon, step)
      step *= 2
    }
    const frames = Math.max(0, came())
    held.gained += frames
    this.#taken.value += frames
    if (frames >= wanted) return { frames }
    this.#refused.value++
    return { frames, reason: reason ?? `${member.name}'s guest gave ${mib(frames)} of ${mib(wanted)}` }
  }

  /** Why there is no more to be had; undefined if the guest did as asked. */
  async #inflate(member: Member, balloon: Balloon, step: number): Promise<string | undefined> {
    const { name } = member
    const room = await roomOf(member)
    if (typeof room === 'string') return room
    // Even if all that it gives has frames, it keeps its minimum.
    const target = balloon.actualFrames + Math.min(step, room, member.spareFrames)
    if (target === balloon.actualFrames) return `${name} is at its minimum`
    balloon.setTarget(target)
    if (await madeProgress(() => target - balloon.actualFrames, PATIENCE_MS)) return undefined
    // It must not continue later, when the memory is no longer needed.
    balloon.setTarget(balloon.actualFrames)
    return `${name}'s guest inflates its balloon no further`
  }

  relax(frames: number): void {
    const inflated = [...this.#held.values()].filter(({ balloon, floor }) => balloon.targetFrames > floor)
    for (const held of inflated) {
      const { balloon, floor } = held
      const back = Math.min(Math.ceil(frames / inflated.length), balloon.targetFrames - floor)
      balloon.setTarget(balloon.targetFrames - back)
      this.#returned.value += back
    }
  }

  /** The operator's wish: it holds so many frames at least. False: there is no balloon. */
  hold(member: Member, frames: number): boolean {
    const held = this.#held.get(member)
    if (!held) return false
    held.floor = frames
    held.balloon.setTarget(frames)
    return true
  }

  heldFrames(member: Member): number {
    const held = this.#held.get(member)
    if (!held) return 0
    held.gained = Math.min(held.gained, held.balloon.actualFrames)
    return held.gained
  }
}
