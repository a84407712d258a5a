/** A processor that does nothing but translate: the hardware under a paging strategy in tests, with a TLB that keeps what it may keep. */

import { FRAME_SIZE, gpa, gva, hpa, PageFaultCode, SecondStageAccess } from '@nonroot/contracts'
import type {
  GuestMemory,
  GuestPagingState,
  HostMemory,
  Hpa,
  PagingFormat,
  PagingIntercepts,
  PagingOutcome,
  PagingPort,
  X86PagingStrategy,
} from '@nonroot/contracts'
import { referenceWalk, type PagingRegisters, type WalkAccess } from './reference-walk.ts'

export type AccessKind = 'read' | 'write' | 'fetch'

export type AccessResult =
  | { readonly kind: 'memory'; readonly value: number }
  | { readonly kind: 'fault'; readonly code: number }
  | { readonly kind: 'mmio'; readonly address: number }
  /** Without an exit, at an address above 4 GiB: on the host's bus. */
  | { readonly kind: 'registers'; readonly address: number }
  | { readonly kind: 'wait'; readonly address: number }
  | { readonly kind: 'failure'; readonly message: string }

/** Thrown by a table access that the second stage refuses. */
class SecondStageFault {
  readonly address: number
  readonly access: number
  constructor(address: number, access: number) {
    this.address = address
    this.access = access
  }
}

const EPT_ACCESSED = 0x100
const EPT_DIRTY = 0x200

export class TestVcpu implements PagingPort {
  readonly vcpu: number
  readonly registers: PagingRegisters = {
    format: 'none',
    root: 0n,
    wp: false,
    smep: false,
    smap: false,
    nxe: false,
    pse: false,
    ac: false,
  }
  /** Exits of each kind, as the strategy asked for them. */
  readonly counts = { pageFault: 0, secondStage: 0, rootWrite: 0, invalidate: 0, emulate: 0, flush: 0 }
  private readonly strategy: X86PagingStrategy
  private readonly host: HostMemory
  private readonly guest: GuestMemory
  private intercepts: PagingIntercepts = { pageFault: false, rootWrite: false, invalidate: false, rootRead: false }
  private hardware: { root: Hpa; format: PagingFormat; pdptes: bigint[] } | undefined
  private secondStage: { root: Hpa; accessedDirty: boolean } | undefined
  private readonly tlb = new Map<string, number>()

  constructor(strategy: X86PagingStrategy, host: HostMemory, guest: GuestMemory, vcpu = 0) {
    this.strategy = strategy
    this.host = host
    this.guest = guest
    this.vcpu = vcpu
    strategy.attach(this)
  }

  // PagingPort

  guestPaging(): GuestPagingState {
    const { format, root, wp, smep, smap, nxe, pse, ac } = this.registers
    return {
      format,
      cr3: root,
      cr0: (wp ? 1 << 16 : 0) | (format === 'none' ? 0 : 1 << 31) | 1,
      cr4: (smep ? 1 << 20 : 0) | (smap ? 1 << 21 : 0) | (pse ? 1 << 4 : 0) | (this.isWide ? 1 << 5 : 0),
      efer: (nxe ? 1 << 11 : 0) | (format === 'fourLevel' ? 0x500 : 0),
      userPagesAllowed: ac,
    }
  }
  setHardwareRoot(root: Hpa | undefined, format: PagingFormat = 'none', keep = false): void {
    const pdptes = [0, 1, 2, 3].map((i) =>
      root !== undefined && format === 'pae' ? this.host.view.getBigUint64(root + i * 8, true) : 0n,
    )
    this.hardware = root === undefined ? undefined : { root, format, pdptes }
    if (!keep) this.tlb.clear()
  }
  setSecondStageRoot(root: Hpa | undefined, accessedDirty = false): void {
    this.secondStage = root === undefined ? undefined : { root, accessedDirty }
    this.tlb.clear()
  }
  setIntercepts(intercepts: PagingIntercepts): void {
    this.intercepts = intercepts
  }
  flushAll(): void {
    this.counts.flush++
    this.tlb.clear()
  }
  flushAddress(address: bigint): void {
    for (const key of this.tlb.keys()) if (key.startsWith(`${address >> 12n}:`)) this.tlb.delete(key)
  }
  flushGuestPhysical(): void {
    this.tlb.clear()
  }

  // What guest code does

  private get isWide(): boolean {
    return this.registers.format === 'pae' || this.registers.format === 'fourLevel'
  }

