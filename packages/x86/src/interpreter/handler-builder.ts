/** The interpreter's side of the semantics builder: operands are read at run time from the pre-decoded record. */
import type { Instruction } from '../decode/instruction.ts'
import { BASE_RIP } from '../decode/instruction.ts'
import type { Value, Width } from '../ir/nodes.ts'
import { ACCESS } from '../state/paging-state.ts'
import { accessInfo, notCanonical, SemanticsBuilder, type RegisterField } from '../semantics/builder.ts'
import { VECTOR } from '../state/register-bits.ts'
import { EXIT, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { MODE } from '../state/mode.ts'
import { isCurrent } from '../paging/tlb/entry.ts'
import { FAR, NEVER_LINKED, NOT_LINKED } from '../code/record.ts'
import { RECORD } from '../state/record.ts'

/** What handlers share with the processor that runs them. */
export interface HandlerContext {
  /** Number of a system routine, by name. */
  readonly systemRoutine: (name: string) => number
  /** Number of the VM exit that a row can cause, 0 none (see rows' `exit` column). */
  readonly exitOf: (instruction: Instruction) => number
}

/** Where the record has a register field. */
const FIELD = { reg: RECORD.reg, rm: RECORD.rm, base: RECORD.rm, index: RECORD.index, vvvv: RECORD.vvvv } as const

export class HandlerBuilder extends SemanticsBuilder {
  readonly leavesPage = true
  readonly record: Value
  readonly stackSize: 16 | 32 | 64
  readonly #context: HandlerContext

  constructor(instruction: Instruction, stackSize: 16 | 32 | 64, flagsDead: boolean, context: HandlerContext) {
    super()
    this.begin(instruction, flagsDead)
    this.record = this.param(1)
    this.stackSize = stackSize
    this.#context = context
  }

  #field(offset: number): Value {
    return this.rawLoad('i32', this.record, offset, 32, { stable: true })
  }
  /** Address of the register that a record's field names. */
  #register(field: RegisterField, fixed: (n: number) => number): Value {
    if (typeof field === 'number') return this.add(this.cpu, fixed(field))
    return this.add(this.cpu, this.#field(FIELD[field]))
  }

  readRegister(field: RegisterField, width: Width): Value {
    if (typeof field === 'number') return this.slot(fixedRegister(field, width), 'i64', width)
    return this.rawLoad('i64', this.#register(field, () => 0), 0, width)
  }
  writeRegister(field: RegisterField, width: Width, value: Value): void {
    const stored: Width = width === 32 ? 64 : width
    if (typeof field === 'number') this.setSlot(fixedRegister(field, width), value, stored)
    else this.rawStore(this.#register(field, () => 0), 0, stored, value)
  }
  readVector(field: RegisterField): Value {
    return this.rawLoad('v128', this.registerAddress('xmm', field), 0, 128)
  }
  writeVector(field: RegisterField, value: Value): void {
    this.rawStore(this.registerAddress('xmm', field), 0, 128, value)
  }
  readMmx(field: RegisterField): Value {
    return this.rawLoad('i64', this.registerAddress('mmx', field), 0, 64)
  }
  writeMmx(field: RegisterField, value: Value): void {
    const address = this.registerAddress('mmx', field)
    this.rawStore(address, 0, 64, value)
    // MMX writes set the exponent part of the x87 register to ones. (SDM Vol. 1, "Effect of MMX Instructions on x87 FPU Registers")
    this.rawStore(address, 8, 16, this.i32(0xffff))
  }
  registerAddress(file: 'xmm' | 'mmx' | 'segment', field: RegisterField): Value {
    const fixed = file === 'xmm' ? (n: number) => S.xmm + n * 16 : file === 'mmx' ? (n: number) => S.fpr + n * 16 : segment
    return this.#register(field, fixed)
  }
  immediate(): Value {
    return this.rawLoad('i64', this.record, RECORD.immediate, 64, { stable: true })
  }
  immediate2(): Value {
    return this.rawLoad('i64', this.record, RECORD.link2, 32, { stable: true })
  }
  escape(): Value {
    return this.rawLoad('i32', this.record, RECORD.escape, 32, { stable: true })
  }
  currentRip(): Value {
    return this.#cutRip(this.add(this.slot(S.ripPage), this.rawLoad('i64', this.record, RECORD.ip, 16, { stable: true })))
  }
  nextRip(): Value {
    return this.#cutRip(this.add(this.add(this.slot(S.ripPage), this.rawLoad('i64', this.record, RECORD.ip, 16, { stable: true })), this.rawLoad('i64', this.record, RECORD.length, 8, { stable: true })))
  }
  /** For records that occur in blocks of every mode. */
  currentRipOfAnyMode(): Value {
    return this.#cutByMode(this.add(this.slot(S.ripPage), this.rawLoad('i64', this.record, RECORD.ip, 16, { stable: true })))
  }
  /** Continues at the record's immediate, in any mode. */
  goOn(): void {
    this.#followFar(() => this.#cutByMode(this.add(this.slot(S.ripPage), this.immediate())))
  }
  #cutByMode(rip: Value): Value {
    const code = this.and(this.slot(S.mode, 'i32'), MODE.codeSize)
    return this.select(this.eq(code, 2), rip, this.and(rip, 0xffff_ffff))
  }
  #cutRip(rip: Value): Value {
    return this.truncate(rip, this.codeSize === 64 ? 64 : 32)
  }
  relativeTarget(): Value {
    return this.truncate(this.add(this.slot(S.ripPage), this.immediate()), this.codeSize === 64 ? 64 : this.operandSize)
  }

  protected effectiveAddress(): Value {
    const { base, index, row } = this.instruction
    if (row.operands.some((o) => o.kind === 'O')) return this.immediate()
    if (base === BASE_RIP) return this.add(this.slot(S.ripPage), this.rawLoad('i64', this.record, RECORD.index, 64, { stable: true }))
    let sum = this.rawLoad('i64', this.record, RECORD.displacement, 32, { signed: true, stable: true })
    if (base >= 0) sum = this.add(this.rawLoad('i64', this.#register('base', () => 0), 0, 64), sum)
    if (index >= 0) {
      const scale = this.rawLoad('i64', this.record, RECORD.scale, 32, { stable: true })
      sum = this.add(sum, this.shl(this.rawLoad('i64', this.#register('index', () => 0), 0, 64), scale))
    }
    return sum
  }
  protected segmentAddress(which: number | 'operand'): Value {
    return which === 'operand' ? this.add(this.cpu, this.#field(RECORD.segment)) : this.add(this.cpu, segment(which))
  }

  protected slowHost(access: 'read' | 'modify', linear: Value, bytes: number, segmentNumber: number): Value {
    const host = this.variable(this.#quickFill(linear, bytes, access === 'read' ? ACCESS.read : ACCESS.write), 'filled')
    this.if(this.eqz(this.get(host)), () => {
      this.setSlot(S.address, linear)
      const info = this.i32(accessInfo(bytes, segmentNumber))
      this.ifUnlikely(this.call('i32', access === 'read' ? 'slowRead' : 'slowModify', this.cpu, info), () => this.leave())
      this.assign(host, access === 'read' ? this.add(this.cpu, S.value) : this.slot(S.modify, 'i32'))
    })
    return this.get(host)
  }
  #quickFill(linear: Value, bytes: number, access: number): Value {
    return this.call('i32', 'quickFill', this.cpu, linear, this.i32(access), this.i32(bytes))
  }
  protected slowWrite(linear: Value, value: Value, bytes: number, segmentNumber: number): void {
    const host = this.#quickFill(linear, bytes, ACCESS.write)
    const slowly = (): void => {
      this.setSlot(S.address, linear)
      this.setSlot(S.value, value)
      this.ifUnlikely(this.call('i32', 'slowWrite', this.cpu, this.i32(accessInfo(bytes, segmentNumber))), () => this.leave())
    }
    this.if(host, () => this.rawStore(host, 0, (bytes * 8) as Width, value), slowly)
  }

  leave(): void {
    this.setSlot(S.record, this.record)
    this.return()
  }
  jump(rip: Value): void {
    this.setSlot(S.rip, rip)
    this.tailCall('dispatch', this.cpu, this.add(this.cpu, S.zero)) // a link field that is never filled
  }
  endBlock(): void {
    this.jump(this.nextRip())
  }
  branch(condition?: Value): void {
    if (!condition) return this.#taken()
    this.if(condition, () => this.#taken())
    this.#follow(RECORD.link2, () => this.nextRip())
  }
  #taken(): void {
    if (this.codeSize !== 64) {
      const limit = this.rawLoad('i64', this.add(this.cpu, segment(SEGMENT.cs)), SEG.limit, 32)
      this.raiseIf(this.gtU(this.relativeTarget(), limit), VECTOR.GP)
    }
    if (this.codeSize === 64) {
      // Links lead to canonical targets only.
      return this.#followFar(() => {
        this.raiseIf(notCanonical(this, this.relativeTarget()), VECTOR.GP)
        return this.relativeTarget()
      })
    }
    // A target truncated to IP differs from the link.
    if (this.operandSize === 16) {
      const target = this.relativeTarget()
      this.ifUnlikely(this.ne(target, this.add(this.slot(S.ripPage), this.immediate())), () => this.jump(target))
    }
    this.#follow(RECORD.link, () => this.relativeTarget())
  }
  /** Jumps to the linked block, or finds it and links it. */
  #follow(link: number, rip: () => Value): void {
    const block = this.rawLoad('i32', this.record, link, 32)
    this.if(this.gtU(block, NOT_LINKED), () => this.tail(this.rawLoad('i32', block, RECORD.handler, 32), this.cpu, block))
    this.setSlot(S.rip, rip())
    this.tailCall('dispatch', this.cpu, this.add(this.record, link))
  }
  /** The same for a target that may be on another page. */
  #followFar(rip: () => Value): void {
    const block = this.rawLoad('i32', this.record, RECORD.link, 32)
    this.if(this.gtU(block, NOT_LINKED), () => this.tail(this.rawLoad('i32', block, RECORD.handler, 32), this.cpu, block))
    const page = this.add(this.slot(S.ripPage), this.and(this.immediate(), -4096))
    const holds = this.and(
      isCurrent(this, this.rawLoad('i32', this.record, RECORD.farGeneration, 32)),
      this.eq(this.rawLoad('i64', this.record, RECORD.farPage, 64), page),
    )
    this.if(holds, () => {
      const far = this.rawLoad('i32', this.record, RECORD.far, 32)
      this.setSlot(S.ripPage, page)
      this.tail(this.rawLoad('i32', far, RECORD.handler, 32), this.cpu, far)
    })
    this.setSlot(S.rip, rip())
    const link = this.select(this.eq(block, NEVER_LINKED), this.i32(RECORD.far | FAR), this.i32(RECORD.link))
    this.tailCall('dispatch', this.cpu, this.add(this.record, link))
  }
  system(name: string, ...args: Value[]): void {
    args.forEach((arg, i) => this.setSlot(S.args + 8 * i, this.extendU(arg)))
    const id = this.#context.systemRoutine(name) | (this.#context.exitOf(this.instruction) << 16)
    const outcome = this.call('i32', 'system', this.cpu, this.record, this.i32(id))
    this.if(outcome, () => {
      this.if(this.eq(outcome, 2), () => this.tailCall('dispatch', this.cpu, this.add(this.cpu, S.zero)))
      this.return()
    })
  }
  /** Continues with the next record. */
  next(): void {
    this.tail(this.rawLoad('i32', this.record, RECORD.size + RECORD.handler, 32, { stable: true }), this.cpu, this.add(this.record, RECORD.size))
  }
  /** Leaves for the reason given. */
  exit(reason: number): void {
    this.setSlot(S.exit, this.i32(reason))
    this.leave()
  }
  /** First record of a block: subtracts the block's instructions from the budget and counts the block's runs. */
  enterBlock(): void {
    const left = this.variable(this.sub(this.slot(S.budget, 'i32'), this.rawLoad('i32', this.record, RECORD.immediate, 32, { stable: true })), 'left')
    this.ifUnlikely(this.ltS(this.get(left), 0), () => {
      this.assign(left, this.call('i32', 'refill', this.cpu, this.get(left)))
      this.if(this.ltS(this.get(left), 0), () => this.exit(EXIT.budget))
    })
    const heat = this.sub(this.rawLoad('i32', this.record, RECORD.heat, 32), 1)
    this.rawStore(this.record, RECORD.heat, 32, heat)
    this.ifUnlikely(this.eqz(heat), () => this.exit(EXIT.hot))
    // Compiled code may have left flags uncomputed.
    this.ifUnlikely(this.slot(S.lazyKind, 'i32'), () => this.run('settleFlags', this.cpu, this.i32(0)))
    this.setSlot(S.budget, this.get(left))
    this.next()
  }
}

/** Fixed register numbers 4..7 of 8 bits are AH, CH, DH, BH. */
function fixedRegister(number: number, width: Width): number {
  return width === 8 && number >= 4 ? S.gpr + (number - 4) * 8 + 1 : S.gpr + number * 8
}
