/**
 * Disks under a deterministic clock: a request is executed at a fixed time of the guest's clock, and the guest stops until the host has completed it.
 * Before that time neither the guest's memory nor the disk changes. Independent of devices and the run loop.
 */

import type { BlockBackend, Clock, HostBackends, Timer } from '@nonroot/contracts'

/** Guest time that a request takes, about that of an NVMe disk. */
const REQUEST_NS = 50_000
const NS_PER_BYTE = 1 // 1 GB/s

interface Waiting {
  readonly timer: Timer
  readonly start: () => void
}

export class TimedDisks {
  readonly #clock: Clock
  readonly #hold: (until: Promise<unknown>) => void
  /** In the order of the requests. */
  readonly #waiting = new Set<Waiting>()
  /** Requests are executed one after the other, so that they complete in the same order in every run. */
  #last: Promise<unknown> = Promise.resolve()
  #hurried = false

  /** `hold`: guest code must not continue before this has settled. Called from timers. */
  constructor(clock: Clock, hold: (until: Promise<unknown>) => void) {
    this.#clock = clock
    this.#hold = hold
  }

  /** The host's back ends, with disks that follow the clock. */
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
    // No readNow and writeNow: the guest must not depend on the host's page cache.
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

  /** No guest time passes during `work`: pending and new requests are executed at once, in order. For resetting, saving or disposing of a machine. */
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
