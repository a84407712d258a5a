/** One vCPU's local APIC: requests, priorities, registers. It sends messages over the `ApicBus`. Independent of the I/O APIC. @hot */

import type { Clock, EoiAssist, Saveable, Snapshot } from '@nonroot/contracts'
import { assignState, restoreState, saveState } from '../state.ts'
import {
  APIC_DEFAULT_BASE,
  APIC_VERSION,
  ApicBase,
  ApicError,
  ApicRegister,
  DeliveryMode,
  Icr,
  Lvt,
  LVT_FIRST,
  LVT_WRITABLE,
  LvtField,
  Svr,
} from './registers.ts'
import { ApicTimer } from './timer.ts'

/** What a local APIC needs of the others. */
export interface ApicBus {
  /** An interprocessor interrupt, by the sender's command register. */
  send(sender: LocalApic, command: number, destination: number): void
  /** EOI of a level-triggered interrupt, forwarded to the I/O APICs. */
  endOfInterrupt(vector: number): void
  /** Something became deliverable to this vCPU. */
  wake(vcpu: number): void
  /** An LVT entry whose delivery mode is no vector. */
  signal(vcpu: number, deliveryMode: number): void
  assist: EoiAssist | undefined
}

const LOWEST_VECTOR = 16
const LVT_LAST = ApicRegister.lvtError

const powerOn = (bootstrap: boolean) => ({
  taskPriority: 0,
  logicalDestination: 0,
  destinationFormat: 0xffff_ffff,
  spuriousVector: 0xff,
  errorStatus: 0,
  /** Errors since the last write of the error status register. */
  newErrors: 0,
  commandLow: 0,
  commandHigh: 0,
  // LINT0 of the bootstrap processor passes the 8259's output on, as firmware leaves it: a kernel may be booted without any. (MultiProcessor
  // Specification, "Virtual Wire Mode")
  lvt: Uint32Array.of(
    LvtField.masked,
    LvtField.masked,
    LvtField.masked,
    bootstrap ? DeliveryMode.extInt << 8 : LvtField.masked,
    LvtField.masked,
    LvtField.masked,
  ),
  requests: new Uint32Array(8),
  inService: new Uint32Array(8),
  levelTriggered: new Uint32Array(8),
  /** The guest may end the interrupt in service by itself (`EoiAssist`). */
  offered: false,
  /** A vector of the hypervisor's that came before the guest enabled its APIC; 0 none. */
  kept: 0,
  /** The last vector of the hypervisor's. */
  raised: 0,
})

/** Highest vector set, or -1. */
function highest(vectors: Uint32Array): number {
  for (let word = 7; word >= 0; word--) {
    const bits = vectors[word]!
    if (bits) return word * 32 + 31 - Math.clz32(bits)
  }
  return -1
}

const TYPE = 'local-apic'

export class LocalApic implements Saveable {
  readonly index: number
  readonly #state
  readonly #bus: ApicBus
  readonly timer: ApicTimer
  readonly #bootstrap: boolean
  #highestRequest = -1
  #highestInService = -1
  #base: number
  /** IA32_APIC_BASE says so. */
  enabled = true
  x2apic = false

