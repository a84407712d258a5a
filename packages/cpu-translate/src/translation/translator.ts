/**
 * Makes one block of the cache from guest code: instructions are copied, branches and what needs privilege are rewritten. The end of a
 * block calls the monitor once, and is then linked to its successor. (Adams and Agesen, "A Comparison of Software and Hardware Techniques for x86
 * Virtualization", 3)
 */

import { createInstruction, decode, rows } from '@nonroot/x86'
import type { Instruction } from '@nonroot/x86'
import { treatmentOf } from './classify.ts'
import type { CodePage, Entry, TranslatedBlock } from './code-pages.ts'
import { copyAbsolute, put32, putJump, putPush, STUB, TRAP } from './encode.ts'
import { POINT, type Points } from './points.ts'
import { pointOf, targetOf, type Target } from './shortcuts.ts'

/** Instructions of one block. */
const MOST = 64
/** Bytes that a block may need: each instruction, and a stub for it. */
export const WORST_BLOCK = MOST * (16 + 2 * STUB) + STUB
const PAGE = 4096
const MODE_64 = { codeSize: 64, protectedMode: true } as const

export class Translator {
  /** Guest instructions of the last block. */
  instructions = 0
  /** Of indirect branches, by the number in their points. Undefined: one for the virtual CPU. */
  readonly targets: (Target | undefined)[] = []
  readonly #bytes: Uint8Array
  readonly #start: number
  readonly #points: Points
  readonly #known: (low: number, high: number) => number
  readonly #instruction = createInstruction(rows[0]!)
  /** Conditional branches whose targets get a stub at the end of the block: offset of the displacement, target. */
  readonly #taken: { at: number; low: number; high: number }[] = []
  #entries: Entry[] = []
  #at = 0
  #high = 0

  /** `start`: the cache's first byte. `known`: offset of what is translated already, or -1. */
  constructor(
    bytes: Uint8Array,
    start: number,
    points: Points,
    known: (low: number, high: number) => number,
  ) {
    this.#bytes = bytes
    this.#start = start
    this.#points = points
    this.#known = known
  }

  /** The block at `low` of the page, to offset `at`. */
  translate(page: CodePage, low: number, at: number): TranslatedBlock {
    const from = low & (PAGE - 1)
    this.#entries = []
    const block: TranslatedBlock = { page, from, to: from, start: at, end: at, entries: this.#entries }
    this.#at = at
    this.#high = page.high
    this.#taken.length = 0
    this.instructions = 0
    this.#enter(low)
    let ip = from
    let open = true
    while (open) {
      const rip = (page.low >>> 0) + ip
      if (ip >= PAGE || this.instructions === MOST) {
        this.#exit(rip, 0)
        break
      }
      const instruction = this.#instruction
      const result = decode(this.#bytes, page.host + ip, PAGE - ip, MODE_64, instruction)
      this.instructions++
      if (result !== 'ok') {
        // #UD, or an instruction that reaches into the next page.
        this.#trap(POINT.callOut, rip)
        ip = Math.min(PAGE, ip + Math.max(1, instruction.length))
        break
      }
      open = this.#append(instruction, page.host + ip, rip)
      ip += instruction.length
    }
    for (const { at: displacement, low: target, high } of this.#taken) {
      put32(this.#bytes, this.#start + displacement, this.#at - (displacement + 4))
      this.#exit(target >>> 0, 0, high)
    }
    block.to = ip
    block.end = this.#at
    return block
  }

  /** False: the block ends. */
  #append(i: Instruction, from: number, rip: number): boolean {
    const next = rip + i.length
    switch (treatmentOf(i)) {
      case 'same':
        this.#point(POINT.copy, rip)
        this.#copy(from, i.length)
        return true
      case 'absolute':
        return this.#absolute(i, from, rip)
      case 'callOut':
        this.#trap(pointOf(i), rip)
        this.#enter(next)
        return true
      case 'leave':
        this.#trap(pointOf(i), rip)
        return false
      case 'return':
        this.#trap(POINT.return, rip, i.length, i.immediate & 0xffff)
        return false
      case 'indirect':
        this.targets.push(targetOf(i, (BigInt(this.#high) << 32n) + BigInt(next)))
        this.#trap(POINT.indirect, rip, i.length, this.targets.length - 1)
        return false
      case 'jump':
        this.#exit(next, i.immediate, this.#high, i.length)
        return false
      case 'call': {
        if (!isShort(next, this.#high)) {
          this.#trap(POINT.callOut, rip)
          return false
        }
        this.#point(POINT.copy, rip)
        this.#at += putPush(this.#bytes, this.#start + this.#at, next)
        this.#exit(next, i.immediate)
        return false
      }
      case 'conditional': {
        this.#point(POINT.copy, rip)
        this.#byte(0x0f)
        this.#byte(0x80 | (i.opcode & 15))
        const target = add(next, this.#high, i.immediate)
        this.#taken.push({ at: this.#at, ...target })
        this.#at += 4
        return true
      }
      case 'counted': {
        this.#point(POINT.copy, rip)
        this.#byte(i.opcode)
        this.#byte(STUB)
        this.#exit(next, 0)
        this.#exit(next, i.immediate)
        return false
      }
    }
  }

  #absolute(i: Instruction, from: number, rip: number): boolean {
    const { low, high } = add(rip + i.length, this.#high, i.displacement)
    const length = isShort(low, high) ? copyAbsolute(this.#bytes, from, i, low, this.#bytes, this.#start + this.#at) : -1
    if (length < 0) {
      this.#trap(POINT.callOut, rip)
      this.#enter(rip + i.length)
      return true
    }
    this.#point(POINT.copy, rip)
    this.#at += length
    return true
  }

  /** Not of the next page: its code may change without this page's. */
  #enter(low: number): void {
    if (low % PAGE === 0 && this.instructions > 0) return
    this.#entries.push({ low: low | 0, high: this.#high, offset: this.#at })
  }
  #point(kind: number, low: number, high = this.#high): void {
    this.#points.add(this.#at, kind, low | 0, high)
  }
  #byte(value: number): void {
    this.#bytes[this.#start + this.#at++] = value
  }
  #copy(from: number, length: number): void {
    this.#bytes.copyWithin(this.#start + this.#at, from, from + length)
    this.#at += length
  }
  #trap(kind: number, rip: number, length = 0, extra = 0): void {
    this.#points.add(this.#at, kind, rip | 0, this.#high, length, extra)
    this.#byte(TRAP)
  }
  /** Goes on at an address: by a jump if it is translated, else by a stub. `length`: of the guest's own jump before `next`, for which it stands. */
  #exit(next: number, by: number, nextHigh = this.#high, length = 0): void {
    const { low, high } = add(next, nextHigh, by)
    this.#points.add(this.#at, POINT.exit, low, high, length, (next - length) | 0)
    const known = this.#known(low, high)
    if (known >= 0) putJump(this.#bytes, this.#start, this.#at, known)
    else this.#bytes.fill(TRAP, this.#start + this.#at, this.#start + this.#at + STUB)
    this.#at += STUB
  }
}

/** `low` is not negative, and may be 2³²; `by` is signed. */
function add(low: number, high: number, by: number): { low: number; high: number } {
  const sum = low + by
  return { low: sum | 0, high: (high + Math.floor(sum / 0x1_0000_0000)) | 0 }
}
/** Whether an address is the sign extension of its lower half. */
const isShort = (low: number, high: number): boolean => low < 0x1_0000_0000 && high === (low | 0) >> 31