  setMode(change: Partial<Omit<PagingRegisters, 'pdptes'>>): void {
    Object.assign(this.registers, change)
    this.loadPdptes()
    this.tlb.clear()
    this.expectResume(this.strategy.onModeChange(this))
  }
  setRoot(root: bigint): void {
    this.registers.root = root
    this.loadPdptes()
    // With a root of the strategy's, the hardware register is not written: what is cached stays.
    if (!this.hardware) this.tlb.clear()
    if (!this.intercepts.rootWrite) return
    this.counts.rootWrite++
    this.expectResume(this.strategy.onRootWrite(this, root, false))
  }
  invalidate(linear: bigint): void {
    if (!this.hardware) this.flushAddress(linear)
    if (!this.intercepts.invalidate) return
    this.counts.invalidate++
    this.expectResume(this.strategy.onInvalidate(this, gva(linear)))
  }

  read(linear: bigint, user = false): AccessResult {
    return this.access(linear, 'read', user)
  }
  /** Four bytes, aligned. */
  write(linear: bigint, value: number, user = false): AccessResult {
    return this.access(linear, 'write', user, value)
  }
  /** A page-table entry, upper half first where it has one; as two accesses. */
  writeEntry(linear: bigint, entry: bigint, bytes: 4 | 8): AccessResult {
    if (bytes === 8) this.write(linear + 4n, Number(entry >> 32n))
    return this.write(linear, Number(entry & 0xffff_ffffn))
  }

  access(linear: bigint, kind: AccessKind, user = false, value = 0): AccessResult {
    const access: WalkAccess = { write: kind === 'write', user, fetch: kind === 'fetch' }
    for (let tries = 0; tries < 24; tries++) {
      const outcome = this.attempt(linear, access)
      if ('host' in outcome) {
        if (outcome.host >= 2 ** 32) return { kind: 'registers', address: outcome.host }
        if (access.write) this.host.view.setUint32(outcome.host, value >>> 0, true)
        return { kind: 'memory', value: this.host.view.getUint32(outcome.host, true) }
      }
      if ('fault' in outcome) {
        if (!this.intercepts.pageFault) return { kind: 'fault', code: outcome.fault }
        this.counts.pageFault++
        this.flushAddress(linear)
        const next = this.strategy.onPageFault(this, gva(linear), outcome.fault)
        const result = this.settle(next, linear, access, value)
        if (result) return result
        continue
      }
      this.counts.secondStage++
      const next = this.strategy.onSecondStageFault(this, gpa(outcome.address), outcome.access)
      const result = this.settle(next, linear, access, value)
      if (result) return result
    }
    return { kind: 'failure', message: `no progress at ${linear.toString(16)}` }
  }

  private settle(next: PagingOutcome, linear: bigint, access: WalkAccess, value: number): AccessResult | undefined {
    switch (next.next) {
      case 'resume':
        return undefined
      case 'inject':
        return next.address === linear ? { kind: 'fault', code: next.code } : { kind: 'failure', message: 'wrong CR2' }
      case 'mmio':
        return { kind: 'mmio', address: next.address }
      case 'wait':
        return { kind: 'wait', address: next.address }
      case 'failure':
        return { kind: 'failure', message: next.message }
      case 'emulate': {
        this.counts.emulate++
        const walk = this.guestWalk(linear, access)
        if ('fault' in walk) return { kind: 'failure', message: 'emulated an access that faults' }
        if (!access.write) return { kind: 'memory', value: this.guest.readU32(walk.address) ?? 0 }
        this.guest.writeU32(walk.address, value >>> 0)
        this.expectResume(this.strategy.onTableUpdate(this, gpa(walk.address), 4))
        return { kind: 'memory', value }
      }
    }
  }

  /** The guest's own tables by the book, over guest memory, changing nothing. */
  guestWalk(linear: bigint, access: WalkAccess): ReturnType<typeof referenceWalk> {
    const memory = {
      read: (address: number, bytes: 4 | 8) =>
        bytes === 8 ? this.readWide(address) : toBigInt(this.guest.readU32(address)),
    }
    return referenceWalk(memory, this.registers, linear, access)
  }
  private readWide(address: number): bigint | undefined {
    const bytes = new Uint8Array(8)
    return this.guest.readBytes(address, bytes) ? new DataView(bytes.buffer).getBigUint64(0, true) : undefined
  }

