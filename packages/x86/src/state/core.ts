/**
 * One processor core for the cold parts: typed access to the vCPU block and to guest memory, and raising faults. All architectural behaviour that
 * wasm code does not implement itself uses this class. Not the run loop (processor.ts).
 */
import type { HostMemory } from '@nonroot/contracts'
import { EXIT, CONTEXTS, gpr, S, SEG, segment } from './layout.ts'
import { RECORD } from './record.ts'
import { PagingState, type SecondStage } from './paging-state.ts'
import { LEFT, type DeliveredEvent, type Hooks, type Outcome } from './hooks.ts'

export { JUMPED, LEFT, NEXT, type Outcome } from './hooks.ts'

/** A routine of the processor written in TypeScript. Its arguments are in the `args` slots. */
export type SystemRoutine = (core: Core) => Outcome

/** A guest exception that unwinds nested calls. Thrown only inside this package, and caught where wasm calls TypeScript. */
export class GuestFault {
  readonly vector: number
  readonly errorCode: number
  /** The fault belongs to the instruction at the `rip` slot, which a task switch has already changed, not to the running one. */
  atNewTask = false
  constructor(vector: number, errorCode = 0) {
    this.vector = vector
    this.errorCode = errorCode
  }
}

/** Thrown when a nested access exited to the hypervisor: the exit slot is set, and no exception must be raised. */
export class Left {}

/**
 * The processor's environment: pins and buses of the chip. In VMX non-root operation these calls reach the hypervisor. Implemented by the CPU mode,
 * or by a test.
 */
export interface ProcessorHost {
  readonly memory: HostMemory
  /** HPA of a physical address without a second stage, or -1 if there is no memory (it is then MMIO). */
  hostAddress(physical: number): number
  readPort(port: number, size: number): number
  writePort(port: number, size: number, value: number): void
  /**
   * An access to physical addresses that are not memory, of 1, 2 or 4 bytes. At `HOST_BUS_BASE` and above: the host-physical address, less that, to which
   * a leaf of the hypervisor's tables leads.
   */
  readDevice(physical: number, size: number): number
  writeDevice(physical: number, size: number, value: number): void
  /** Time stamp counter in guest ticks, now. */
  readTsc(): bigint
  /** Its frequency in Hz, for CPUID. Absent: not reported. */
  readonly tscFrequency?: number
  /** MSRs that the processor does not implement itself (x2APIC, paravirtual): undefined = unknown (#GP). */
  readMsr(index: number): bigint | undefined
  writeMsr(index: number, value: bigint): boolean
  /** Modifies `result` (eax, ebx, ecx, edx) of the processor's own model. */
  cpuid?(leaf: number, subleaf: number, result: Uint32Array): void
  /**
   * FERR#: an instruction waits for a pending x87 exception with CR0.NE clear; PCs wire it to IRQ 13. `isNew`: it is the first that waits for this
   * exception. True: IGNNE# is asserted.
   */
  assertFerr?(isNew: boolean): boolean
  /** Random bits for RDRAND and RDSEED. */
  random64(): bigint
  /** CR8 is in the interrupt controller. */
  readTaskPriority(): number
  /** True: the run loop must check for events after this instruction, whether or not interrupts are enabled. */
  writeTaskPriority(value: number): boolean | void
}

/** What memory accesses need to know of decoded and compiled code. Implemented by the block cache. */
export interface CodeTracker {
  /** Whether code was decoded from the page at this (page-aligned) HPA. The cache calls `dropWriteTags` when this becomes true. */
  hasCode(page: number): boolean
  /** Whether code may have been decoded from these bytes, which are on one page. */
  isCode(hpa: number, length: number): boolean
  /** Bytes of a page with code were written: invalidates code decoded from them. */
  invalidate(hpa: number, length: number): void
}
const NO_CODE: CodeTracker = { hasCode: () => false, isCode: () => false, invalidate: () => {} }

