/** Decodes guest code into the records of one block. Keeps nothing of the blocks it has made. */
import { decodeModeOf, isUnavailable } from '../decode/decode-mode.ts'
import { decode, type DecodeMode, type DecodeResult } from '../decode/decoder.ts'
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import { rows } from '../rows/index.ts'
import { canDropFlags, hidesFlags, isQuiet, mayWriteCode } from '../semantics/dead-flags.ts'
import type { Core } from '../state/core.ts'
import { MODE } from '../state/mode.ts'
import { RECORD } from '../state/record.ts'
import type { Block } from './block.ts'
import type { HandlerTable, Special } from './handler-table.ts'
import { MAX_INSTRUCTIONS } from './record.ts'
import { linkFor, type RecordWriter } from './record-writer.ts'
import type { TrappedRows } from './trapped-rows.ts'

/** Translates the next page for fetching: its HPA, or -1 with the fault raised. */
export type FetchNextPage = () => number

/** Records that precede an instruction's own. */
const BEFORE: readonly Special[] = ['checkNextPage', 'trapped', 'underShadow', 'alone']

export class BlockDecoder {
  readonly #core: Core
  readonly #handlers: HandlerTable
  readonly #writer: RecordWriter
  readonly #trapped: TrappedRows
  /** The one being decoded, and one that holds the last writer of flags. */
  readonly #scratch = [createInstruction(rows[0]!), createInstruction(rows[0]!)] as const
  #instruction: Instruction = this.#scratch[0]
  readonly #modes = new Map<number, DecodeMode>()
  #before: ReadonlySet<number> | undefined
  readonly #joined = new Uint8Array(32)
  /** The last writer of flags in the block being decoded, while no later instruction depends on them. */
  #candidate: { record: number; instruction: Instruction } | undefined

  constructor(core: Core, handlers: HandlerTable, writer: RecordWriter, trapped: TrappedRows) {
    this.#core = core
    this.#handlers = handlers
    this.#writer = writer
    this.#trapped = trapped
  }

  /**
   * Writes the block that starts at `host` to records from `first` on, without its heat. With a `limit` it has at most so many instructions and is not
   * linked. Undefined: a fetch fault was raised.
   */
  decode(first: number, host: number, mode: number, nextPage: FetchNextPage, limit: number): Block | undefined {
    const { i32 } = this.#core
    const writer = this.#writer
    const decodeMode = this.#mode(mode)
    const page = (host & ~0xfff) >>> 0
    const shadow = (mode & MODE.shadow) !== 0
    const most = shadow ? 1 : limit || MAX_INSTRUCTIONS
    let record = first + RECORD.size
    let ip = host & 0xfff
    let count = 0
    let crossing = -1
    let open = true // the last instruction does not end the block
    this.#candidate = undefined
    while (count < most && open && ip < 0x1000) {
      const instruction = (this.#instruction = this.#unused())
      let result = decode(this.#core.u8, page + ip, 0x1000 - ip, decodeMode, instruction)
      if (result === 'truncated') {
        if (count) break
        crossing = nextPage()
        if (crossing < 0) return undefined
        result = this.#decodeAcross(page + ip, crossing, decodeMode)
        writer.special(record, 'checkNextPage', ip)
        i32[(record + RECORD.immediate) >>> 2] = crossing
        record += RECORD.size
      }
      const asksFirst = result === 'ok' && this.#trapped.of(mode).has(instruction.row.id)
      const special = shadow && result === 'ok' ? inShadow(instruction, asksFirst) : undefined
      if (special) {
        writer.special(record, special, ip)
        record += RECORD.size
      }
      if (asksFirst) {
        this.#trap(record, instruction, ip)
        record += RECORD.size
      }
      open = this.#append(record, result, mode, ip, limit > 0)
      record += RECORD.size
      count++
      ip += instruction.length
      if (asksFirst) break
    }
    if (open) {
      if (shadow) {
        writer.special(record, 'endShadow', ip)
        record += RECORD.size
      }
      writer.goOn(record, ip, linkFor(ip, mode, limit > 0))
      record += RECORD.size
    }
    writer.special(first, 'enterBlock', host & 0xfff)
    i32[(first + RECORD.immediate) >>> 2] = count
    i32[(first + RECORD.mode) >>> 2] = mode
    i32[(first + RECORD.host) >>> 2] = host
    this.#count(first, record, count)
    this.#handlers.flush()
    return { host, mode, first, end: record, length: ip - (host & 0xfff), nextPage: crossing }
  }

  /** Decodes an instruction from `at` that continues on the page `next`. */
  #decodeAcross(at: number, next: number, mode: DecodeMode): DecodeResult {
    const { u8 } = this.#core
    const here = 0x1000 - (at & 0xfff)
    this.#joined.set(u8.subarray(at, at + here))
    this.#joined.set(u8.subarray(next, next + 16), here)
    return decode(this.#joined, 0, here + 15, mode, this.#instruction)
  }

  /** The one of the two that does not hold the candidate. */
  #unused(): Instruction {
    const [first, second] = this.#scratch
    return this.#candidate?.instruction === first ? second : first
  }

  /** The record that calls the hooks before an instruction. They may read any flag and continue elsewhere, so the block ends here. */
  #trap(record: number, { row, length }: Instruction, ip: number): void {
    this.#candidate = undefined
    this.#writer.special(record, 'trapped', ip)
    this.#writer.position(record, ip, length)
    this.#core.i32[(record + RECORD.immediate) >>> 2] = row.id
  }

