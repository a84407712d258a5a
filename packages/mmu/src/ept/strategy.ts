/** @hot The `ept` strategy: a second stage filled as the guest touches its memory. The guest keeps its own tables. */

import {
  EPT_ENTRY,
  FRAME_SIZE,
  invariant,
  NonrootError,
  RESUME,
  SecondStageAccess,
  snapshotData,
} from '@nonroot/contracts'
import type {
  Counter,
  Gauge,
  Gpa,
  GuestFrames,
  HostMemory,
  MemoryChange,
  MemoryRange,
  Metrics,
  PagingIntercepts,
  PagingOutcome,
  PagingPort,
  X86PagingStrategy,
  Snapshot,
} from '@nonroot/contracts'
import { LARGE_SIZE } from './entry.ts'
import { EptTables } from './tables.ts'

export interface EptPagingOptions {
  /** Map 2 MiB at once where the guest's frames lie together. Default true. */
  readonly largePages?: boolean | undefined
}

export interface EptPagingContext {
  readonly hostMemory: HostMemory
  readonly guestFrames: GuestFrames
  readonly metrics: Metrics
}

/** The guest keeps its CR3, its page faults and its INVLPG. */
const NO_INTERCEPTS: PagingIntercepts = { pageFault: false, rootWrite: false, invalidate: false, rootRead: false }
/** Guest-physical addresses above this have no place in four levels. */
const LIMIT = 2 ** 48

export class EptPaging implements X86PagingStrategy {
  private readonly frames: GuestFrames
  private readonly tables: EptTables
  private readonly largePages: boolean
  private readonly ports: PagingPort[] = []
  private readonly mmio = { next: 'mmio' as const, address: 0 as Gpa }
  private readonly wait = { next: 'wait' as const, address: 0 as Gpa }
  private readonly violations: Counter
  private readonly smallPages: Counter
  private readonly largeMaps: Counter
  private readonly registerMaps: Counter
  private readonly revocations: Counter
  private readonly tableFrames: Gauge

  constructor(options: EptPagingOptions, context: EptPagingContext) {
    const { hostMemory, guestFrames, metrics } = context
    const root = hostMemory.allocateFrame()
    if (root === undefined) {
      throw new NonrootError({
        code: 'host.memory',
        message: 'no host frame is free for the root of the EPT tables',
        remedy: 'give the host more memory or run fewer VMs',
      })
    }
    this.frames = guestFrames
    this.tables = new EptTables(hostMemory, root)
    this.largePages = options.largePages ?? true
    this.violations = metrics.counter('violations', 'Second-stage faults handled')
    this.smallPages = metrics.counter('maps4K', 'Leaves of 4 KiB written')
    this.largeMaps = metrics.counter('maps2M', 'Leaves of 2 MiB written')
    this.registerMaps = metrics.counter('registerMaps', "Leaves written that lead to the host's bus")
    this.revocations = metrics.counter('revocations', 'Changes of guest memory that took mappings back')
    this.tableFrames = metrics.gauge('tableFrames', 'Host frames that hold tables', 'frames')
    this.tableFrames.value = this.tables.frames
  }

  attach(port: PagingPort): void {
    this.ports.push(port)
    port.setIntercepts(NO_INTERCEPTS)
    port.setHardwareRoot(undefined)
    port.setSecondStageRoot(this.tables.root, true)
  }

  onSecondStageFault(_port: PagingPort, address: Gpa, access: number): PagingOutcome {
    this.violations.value++
    const write = (access & SecondStageAccess.write) !== 0
    const byte =
      address < LIMIT
        ? this.frames.translate(address, write ? 'write' : (access & SecondStageAccess.fetch) !== 0 ? 'fetch' : 'read')
        : undefined
    if (byte === undefined) {
      const registers = this.frames.registerPage?.(address)
      if (registers !== undefined && !(access & SecondStageAccess.fetch)) return this.mapRegisters(address, registers)
      this.mmio.address = address
      return this.mmio
    }
    if (byte === 'wait') {
      this.wait.address = address
      return this.wait
    }
    const frame = byte & ~0xfff
    const writable = write || this.frames.isWritable(address)
    // The bits are set from the start: the access that faulted is about to set them.
    const bits =
      EPT_ENTRY.read |
      EPT_ENTRY.execute |
      EPT_ENTRY.writeBack |
      EPT_ENTRY.accessed |
      (writable ? EPT_ENTRY.write : 0) |
      (write ? EPT_ENTRY.dirty : 0)
    const large = writable && this.largePages && this.frameAllowsLarge(address, frame)
    const mapped = large
      ? this.tables.map(address, 2, (frame & ~(LARGE_SIZE - 1)) | bits | EPT_ENTRY.large)
      : this.tables.map(address, 1, frame | bits)
    if (!mapped) return { next: 'failure', message: 'no host frame is free for an EPT table' }
    if (large) this.largeMaps.value++
    else this.smallPages.value++
    this.tableFrames.value = this.tables.frames
    return RESUME
  }

