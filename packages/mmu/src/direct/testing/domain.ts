/** A domain of a few frames for tests. Not part of the package. */

import type { GuestFrames, HostMemory, PagingPort, TableLevel, TableStatus, VmContext } from '@nonroot/contracts'
import {
  createTestClock,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { frameTableOf, type FrameTable } from '../frame-table.ts'
import type { Rule } from '../rules.ts'
import { DirectTables } from '../tables.ts'
import { countingFaults } from './judge.ts'

export const P = 1
export const RW = 2
export const US = 4
export const A = 0x20
export const D = 0x40
export const PSE = 0x80
export const G = 0x100
/** Upper halves. */
export const NX = 0x8000_0000 | 0

export class TestDomain {
  readonly host: HostMemory
  readonly tables: DirectTables
  readonly frames: FrameTable
  /** Machine frames in order of the guest's own numbers. */
  readonly machine: Readonly<Uint32Array>
  readonly metrics = createTestMetrics()
  /** Flushes of everything, by vCPU. */
  readonly flushes: number[]
  /** What is held, pinned aside: the test's own book. */
  readonly held: number[] = []
  readonly vcpuCount: number

  constructor({ frames = 48, vcpuCount = 1, host = createTestHostMemory(512) } = {}) {
    this.host = host
    this.vcpuCount = vcpuCount
    const guestMemory = createTestGuestMemory({ hostMemory: host, ram: frames * 4096 })
    const context: VmContext = {
      hostMemory: host,
      guestMemory,
      guestFrames: guestMemory as GuestFrames,
      clock: createTestClock(),
      metrics: this.metrics,
      log: createTestLog(),
      vcpuCount,
    }
    this.tables = new DirectTables(context)
    const memory = guestMemory as typeof guestMemory & { setPaging?(paging: unknown): void }
    memory.setPaging?.({ onMemoryChange: () => {} })
    this.frames = frameTableOf(host)
    this.flushes = Array.from({ length: vcpuCount }, () => 0)
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
      const port: Partial<PagingPort> = {
        vcpu,
        flushAll: () => void this.flushes[vcpu]!++,
        flushAddress: () => {},
        setRoots: () => {},
      }
      this.tables.addPort(port as PagingPort)
    }
    this.machine = this.tables.populate()
  }

  /** Machine address of entry `index` in the guest's frame `frame`. */
  at(frame: number, index = 0): number {
    return this.machine[frame]! * 4096 + index * 8
  }
  /** Low half of an entry that names the guest's frame. */
  entry(frame: number, flags = P | RW | US): number {
    return (this.machine[frame]! * 4096) | flags
  }
  /** As the guest writes memory that it has mapped. */
  poke(frame: number, index: number, low: number, high = 0): void {
    const at = this.at(frame, index) >>> 2
    this.host.words[at] = low
    this.host.words[at + 1] = high
  }
  peek(frame: number, index: number): [low: number, high: number] {
    const at = this.at(frame, index) >>> 2
    return [this.host.words[at]!, this.host.words[at + 1]!]
  }

  /** Frames 0 to 3: L4, L3, L2, L1 with a leaf at entry 0 for frame 4, pinned and made the kernel's root. */
  withTables(leaf = this.entry(4)): this {
    for (let level = 0; level < 3; level++) this.poke(level, 0, this.entry(level + 1))
    this.poke(3, 0, leaf)
    const status = this.pin(4, 0)
    if (status !== 'ok') throw new Error(`tables of the test were refused: ${status}`)
    this.tables.setRoot(0, 'kernel', this.machine[0]!)
    return this
  }

  pin(level: TableLevel, frame: number): TableStatus {
    return this.tables.pin(level, this.machine[frame]!)
  }
  unpin(frame: number): TableStatus {
    return this.tables.unpin(this.machine[frame]!)
  }
  write(frame: number, index: number, low: number, high = 0): TableStatus {
    return this.tables.writeEntry(0, this.at(frame, index), low, high)
  }
  hold(frame: number): TableStatus {
    const status = this.tables.hold(this.machine[frame]!)
    if (status === 'ok') this.held.push(this.machine[frame]!)
    return status
  }

  refused(rule: Rule): number {
    return this.metrics.scope('refused').counter(rule, '').value
  }
  use(frame: number): [use: number, uses: number, references: number] {
    const number = this.machine[frame]!
    return [this.frames.use[number]!, this.frames.uses[number]!, this.frames.references[number]!]
  }

  /** All that is wrong with the counts. `descriptors`: frames that vCPUs have as descriptor tables. */
  faults(descriptors: readonly number[] = []): string[] {
    const { frames, tables, host, vcpuCount, held } = this
    return countingFaults({ frames, tables, words: host.words, vcpuCount, held, descriptors, some: this.machine })
  }
}
