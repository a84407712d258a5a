/**
 * The processor's hooks. While the virtual CPU runs they serve its paging and its roles, as a hypervisor serves a guest; while guest code runs
 * deprivileged, every exception stops the processor and is the monitor's. @hot
 */

import type { Gva, PagingOutcome } from '@nonroot/contracts'
import {
  ACCESS,
  CR0,
  CR4,
  EFER,
  EXIT,
  EXIT_CAUSES,
  LEFT,
  MODE,
  NEXT,
  PROCEED,
  S,
  STALLED,
  switchTask,
  VECTOR,
  WALK_FAULT,
} from '@nonroot/x86'
import type {
  EventKind,
  HookRow,
  Hooks,
  Outcome,
  SecondStageAnswer,
  SwitchOptions,
  TaskSwitchSource,
  WalkFaultAnswer,
} from '@nonroot/x86'
import { hypercall } from '@nonroot/vcpu'
import { Calls } from './calls.ts'
import type { Guest } from './guest.ts'

const UNDEFINED_OPCODE = 6
/** Bits that affect translation: the paging strategy is notified of changes. */
const CR0_PAGING = CR0.pg | CR0.wp | CR0.pe
const CR4_PAGING = CR4.pse | CR4.pae | CR4.pge | CR4.la57 | CR4.pcide | CR4.smep | CR4.smap
const EFER_PAGING = EFER.lme | EFER.lma | EFER.nxe
/** Exceptions that have nothing to do with privilege, but for #PF, for which deprivileged code has the guest's rights: they are the guest's own. */
const OWN = new Set<number>([VECTOR.DE, VECTOR.NM, VECTOR.PF, VECTOR.MF, VECTOR.AC, VECTOR.XM])
/** Instructions of VMX, and the call of a hypervisor. */
const HYPERCALL = 'vmcall'
const VMX = new Set([
  'vmclear',
  'vmlaunch',
  'vmptrld',
  'vmptrst',
  'vmread',
  'vmresume',
  'vmwrite',
  'vmxoff',
  'vmxon',
  'invept',
  'invvpid',
  'vmfunc',
  'getsec',
  'rsm',
])

export class MonitorHooks implements Hooks {
  /** The exception with which deprivileged code stopped. -1: none. */
  vector = -1
  /** Debug conditions of that exception, which the processor drops. */
  #debug = 0
  readonly #guest: Guest
  readonly #calls: Calls
  readonly #wide = new BigUint64Array(1)
  readonly #words = new Uint32Array(this.#wide.buffer)
  #cr0 = 0
  #cr4 = 0
  #efer = 0

  constructor(guest: Guest) {
    this.#guest = guest
    this.#calls = new Calls(guest)
  }

  /** -1: it stopped for another reason. Matched breakpoints are pending again. */
  takeException(): number {
    if (this.#calls.isLeft) {
      this.#calls.isLeft = false
      return VECTOR.GP
    }
    const { vector } = this
    this.vector = -1
    if (vector === VECTOR.DB) this.#guest.core.pendingDebug = this.#debug
    return vector
  }

  exception(vector: number, _code: number, kind?: EventKind): boolean {
    const guest = this.#guest
    const { core } = guest
    if (vector === STALLED) {
      core.set32(S.exit, EXIT.abandoned)
      this.#interruptDelivery()
      return true
    }
    if (guest.worlds.current === 'virtual') {
      // The handler may be code of another kind.
      if (guest.interpreting) guest.yield()
      return false
    }
    if (OWN.has(vector) && this.#deliverOwn(vector)) return false
    this.vector = vector
    this.#debug = core.pendingDebug
    // INT1, INT3 and INTO ask in the middle of the instruction, which is then abandoned.
    if (kind !== undefined) core.set32(S.exit, EXIT.abandoned)
    return true
  }

  /** Deprivileged code raised what its guest is to see: the virtual CPU delivers it, with RIP as the guest has it. */
  #deliverOwn(vector: number): boolean {
    const guest = this.#guest
    const { core, worlds, statistics } = guest
    const isUser = worlds.current === 'user'
    if (isUser && core.get32(S.cpl) !== 3) return false
    statistics.ran(worlds.current, guest.processor.retired)
    statistics.trapped(vector)
    if (!isUser) guest.leaveCache()
    worlds.leave()
    // The handler's first instruction traps in 64-bit mode (`policy`).
    if (!(core.get32(S.efer) & EFER.lma)) guest.yield()
    return guest.failure === undefined
  }

