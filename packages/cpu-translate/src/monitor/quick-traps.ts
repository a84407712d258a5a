/**
 * The traps of translated code that kernels take all the time, answered in WebAssembly: code of the monitor's that the processor runs where it would call the monitor.
 * What it does not settle at once goes there as before: a TLB miss, a target that was not asked for lately, an interrupt that waits. @hot
 */

import { NonrootError } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import { CR4, FLAG, gpr, MODE, OTHER_FLAGS, pageOfLastByte, RSP, S, SEG, segment, SEGMENT, TLB_BANK, TLB_BANK_SIZE, tlbEntry, tlbHost, tlbTag } from '@nonroot/x86'
import type { HandlerBuilder, Value } from '@nonroot/x86'
import { POINT } from '../translation/points.ts'
import { HIDDEN, UNUSUAL } from '../translation/shortcuts.ts'
import { CALL, TRAP_BYTES, TRAP_FIELD } from '../translation/encode.ts'

const FRAME = 4096
/** Branch targets that are remembered, by their low bits; 16 bytes each: the guest's RIP, and that of its translation. */
const TARGETS = 4096
const TARGET = { rip: 0, translation: 8, size: 16 } as const
/** Behind them. */
const AT = TARGETS * TARGET.size
const STATE = { base: AT, shadowAt: AT + 8, count: AT + 12, ioPrivilege: AT + 16 } as const
const FRAMES = AT / FRAME + 1
const WORD = 8

export class QuickTraps {
  readonly #host: HostMemory
  readonly #start: number
  readonly #i32: Int32Array

  constructor(host: HostMemory) {
    const start = host.allocateFrames(FRAMES)
    if (start === undefined)
      throw new NonrootError({
        code: 'host.memory',
        message: `host memory has no ${(FRAMES * FRAME) >>> 10} KiB in one piece left for the branch targets of a vCPU`,
        thing: 'host.memory',
        remedy: 'make host.memory larger, or translationCacheMiB of stack.cpu smaller',
      })
    this.#host = host
    this.#start = start
    this.#i32 = new Int32Array(host.memory.buffer)
    this.clear()
    this.shadowAt = -1
    this.#set(STATE.count, 0)
    this.ioPrivilege = 0
  }
  dispose(): void {
    for (let n = 0; n < FRAMES; n++) this.#host.freeFrame((this.#start + n * FRAME) as Hpa)
  }

  /** After STI: offset in the cache of the next instruction, before which no interrupt is taken. -1: there was none. */
  get shadowAt(): number {
    return this.#get(STATE.shadowAt)
  }
  set shadowAt(offset: number) {
    this.#set(STATE.shadowAt, offset)
  }
  /** The guest's IOPL, in place, while its kernel runs deprivileged. */
  get ioPrivilege(): number {
    return this.#get(STATE.ioPrivilege)
  }
  set ioPrivilege(flags: number) {
    this.#set(STATE.ioPrivilege, flags)
  }
  /** Traps answered here since the last call. */
  takeCount(): number {
    const count = this.#get(STATE.count) >>> 0
    this.#set(STATE.count, 0)
    return count
  }

  // --- targets ---

  /** `offset`: of the translation, in a cache at addresses with this upper half. */
  remember(low: number, high: number, offset: number, cacheHigh: number): void {
    const at = placeOf(low) * TARGET.size
    this.#set(at + TARGET.rip, low)
    this.#set(at + TARGET.rip + 4, high)
    this.#set(at + TARGET.translation, offset)
    this.#set(at + TARGET.translation + 4, cacheHigh)
  }
  forget(low: number, high: number): void {
    const place = placeOf(low)
    const at = place * TARGET.size
    if (this.#get(at) === low && this.#get(at + 4) === high) this.#empty(place)
  }
  clear(): void {
    for (let place = 0; place < TARGETS; place++) this.#empty(place)
  }
  /** An address that belongs to another place. */
  #empty(place: number): void {
    this.#set(place * TARGET.size, place ^ 1)
    this.#set(place * TARGET.size + 4, 0)
  }

