/**
 * @hot The `shadow` strategy: answers the faults and notifications of vCPUs. The tables are built in shadow-tables.ts.
 *
 * The hardware always runs with CR0.WP set, whatever the guest chose; a supervisor's write to a read-only page under WP = 0 is
 * emulated. NXE, SMEP and SMAP of the hardware are the guest's.
 */

import { invariant, NonrootError, PageFaultCode, RESUME, snapshotData } from '@nonroot/contracts'
import type {
  Counter,
  Gauge,
  Gpa,
  Gva,
  MemoryChange,
  MemoryRange,
  PagingIntercepts,
  PagingOutcome,
  PagingPort,
  X86PagingStrategy,
  Snapshot,
} from '@nonroot/contracts'
import { Access } from './entry.ts'
import { GuestPaging } from './guest-paging.ts'
import { ALLOWED, GuestWalk, WAIT } from './guest-walk.ts'
import { ShadowTables, type ShadowContext } from './shadow-tables.ts'
import type { ShadowTable } from './table.ts'

export interface ShadowPagingOptions {
  /** Most shadow tables (frames) at a time. Default: an eighth of the guest's frames, at least 256. */
  readonly maxTables?: number | undefined
  /** MAXPHYADDR of the processor model: entries with bits above it fault. Default 40. */
  readonly physicalAddressBits?: number | undefined
}

const INTERCEPTS: PagingIntercepts = { pageFault: true, rootWrite: true, invalidate: true, rootRead: true }
const EMULATE: PagingOutcome = Object.freeze({ next: 'emulate' })
const NO_FRAME: PagingOutcome = Object.freeze({
  next: 'failure',
  message: 'no host frame is free for a shadow page table',
})
const FORMAT = { none: 'legacy32', legacy32: 'legacy32', pae: 'pae', fourLevel: 'fourLevel' } as const

/** What the strategy keeps per vCPU. */
class VcpuPaging {
  readonly port: PagingPort
  readonly mode = new GuestPaging()
  root: ShadowTable | undefined

  constructor(port: PagingPort) {
    this.port = port
  }
}

export class ShadowPaging implements X86PagingStrategy {
  private readonly vcpus: VcpuPaging[] = []
  private readonly tables: ShadowTables
  private readonly guestWalk: GuestWalk
  private readonly context: ShadowContext
  private readonly physicalAddressBits: number
  private readonly mmio = { next: 'mmio' as const, address: 0 as Gpa }
  private readonly wait = { next: 'wait' as const, address: 0 as Gpa }
  private readonly inject = { next: 'inject' as const, address: 0n as Gva, code: 0 }
  private readonly addressBits = new BigUint64Array(1)
  private readonly addressWords = new Uint32Array(this.addressBits.buffer)
  private readonly faults: Counter
  private readonly guestFaults: Counter
  private readonly emulated: Counter
  private readonly rootWrites: Counter
  private readonly invalidations: Counter
  private readonly flushes: Counter
  private readonly tableFrames: Gauge

  constructor(options: ShadowPagingOptions, context: ShadowContext) {
    const { metrics } = context
    this.context = context
    this.physicalAddressBits = options.physicalAddressBits ?? 40
    this.guestWalk = new GuestWalk(context.guestFrames, context.hostMemory, this.physicalAddressBits)
    const share = Math.floor(context.guestFrames.size / 4096 / 8)
    this.tables = new ShadowTables(context, options.maxTables ?? Math.max(256, share))
    this.faults = metrics.counter('hiddenFaults', 'Page faults handled that the guest does not see')
    this.guestFaults = metrics.counter('guestFaults', "Page faults that were the guest's own")
    this.emulated = metrics.counter('emulatedWrites', 'Writes to guest tables, one instruction emulated each')
    this.rootWrites = metrics.counter('rootWrites', 'Writes of CR3')
    this.invalidations = metrics.counter('invalidations', 'INVLPG and INVPCID')
    this.flushes = metrics.counter('flushes', 'TLB flushes because a shadow entry was taken back')
    this.tableFrames = metrics.gauge('tableFrames', 'Host frames that hold tables', 'frames')
  }

  attach(port: PagingPort): void {
    const vcpu = new VcpuPaging(port)
    this.vcpus[port.vcpu] = vcpu
    port.setSecondStageRoot(undefined)
    port.setIntercepts(INTERCEPTS)
    const outcome = this.reload(vcpu)
    if (outcome.next === 'failure') throw new NonrootError({ code: 'host.memory', message: outcome.message })
  }

  onPageFault(port: PagingPort, address: Gva, code: number): PagingOutcome {
    const vcpu = this.vcpus[port.vcpu]!
    const { mode } = vcpu
    const { guestWalk, tables } = this
    this.addressBits[0] = address
    const low = this.addressWords[0]!
    const high = this.addressWords[1]!
    const fault = guestWalk.walk(mode, low, high, code, port.guestPaging().userPagesAllowed ?? false)
    if (fault === WAIT) return this.waitFor(guestWalk.waitsFor)
    if (fault !== ALLOWED) {
      this.guestFaults.value++
      this.inject.address = address
      this.inject.code = fault
      return this.inject
    }
    this.faults.value++
    const write = (code & PageFaultCode.write) !== 0
    const host = this.context.guestFrames.translate(guestWalk.address, write ? 'write' : 'read')
    if (host === 'wait') return this.waitFor(guestWalk.address)
    if (host === undefined) {
      const registers = this.registersOf(vcpu, code)
      if (registers !== undefined) {
        const filled = tables.fill(vcpu.root!, guestWalk, mode, low, high, registers, write)
        return filled ? this.settle(RESUME) : NO_FRAME
      }
      this.mmio.address = guestWalk.address as Gpa
      return this.settle(this.mmio)
    }
    if (write) {
      // Only a supervisor under WP = 0 gets here without write access.
      const allowed = (guestWalk.access & Access.write) !== 0
      if (!allowed || !tables.openForWrite(Math.floor(guestWalk.address / 4096))) {
        this.emulated.value++
        return this.settle(EMULATE)
      }
    }
    if (guestWalk.unbacked) return this.settle(EMULATE)
    if (!tables.fill(vcpu.root!, guestWalk, mode, low, high, host & ~0xfff, write)) {
      return NO_FRAME
    }
    return this.settle(RESUME)
  }