  /**
   * Traps of translated code, and SYSCALL of user code, call the monitor, as does every instruction that the virtual CPU executes of a 64-bit kernel. Outside 64-bit
   * code and programs: an instruction after which other code may run than the interpreter is for.
   */
  policy(row: HookRow, mode: number): 'run' | 'trap' {
    if (mode & MODE.secondRoot) return row.mnemonic === 'HLT' ? 'trap' : 'run'
    if ((mode & MODE.codeSize) === 2) return !(mode & MODE.user) || row.mnemonic === 'SYSCALL' ? 'trap' : 'run'
    if (mode & MODE.user) return 'run'
    const { flow } = row.attributes
    return flow === 'far' || flow === 'serialise' ? 'trap' : 'run'
  }
  trapped(): Outcome | typeof PROCEED {
    const { worlds } = this.#guest
    if (worlds.current === 'kernel') return this.#calls.take()
    if (worlds.current === 'user') return this.#calls.systemCall()
    if (!this.#guest.interpreting && (this.#guest.core.get32(S.mode) & MODE.codeSize) === 2) return this.#calls.follow()
    this.#guest.yield()
    return PROCEED
  }
  /** The virtual CPU has not executed yet what it is to execute. */
  get executes(): boolean {
    return this.#calls.executes
  }
  /** The virtual CPU executes the instruction at RIP, and the processor is stepped. */
  execute(): void {
    this.#calls.executes = true
  }

  isUndefined(control: string): boolean {
    return control === 'enableUserWaitAndPause'
  }

  intercept(exit: number): Outcome | typeof PROCEED {
    const guest = this.#guest
    const { core } = guest
    const { reason } = EXIT_CAUSES[exit]!
    // Deprivileged code gets as far as here with what its privilege level allows.
    if (guest.worlds.current !== 'virtual') return PROCEED
    if (reason === HYPERCALL) return this.#hypercall()
    if (VMX.has(reason)) return core.raise(UNDEFINED_OPCODE)
    if (reason === 'invlpg') return this.#invalidate(core.arg(0))
    if (reason === 'invpcid') return this.#invalidate(undefined)
    return PROCEED
  }

  #hypercall(): Outcome {
    const guest = this.#guest
    switch (hypercall(guest.ports, guest.abiVcpu)) {
      case 'done':
        return NEXT
      case 'again':
        guest.core.set32(S.exit, EXIT.abandoned)
        return LEFT
      case 'yield':
        guest.kick()
        return NEXT
      case 'halt':
        return guest.halt()
      case 'unknown':
        return guest.core.raise(UNDEFINED_OPCODE)
      case 'exit':
        return guest.leaveForHypercall()
    }
  }