  /** Registers of an assigned device: from now on the processor reaches them without an exit. Nothing is executed from there. */
  private mapRegisters(address: number, registers: number): PagingOutcome {
    const bits = EPT_ENTRY.read | EPT_ENTRY.write | EPT_ENTRY.accessed | EPT_ENTRY.dirty
    const low = (registers % 2 ** 32) & ~0xfff
    if (!this.tables.map(address, 1, low | bits, Math.floor(registers / 2 ** 32)))
      return { next: 'failure', message: 'no host frame is free for an EPT table' }
    this.registerMaps.value++
    this.tableFrames.value = this.tables.frames
    return RESUME
  }

  /** Whether the 2 MiB around `address` lie together in host memory, aligned alike, all writable, and nothing of them is mapped yet. */
  private frameAllowsLarge(address: number, frame: number): boolean {
    if (((frame ^ address) & (LARGE_SIZE - FRAME_SIZE)) !== 0) return false
    const start = address - (address % LARGE_SIZE)
    const first = (frame & ~(LARGE_SIZE - 1)) >>> 0
    // The far end first: it is the last to be there when frames come one by one.
    if (this.frames.peek(start + LARGE_SIZE - FRAME_SIZE) !== first + LARGE_SIZE - FRAME_SIZE) return false
    if (!this.tables.isLargeFree(address)) return false
    for (let offset = 0; offset < LARGE_SIZE; offset += FRAME_SIZE) {
      if (this.frames.peek(start + offset) !== first + offset || !this.frames.isWritable(start + offset)) return false
    }
    return true
  }

  /** A page whose accessed flag is clear is in no TLB: the processor sets the flag before it caches the page. */
  onMemoryChange(ranges: readonly MemoryRange[], change: MemoryChange): void {
    let changed = false
    let mayBeCached = false
    for (const { address, length } of ranges) {
      if (!this.tables.revoke(address, length, change === 'writeProtected')) continue
      changed = true
      mayBeCached ||= this.tables.mayBeCached
    }
    if (!changed) return
    this.revocations.value++
    this.tableFrames.value = this.tables.frames
    if (mayBeCached) for (const port of this.ports) port.flushGuestPhysical(ranges)
  }

  takeAccessed(address: Gpa): boolean | undefined {
    const accessed = this.tables.takeAccessed(address)
    if (accessed) for (const port of this.ports) port.flushGuestPhysical([{ address, length: FRAME_SIZE }])
    return accessed
  }

  /** Not intercepted: the guest handles these itself. */
  onPageFault(): PagingOutcome {
    invariant(false, 'ept does not intercept page faults')
  }
  onRootWrite(): PagingOutcome {
    return RESUME
  }
  onInvalidate(): PagingOutcome {
    return RESUME
  }
  onModeChange(): PagingOutcome {
    return RESUME
  }
  onTableUpdate(): PagingOutcome {
    return RESUME
  }

  /** The tables say nothing that guest memory does not: they are filled anew. */
  save(): Snapshot {
    return { type: 'paging.ept', version: 1, data: {} }
  }
  restore(snapshot: Snapshot): void {
    snapshotData(snapshot, 'paging.ept', 1)
    this.tables.clear()
    for (const port of this.ports) port.flushAll()
  }

  dispose(): void {
    for (const port of this.ports) port.setSecondStageRoot(undefined)
    this.ports.length = 0
    this.tables.dispose()
  }
}

export const createEptPaging = (options: EptPagingOptions, context: EptPagingContext): X86PagingStrategy =>
  new EptPaging(options, context)
