/** Unplugging: the guest gives whole blocks of a memory device, which it has to empty first. */

import type { Counter, Metrics, PluggableMemory } from '@nonroot/contracts'
import type { Member } from '../member.ts'
import { mib } from '../member.ts'
import { madeProgress } from '../balloon/progress.ts'
import { roomOf } from '../balloon/room.ts'
import type { Taken, Technique } from '../technique.ts'

/** A guest that unplugs nothing for so long is asked no further: it moves pages before it gives a block. Milliseconds. */
const PATIENCE_MS = 2000

export class Unplugging implements Technique {
  readonly name = 'unplug'
  readonly #members = new Set<Member>()
  /** Frames that came back of each. */
  readonly #gained = new Map<Member, number>()
  readonly #taken: Counter

  constructor(metrics: Metrics) {
    this.#taken = metrics
      .scope('unplug')
      .counter('taken', 'frames that came back because guests unplugged blocks', 'frames')
  }

  add(member: Member): void {
    if (member.pluggable) this.#members.add(member)
  }
  remove(member: Member): void {
    this.#members.delete(member)
    this.#gained.delete(member)
  }

  async take(member: Member, wanted: number): Promise<Taken> {
    const { pluggable, name, frames } = member
    if (!pluggable) return { frames: 0, reason: `${name} has no memory device` }
    // What is unplugged is seen by its guest.
    if (member.subject.isDeterministic)
      return { frames: 0, reason: `${name} has a deterministic clock, so it keeps its blocks` }
    const room = await roomOf(member)
    if (typeof room === 'string') return { frames: 0, reason: room }
    const most = Math.min(room, member.spareFrames, pluggable.pluggedFrames)
    const step = Math.min(Math.ceil(wanted / pluggable.blockFrames), Math.floor(most / pluggable.blockFrames))
    if (step <= 0) return { frames: 0, reason: `${name} has no block to spare` }
    const before = frames.residentFrames
    const isDone = await follow(pluggable, pluggable.pluggedFrames - step * pluggable.blockFrames)
    const came = Math.max(0, before - frames.residentFrames)
    this.#taken.value += came
    this.#gained.set(member, (this.#gained.get(member) ?? 0) + came)
    if (came >= wanted) return { frames: came }
    const why = isDone ? 'they were not all in use' : 'its guest unplugs no more'
    return { frames: came, reason: `${name} gave ${mib(came)} of ${mib(wanted)} in blocks; ${why}` }
  }

  /** One guest after the other: shares of them all could be less than a block. */
  relax(frames: number): void {
    let left = frames
    for (const { pluggable } of this.#members) {
      const { blockFrames, usualFrames, requestedFrames } = pluggable!
      const step = Math.min(usualFrames - requestedFrames, left - (left % blockFrames))
      if (step <= 0) continue
      pluggable!.request(requestedFrames + step)
      left -= step
    }
  }

  heldFrames(member: Member): number {
    const { pluggable } = member
    if (!pluggable) return 0
    const gained = Math.min(this.#gained.get(member) ?? 0, Math.max(0, pluggable.usualFrames - pluggable.pluggedFrames))
    this.#gained.set(member, gained)
    return gained
  }
}

/** Waits until the guest has no more than so much, while it makes progress. What it has not done then is no longer wanted. */
async function follow(pluggable: PluggableMemory, frames: number): Promise<boolean> {
  pluggable.request(frames)
  if (await madeProgress(() => pluggable.pluggedFrames - frames, PATIENCE_MS)) return true
  pluggable.request(pluggable.pluggedFrames)
  return false
}
