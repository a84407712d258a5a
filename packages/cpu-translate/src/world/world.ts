/**
 * What the processor runs. `virtual`: the virtual CPU itself, as the guest has it; the monitor's interpreter runs one instruction, or code that is not
 * translated. `user`: the guest's user code, directly. `kernel`: kernel code at CPL 1. In the last two, whatever enters the kernel or asks for its
 * privilege raises an exception, which is the monitor's. @hot
 */

import { CR4, EFER, FLAG, S, SEG, segment, SEGMENT, switchRoot, updateMode } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import type { QuickTraps } from '../monitor/quick-traps.ts'

export type World = 'virtual' | 'user' | 'kernel'

const IDT_LIMIT = segment(SEGMENT.idtr) + SEG.limit
const CS = segment(SEGMENT.cs)
const SS = segment(SEGMENT.ss)
/** Descriptor privilege level in segment attributes. */
const DPL = 5
/** Of the guest's kernel: its pages remain supervisor pages, and it may execute no privileged instruction. */
const KERNEL_CPL = 1

export class Worlds {
  current: World = 'virtual'
  readonly #core: Core
  readonly #quick: QuickTraps
  #efer = 0
  #cr4 = 0
  #idtLimit = 0
  #sysenterLow = 0

  constructor(core: Core, quick: QuickTraps) {
    this.#core = core
    this.#quick = quick
  }

  /** Of the virtual CPU, while deprivileged code runs: EFER.SCE. */
  get hasSystemCalls(): boolean {
    return (this.#efer & EFER.sce) !== 0
  }

  enterUser(): void {
    this.#deprivilege()
    this.current = 'user'
  }

  /** The virtual CPU is at CPL 0. */
  enterKernel(): void {
    this.#deprivilege()
    this.userToKernel()
  }

  /** User code has entered the kernel, and the virtual CPU would be at CPL 0: the same without its privilege in between. */
  userToKernel(): void {
    const core = this.#core
    const flags = core.get32(S.flags)
    this.#quick.ioPrivilege = flags & FLAG.IOPL
    core.set32(S.flags, flags & ~FLAG.IOPL)
    core.set32(S.cpl, KERNEL_CPL)
    lower(core, CS)
    lower(core, SS)
    switchRoot(core, 1)
    updateMode(core)
    this.current = 'kernel'
  }

  /** The kernel has left for user code: CS, SS and flags are the user's. */
  kernelToUser(): void {
    const core = this.#core
    core.set32(S.cpl, 3)
    switchRoot(core, 0)
    updateMode(core)
    this.current = 'user'
  }

  /** Back to the virtual CPU: what the guest changed itself stays. */
  leave(): void {
    const core = this.#core
    if (this.current === 'virtual') return
    core.set32(S.efer, this.#efer)
    core.set32(S.cr4, this.#cr4)
    core.set32(IDT_LIMIT, this.#idtLimit)
    core.set32(S.sysenterCs, this.#sysenterLow)
    if (this.current === 'kernel') {
      core.set32(S.flags, core.get32(S.flags) | this.#quick.ioPrivilege)
      core.set32(S.cpl, 0)
      raise(core, CS)
      raise(core, SS)
      switchRoot(core, 0)
      updateMode(core)
    }
    this.current = 'virtual'
  }

  /** No gate, no SYSCALL and no SYSENTER leads into the kernel, and no instruction shows the descriptor tables. */
  #deprivilege(): void {
    const core = this.#core
    this.#efer = core.get32(S.efer)
    this.#cr4 = core.get32(S.cr4)
    this.#idtLimit = core.get32(IDT_LIMIT)
    this.#sysenterLow = core.get32(S.sysenterCs)
    core.set32(S.efer, this.#efer & ~EFER.sce)
    core.set32(S.cr4, this.#cr4 | CR4.umip)
    core.set32(IDT_LIMIT, 0)
    core.set32(S.sysenterCs, 0)
  }
}

function lower(core: Core, at: number): void {
  core.set32(at + SEG.selector, core.get32(at + SEG.selector) | KERNEL_CPL)
  core.set32(at + SEG.attributes, core.get32(at + SEG.attributes) | (KERNEL_CPL << DPL))
}
function raise(core: Core, at: number): void {
  core.set32(at + SEG.selector, core.get32(at + SEG.selector) & ~3)
  core.set32(at + SEG.attributes, core.get32(at + SEG.attributes) & ~(3 << DPL))
}