  #get(at: number): number {
    return this.#i32[(this.#start + at) >>> 2]!
  }
  #set(at: number, value: number): void {
    this.#i32[(this.#start + at) >>> 2] = value
  }

  // --- generated code ---

  /** Where the cache's addresses begin: the upper half. */
  placeCache(high: number): void {
    this.#set(STATE.base, 0)
    this.#set(STATE.base + 4, high)
  }

  /** Emits what precedes the call of the monitor. `cache`: address of its first byte in host memory, and its size. */
  emit(b: HandlerBuilder, cache: number, size: number): void {
    const state = (at: number): Value => b.rawLoad('i32', b.i32(this.#start), at, 32)
    b.if(b.and(b.slot(S.mode, 'i32'), MODE.secondRoot), () => {
      const rip = b.currentRipOfAnyMode()
      const offset = b.sub(rip, b.rawLoad('i64', b.i32(this.#start), STATE.base, 64))
      b.if(b.ltU(offset, size), () => {
        const trap = b.add(b.wrap(offset), cache)
        const kind = b.rawLoad('i32', trap, TRAP_FIELD.kind, 8)
        const goTo = (target: Value): void => {
          b.rawStore(b.i32(this.#start), STATE.count, 32, b.add(state(STATE.count), 1))
          b.jump(target)
        }
        const next = (): Value => b.add(rip, TRAP_BYTES)
        const on = (point: number, then: () => void): void => b.if(b.eq(kind, point), then)
        on(POINT.return, () => this.#return(b, trap, goTo))
        on(POINT.indirect, () => this.#branch(b, trap, goTo))
        on(POINT.pushFlags, () => {
          const image = b.or(b.statusFlags(), b.extendU(b.and(b.or(b.slot(S.flags, 'i32'), state(STATE.ioPrivilege)), ~HIDDEN)))
          this.#push(b, image, () => goTo(next()))
        })
        on(POINT.popFlags, () => this.#popFlags(b, state(STATE.ioPrivilege), () => goTo(next())))
        on(POINT.cli, () => {
          b.setSlot(S.flags, b.and(b.slot(S.flags, 'i32'), ~(FLAG.IF | FLAG.RF)))
          goTo(next())
        })
        on(POINT.sti, () => {
          const flags = b.slot(S.flags, 'i32')
          b.if(b.and(flags, FLAG.IF), () => goTo(next()))
          b.if(b.eqz(b.slot(S.attention, 'i32')), () => {
            b.setSlot(S.flags, b.or(b.and(flags, ~FLAG.RF), FLAG.IF))
            b.rawStore(b.i32(this.#start), STATE.shadowAt, 32, b.add(b.wrap(offset), TRAP_BYTES))
            goTo(next())
          })
        })
        on(POINT.swapGs, () => {
          const base = segment(SEGMENT.gs) + SEG.base
          const user = b.slot(base)
          const kernel = b.slot(S.kernelGsBase)
          b.setSlot(base, kernel)
          b.setSlot(S.kernelGsBase, user)
          goTo(next())
        })
        const allowUser = (flag: number, bank: number): void =>
          b.if(b.and(b.slot(S.cr4, 'i32'), CR4.smap), () => {
            b.setSlot(S.flags, b.or(b.and(b.slot(S.flags, 'i32'), ~(FLAG.AC | FLAG.RF)), flag))
            b.setSlot(S.tlb, b.add(b.slot(S.banks, 'i32'), bank * TLB_BANK_SIZE))
            goTo(next())
          })
        on(POINT.stac, () => allowUser(FLAG.AC, TLB_BANK.supervisorUserAllowed))
        on(POINT.clac, () => allowUser(0, TLB_BANK.supervisor))
      })
    })
  }

  #return(b: HandlerBuilder, trap: Value, goTo: (target: Value) => void): void {
    this.#top(b, (target, stack) => {
      this.#ifKnown(b, target, (translation) => {
        b.setSlot(gpr(RSP), b.add(stack, b.add(b.rawLoad('i64', trap, TRAP_FIELD.operand, 16), WORD)))
        goTo(translation)
      })
    })
  }

  /** To the address in a register; a call has the return address behind it. */
  #branch(b: HandlerBuilder, trap: Value, goTo: (target: Value) => void): void {
    const operand = b.rawLoad('i32', trap, TRAP_FIELD.operand, 16)
    const target = b.rawLoad('i64', b.add(b.cpu, b.shl(b.and(operand, 15), 3)), 0, 64)
    this.#ifKnown(b, target, (translation) => {
      b.if(b.eqz(b.and(operand, CALL)), () => goTo(translation))
      this.#push(b, b.rawLoad('i64', trap, TRAP_FIELD.value, 32, { signed: true }), () => goTo(translation))
    })
  }

  #popFlags(b: HandlerBuilder, ioPrivilege: Value, then: () => void): void {
    this.#top(b, (image, stack) => {
      const old = b.slot(S.flags, 'i32')
      const fresh = b.wrap(image)
      const changes = b.xor(old, fresh)
      const waits = b.and(b.ne(b.and(b.and(changes, fresh), FLAG.IF), 0), b.ne(b.slot(S.attention, 'i32'), 0))
      const unusual = b.or(b.or(b.and(fresh, UNUSUAL), ioPrivilege), b.or(b.and(changes, FLAG.AC), waits))
      b.if(b.eqz(unusual), () => {
        b.setStatusFlags(image)
        b.setSlot(S.flags, b.or(b.and(fresh, OTHER_FLAGS & ~FLAG.RF), 2))
        b.setSlot(gpr(RSP), b.add(stack, WORD))
        then()
      })
    })
  }

  // --- the stack, on a hit of the TLB ---

  #top(b: HandlerBuilder, then: (word: Value, stack: Value) => void): void {
    const stack = b.slot(gpr(RSP))
    const entry = tlbEntry(b, stack)
    b.if(b.eq(tlbTag(b, entry, 'read'), pageOfLastByte(b, stack, WORD)), () =>
      then(b.rawLoad('i64', tlbHost(b, stack, entry), 0, 64), stack),
    )
  }
  #push(b: HandlerBuilder, word: Value, then: () => void): void {
    const stack = b.sub(b.slot(gpr(RSP)), WORD)
    const entry = tlbEntry(b, stack)
    b.if(b.eq(tlbTag(b, entry, 'write'), pageOfLastByte(b, stack, WORD)), () => {
      b.rawStore(tlbHost(b, stack, entry), 0, 64, word)
      b.setSlot(gpr(RSP), stack)
      then()
    })
  }

  #ifKnown(b: HandlerBuilder, target: Value, then: (translation: Value) => void): void {
    const low = b.wrap(target)
    const place = b.add(b.shl(b.and(b.xor(low, b.shrU(low, 12)), TARGETS - 1), Math.log2(TARGET.size)), this.#start)
    b.if(b.eq(b.rawLoad('i64', place, TARGET.rip, 64), target), () => then(b.rawLoad('i64', place, TARGET.translation, 64)))
  }
}

const placeOf = (low: number): number => (low ^ (low >>> 12)) & (TARGETS - 1)
