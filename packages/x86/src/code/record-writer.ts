/** Writes the fields of records (state/record.ts). Independent of blocks. */
import { BASE_RIP, type Instruction } from '../decode/instruction.ts'
import type { Core } from '../state/core.ts'
import { gpr, S, segment } from '../state/layout.ts'
import { MODE } from '../state/mode.ts'
import { RECORD } from '../state/record.ts'
import type { HandlerTable, Special } from './handler-table.ts'
import { operandFields, registerOffset } from './operand-fields.ts'
import { escapeOf, NEVER_LINKED, NOT_LINKED } from './record.ts'

/** None of PagingState's. */
const NO_GENERATION = -1

export class RecordWriter {
  readonly #core: Core
  readonly #handlers: HandlerTable

  constructor(core: Core, handlers: HandlerTable) {
    this.#core = core
    this.#handlers = handlers
  }

  /** A record that is no instruction. */
  special(record: number, name: Special, ip: number): void {
    this.#core.i32[(record + RECORD.farGeneration) >>> 2] = NO_GENERATION
    this.handler(record, this.#handlers.special(name))
    this.position(record, ip, 0)
  }
  /** A record that continues at an offset of the page. */
  goOn(record: number, ip: number, link: number): void {
    this.special(record, 'goOn', ip)
    this.immediate(record, ip)
    this.#core.i32[(record + RECORD.link) >>> 2] = link
  }

  handler(record: number, handler: number): void {
    this.#core.i32[(record + RECORD.handler) >>> 2] = handler
  }
  position(record: number, ip: number, length: number): void {
    const { view, u8 } = this.#core
    view.setUint16(record + RECORD.ip, ip, true)
    u8[record + RECORD.length] = length
  }
  immediate(record: number, value: number): void {
    this.#wide((record + RECORD.immediate) >>> 2, value)
  }

  /** `isPrivate`: its block must not be linked. */
  operands(record: number, i: Instruction, mode: number, ip: number, isPrivate: boolean): void {
    const { i32 } = this.#core
    const word = record >>> 2
    const { row } = i
    const fields = operandFields(row)
    i32[word + 2] = registerOffset(fields.reg, i.reg, i)
    if (i.isMemory) {
      i32[word + 3] = i.base >= 0 && i.base !== BASE_RIP ? gpr(i.base) : S.zero
      if (i.base === BASE_RIP) this.#wide(word + 4, ip + i.length + i.displacement)
      else {
        i32[word + 4] = i.index >= 0 ? gpr(i.index) : S.zero
        i32[word + 5] = i.scale
      }
    } else i32[word + 3] = registerOffset(fields.rm, i.rm, i)
    i32[word + 6] = segment(i.segment)
    i32[word + 7] = i.displacement
    i32[word + 8] = i.immediate
    i32[word + 9] = i.immediateHigh
    i32[word + 10] = NEVER_LINKED
    i32[word + 11] = i.vex ? gpr(i.vvvv) : row.attributes.unit === 'x87' ? escapeOf(i) : i.immediate2
    if (fields.hasOffset) {
      i32[word + 8] = i.displacement
      i32[word + 9] = i.displacementHigh
    }
    const { flow } = row.attributes
    if (flow === 'conditional' || flow === 'jump' || flow === 'call') {
      i32[word + (RECORD.farGeneration >> 2)] = NO_GENERATION
      const next = ip + i.length
      const target = next + i.immediate
      this.immediate(record, target)
      i32[word + 10] = linkFor(target, mode, isPrivate)
      if (flow === 'conditional') i32[word + 11] = linkFor(next, mode, isPrivate)
    }
  }

  #wide(word: number, value: number): void {
    const { i32 } = this.#core
    i32[word] = value | 0
    i32[word + 1] = Math.floor(value / 0x1_0000_0000)
  }
}

/** A target on the same page may be linked: the page's mapping was checked when the page was entered. */
export function linkFor(ip: number, mode: number, isPrivate: boolean): number {
  return ip >= 0 && ip < 0x1000 && !(mode & MODE.csLimited) && !isPrivate ? NOT_LINKED : NEVER_LINKED
}
