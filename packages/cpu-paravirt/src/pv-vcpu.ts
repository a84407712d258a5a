/** The vCPU as its guest ABI sees it: `PvVcpu`, by the state and the frames of this package. */

import type { PvCallback, PvContext, PvSegmentBase, PvTrap, PvVcpu, Hpa, TableCalls } from '@nonroot/contracts'
import {
  ACCESS,
  gpr,
  GuestFault,
  loadDataSegment,
  readRange,
  RIGHTS,
  S,
  SEG,
  segment,
  SEGMENT,
  setNullSegment,
  setSegment,
  updateBreakpoints,
  updateMode,
  writeFlags,
  writeRange,
  CR0,
  FLAG,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import type { Frames } from './entry/frames.ts'
import { setHandler, type GuestState } from './guest-state.ts'
import { highOf, HYPERVISOR, isCanonical, lowOf, SELECTOR_RPL } from './facts.ts'

const FS_BASE = segment(SEGMENT.fs) + SEG.base
const GS_BASE = segment(SEGMENT.gs) + SEG.base
const PAGE = 4096
const DR7_FIXED = 0x400n
const DR7_RESERVED = 0xffff_ffff_0000_d800n
const LDT_RIGHTS = 0x82

/** Crossing, or in, the hypervisor's part of the address space. */
const isForbidden = (address: bigint, length: number): boolean =>
  address + BigInt(length) > HYPERVISOR.start && address < HYPERVISOR.end

/** What of a vCPU its guest ABI moves. */
export interface VcpuUnderAbi {
  readonly index: number
  readonly core: Core
  readonly state: GuestState
  readonly frames: Frames
  readonly tables: TableCalls
  readonly isUp: boolean
  returnFromTrap(): void
  sleep(untilWoken: boolean): void
  kick(): void
  repeat(): void
  crash(reason: string): void
  startAt(cs: number, ss: number): void
  setUp(up: boolean): void
}

export class VcpuForAbi implements PvVcpu {
  readonly #vcpu: VcpuUnderAbi

  constructor(vcpu: VcpuUnderAbi) {
    this.#vcpu = vcpu
  }

  get inKernel(): boolean {
    return this.#vcpu.state.inKernel
  }

  setTrap({ vector, address, privilege, masksEvents }: PvTrap): void {
    setHandler(this.#vcpu.state.traps[vector & 0xff]!, address, masksEvents, privilege)
  }
  clearTraps(): void {
    for (let vector = 0; vector < 256; vector++) this.setTrap({ vector, address: 0n, privilege: 0, masksEvents: false })
  }
  setCallback(kind: PvCallback, address: bigint, masksEvents: boolean): void {
    setHandler(this.#vcpu.state.callbacks[kind], address, masksEvents)
  }
  setKernelStack(ss: number, sp: bigint): void {
    const { state } = this.#vcpu
    state.kernelSs = ss | SELECTOR_RPL
    state.kernelSpLow = lowOf(sp)
    state.kernelSpHigh = highOf(sp)
  }
  returnFromTrap(): void {
    this.#vcpu.returnFromTrap()
  }

  setSegmentBase(which: PvSegmentBase, value: bigint): boolean {
    if (!isCanonical(value)) return false
    const { core, state } = this.#vcpu
    // The other mode's GS base waits where SWAPGS finds it.
    const isCurrent = (which === 'gsKernel') === state.inKernel
    core.set64(which === 'fs' ? FS_BASE : isCurrent ? GS_BASE : S.kernelGsBase, value)
    return true
  }
  loadUserGs(selector: number): boolean {
    const { core } = this.#vcpu
    const kernelBase = core.get64(GS_BASE)
    let isLoaded = true
    try {
      loadDataSegment(core, SEGMENT.gs, selector)
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      setNullSegment(core, SEGMENT.gs, 0)
      isLoaded = false
    }
    core.set64(S.kernelGsBase, core.get64(GS_BASE))
    core.set64(GS_BASE, kernelBase)
    return isLoaded
  }
  descriptorsChanged(localEntries?: number): void {
    const { core, frames, tables, index } = this.#vcpu
    frames.selectors.forget()
    if (localEntries === undefined) return
    const base = tables.localDescriptorTable(index)
    const rights = localEntries ? LDT_RIGHTS : RIGHTS.unusable
    setSegment(core, SEGMENT.ldtr, 0, lowOf(base), highOf(base), Math.max(localEntries * 8 - 1, 0), rights)
  }

  setTaskSwitched(on: boolean): void {
    const { core } = this.#vcpu
    const cr0 = core.get32(S.cr0)
    core.set32(S.cr0, on ? cr0 | CR0.ts : cr0 & ~CR0.ts)
    updateMode(core)
  }
  /** Breakpoints are on the guest's own addresses, and never for its hypervisor. */
  setDebugRegister(number: number, value: bigint): boolean {
    const { core } = this.#vcpu
    if (number < 4) {
      if (!isCanonical(value) || isForbidden(value, 8)) return false
      core.set64(S.dr0 + 8 * number, value)
    } else if (number === 6) core.set64(S.dr6, (value & 0xe00fn) | 0xffff_0ff0n)
    else if (number === 7) {
      // General detect and reserved bits do not stick; breakpoints of ports there are none.
      core.set64(S.dr7, (value & ~DR7_RESERVED) | DR7_FIXED)
    } else return false
    updateBreakpoints(core)
    return true
  }
  debugRegister(number: number): bigint | undefined {
    const { core } = this.#vcpu
    if (number < 4) return core.get64(S.dr0 + 8 * number)
    return number === 6 ? core.get64(S.dr6) : number === 7 ? core.get64(S.dr7) : undefined
  }
  setIoPrivilege(level: number): void {
    this.#vcpu.state.ioPrivilege = level
  }
  setIoBitmap(address: bigint, ports: number): void {
    this.#vcpu.state.ioBitmap = address
    this.#vcpu.state.ioPorts = ports
  }

  setInfo(at: Hpa): void {
    this.#vcpu.state.info = at
  }
  sleep(untilWoken: boolean): void {
    this.#vcpu.sleep(untilWoken)
  }
  yield(): void {
    this.#vcpu.kick()
  }
  repeat(): void {
    this.#vcpu.repeat()
  }
  crash(reason: string): void {
    this.#vcpu.crash(reason)
  }
  sendNmi(): void {
    this.#vcpu.state.nmiPending = true
    this.#vcpu.kick()
  }

  initialise(context: PvContext): void {
    const { core, state } = this.#vcpu
    context.registers.forEach((value, n) => core.set64(gpr(n), value))
    core.set64(S.rip, context.rip)
    writeFlags(core, (Number(BigInt.asUintN(32, context.rflags)) & ~(FLAG.VM | FLAG.IOPL)) | FLAG.IF)
    // The virtual IOPL comes in the flags: Linux gives its kernel 1.
    state.ioPrivilege = Number((context.rflags >> 12n) & 3n)
    state.inKernel = context.inKernel
    this.setKernelStack(context.kernelStack.ss, context.kernelStack.sp)
    core.set64(FS_BASE, context.fsBase)
    core.set64(GS_BASE, context.inKernel ? context.gsKernelBase : context.gsUserBase)
    core.set64(S.kernelGsBase, context.inKernel ? context.gsUserBase : context.gsKernelBase)
    this.#vcpu.frames.loadRoots()
    this.#vcpu.startAt(context.cs, context.ss)
  }
  get isUp(): boolean {
    return this.#vcpu.isUp
  }
  setUp(up: boolean): void {
    this.#vcpu.setUp(up)
  }

  copyIn(address: bigint, into: Uint8Array): boolean {
    const { core } = this.#vcpu
    return this.#pieces(address, into.length, (at, done, length) =>
      readRange(core, lowOf(at), highOf(at), into, length, ACCESS.user, done),
    )
  }
  copyOut(address: bigint, from: Uint8Array): boolean {
    const { core } = this.#vcpu
    return this.#pieces(address, from.length, (at, done, length) =>
      writeRange(core, lowOf(at), highOf(at), from, done, done + length, ACCESS.user),
    )
  }
  #pieces(address: bigint, total: number, copy: (at: bigint, done: number, length: number) => void): boolean {
    if (isForbidden(address, total)) return false
    try {
      for (let done = 0; done < total; done += PAGE) copy(address + BigInt(done), done, Math.min(PAGE, total - done))
      return true
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      return false
    }
  }
}
