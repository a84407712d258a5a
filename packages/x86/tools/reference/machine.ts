/**
 * The reference machine: one instruction at a time by the IR evaluator, every walk from memory, nothing remembered between two instructions but what the
 * manual says a processor may remember (translation.ts). Slow and plain on purpose: the judge of the processor's caches, links and event delivery.
 * 64-bit mode. Not a second semantics of ordinary instructions: those are evaluated from the one description.
 */
import { decode } from '../../src/decode/decoder.ts'
import { createInstruction, type Instruction } from '../../src/decode/instruction.ts'
import { evaluate } from '../../src/ir/evaluate.ts'
import type { Body } from '../../src/ir/nodes.ts'
import { rows } from '../../src/rows/index.ts'
import { EXIT, S, SEGMENT } from '../../src/state/layout.ts'
import { FLAG, VECTOR } from '../../src/state/register-bits.ts'
import { SHADOW } from '../../src/state/shadow.ts'
import { ReferenceBuilder } from './builder.ts'
import { deliver, type End, type Event } from './delivery.ts'
import { ROUTINES, routineNumber } from './routines.ts'
import { Fault, isCanonical, readBits, ReferenceState, writeBits } from './state.ts'
import { Undefined } from './translation.ts'

export class ReferenceMachine extends ReferenceState {
  readonly #instruction = createInstruction(rows[0]!)
  /** Instructions as they were built, by address: those of several bytes, the latest first. */
  readonly #built = new Map<bigint, Built[]>()
  readonly #bytes = new Uint8Array(15)

  /** Forgets a program. */
  reset(): void {
    this.translations.clear()
    this.retired = 0
  }

  /** Runs one instruction, with whatever comes of it. Throws `Undefined` where the outcome is not defined. */
  step(): End | undefined {
    const rip = this.get64(S.rip)
    const shadow = this.get32(S.shadow)
    this.set32(S.shadow, 0)
    const steps = (this.get32(S.flags) & FLAG.TF) !== 0
    try {
      const end = this.#execute(rip)
      this.retired++
      // INT n clears TF and is no step; MOV SS loses its own. (SDM Vol. 3B, "Single-Step Exception Condition"; Vol. 3A, "Masking Exceptions and Interrupts When Switching Stacks")
      if (!steps || end || ENTERS_HANDLER.has(this.#instruction.row.mnemonic) || this.get32(S.shadow) === SHADOW.movSs) return end
      return this.event({ kind: 'exception', vector: VECTOR.DB })
    } catch (fault) {
      if (!(fault instanceof Fault)) throw fault
      this.set64(S.rip, rip)
      this.set32(S.shadow, shadow)
      return this.event({ kind: 'exception', vector: fault.vector, code: fault.code })
    }
  }

  /** Delivers an event at the next instruction. */
  event(event: Event): End | undefined {
    const end = deliver(this, event)
    if (!end) this.retired++
    return end
  }
  /** An interrupt from outside may come in now. */
  get isOpen(): boolean {
    return (this.get32(S.flags) & FLAG.IF) !== 0 && this.get32(S.shadow) === 0
  }

  #execute(rip: bigint): End | undefined {
    const instruction = this.#fetch(rip)
    const { cpl, cplFault } = instruction.row.attributes
    if (cpl === 0 && this.cpl !== 0) throw new Fault(cplFault === 'ud' ? 6 : 13, cplFault === 'ud' ? undefined : 0)
    this.length = instruction.length
    const root = this.#build(instruction, rip)
    this.set32(S.exit, EXIT.none)
    let end: End | undefined
    evaluate(root, [0, 0], {
      memory: this.block,
      call: (callee, args) => {
        if (callee === 'system') {
          const answer = ROUTINES[Number(args[0])]!.run(this)
          if (answer === 'halt') {
            this.set64(S.rip, rip + BigInt(instruction.length))
            end = 'halt'
            return 1n
          }
          return answer === 'jumped' ? 1n : 0n
        }
        this.#access(callee, Number(args[0]))
        return 0n
      },
    })
    if (this.get32(S.exit) === EXIT.exception) throw new Fault(this.get32(S.vector), HAS_CODE.has(this.get32(S.vector)) ? this.get32(S.errorCode) : undefined)
    return end
  }

  /** Depends on address and bytes only. */
  #build(instruction: Instruction, rip: bigint): Body {
    let here = this.#built.get(rip)
    if (!here) {
      if (this.#built.size >= MOST_ADDRESSES) this.#built.clear()
      this.#built.set(rip, (here = []))
    }
    const { length } = instruction
    const known = here.find(({ bytes }) => bytes.length === length && bytes.every((byte, n) => byte === this.#bytes[n]))
    if (known) return known.root
    const { root } = new ReferenceBuilder(instruction, rip, 64, routineNumber)
    if (here.unshift({ bytes: this.#bytes.slice(0, length), root }) > MOST_BUILT) here.pop()
    return root
  }

  /** Bytes through the value slot. */
  #access(callee: string, info: number): void {
    const bytes = info & 0xff
    const linear = this.get64(S.address)
    const last = BigInt.asUintN(64, linear + BigInt(bytes - 1))
    if (!isCanonical(linear) || !isCanonical(last)) throw new Fault(info >> 8 === SEGMENT.ss ? 12 : 13, 0)
    if (callee === 'write') return this.write(linear, bytes, readBits(this.block, S.value, bytes))
    if (callee === 'modify') this.pieces(linear, bytes, 'write', false)
    writeBits(this.block, S.value, bytes, this.read(linear, bytes))
  }

  #fetch(rip: bigint): Instruction {
    if (!isCanonical(rip)) throw new Fault(13, 0)
    const bytes = this.#bytes
    const head = Math.min(15, 4096 - Number(rip & 4095n))
    const copy = (linear: bigint, from: number, to: number): void => {
      const physical = this.translate(linear, 'fetch')
      if (physical + to - from > this.ram.length) throw new Undefined('code is fetched from a device')
      bytes.set(this.ram.subarray(physical, physical + to - from), from)
    }
    copy(rip, 0, head)
    const mode = { codeSize: 64, protectedMode: true } as const
    let result = decode(bytes, 0, head, mode, this.#instruction)
    if (result === 'truncated' && head < 15) {
      copy(rip + BigInt(head), head, 15)
      result = decode(bytes, 0, 15, mode, this.#instruction)
    }
    // How many instructions its rounds count as is the processor's own affair.
    if (result === 'ok' && this.#instruction.rep && STRING.has(this.#instruction.row.mnemonic)) throw new Undefined('a repeated string instruction')
    if (result !== 'ok') throw new Fault(result === 'ud' ? 6 : 13, result === 'ud' ? undefined : 0)
    return this.#instruction
  }
}

/** An instruction at one address. */
interface Built {
  readonly bytes: Uint8Array
  readonly root: Body
}
/** Addresses whose instructions are kept, and how many for each: programs differ in what they have there. */
const MOST_ADDRESSES = 4096
const MOST_BUILT = 4

const STRING: ReadonlySet<string> = new Set(['MOVS', 'CMPS', 'STOS', 'LODS', 'SCAS', 'INS', 'OUTS'])
const ENTERS_HANDLER: ReadonlySet<string> = new Set(['INT', 'INT1', 'INT3', 'INTO'])

/** Exceptions that push an error code. (SDM Vol. 3A, "Error Code") */
const HAS_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21])
