/**
 * SYSCALL and SYSRET between user code and translated kernel code, without the virtual CPU in between. What is not simple is left to it: traps to take,
 * interrupts that wait, code that is not translated. (SDM Vol. 2B, "SYSCALL", "SYSRET") @hot
 */

import {
  CR4,
  dpl,
  FLAG,
  FLAT,
  gpr,
  isCanonical48,
  NO_RPL,
  RCX,
  readFlags,
  S,
  SEGMENT,
  setSegment,
  SHADOW,
  SYSRET_FLAGS,
  writeFlags,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import type { Translations } from '../translation/translations.ts'
import type { Worlds } from '../world/world.ts'
import { SLOW } from './shortcuts.ts'

const R11 = 11
/** Bytes of SYSCALL. */
const LENGTH = 2

export class SystemCalls {
  readonly #core: Core
  readonly #translations: Translations
  readonly #worlds: Worlds

  constructor(core: Core, translations: Translations, worlds: Worlds) {
    this.#core = core
    this.#translations = translations
    this.#worlds = worlds
  }

  /** SYSCALL at RIP in user code. Offset in the cache at which the kernel goes on, or SLOW: nothing has changed. */
  enter(): number {
    const core = this.#core
    const flags = readFlags(core)
    if (flags & FLAG.TF || !this.#isPlain) return SLOW
    const inKernel = flags & ~core.get32(S.fmask) & ~FLAG.RF
    if (inKernel & FLAG.IF && core.get32(S.attention)) return SLOW
    const offset = this.#translations.ready(core.get32(S.lstar), core.get32(S.lstar + 4))
    if (offset < 0) return SLOW
    const next = (core.get32(S.rip) >>> 0) + LENGTH
    core.set32(gpr(RCX), next | 0)
    core.set32(gpr(RCX) + 4, core.get32(S.rip + 4) + (next > 0xffff_ffff ? 1 : 0))
    core.set32(gpr(R11), flags & ~FLAG.RF)
    core.set32(gpr(R11) + 4, 0)
    writeFlags(core, inKernel)
    const cs = core.get32(S.star + 4) & 0xffff & NO_RPL
    setSegment(core, SEGMENT.cs, cs, 0, 0, -1, FLAT.code64)
    setSegment(core, SEGMENT.ss, cs + 8, 0, 0, -1, FLAT.data)
    this.#worlds.userToKernel()
    return offset
  }

  /** SYSRET to 64-bit code, of translated code. False: nothing has changed. */
  leave(): boolean {
    const core = this.#core
    const image = core.get32(gpr(R11))
    const high = core.get32(gpr(RCX) + 4)
    if (image & FLAG.TF || !this.#isPlain || core.get32(S.attention)) return false
    if (!this.#worlds.hasSystemCalls || core.get32(S.cr4) & CR4.la57 || !isCanonical48(high)) return false
    writeFlags(core, image & SYSRET_FLAGS)
    const user = core.get32(S.star + 4) >>> 16
    setSegment(core, SEGMENT.cs, ((user + 16) & NO_RPL) | 3, 0, 0, -1, FLAT.code64 | dpl(3))
    setSegment(core, SEGMENT.ss, ((user + 8) & NO_RPL) | 3, 0, 0, -1, FLAT.data | dpl(3))
    core.set32(S.rip, core.get32(gpr(RCX)))
    core.set32(S.rip + 4, high)
    this.#worlds.kernelToUser()
    return true
  }

  /** No debug exception is due, and nothing is held back. */
  get #isPlain(): boolean {
    const core = this.#core
    return !core.debugging && core.pendingDebug === 0 && core.get32(S.shadow) === SHADOW.none
  }
}
