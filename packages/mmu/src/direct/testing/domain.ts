/** A domain of a few frames for tests, and a judge of its counts that shares no code with what is judged. Not part of the package. */

import { FRAME_USE } from '@nonroot/contracts'
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

  /**
   * All that is wrong with the counts: they are made again from the roots, pins and tables as they stand in memory. Empty: nothing. `descriptors`:
   * frames that vCPUs have as descriptor tables.
   */
  faults(descriptors: readonly number[] = []): string[] {
    const { frames, tables } = this
    const domain = frames.owner[this.machine.find((frame) => frames.owner[frame] !== 0)!]!
    const references = new Map<number, number>()
    const uses = new Map<number, Map<number, number>>()
    const refer = (frame: number): void => void references.set(frame, (references.get(frame) ?? 0) + 1)
    const using = (frame: number, use: number): void => {
      refer(frame)
      const own = uses.get(frame) ?? new Map<number, number>()
      own.set(use, (own.get(use) ?? 0) + 1)
      uses.set(frame, own)
    }
    const owned = Array.from({ length: frames.length }, (_, frame) => frame).filter(
      (frame) => frames.owner[frame] === domain,
    )
    const isTable = (frame: number): boolean =>
      frames.uses[frame]! > 0 && frames.use[frame]! >= 1 && frames.use[frame]! <= 4
    const found: string[] = []
    for (const frame of owned) {
      if (frames.flags[frame]! & 2) refer(frame)
      if (frames.flags[frame]! & 1) using(frame, frames.use[frame]!)
    }
    for (const frame of this.held) using(frame, FRAME_USE.writable)
    for (const frame of descriptors) using(frame, FRAME_USE.descriptors)
    for (let vcpu = 0; vcpu < this.vcpuCount; vcpu++) {
      for (const which of ['kernel', 'user'] as const) if (tables.root(vcpu, which)) using(tables.root(vcpu, which), 4)
    }
    for (const table of owned.filter(isTable)) {
      const level = frames.use[table]!
      for (let index = 0; index < 512; index++) {
        if (level === 4 && index >= 256 && index < 272) continue
        const low = this.host.words[table * 1024 + index * 2]!
        const high = this.host.words[table * 1024 + index * 2 + 1]!
        if (!(low & P)) continue
        const where = `entry ${index} of table ${table} (level ${level})`
        const target = (low >>> 12) + (high & 0xfffff) * 0x100000
        if (frames.owner[target] !== domain) found.push(`${where} names frame ${target}, which is not the domain's`)
        if (low & (level === 1 ? 0x98 : 0x198)) found.push(`${where} has flags ${(low & 0xfff).toString(16)}`)
        if (!(low & US)) found.push(`${where} is not for CPL 3`)
        if (level > 1) using(target, level - 1)
        else if (low & RW) {
          using(target, FRAME_USE.writable)
          if (isTable(target) || frames.use[target] === FRAME_USE.descriptors)
            found.push(`${where} makes a table writable`)
        } else refer(target)
      }
    }
    for (const frame of owned) {
      if ((references.get(frame) ?? 0) !== frames.references[frame])
        found.push(`frame ${frame}: ${frames.references[frame]} references, ${references.get(frame) ?? 0} counted`)
      const counted = uses.get(frame) ?? new Map<number, number>()
      if (counted.size > 1) found.push(`frame ${frame} has several uses: ${[...counted.keys()].join(', ')}`)
      const [[use, count] = [frames.use[frame]!, 0]] = counted
      if (frames.uses[frame] !== count || (count > 0 && use !== frames.use[frame]))
        found.push(`frame ${frame}: ${frames.uses[frame]} uses as ${frames.use[frame]}, ${count} counted as ${use}`)
      if (frames.references[frame] === 0) found.push(`frame ${frame} is owned and has no reference`)
    }
    for (let frame = 0; frame < frames.length; frame++) {
      if (frames.owner[frame] === 0 && frames.references[frame]! > 0)
        found.push(`frame ${frame} is nobody's and has references`)
    }
    return found
  }
}