export class Core {
  readonly host: ProcessorHost
  readonly paging: PagingState
  /** Set by the block cache. */
  code: CodeTracker = NO_CODE
  /** The current access is made by compiled code: see `CodeTracker` and paging/access/slow-path.ts. */
  compiled = false
  /** Called if deprivileged code runs. */
  hooks: Hooks | undefined
  /** EPT. Change it with `setSecondStage`. */
  secondStage: SecondStage | undefined
  /** The event being delivered, for double faults and IDT-vectoring information. */
  delivering: DeliveredEvent | undefined
  /** The running IRET has ended the blocking of NMIs: an exit caused by its fault reports it. */
  unblocksNmi = false
  /** Breakpoints are armed (DR7): the run loop runs one instruction at a time, as it does while TF is set. */
  debugging = false
  /** MONITOR has armed the monitor, and MWAIT has not used it yet. */
  monitors = false
  /** The shadow (state/shadow.ts) of the running instruction, if the run loop single-steps it. */
  covered = 0
  /** The running instruction began under TF, and ends in a trap. */
  stepping = false
  /** DR6 bits of debug exceptions that were matched but not delivered yet. */
  pendingDebug = 0
  /** MSRs that are stored without effect on the processor (MTRRs and others), by index. */
  readonly msrs = new Map<number, bigint>()
  /** Instructions retired, exact even in the middle of a system routine. */
  retired: () => number = () => 0
  readonly memory: HostMemory
  /** Byte address of the vCPU block in host memory. */
  readonly base: number
  readonly u8: Uint8Array
  readonly i32: Int32Array
  readonly view: DataView

  constructor(host: ProcessorHost, base: number) {
    this.host = host
    this.memory = host.memory
    this.base = base
    this.u8 = host.memory.bytes
    this.i32 = new Int32Array(host.memory.memory.buffer)
    this.view = host.memory.view
    this.paging = new PagingState(host.memory.memory.buffer, base)
    this.set32(S.banks, base + CONTEXTS)
  }

  // --- slots ---
  get32(offset: number): number {
    return this.i32[(this.base + offset) >>> 2]!
  }
  set32(offset: number, value: number): void {
    this.i32[(this.base + offset) >>> 2] = value
  }
  get64(offset: number): bigint {
    return this.view.getBigUint64(this.base + offset, true)
  }
  set64(offset: number, value: bigint): void {
    this.view.setBigUint64(this.base + offset, BigInt.asUintN(64, value), true)
  }
  register(n: number): bigint {
    return this.get64(gpr(n))
  }
  setRegister(n: number, value: bigint): void {
    this.set64(gpr(n), value)
  }
  /** Argument `n` of the running system routine. */
  arg(n: number): bigint {
    return this.get64(S.args + 8 * n)
  }
  /** Low 32 bits of argument `n`, signed. */
  arg32(n: number): number {
    return this.get32(S.args + 8 * n)
  }

  // --- segments ---
  segmentBase(n: number): bigint {
    return this.get64(segment(n) + SEG.base)
  }
  segmentSelector(n: number): number {
    return this.get32(segment(n) + SEG.selector) & 0xffff
  }
  segmentLimit(n: number): number {
    return this.get32(segment(n) + SEG.limit) >>> 0
  }
  segmentAttributes(n: number): number {
    return this.get32(segment(n) + SEG.attributes)
  }

  // --- the running instruction ---
  /** RIP of the instruction whose record is in the `record` slot. */
  recordRip(): bigint {
    const record = this.get32(S.record) >>> 0
    return this.#cut(this.get64(S.ripPage) + BigInt(this.view.getUint16(record + RECORD.ip, true)))
  }
  /** @hot RIP of the running instruction into the `rip` slot, which may be stale. */
  settleRip(): void {
    const code = this.get32(S.mode) & 3
    const ip = this.view.getUint16((this.get32(S.record) >>> 0) + RECORD.ip, true)
    const low = this.get32(S.ripPage) + ip
    // A page of 64-bit code begins at a multiple of its size, so there is no carry.
    this.set32(S.rip, low)
    this.set32(S.rip + 4, code === 2 ? this.get32(S.ripPage + 4) : 0)
  }
  recordLength(): number {
    return this.u8[(this.get32(S.record) >>> 0) + RECORD.length]!
  }
  nextRip(): bigint {
    return this.#cut(this.recordRip() + BigInt(this.recordLength()))
  }
  /** RIP as its slot has it, so many bytes on. */
  ripBehind(length: number): bigint {
    return this.#cut(this.get64(S.rip) + BigInt(length))
  }
  /** EIP outside 64-bit code, whatever the code size: only branches with 16-bit operands truncate it to IP. */
  #cut(rip: bigint): bigint {
    return BigInt.asUintN((this.get32(S.mode) & 3) === 2 ? 64 : 32, rip)
  }
  /** Leaves with an exception at the running instruction. */
  raise(vector: number, errorCode = 0): Outcome {
    this.set32(S.vector, vector)
    this.set32(S.errorCode, errorCode)
    this.set32(S.exit, EXIT.exception)
    return LEFT
  }
}
