/**
 * Calls of the monitor by deprivileged code, answered without leaving the processor's run: the traps of translated code, and system calls of user
 * code. Where the answer is not simple the processor stops, and the virtual CPU executes the instruction. @hot
 */

import { EXIT, FLAG, GuestFault, JUMPED, Left, LEFT, MODE, PROCEED, S, SHADOW, systemRoutine } from '@nonroot/x86'
import type { Core, Outcome, SystemRoutine } from '@nonroot/x86'
import { POINT } from '../translation/points.ts'
import type { Guest } from './guest.ts'
import { SLOW } from './shortcuts.ts'

const SYSCALL = systemRoutine('syscall')
const SYSRET = systemRoutine('sysret')
const IRET = systemRoutine('iret')
/** Their operands: a size in bits, a size in bytes. */
const SYSRET_SIZE = 64
const IRET_SIZE = 8

export class Calls {
  /** The processor has to stop, for the virtual CPU to execute the instruction at RIP. */
  isLeft = false
  /** The virtual CPU executes one instruction of kernel code, whatever traps. */
  executes = false
  readonly #guest: Guest
  readonly #core: Core

  constructor(guest: Guest) {
    this.#guest = guest
    this.#core = guest.core
  }

  /** The trap at RIP in translated code. */
  take(): Outcome | typeof PROCEED {
    const core = this.#core
    const { translations, shortcuts, statistics } = this.#guest
    const { points, epoch } = translations
    const at = core.get32(S.rip)
    const point = translations.pointAtRip()
    if (point < 0) return PROCEED
    const kind = points.kind(point)
    const low = points.low(point)
    const high = points.high(point)
    if (kind === POINT.sysret) return this.#systemReturn(point)
    if (kind === POINT.iret) return this.#transfer(IRET, IRET_SIZE, point)
    const isEnd = kind === POINT.exit || kind === POINT.moved
    const offset = isEnd ? translations.link(point) : shortcuts.run(point, kind, at)
    if (offset !== SLOW) {
      translations.enter(offset)
      if (!isEnd) statistics.shortcuts.value++
      return JUMPED
    }
    if (kind === POINT.far && translations.epoch === epoch) return this.#leave(EXIT.abandoned)
    core.set32(S.rip, low)
    core.set32(S.rip + 4, high)
    if (kind === POINT.far) return this.#leave(EXIT.stop)
    if (!isEnd && !translations.mustMove && !this.#guest.asked) return this.#execute(at)
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }

  /** The virtual CPU executes the instruction at RIP, whose trap was at this offset of the cache. What follows it calls `follow`. */
  #execute(at: number): Outcome {
    const guest = this.#guest
    guest.statistics.ran('kernel', guest.processor.retired)
    guest.statistics.emulated.value++
    guest.worlds.leave()
    guest.shortcuts.settleShadow(at)
    this.executes = true
    return JUMPED
  }

  /** The virtual CPU is about to execute kernel code: the instruction that it is to execute, or one that runs translated. */
  follow(): Outcome | typeof PROCEED {
    const core = this.#core
    const guest = this.#guest
    if (this.executes || core.get32(S.cpl) !== 0) {
      this.executes = false
      return PROCEED
    }
    const isPlain = core.get32(S.shadow) === SHADOW.none && !core.pendingDebug && !core.debugging && !(core.get32(S.flags) & FLAG.TF)
    if (isPlain && guest.failure === undefined && !guest.asked && guest.enterKernel()) {
      guest.statistics.start(guest.processor.retired)
      return JUMPED
    }
    core.set32(S.exit, EXIT.abandoned)
    return LEFT
  }

  /** SYSCALL of user code. */
  systemCall(): Outcome | typeof PROCEED {
    const core = this.#core
    const guest = this.#guest
    if (core.get32(S.flags) & FLAG.TF || core.debugging || !guest.worlds.hasSystemCalls) return PROCEED
    guest.statistics.ran('user', guest.processor.retired)
    guest.statistics.shortcuts.value++
    const offset = guest.failure === undefined ? guest.systemCalls.enter() : SLOW
    if (offset !== SLOW) {
      guest.translations.enter(offset)
      return JUMPED
    }
    guest.worlds.leave()
    return this.#goOn(SYSCALL(core))
  }

  #systemReturn(point: number): Outcome {
    const guest = this.#guest
    guest.translations.quick.shadowAt = -1
    if (!guest.systemCalls.leave()) return this.#transfer(SYSRET, SYSRET_SIZE, point)
    guest.statistics.ran('kernel', guest.processor.retired)
    guest.statistics.shortcuts.value++
    return JUMPED
  }

  /** Out of the kernel. */
  #transfer(routine: SystemRoutine, operand: number, point: number): Outcome {
    const core = this.#core
    const guest = this.#guest
    guest.statistics.ran('kernel', guest.processor.retired)
    guest.translations.quick.shadowAt = -1
    guest.translations.leaveAt(point)
    guest.worlds.leave()
    core.set32(S.args, operand)
    try {
      const outcome = routine(core)
      guest.statistics.shortcuts.value++
      return this.#goOn(outcome)
    } catch (fault) {
      if (!(fault instanceof GuestFault) && !(fault instanceof Left)) throw fault
      return this.#leave(EXIT.stop)
    }
  }

  /** The virtual CPU has changed its privilege level: on in the world that this is for, if it is that simple. */
  #goOn(outcome: Outcome): Outcome {
    const core = this.#core
    const guest = this.#guest
    if (outcome !== JUMPED) {
      guest.yield()
      return outcome
    }
    const mode = core.get32(S.mode)
    if (core.get32(S.cpl) === 3 && mode & MODE.protectedMode) {
      guest.worlds.enterUser()
      return JUMPED
    }
    const is64 = (mode & MODE.codeSize) === 2
    const isPlain = is64 && core.get32(S.cpl) === 0 && core.get32(S.shadow) === SHADOW.none && !core.pendingDebug
    if (isPlain && guest.enterKernel()) return JUMPED
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }

  #leave(exit: number): Outcome {
    this.isLeft = true
    this.#core.set32(S.exit, exit)
    return LEFT
  }
}
