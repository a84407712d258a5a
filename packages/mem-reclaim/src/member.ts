/** A VM as the techniques see it. */

import { Balloon, FRAME_SIZE, PluggableMemory } from '@nonroot/contracts'
import type { GuestFrames, ReclaimSubject } from '@nonroot/contracts'
import { Pages } from './pages.ts'

export class Member {
  readonly subject: ReclaimSubject
  readonly frames: GuestFrames
  readonly pages: Pages
  readonly balloon: Balloon | undefined
  readonly pluggable: PluggableMemory | undefined
  /** Part of its resident pages that the guest uses, as sampled: 0 to 1. Until the first sample, all of them. */
  activePart = 1
  /** Swapped pages that its guest needed again. */
  returnedPages = 0

  constructor(subject: ReclaimSubject) {
    this.subject = subject
    this.frames = subject.frames
    this.pages = new Pages(subject.frames)
    const offered = [...subject.devices.values()].flatMap(({ offers }) => (offers ? [offers] : []))
    this.balloon = offered.find((offers) => offers.has(Balloon))?.get(Balloon) as Balloon | undefined
    this.pluggable = offered.find((offers) => offers.has(PluggableMemory))?.get(PluggableMemory) as
      PluggableMemory | undefined
  }

  get name(): string {
    return this.subject.name
  }

  /** Frames that may be taken before it is at its minimum. */
  get spareFrames(): number {
    return Math.max(0, this.frames.residentFrames - this.subject.minimumFrames)
  }
}

export const mib = (frames: number): string => `${Math.round((frames * FRAME_SIZE) / 2 ** 20)} MiB`
