/**
 * Into the guest's handlers and back: the frame that a bounce leaves on the kernel's stack, and the return call that takes one. Toggling between the two
 * modes is here, too. @hot (Xen, "xen/arch/x86/x86_64/entry.S", create_bounce_frame; "public/arch-x86/xen-x86_64.h", iret)
 */

import { PageFaultCode, WITH_ERROR_CODE } from '@nonroot/contracts'
import {
  ACCESS,
  FLAG,
  gpr,
  GuestFault,
  RAX,
  RCX,
  readFlags,
  readRange,
  RSP,
  S,
  SEG,
  segment,
  SEGMENT,
  setRoot,
  switchRoot,
  updateMode,
  writeFlags,
  writeRange,
  VECTOR,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { FLAT, HYPERVISOR_HIGH, IN_SYSCALL, INFO, R11, RETURN_FRAME, SELECTOR_RPL } from '../facts.ts'
import type { GuestState, Handler } from '../guest-state.ts'
import { Selectors } from './selectors.ts'

const GS_BASE = segment(SEGMENT.gs) + SEG.base
/** Flags that do not reach a handler. */
const CLEARED = FLAG.TF | FLAG.NT | FLAG.RF | FLAG.AC | FLAG.VM
const HIDDEN = FLAG.IOPL | FLAG.VM
const FRAME_WORDS = 8

export class Frames {
  readonly selectors: Selectors
  readonly #core: Core
  readonly #state: GuestState
  readonly #bytes = new Uint8Array(RETURN_FRAME.words * 8)
  /** The same by halves of words, as the processor has its registers. */
  readonly #halves = new Int32Array(this.#bytes.buffer)
  readonly #crash: (reason: string) => void
  toggles = 0

  constructor(core: Core, state: GuestState, crash: (reason: string) => void) {
    this.#core = core
    this.#state = state
    this.#crash = crash
    this.selectors = new Selectors(core)
  }

  /** The other mode: root, GS base. */
  toggle(): void {
    const state = this.#state
    const core = this.#core
    state.inKernel = !state.inKernel
    this.toggles++
    this.#exchange(GS_BASE, S.kernelGsBase)
    this.#exchange(GS_BASE + 4, S.kernelGsBase + 4)
    switchRoot(core, state.inKernel ? 0 : 1)
  }
  #exchange(one: number, other: number): void {
    const core = this.#core
    const kept = core.get32(one)
    core.set32(one, core.get32(other))
    core.set32(other, kept)
  }

  /** Both roots, and CR3 as the mode has it. Translations of both go. */
  loadRoots(): void {
    const { kernelRoot, userRoot, inKernel } = this.#state
    const core = this.#core
    setRoot(core, 0, BigInt(kernelRoot))
    setRoot(core, 1, BigInt(userRoot))
    switchRoot(core, inKernel ? 0 : 1)
  }
  loadRoot(which: 0 | 1, root: number): void {
    setRoot(this.#core, which, BigInt(root))
  }

  // Into the guest

  /** An exception, RIP being what is saved. `code` is as the processor gave it. */
  exception(vector: number, code: number): void {
    const { inKernel } = this.#state
    const seen = vector === VECTOR.PF ? (inKernel ? code & ~PageFaultCode.user : code | PageFaultCode.user) : code
    this.bounce(
      this.#state.traps[vector]!,
      (WITH_ERROR_CODE >>> vector) & 1 ? seen : undefined,
      `no handler for exception ${vector}`,
    )
  }

  bounce(handler: Handler, code: number | undefined, otherwise: string): void {
    const core = this.#core
    const state = this.#state
    const { info } = state
    if (handler.address === 0n) return this.#crash(otherwise)
    const wasKernel = state.inKernel
    const [rspLow, rspHigh] = [core.get32(gpr(RSP)), core.get32(gpr(RSP) + 4)]
    if (!wasKernel) this.toggle()
    const bytes = (code === undefined ? FRAME_WORDS - 1 : FRAME_WORDS) * 8
    const top = (wasKernel ? rspLow : state.kernelSpLow) & ~15
    const low = (top - bytes) | 0
    const high = ((wasKernel ? rspHigh : state.kernelSpHigh) - (top >>> 0 < bytes ? 1 : 0)) | 0
    const masked = core.u8[info + INFO.upcallMask]!
    const flags = readFlags(core)
    const cs = core.segmentSelector(SEGMENT.cs)

    let n = 0
    this.#putSlot(n++, gpr(RCX))
    this.#putSlot(n++, gpr(R11))
    if (code !== undefined) this.#put(n++, code, 0)
    this.#putSlot(n++, S.rip)
    this.#put(n++, wasKernel ? cs & ~SELECTOR_RPL : cs, masked)
    this.#put(n++, (flags & ~(FLAG.IF | HIDDEN)) | (masked ? 0 : FLAG.IF), 0)
    this.#put(n++, rspLow, rspHigh)
    this.#put(n++, core.segmentSelector(SEGMENT.ss), 0)
    if (!this.#writeFrame(low, high, bytes)) return

    core.set32(gpr(RSP), low)
    core.set32(gpr(RSP) + 4, high)
    core.set32(S.rip, handler.low)
    core.set32(S.rip + 4, handler.high)
    this.selectors.loadFlat()
    core.set32(S.flags, core.get32(S.flags) & ~CLEARED)
    core.set32(S.shadow, 0)
    updateMode(core)
    if (handler.masksEvents) core.u8[info + INFO.upcallMask] = 1
  }

  /** SYSCALL of a user program: registers as the instruction leaves them, RIP behind it. */
  systemCall(handler: Handler): void {
    const core = this.#core
    core.set32(gpr(RCX), core.get32(S.rip))
    core.set32(gpr(RCX) + 4, core.get32(S.rip + 4))
    core.set32(gpr(R11), readFlags(core))
    core.set32(gpr(R11) + 4, 0)
    this.selectors.loadFlat()
    this.bounce(handler, undefined, 'no handler for system calls')
    core.set32(S.flags, core.get32(S.flags) & ~FLAG.DF)
  }

  #put(word: number, low: number, high: number): void {
    this.#halves[word * 2] = low
    this.#halves[word * 2 + 1] = high
  }
  #putSlot(word: number, at: number): void {
    this.#put(word, this.#core.get32(at), this.#core.get32(at + 4))
  }
  #takeSlot(at: number, word: number): void {
    this.#core.set32(at, this.#halves[word * 2]!)
    this.#core.set32(at + 4, this.#halves[word * 2 + 1]!)
  }

  #writeFrame(low: number, high: number, bytes: number): boolean {
    if (high >>> 0 >= HYPERVISOR_HIGH.start && high >>> 0 < HYPERVISOR_HIGH.end) {
      this.#crash(`the kernel's stack, at ${hex(low, high)}, lies in the hypervisor's part of the address space`)
      return false
    }
    try {
      writeRange(this.#core, low, high, this.#bytes, 0, bytes, ACCESS.user)
      return true
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      this.#crash(`the kernel's stack, at ${hex(low, high)}, cannot be written (exception ${fault.vector})`)
      return false
    }
  }

  // Back from a handler

  /** Gives the fault that loading the frame's selectors raised: it is one of the code that was to be returned to. */
  returnFromTrap(): GuestFault | undefined {
    const core = this.#core
    const state = this.#state
    const [low, high] = [core.get32(gpr(RSP)), core.get32(gpr(RSP) + 4)]
    const halves = this.#halves
    try {
      readRange(core, low, high, this.#bytes, RETURN_FRAME.words * 8, ACCESS.user)
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      this.#crash(`the frame of a return, at ${hex(low, high)}, cannot be read (exception ${fault.vector})`)
      return undefined
    }
    const cs = halves[RETURN_FRAME.cs * 2]! & 0xffff
    if ((cs & SELECTOR_RPL) === SELECTOR_RPL) {
      if (state.userRoot === 0) {
        this.#crash('a return to user mode without tables for it')
        return undefined
      }
      this.toggle()
    }
    const flags = halves[RETURN_FRAME.rflags * 2]!
    this.#takeSlot(gpr(RAX), RETURN_FRAME.rax)
    if (!(halves[RETURN_FRAME.flags * 2]! & IN_SYSCALL)) {
      this.#takeSlot(gpr(R11), RETURN_FRAME.r11)
      this.#takeSlot(gpr(RCX), RETURN_FRAME.rcx)
    }
    this.#takeSlot(S.rip, RETURN_FRAME.rip)
    this.#takeSlot(gpr(RSP), RETURN_FRAME.rsp)
    writeFlags(core, (flags & ~HIDDEN) | FLAG.IF)
    core.u8[state.info + INFO.upcallMask] = flags & FLAG.IF ? 0 : 1
    state.nmiMasked = false
    let fault: GuestFault | undefined
    try {
      this.#load(cs | SELECTOR_RPL, (halves[RETURN_FRAME.ss * 2]! & 0xffff) | SELECTOR_RPL)
    } catch (thrown) {
      if (!(thrown instanceof GuestFault)) throw thrown
      fault = thrown
    }
    updateMode(core)
    return fault
  }

  #load(code: number, stack: number): void {
    if (code === FLAT.code && stack === FLAT.stack) this.selectors.loadFlat()
    else this.selectors.load(code, stack)
  }
}

const hex = (low: number, high: number): string => `0x${((BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)).toString(16)}`
