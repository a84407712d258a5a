/**
 * Into the guest's handlers and back: the frame that a bounce leaves on the kernel's stack, and the return call that takes one. Toggling between the two
 * modes is here, too. (Xen, "xen/arch/x86/x86_64/entry.S", create_bounce_frame; "public/arch-x86/xen-x86_64.h", iret)
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
import { FLAT, HYPERVISOR, highOf, IN_SYSCALL, INFO, lowOf, R11, RETURN_FRAME, SELECTOR_RPL } from '../facts.ts'
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
  readonly #words = new DataView(this.#bytes.buffer)
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
    const base = core.get64(GS_BASE)
    core.set64(GS_BASE, core.get64(S.kernelGsBase))
    core.set64(S.kernelGsBase, base)
    switchRoot(core, state.inKernel ? 0 : 1)
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
    const rsp = core.get64(gpr(RSP))
    if (!wasKernel) this.toggle()
    const words = code === undefined ? FRAME_WORDS - 1 : FRAME_WORDS
    const top = (wasKernel ? rsp : state.kernelSp) & ~15n
    const at = BigInt.asUintN(64, top - BigInt(words * 8))
    const masked = core.u8[info + INFO.upcallMask]!
    const flags = readFlags(core)

    let n = 0
    this.#put(n++, core.get64(gpr(RCX)))
    this.#put(n++, core.get64(gpr(R11)))
    if (code !== undefined) this.#put(n++, BigInt(code >>> 0))
    this.#put(n++, core.get64(S.rip))
    const cs = core.segmentSelector(SEGMENT.cs)
    this.#put(n++, BigInt(wasKernel ? cs & ~SELECTOR_RPL : cs) | (BigInt(masked & 0xff) << 32n))
    this.#put(n++, BigInt(((flags & ~(FLAG.IF | HIDDEN)) | (masked ? 0 : FLAG.IF)) >>> 0))
    this.#put(n++, rsp)
    this.#put(n++, BigInt(core.segmentSelector(SEGMENT.ss)))
    if (!this.#writeFrame(at, n * 8)) return

    core.set64(gpr(RSP), at)
    core.set64(S.rip, handler.address)
    this.selectors.loadFlat()
    core.set32(S.flags, core.get32(S.flags) & ~CLEARED)
    core.set32(S.shadow, 0)
    updateMode(core)
    if (handler.masksEvents) core.u8[info + INFO.upcallMask] = 1
  }

  /** SYSCALL of a user program: registers as the instruction leaves them, RIP behind it. */
  systemCall(handler: Handler): void {
    const core = this.#core
    core.set64(gpr(RCX), core.get64(S.rip))
    core.set64(gpr(R11), BigInt(readFlags(core) >>> 0))
    this.selectors.loadFlat()
    this.bounce(handler, undefined, 'no handler for system calls')
    core.set32(S.flags, core.get32(S.flags) & ~FLAG.DF)
  }

  #put(word: number, value: bigint): void {
    this.#words.setBigUint64(word * 8, value, true)
  }

  #writeFrame(at: bigint, bytes: number): boolean {
    if (at + BigInt(bytes) > HYPERVISOR.start && at < HYPERVISOR.end) {
      this.#crash(`the kernel's stack, at ${hex(at)}, lies in the hypervisor's part of the address space`)
      return false
    }
    try {
      writeRange(this.#core, lowOf(at), highOf(at), this.#bytes, 0, bytes, ACCESS.user)
      return true
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      this.#crash(`the kernel's stack, at ${hex(at)}, cannot be written (exception ${fault.vector})`)
      return false
    }
  }

  // Back from a handler

  /** Gives the fault that loading the frame's selectors raised: it is one of the code that was to be returned to. */
  returnFromTrap(): GuestFault | undefined {
    const core = this.#core
    const state = this.#state
    const rsp = core.get64(gpr(RSP))
    try {
      readRange(core, lowOf(rsp), highOf(rsp), this.#bytes, RETURN_FRAME.words * 8, ACCESS.user)
    } catch (fault) {
      if (!(fault instanceof GuestFault)) throw fault
      this.#crash(`the frame of a return, at ${hex(rsp)}, cannot be read (exception ${fault.vector})`)
      return undefined
    }
    const word = (n: number): bigint => this.#words.getBigUint64(n * 8, true)
    const cs = this.#words.getUint16(RETURN_FRAME.cs * 8, true)
    if ((cs & SELECTOR_RPL) === SELECTOR_RPL) {
      if (state.userRoot === 0) {
        this.#crash('a return to user mode without tables for it')
        return undefined
      }
      this.toggle()
    }
    const flags = this.#words.getUint32(RETURN_FRAME.rflags * 8, true)
    core.set64(gpr(RAX), word(RETURN_FRAME.rax))
    if (!(word(RETURN_FRAME.flags) & IN_SYSCALL)) {
      core.set64(gpr(R11), word(RETURN_FRAME.r11))
      core.set64(gpr(RCX), word(RETURN_FRAME.rcx))
    }
    core.set64(S.rip, word(RETURN_FRAME.rip))
    core.set64(gpr(RSP), word(RETURN_FRAME.rsp))
    writeFlags(core, (flags & ~HIDDEN) | FLAG.IF)
    core.u8[state.info + INFO.upcallMask] = flags & FLAG.IF ? 0 : 1
    state.nmiMasked = false
    let fault: GuestFault | undefined
    try {
      this.#load(cs | SELECTOR_RPL, this.#words.getUint16(RETURN_FRAME.ss * 8, true) | SELECTOR_RPL)
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

const hex = (address: bigint): string => `0x${address.toString(16)}`
