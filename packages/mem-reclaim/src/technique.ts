/** What the policy asks of a way to get memory back. */

import type { ReclaimPressure } from '@nonroot/contracts'
import type { Member } from './member.ts'

/** What came back of one VM, as counted, and why not more. */
export interface Taken {
  readonly frames: number
  readonly reason?: string
}

export interface Technique {
  readonly name: 'unplug' | 'balloon' | 'share' | 'swap'
  add(member: Member): void
  /** Its memory is about to be freed. */
  remove(member: Member): void
  /** Takes up to so many frames of the VM. May wait for its guest. `isLastResort`: a vCPU waits, and no other technique comes after this one. */
  take(member: Member, frames: number, isLastResort: boolean): Promise<Taken> | Taken
  /** A bounded piece of work that goes on in the background. `sinceMs`: since the last call. */
  sample?(pressure: ReclaimPressure, sinceMs: number): void
  /** There is memory to spare: it may give so many frames back to guests. */
  relax?(frames: number): void
  /** An operator wants so many frames of the VM to be held by it. False: it cannot. */
  hold?(member: Member, frames: number): boolean
  /** Frames that the VM would have without it. */
  heldFrames(member: Member): number
  dispose?(): void
}