  private loadPdptes(): void {
    if (this.registers.format !== 'pae') return
    const at = Number(this.registers.root & 0xffff_ffe0n)
    this.registers.pdptes = [0, 1, 2, 3].map((i) => this.readWide(at + i * 8) ?? 0n)
  }

  // The hardware

  private attempt(
    linear: bigint,
    access: WalkAccess,
  ): { host: number } | { fault: number } | { address: number; access: number } {
    const key = `${linear >> 12n}:${access.write}:${access.user}:${access.fetch}:${this.registers.ac}`
    const cached = this.tlb.get(key)
    if (cached !== undefined) return { host: cached + Number(linear & 0xfffn) }
    try {
      const host = this.hardware ? this.walkHardware(linear, access) : this.walkTwoStages(linear, access)
      if (typeof host === 'number') {
        this.tlb.set(key, host - (host % FRAME_SIZE))
        return { host }
      }
      return host
    } catch (thrown) {
      if (thrown instanceof SecondStageFault) return { address: thrown.address, access: thrown.access }
      throw thrown
    }
  }

  private walkHardware(linear: bigint, access: WalkAccess): number | { fault: number } {
    const { root, format, pdptes } = this.hardware!
    const { view } = this.host
    const off = this.registers.format === 'none'
    const registers: PagingRegisters = {
      ...this.registers,
      format,
      root: BigInt(root),
      pdptes,
      wp: true,
      smep: !off && this.registers.smep,
      smap: !off && this.registers.smap,
    }
    const memory = {
      read: (at: number, bytes: 4 | 8) =>
        bytes === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true)),
    }
    const walk = referenceWalk(memory, registers, linear, access)
    if ('fault' in walk) return walk
    for (const { address, bits } of walk.marks) view.setUint32(address, view.getUint32(address, true) | bits, true)
    return walk.address
  }

  private walkTwoStages(linear: bigint, access: WalkAccess): number | { fault: number } {
    const { view } = this.host
    const memory = {
      read: (address: number, bytes: 4 | 8) => {
        const at = this.secondStageWalk(address, SecondStageAccess.read)
        return bytes === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint32(at, true))
      },
    }
    const walk = referenceWalk(memory, this.registers, linear, access)
    if ('fault' in walk) return walk
    for (const { address, bits } of walk.marks) {
      const at = this.secondStageWalk(address, SecondStageAccess.read)
      const entry = view.getUint32(at, true)
      if ((entry & bits) === bits) continue
      view.setUint32(this.secondStageWalk(address, SecondStageAccess.write), entry | bits, true)
    }
    const { read, write, fetch } = SecondStageAccess
    return this.secondStageWalk(walk.address, access.write ? write : access.fetch ? fetch : read)
  }

  private secondStageWalk(address: number, access: number): Hpa {
    if (!this.secondStage) return hpa(address)
    const { view } = this.host
    let table: number = this.secondStage.root
    if (address >= 2 ** 48) throw new SecondStageFault(address, access)
    for (let level = 4; ; level--) {
      const size = 4096 * 512 ** (level - 1)
      const at = table + (Math.floor(address / size) % 512) * 8
      const entry = Number(view.getBigUint64(at, true))
      if ((entry & access) === 0) throw new SecondStageFault(address, access)
      const leaf = level === 1 || (entry & 0x80) !== 0
      if (this.secondStage.accessedDirty) {
        const bits = EPT_ACCESSED | (leaf && access & SecondStageAccess.write ? EPT_DIRTY : 0)
        view.setUint32(at, entry | bits, true)
      }
      if (leaf) {
        const above = Number((view.getBigUint64(at, true) >> 32n) & 0xf_ffffn)
        if (above !== 0) return hpa(above * 2 ** 32 + ((entry & ~0xfff) >>> 0) + (address % 4096))
        if ((entry & 0x38) !== 0x30) throw new Error('EPT leaf is not write-back')
        return hpa(((entry & ~(size - 1) & ~0xfff) >>> 0) + (address % size))
      }
      table = (entry & ~0xfff) >>> 0
    }
  }

  private expectResume(outcome: PagingOutcome): void {
    if (outcome.next !== 'resume') throw new Error(`expected resume, got ${JSON.stringify(outcome.next)}`)
  }
}

const toBigInt = (value: number | undefined): bigint | undefined => (value === undefined ? undefined : BigInt(value))

export { PageFaultCode }
