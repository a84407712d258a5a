/**
 * Disks under a deterministic clock: what a request asks for is done at a time of the guest's clock, and the guest stands still until the host has done
 * it. Between the request and that time nothing happens to the guest's memory, or to the disk. Knows no device and no run loop.
 */

import type { BlockBackend, Clock, HostBackends, Timer } from '@nonroot/contracts'

/** Guest time that a request takes, about as long as an NVMe disk's. */
const REQUEST_NS = 50_000
const NS_PER_BYTE = 1 // 1 GB/s

interface Waiting {
  readonly timer: Timer
  readonly start: () => void
}

export class TimedDisks {
  readonly #clock: Clock
  readonly #hold: (until: Promise<unknown>) => void
  /** In the order of asking. */
  readonly #waiting = new Set<Waiting>()
  /** Requests are done one after the other, so that they end in the same order in every run. */
  #last: Promise<unknown> = Promise.resolve()
  #hurried = false

  /** `hold`: the guest is not to go on before this has ended. Called from timers. */
  constructor(clock: Clock, hold: (until: Promise<unknown>) => void) {
    this.#clock = clock
    this.#hold = hold
  }

  /** The host's back ends, with disks that keep to the clock. */
  wrap(backends: HostBackends): HostBackends {
    const open: HostBackends['open'] = async (kind, request) => {
      const backend = await backends.open(kind, request)
      return kind === 'block' ? (this.disk(backend as BlockBackend) as typeof backend) : backend
    }
    return { ...backends, open }
  }

  disk(disk: BlockBackend): BlockBackend {
    const sized = (views: readonly Uint8Array[]): number => views.reduce((sum, { length }) => sum + length, 0)
    const { readVector, writeVector, discard, writeZeroes, onResize } = disk
    // No readNow and writeNow: what is in the host's page cache is no affair of the guest's.
    return {
      get size() {
        return disk.size
      },
      sectorSize: disk.sectorSize,
      readOnly: disk.readOnly,
      read: (offset, into) => this.#at(into.length, () => disk.read(offset, into)),
      write: (offset, from) => this.#at(from.length, () => disk.write(offset, from)),
      ...(readVector && {
        readVector: (offset, into) => this.#at(sized(into), () => readVector.call(disk, offset, into)),
      }),
      ...(writeVector && {
        writeVector: (offset, from) => this.#at(sized(from), () => writeVector.call(disk, offset, from)),
      }),
      flush: () => this.#at(0, () => disk.flush()),
      ...(discard && { discard: (offset, length) => this.#at(0, () => discard.call(disk, offset, length)) }),
      ...(writeZeroes && {
        writeZeroes: (offset, length) => this.#at(0, () => writeZeroes.call(disk, offset, length)),
      }),
      ...(onResize && { onResize: (listener) => onResize.call(disk, listener) }),
      close: () => disk.close(),
    }
  }

  /**
   * As long as `work` lasts no guest time passes: what waits is done at once, in the order of asking, and what is asked for meanwhile, too. For a
   * machine that is reset, saved or taken apart.
   */
  async hurry(work: () => Promise<void>): Promise<void> {
    this.#hurried = true
    try {
      for (const waiting of this.#waiting) {
        this.#clock.cancel(waiting.timer)
        waiting.start()
      }
      await work()
    } finally {
      this.#hurried = false
    }
  }

  #at(bytes: number, work: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      const start = (): void => {
        this.#waiting.delete(waiting)
        const done = this.#last.then(work).then(resolve, reject)
        this.#last = done
        this.#hold(done)
      }
      const timer = this.#clock.setTimer(this.#clock.nowNs() + REQUEST_NS + bytes * NS_PER_BYTE, start)
      const waiting: Waiting = { timer, start }
      this.#waiting.add(waiting)
      if (!this.#hurried) return
      this.#clock.cancel(timer)
      start()
    })
  }
}