  /**
   * Where the registers of an assigned device are on the host's bus, for an access that the hardware can make there by itself. Entries of four bytes do not
   * reach so far, and without NX the guest could execute from there.
   */
  private registersOf({ mode }: VcpuPaging, code: number): number | undefined {
    const { guestWalk } = this
    if (!mode.wide || !mode.noExecute || guestWalk.unbacked || (code & PageFaultCode.fetch) !== 0) return undefined
    if ((code & PageFaultCode.write) !== 0 && (guestWalk.access & Access.write) === 0) return undefined
    return this.context.guestFrames.registerPage?.(guestWalk.address)
  }

  private waitFor(address: number): PagingOutcome {
    this.wait.address = address as Gpa
    return this.settle(this.wait)
  }

  onSecondStageFault(): PagingOutcome {
    invariant(false, 'shadow has no second stage')
  }

  onRootWrite(port: PagingPort): PagingOutcome {
    this.rootWrites.value++
    const vcpu = this.vcpus[port.vcpu]!
    vcpu.mode.loadRoot(port, this.context.guestMemory, this.physicalAddressBits)
    return this.useRoot(vcpu, true)
  }

  onModeChange(port: PagingPort): PagingOutcome {
    return this.reload(this.vcpus[port.vcpu]!)
  }

  onInvalidate(port: PagingPort, address: Gva | undefined): PagingOutcome {
    this.invalidations.value++
    const root = this.vcpus[port.vcpu]!.root!
    if (address === undefined) {
      this.tables.synchronise(root)
    } else {
      this.addressBits[0] = address
      if (this.tables.synchroniseAddress(root, this.addressWords[0]!, this.addressWords[1]!)) {
        for (const vcpu of this.vcpus) vcpu?.port.flushAddress(address)
      }
    }
    return this.settle(RESUME)
  }

  onTableUpdate(_port: PagingPort, address: Gpa, length: number): PagingOutcome {
    this.tables.guestWrote(address, length)
    return this.settle(RESUME)
  }

  onMemoryChange(ranges: readonly MemoryRange[], change: MemoryChange): void {
    for (const { address, length } of ranges) this.tables.memoryChanged(address, length, change === 'writeProtected')
    this.settle(RESUME)
  }

  takeAccessed(address: Gpa): boolean | undefined {
    const accessed = this.tables.takeAccessed(Math.floor(address / 4096))
    this.settle(RESUME)
    return accessed
  }

  private reload(vcpu: VcpuPaging): PagingOutcome {
    vcpu.mode.loadMode(vcpu.port)
    if (vcpu.mode.format === 'fiveLevel') {
      return { next: 'failure', message: 'shadow paging does not know 5-level guest tables' }
    }
    vcpu.mode.loadRoot(vcpu.port, this.context.guestMemory, this.physicalAddressBits)
    return this.useRoot(vcpu, false)
  }

  /** Find or make the shadow of the guest's root, bring it up to date and point the hardware at it. */
  private useRoot(vcpu: VcpuPaging, sameMode: boolean): PagingOutcome {
    const { tables } = this
    const before = vcpu.root
    const root = tables.root(vcpu.mode, before)
    if (!root) return { next: 'failure', message: 'no host frame is free for the root of the shadow page tables' }
    vcpu.root = root
    tables.synchronise(root)
    const format = vcpu.mode.format as keyof typeof FORMAT
    // What the hardware cached of unchanged tables is as right as the tables; a change flushes by itself.
    vcpu.port.setHardwareRoot(root.frame, FORMAT[format], sameMode && root === before && format !== 'pae')
    tables.reloadRoots = false
    return this.settle(RESUME)
  }

  /** Before any outcome: what was taken back must not live on in a TLB, nor in PDPTE registers. */
  private settle(outcome: PagingOutcome): PagingOutcome {
    const { tables } = this
    this.tableFrames.value = tables.size
    if (tables.reloadRoots) {
      tables.reloadRoots = false
      for (const vcpu of this.vcpus) {
        if (vcpu?.mode.format === 'pae') vcpu.port.setHardwareRoot(vcpu.root!.frame, 'pae', true)
      }
    }
    if (tables.flushNeeded) {
      tables.flushNeeded = false
      this.flushes.value++
      for (const vcpu of this.vcpus) vcpu?.port.flushAll()
    }
    return outcome
  }

  /** Shadow tables say nothing that the guest's own do not: they are filled anew. */
  save(): Snapshot {
    return { type: 'paging.shadow', version: 1, data: {} }
  }
  restore(snapshot: Snapshot): void {
    snapshotData(snapshot, 'paging.shadow', 1)
    this.tables.clear()
    for (const vcpu of this.vcpus) if (vcpu) this.reload(vcpu)
  }

  dispose(): void {
    for (const vcpu of this.vcpus) vcpu?.port.setHardwareRoot(undefined)
    this.vcpus.length = 0
    this.tables.dispose()
  }
}

export const createShadowPaging = (options: ShadowPagingOptions, context: ShadowContext): X86PagingStrategy =>
  new ShadowPaging(options, context)