  #invalidate(address: bigint | undefined): Outcome | typeof PROCEED {
    const guest = this.#guest
    const outcome = guest.ports.paging.onInvalidate(guest.pagingPort, address as Gva | undefined)
    guest.codeInvalidated(address)
    return outcome.next === 'failure' ? guest.fail(outcome.message) : PROCEED
  }

  walkFault(low: number, high: number, access: number): WalkFaultAnswer {
    const guest = this.#guest
    const { core, pagingPort } = guest
    const { translations } = guest
    if (translations.contains(low, high)) {
      if (guest.worlds.current === 'kernel') {
        if (access & ACCESS.fetch) {
          core.paging.frame = translations.frameAt(low)
          return WALK_FAULT.code
        }
        // The guest may have memory of its own here. Its access is made once the cache is elsewhere.
        translations.mustMove = true
        return this.#leave()
      }
      translations.mustMove = true
    }
    this.#words[0] = low
    this.#words[1] = high
    pagingPort.guest.userPagesAllowed = (access & ACCESS.smap) === 0
    const outcome = guest.ports.paging.onPageFault(pagingPort, this.#wide[0]! as Gva, core.paging.errorCode)
    guest.noticeKick()
    return this.#settle(outcome)
  }

  /** Applies the paging strategy's decision to the access that faulted. */
  #settle(outcome: PagingOutcome): WalkFaultAnswer {
    const guest = this.#guest
    const { paging } = guest.core
    switch (outcome.next) {
      case 'resume':
        return WALK_FAULT.retry
      case 'mmio':
        paging.frame = Math.floor(outcome.address / 4096)
        return WALK_FAULT.device
      case 'inject':
        paging.errorCode = outcome.code
        return WALK_FAULT.guest
      case 'emulate': {
        // The access bypasses the hardware's tables; the strategy is notified of writes (host/bus.ts).
        const physical = guest.translate(this.#wide[0]!)
        if (physical === undefined) {
          guest.fail('an access to be emulated has no translation')
          return this.#leave()
        }
        paging.frame = Math.floor(physical / 4096)
        return WALK_FAULT.device
      }
      case 'wait':
        guest.asked = guest.exits.memory(outcome.address)
        return this.#leave()
      case 'failure':
        guest.fail(outcome.message)
        return this.#leave()
    }
  }

  /** Out of the instruction, without any effect of it. */
  #leave(): WalkFaultAnswer {
    this.#guest.core.set32(S.exit, EXIT.abandoned)
    this.#interruptDelivery()
    return WALK_FAULT.left
  }
  /** An event that was being delivered is delivered again. */
  #interruptDelivery(): void {
    const { core, events } = this.#guest
    if (core.delivering && this.#guest.worlds.current === 'virtual') events.interrupted = { ...core.delivering }
    if (core.unblocksNmi) core.set32(S.nmiBlocked, 1)
  }

  readTable(physical: number, into: Int32Array): void {
    const { guestMemory } = this.#guest.ports
    for (let i = 0; i < into.length; i++) into[i] = guestMemory.readU32(physical + i * 4) ?? -1
  }

  /** Also of writes that changed nothing: all of them may flush. */
  pagingChanged(): void {
    const guest = this.#guest
    const { core, pagingPort, ports } = guest
    if (pagingPort.changing) return
    const cr0 = core.get32(S.cr0) & CR0_PAGING
    const cr4 = core.get32(S.cr4) & CR4_PAGING
    const efer = core.get32(S.efer) & EFER_PAGING
    const modeChanged = cr0 !== this.#cr0 || cr4 !== this.#cr4 || efer !== this.#efer
    this.#cr0 = cr0
    this.#cr4 = cr4
    this.#efer = efer
    pagingPort.changing = true
    if (modeChanged) guest.accept(ports.paging.onModeChange(pagingPort))
    else if (pagingPort.intercepts.rootWrite)
      guest.accept(ports.paging.onRootWrite(pagingPort, core.get64(S.cr3), false))
    pagingPort.changing = false
    guest.rootChanged(modeChanged)
  }

  taskSwitch(selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome {
    return switchTask(this.#guest.core, selector, source, { ...options, emulated: true }) ? LEFT : NEXT
  }

  tripleFault(): void {
    this.#guest.core.set32(S.exit, EXIT.stop)
    this.#guest.shutdown()
  }

  // There is no second stage.
  secondStageViolation(): SecondStageAnswer {
    return WALK_FAULT.left
  }
  secondStageMisconfiguration(): SecondStageAnswer {
    return WALK_FAULT.left
  }
}
