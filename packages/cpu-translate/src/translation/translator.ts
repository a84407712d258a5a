/**
 * Makes one block of the cache from guest code: instructions are copied, branches and what needs privilege are rewritten. The end of a
 * block calls the monitor once, and is then linked to its successor. (Adams and Agesen, "A Comparison of Software and Hardware Techniques for x86
 * Virtualization", 3)
 */

import { createInstruction, decode, rows } from '@nonroot/x86'
import type { Instruction } from '@nonroot/x86'
import { treatmentOf } from './classify.ts'
import type { CodePage, Entry, TranslatedBlock } from './code-pages.ts'
import { CALL, copyAbsolute, put32, putJump, putPush, STUB, TRAP, TRAP_BYTES, TRAP_FIELD } from './encode.ts'
import { POINT, type Points } from './points.ts'
import { moveOf, pointOf, targetOf, type Target } from './shortcuts.ts'

/** Instructions of one block. */
const MOST = 64
/** Bytes that a block may need: each instruction, and a stub for it. */
export const WORST_BLOCK = MOST * (16 + 2 * STUB) + STUB
const PAGE = 4096
const LONGEST = 15
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
  /** What the current instruction is read from: all of memory, or one that crosses a page. */
  #code: Uint8Array
  readonly #across = new Uint8Array(2 * LONGEST)
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
    this.#bytes = this.#code = bytes
    this.#start = start
    this.#points = points
    this.#known = known
  }

  /** The block at `low` of the page, to offset `at`. Undefined: its first instruction continues on the page after, which cannot be fetched now. */
  translate(page: CodePage, low: number, at: number, pageAfter: () => CodePage | undefined): TranslatedBlock | undefined {
    const from = low & (PAGE - 1)
    this.#entries = []
    const block: TranslatedBlock = { page, next: undefined, from, to: from, start: at, end: at, entries: this.#entries }
    this.#at = at
    this.#high = page.high
    this.#taken.length = 0
    this.instructions = 0
    this.#enter(low >>> 0)
    let ip = from
    let open = true
    while (open) {
      const rip = (page.low >>> 0) + ip
      if (ip >= PAGE || this.instructions === MOST) {
        this.#stop(rip)
        break
      }
      const instruction = this.#instruction
      let code = page.host + ip
      this.#code = this.#bytes
      let result = decode(this.#code, code, PAGE - ip, MODE_64, instruction)
      if (result === 'truncated') {
        // It is a block of its own, so that its second page is fetched only if it is executed.
        if (this.instructions) {
          this.#stop(rip)
          break
        }
        block.next = pageAfter()
        if (!block.next) return undefined
        this.#join(code, PAGE - ip, block.next.host)
        code = 0
        result = decode(this.#code, code, LONGEST, MODE_64, instruction)
      }
      this.instructions++
      if (result === 'ok') open = this.#append(instruction, code, rip)
      else {
        this.#trap(POINT.callOut, rip)
        open = false
      }
      ip += Math.max(1, instruction.length)
    }
    for (const { at: displacement, low: target, high } of this.#taken) {
      put32(this.#bytes, this.#start + displacement, this.#at - (displacement + 4))
      this.#exit(target >>> 0, 0, high)
    }
    block.to = ip
    block.end = this.#at
    return block
  }

  /** The instruction whose first bytes are the last of a page becomes the code that is read. */
  #join(from: number, length: number, next: number): void {
    for (let n = 0; n < LONGEST; n++) this.#across[n] = this.#bytes[n < length ? from + n : next + n - length]!
    this.#code = this.#across
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
        this.#trap(pointOf(i), rip, 0, moveOf(i))
        this.#enter(next)
        return true
      case 'leave':
        this.#trap(pointOf(i), rip)
        return false
      case 'return':
        this.#trap(POINT.return, rip, i.length, i.immediate & 0xffff, i.immediate & 0xffff)
        return false
      case 'indirect':
        this.targets.push(targetOf(i, (BigInt(this.#high) << 32n) + BigInt(next)))
        this.#trap(POINT.indirect, rip, i.length, this.targets.length - 1, this.#quickTarget(this.targets.at(-1), next), next)
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
    const length = isShort(low, high) ? copyAbsolute(this.#code, from, i, low, this.#bytes, this.#start + this.#at) : -1
    if (length < 0) {
      this.#trap(POINT.callOut, rip)
      this.#enter(rip + i.length)
      return true
    }
    this.#point(POINT.copy, rip)
    this.#at += length
    return true
  }

  /** The block ends before an instruction. It has no entry there, which would be an exit to itself. */
  #stop(rip: number): void {
    if (this.#entries.at(-1)!.offset === this.#at) this.#entries.pop()
    this.#exit(rip, 0)
  }
  #enter(low: number): void {
    this.#entries.push({ low: low | 0, high: this.#high, offset: this.#at })
  }
  #point(kind: number, low: number, high = this.#high): void {
    this.#points.add(this.#at, kind, low | 0, high)
  }
  #byte(value: number): void {
    this.#bytes[this.#start + this.#at++] = value
  }
  #copy(from: number, length: number): void {
    for (let n = 0; n < length; n++) this.#byte(this.#code[from + n]!)
  }
  /** `operand`: what the answer in WebAssembly needs to know, -1 if it is not for that; `value`: with a call. */
  #trap(kind: number, rip: number, length = 0, extra = 0, operand = 0, value = 0): void {
    this.#points.add(this.#at, kind, rip | 0, this.#high, length, extra)
    const at = this.#start + this.#at
    this.#bytes[at] = TRAP
    this.#bytes[at + TRAP_FIELD.kind] = operand < 0 ? POINT.copy : kind
    this.#bytes[at + TRAP_FIELD.operand] = operand
    this.#bytes[at + TRAP_FIELD.operand + 1] = operand >> 8
    put32(this.#bytes, at + TRAP_FIELD.value, value)
    this.#at += TRAP_BYTES
  }
  #quickTarget(target: Target | undefined, next: number): number {
    if (!target || target.register < 0 || (target.isCall && !isShort(next, this.#high))) return -1
    return target.register | (target.isCall ? CALL : 0)
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