  constructor(index: number, clock: Clock, bus: ApicBus) {
    this.index = index
    this.#bootstrap = index === 0
    this.#state = powerOn(this.#bootstrap)
    this.#bus = bus
    this.timer = new ApicTimer(clock, () => this.#deliverLocal(Lvt.timer))
    this.#base = this.#powerOnBase()
  }

  #powerOnBase(): number {
    return APIC_DEFAULT_BASE + ApicBase.enabled + (this.#bootstrap ? ApicBase.bsp : 0)
  }

  // Requests

  /** A request is above the processor priority: it can be delivered now. */
  pending(): boolean {
    return this.#highestRequest >= 0 && this.#highestRequest >> 4 > this.processorPriority() >> 4
  }

  /** Whether the 8259's output gets through to this processor. */
  acceptsExtInt(): boolean {
    return (
      !this.enabled ||
      (this.#state.lvt[Lvt.lint0]! & (LvtField.masked | LvtField.deliveryMode)) === DeliveryMode.extInt << 8
    )
  }

  /** Deliver the highest request: its vector, in service from now on, or -1. */
  acknowledge(): number {
    if (!this.pending()) return -1
    const state = this.#state
    const vector = this.#highestRequest
    const bit = 1 << (vector & 31)
    state.requests[vector >> 5]! &= ~bit
    state.inService[vector >> 5]! |= bit
    this.#highestInService = vector
    this.#highestRequest = highest(state.requests)
    const { assist } = this.#bus
    if (assist && this.#highestRequest < 0 && !(state.levelTriggered[vector >> 5]! & bit))
      state.offered = assist.offer(this.index)
    return vector
  }

  /** A vector that is kept while the APIC is disabled. */
  acceptOrKeep(vector: number): void {
    this.#state.raised = vector
    if (this.enabled && this.#state.spuriousVector & Svr.enabled) this.accept(vector, false)
    else this.#state.kept = vector
  }

  /** A vectored message for this processor. */
  accept(vector: number, level: boolean): void {
    const state = this.#state
    if (!this.enabled || !(state.spuriousVector & Svr.enabled)) return
    if (vector < LOWEST_VECTOR) return this.#error(ApicError.receiveIllegalVector)
    this.#settleOffer(true)
    const bit = 1 << (vector & 31)
    if (level) state.levelTriggered[vector >> 5]! |= bit
    else state.levelTriggered[vector >> 5]! &= ~bit
    state.requests[vector >> 5]! |= bit
    if (vector > this.#highestRequest) this.#highestRequest = vector
    if (this.pending()) this.#bus.wake(this.index)
  }

  processorPriority(): number {
    const { taskPriority } = this.#state
    const inService = this.#highestInService < 0 ? 0 : this.#highestInService & 0xf0
    return (taskPriority & 0xf0) >= inService ? taskPriority : inService
  }

  get taskPriority(): number {
    return this.#state.taskPriority
  }

  set taskPriority(value: number) {
    const before = this.#state.taskPriority
    this.#state.taskPriority = value
    if (value < before && this.pending()) this.#bus.wake(this.index)
  }

  #endOfInterrupt(): void {
    this.#settleOffer(true)
    this.#end()
    if (this.pending()) this.#bus.wake(this.index)
  }

  #end(): void {
    const vector = this.#highestInService
    if (vector < 0) return
    const state = this.#state
    const bit = 1 << (vector & 31)
    state.inService[vector >> 5]! &= ~bit
    this.#highestInService = highest(state.inService)
    if (state.levelTriggered[vector >> 5]! & bit && !(state.spuriousVector & Svr.suppressEoiBroadcast)) {
      this.#bus.endOfInterrupt(vector)
    }
  }

  /** Whether the guest ended the interrupt by itself. An offer that it did not take stands, unless withdrawn. */
  #settleOffer(withdraw: boolean): void {
    const { assist } = this.#bus
    if (!this.#state.offered || !assist) return
    if (assist.taken(this.index)) {
      this.#state.offered = false
      this.#end()
    } else if (withdraw) {
      this.#state.offered = false
      assist.withdraw(this.index)
    }
  }

  #error(bits: number): void {
    this.#state.newErrors |= bits
    // An illegal vector in the error entry itself must not report itself for ever.
    if ((this.#state.lvt[Lvt.error]! & LvtField.vector) >= LOWEST_VECTOR) this.#deliverLocal(Lvt.error)
  }

  sendError(): void {
    this.#error(ApicError.sendIllegalVector)
  }

  #deliverLocal(entry: number): void {
    const lvt = this.#state.lvt[entry]!
    if (lvt & LvtField.masked) return
    const mode = entry === Lvt.timer || entry === Lvt.error ? DeliveryMode.fixed : (lvt & LvtField.deliveryMode) >> 8
    if (mode === DeliveryMode.fixed) this.accept(lvt & LvtField.vector, false)
    else this.#bus.signal(this.index, mode)
  }

  // Destinations

  /** Whether a message reaches this processor. `destination` is `BROADCAST` or an ID or mask as its sender wrote it. */
  matches(destination: number, logical: boolean): boolean {
    if (!this.enabled) return false
    if (!logical) return destination === this.index
    if (this.x2apic) {
      const own = x2apicLogical(this.index)
      return destination >>> 16 === own >>> 16 && (destination & own & 0xffff) !== 0
    }
    const own = this.#state.logicalDestination >>> 24
    if (this.#state.destinationFormat >>> 28 === 0xf) return (destination & own) !== 0
    return (destination >> 4 === own >> 4 || destination >> 4 === 0xf) && (destination & own & 0xf) !== 0
  }

  // Registers

  /** 32 bits of the register that starts at `offset` (a multiple of 16). */
  readRegister(offset: number): number {
    const state = this.#state
    if (offset >= LVT_FIRST && offset <= LVT_LAST) return state.lvt[(offset - LVT_FIRST) >> 4]!
    if (offset >= ApicRegister.inService && offset < ApicRegister.errorStatus) {
      this.#settleOffer(false)
      const word = (offset >> 4) & 7
      if (offset < ApicRegister.triggerMode) return state.inService[word]!
      return (offset < ApicRegister.interruptRequest ? state.levelTriggered : state.requests)[word]!
    }
    switch (offset) {
      case ApicRegister.id:
        return this.x2apic ? this.index : (this.index << 24) >>> 0
      case ApicRegister.version:
        return APIC_VERSION
      case ApicRegister.taskPriority:
        return state.taskPriority
      case ApicRegister.arbitrationPriority:
      case ApicRegister.processorPriority:
        this.#settleOffer(false)
        return this.processorPriority()
      case ApicRegister.logicalDestination:
        return this.x2apic ? x2apicLogical(this.index) : state.logicalDestination
      case ApicRegister.destinationFormat:
        return state.destinationFormat
      case ApicRegister.spuriousVector:
        return state.spuriousVector
      case ApicRegister.errorStatus:
        return state.errorStatus
      case ApicRegister.interruptCommandLow:
        return state.commandLow
      case ApicRegister.interruptCommandHigh:
        return state.commandHigh
      case ApicRegister.initialCount:
        return this.timer.state.initialCount
      case ApicRegister.currentCount:
        return this.timer.currentCount()
      case ApicRegister.divideConfiguration:
        return this.timer.state.divide
      case ApicRegister.endOfInterrupt:
      case ApicRegister.remoteRead:
        return 0
      default:
        this.#error(ApicError.illegalRegister)
        return 0
    }
  }

  writeRegister(offset: number, value: number): void {
    const state = this.#state
    if (offset >= LVT_FIRST && offset <= LVT_LAST) return this.#writeLvt((offset - LVT_FIRST) >> 4, value)
    switch (offset) {
      case ApicRegister.endOfInterrupt:
        return this.#endOfInterrupt()
      case ApicRegister.taskPriority:
        this.taskPriority = value & 0xff
        return
      case ApicRegister.logicalDestination:
        state.logicalDestination = (value & 0xff00_0000) >>> 0
        return
      case ApicRegister.destinationFormat:
        state.destinationFormat = (value | 0x0fff_ffff) >>> 0
        return
      case ApicRegister.spuriousVector:
        state.spuriousVector = value & Svr.writable
        if (!(value & Svr.enabled))
          for (let entry = 0; entry < state.lvt.length; entry++) state.lvt[entry]! |= LvtField.masked
        else if (state.kept) {
          this.accept(state.kept, false)
          state.kept = 0
        }
        return
      case ApicRegister.errorStatus:
        state.errorStatus = state.newErrors
        state.newErrors = 0
        return
      case ApicRegister.interruptCommandLow:
        state.commandLow = value & Icr.writable
        this.#bus.send(this, state.commandLow, this.x2apic ? state.commandHigh : state.commandHigh >>> 24)
        return
      case ApicRegister.interruptCommandHigh:
        state.commandHigh = this.x2apic ? value : (value & 0xff00_0000) >>> 0
        return
      case ApicRegister.initialCount:
        return this.timer.setInitialCount(value)
      case ApicRegister.divideConfiguration:
        return this.timer.setDivide(value & 0xb)
      case ApicRegister.selfIpi:
        if (this.x2apic) return this.accept(value & 0xff, false)
        break
      case ApicRegister.id:
      case ApicRegister.version:
      case ApicRegister.processorPriority:
      case ApicRegister.arbitrationPriority:
      case ApicRegister.currentCount:
      case ApicRegister.remoteRead:
        return // read-only
    }
    this.#error(ApicError.illegalRegister)
  }

  #writeLvt(entry: number, value: number): void {
    const state = this.#state
    let lvt = value & LVT_WRITABLE[entry as 0]
    if (!(state.spuriousVector & Svr.enabled)) lvt |= LvtField.masked
    state.lvt[entry] = lvt
    if (entry === Lvt.timer) this.timer.setMode(lvt & LvtField.timerMode)
  }

  // IA32_APIC_BASE

  get base(): number {
    return this.#base
  }

  /** False: the change is not allowed. (SDM Vol. 3A, "x2APIC State Transitions") */
  setBase(value: number): boolean {
    const enabled = (value & ApicBase.enabled) !== 0
    const x2apic = (value & ApicBase.x2apic) !== 0
    if (value & 0xfff & ~ApicBase.flags) return false
    if (x2apic && !enabled) return false
    if (this.x2apic && enabled && !x2apic) return false
    if (x2apic && !this.enabled) return false
    if (!enabled && this.enabled) this.#initialise()
    if (x2apic && !this.x2apic) this.#state.commandHigh = 0
    this.#base = value
    this.enabled = enabled
    this.x2apic = x2apic
    return true
  }

  // Reset

  #initialise(): void {
    this.timer.reset()
    if (this.#state.offered) this.#bus.assist?.withdraw(this.index)
    assignState(this.#state, powerOn(this.#bootstrap))
    this.#highestRequest = this.#highestInService = -1
  }

  /** INIT keeps the mode and the base, and what the hypervisor raised and the guest has not taken. */
  reset(kind: 'powerUp' | 'init'): void {
    const { raised, kept, requests } = this.#state
    const waits = kept !== 0 || ((requests[raised >> 5]! >>> (raised & 31)) & 1) === 1
    this.#initialise()
    if (kind === 'init') {
      this.#state.kept = this.#state.raised = waits ? raised : 0
      return
    }
    this.#base = this.#powerOnBase()
    this.enabled = true
    this.x2apic = false
  }

  save(): Snapshot {
    this.#settleOffer(true)
    const saved = saveState(TYPE, 1, this.#state)
    const timer = saveState(TYPE, 1, this.timer.state).data
    return { ...saved, data: { ...saved.data, timer, base: this.#base, deadlineNs: this.timer.deadlineNs } }
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    restoreState({ ...snapshot, data: snapshot.data['timer'] as Snapshot['data'] }, TYPE, 1, this.timer.state)
    this.#base = snapshot.data['base'] as number
    this.enabled = (this.#base & ApicBase.enabled) !== 0
    this.x2apic = (this.#base & ApicBase.x2apic) !== 0
    this.#highestRequest = highest(this.#state.requests)
    this.#highestInService = highest(this.#state.inService)
    this.timer.resume(snapshot.data['deadlineNs'] as number)
  }
}

/** Cluster in the high half, one bit in the low half. (SDM Vol. 3A, "Logical Destination Mode in x2APIC Mode") */
const x2apicLogical = (index: number): number => (((index >> 4) << 16) | (1 << (index & 15))) >>> 0