  /** Writes the record of one instruction; true if the block can continue after it. */
  #append(record: number, result: DecodeResult, mode: number, ip: number, isPrivate: boolean): boolean {
    const instruction = this.#instruction
    const writer = this.#writer
    if (result !== 'ok') {
      writer.special(record, result === 'tooLong' ? 'generalProtection' : 'undefinedOpcode', ip)
      return false
    }
    const { row } = instruction
    writer.position(record, ip, instruction.length)
    const refused = this.#refusal(instruction, mode)
    if (refused) {
      writer.handler(record, this.#handlers.special(refused))
      return false
    }
    writer.handler(record, this.#handlers.of(instruction, mode, false))
    this.#findDeadFlags(record, instruction, mode)
    writer.operands(record, instruction, mode, ip, isPrivate)
    return row.attributes.flow === undefined
  }

  /** The exception that the instruction raises in this mode whatever its operands are. */
  #refusal({ row }: Instruction, mode: number): Special | undefined {
    const { enabledBy, cpl, cplFault } = row.attributes
    if (enabledBy && this.#core.hooks?.isUndefined?.(enabledBy)) return 'undefinedOpcode'
    if (isUnavailable(row, mode)) return 'fpuUnavailable'
    if (cpl === 0 && mode & MODE.user) return cplFault === 'ud' ? 'undefinedOpcode' : 'generalProtection'
    return undefined
  }

  /**
   * Flags that the next writer overwrites, with nothing in between that reads them or could show them (by a fault or an exit), need not be computed:
   * the earlier instruction gets the handler that omits them.
   */
  #findDeadFlags(record: number, instruction: Instruction, mode: number): void {
    const { reads, writes } = instruction.row.flags
    const quiet = isQuiet(instruction)
    const candidate = this.#candidate
    if (candidate && quiet && hidesFlags(instruction, candidate.instruction)) {
      this.#writer.handler(candidate.record, this.#handlers.of(candidate.instruction, mode, true))
    }
    if (writes) this.#candidate = canDropFlags(instruction) && !mayWriteCode(instruction) ? { record, instruction } : undefined
    else if (!quiet || reads) this.#candidate = undefined
  }

  /** Fills `remaining`: records after the entry, counted by instructions. A record that precedes an instruction has the same value. */
  #count(first: number, end: number, count: number): void {
    const { u8, i32 } = this.#core
    u8[first + RECORD.remaining] = 0 // the entry is past when its instructions are subtracted
    let left = count
    const before = (this.#before ??= new Set(BEFORE.map((name) => this.#handlers.special(name))))
    for (let record = first + RECORD.size; record < end; record += RECORD.size) {
      u8[record + RECORD.remaining] = left
      if (left && !before.has(i32[record >>> 2]!)) left--
    }
  }

  #mode(mode: number): DecodeMode {
    let known = this.#modes.get(mode)
    if (!known) this.#modes.set(mode, (known = decodeModeOf(mode)))
    return known
  }
}

/** The record before an instruction in an interrupt shadow that does not continue with its successor (interpreter/handlers.ts). */
function inShadow({ row: { attributes } }: Instruction, asksFirst: boolean): 'underShadow' | 'alone' | undefined {
  if (asksFirst) return 'alone'
  if (attributes.flow === undefined) return undefined
  return attributes.flow === 'conditional' || attributes.flow === 'jump' ? 'underShadow' : 'alone'
}
