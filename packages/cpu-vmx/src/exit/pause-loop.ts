/**
 * PAUSE-loop exiting: detects a guest kernel that spins, by its PAUSE instructions. (SDM Vol. 3C, "Instructions That Cause VM Exits Conditionally")
 */

import type { Clock } from '@nonroot/contracts'

export class PauseLoop {
  private readonly clock: Clock
  private gap = 0
  private window = 0
  /** TSC of the first and of the latest PAUSE of the loop. */
  private first = 0
  private latest = Number.NEGATIVE_INFINITY

  constructor(clock: Clock) {
    this.clock = clock
  }

  /** In TSC ticks: `gap` between two PAUSEs of one loop at most, `window` that a loop may last. */
  configure(gap: number, window: number): void {
    this.gap = gap
    this.window = window
  }

  /** Called at each PAUSE at CPL 0. Whether the loop has lasted too long. */
  exceeded(): boolean {
    const now = Number(this.clock.tsc())
    const isNew = now - this.latest > this.gap
    this.latest = now
    if (isNew) this.first = now
    return !isNew && now - this.first > this.window
  }
}
