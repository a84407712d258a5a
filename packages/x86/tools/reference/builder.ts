/**
 * Builds one instruction at one address for the reference machine: operands are constants, every access to memory is a call. There is no TLB, no block
 * and no link. The semantics are those of both tiers; what surrounds them is the machine's own (machine.ts).
 */
import { BASE_RIP, type Instruction } from '../../src/decode/instruction.ts'
import type { Value, Width } from '../../src/ir/nodes.ts'
import { notCanonical, SemanticsBuilder, type Place, type RegisterField } from '../../src/semantics/builder.ts'
import { semantics } from '../../src/semantics/index.ts'
import { gpr, S, segment } from '../../src/state/layout.ts'
import { VECTOR } from '../../src/state/register-bits.ts'

/** `info` of a memory call: bytes, segment number, and whether the bytes will be written. */
export const accessCall = (bytes: number, segmentNumber: number): number => bytes | (segmentNumber << 8)

export class ReferenceBuilder extends SemanticsBuilder {
  readonly leavesPage = true
  readonly stackSize: 16 | 32 | 64
  readonly #rip: bigint
  readonly #routine: (name: string) => number

  constructor(instruction: Instruction, rip: bigint, stackSize: 16 | 32 | 64, routine: (name: string) => number) {
    super()
    this.#rip = rip
    this.stackSize = stackSize
    this.#routine = routine
    this.begin(instruction, false)
    const meaning = semantics[instruction.row.semantics]
    if (!meaning) throw new Error(`${instruction.row.mnemonic} has no semantics`)
    meaning(this, ...this.operands)
    this.jump(this.nextRip())
  }

  #number(field: RegisterField): number {
    const i = this.instruction
    return typeof field === 'number' ? field : field === 'base' ? i.base : field === 'index' ? i.index : field === 'vvvv' ? i.vvvv : i[field]
  }
  #general(field: RegisterField, width: Width): number {
    const n = this.#number(field)
    const high = width === 8 && n >= 4 && n < 8 && (typeof field === 'number' || !this.instruction.rexPresent)
    return high ? gpr(n - 4) + 1 : gpr(n)
  }
  readRegister(field: RegisterField, width: Width): Value {
    return this.slot(this.#general(field, width), 'i64', width)
  }
  writeRegister(field: RegisterField, width: Width, value: Value): void {
    this.setSlot(this.#general(field, width), value, width === 32 ? 64 : width)
  }
  readVector(field: RegisterField): Value {
    return this.slot(S.xmm + 16 * this.#number(field), 'v128')
  }
  writeVector(field: RegisterField, value: Value): void {
    this.setSlot(S.xmm + 16 * this.#number(field), value)
  }
  readMmx(field: RegisterField): Value {
    return this.slot(S.fpr + 16 * (this.#number(field) & 7))
  }
  writeMmx(field: RegisterField, value: Value): void {
    const at = S.fpr + 16 * (this.#number(field) & 7)
    this.setSlot(at, value)
    this.setSlot(at + 8, this.const(0xffff), 16)
  }
  registerAddress(file: 'xmm' | 'mmx' | 'segment', field: RegisterField): Value {
    const n = this.#number(field)
    return this.add(this.cpu, file === 'xmm' ? S.xmm + 16 * n : file === 'mmx' ? S.fpr + 16 * (n & 7) : this.#isControl ? gpr(n) : segment(n))
  }
  /** The number of a control or debug register is given as the offset of the general register of that number. */
  get #isControl(): boolean {
    return /Control|Debug/.test(this.instruction.row.semantics)
  }
  immediate(): Value {
    const { immediate, immediateHigh } = this.instruction
    return this.const((BigInt(immediateHigh) << 32n) | BigInt(immediate >>> 0))
  }
  immediate2(): Value {
    return this.const(this.instruction.immediate2 & 0xffff)
  }
  escape(): Value {
    const i = this.instruction
    return this.i32(((i.opcode & 7) << 8) | (i.mod << 6) | ((i.reg & 7) << 3) | (i.rm & 7))
  }
  currentRip(): Value {
    return this.const(this.#rip)
  }
  nextRip(): Value {
    return this.const(BigInt.asUintN(this.codeSize, this.#rip + BigInt(this.instruction.length)))
  }
  relativeTarget(): Value {
    return this.truncate(this.add(this.nextRip(), this.immediate()), this.codeSize === 64 ? 64 : this.operandSize)
  }

  protected effectiveAddress(): Value {
    const { base, index, scale, displacement, displacementHigh, row } = this.instruction
    const offset = this.const((BigInt(displacementHigh) << 32n) | BigInt(displacement >>> 0))
    if (row.operands.some(({ kind }) => kind === 'O')) return offset
    let sum: Value = this.const(BigInt(displacement))
    if (base === BASE_RIP) return this.add(this.nextRip(), sum)
    if (base >= 0) sum = this.add(this.slot(gpr(base)), sum)
    if (index >= 0) sum = this.add(sum, this.shl(this.slot(gpr(index)), scale))
    return sum
  }
  protected segmentAddress(which: number | 'operand'): Value {
    return this.add(this.cpu, segment(which === 'operand' ? this.instruction.segment : which))
  }

  // --- memory: every access is a call; the bytes pass through the value slot ---

  override load(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Value {
    this.#access('read', linear, bytes, which)
    return this.rawLoad(bytes === 16 ? 'v128' : 'i64', this.cpu, S.value, (bytes * 8) as Width)
  }
  override store(linear: Value, bytes: number, value: Value, which: number | 'operand' = 'operand'): void {
    this.rawStore(this.cpu, S.value, (bytes * 8) as Width, value)
    this.#access('write', linear, bytes, which)
  }
  override modify(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Place {
    this.#access('modify', linear, bytes, which)
    const value = this.rawLoad(bytes === 16 ? 'v128' : 'i64', this.cpu, S.value, (bytes * 8) as Width)
    return { value, write: (next) => this.store(linear, bytes, next, which) }
  }
  override plainHost(): { host: Value; plain: Value } {
    return { host: this.i32(0), plain: this.i32(0) }
  }
  #access(kind: 'read' | 'write' | 'modify', linear: Value, bytes: number, which: number | 'operand'): void {
    const number = which === 'operand' ? this.instruction.segment : which
    this.setSlot(S.address, linear)
    this.if(this.call('i32', kind, this.i32(accessCall(bytes, number))), () => this.leave())
  }
  protected slowHost(): Value {
    throw new Error('the reference has no TLB')
  }
  protected slowWrite(): void {
    throw new Error('the reference has no TLB')
  }

  // --- control ---

  leave(): void {
    this.return()
  }
  jump(rip: Value): void {
    this.setSlot(S.rip, rip)
    this.return()
  }
  endBlock(): void {
    this.jump(this.nextRip())
  }
  branch(condition?: Value): void {
    const jump = (): void => {
      if (this.codeSize === 64) this.raiseIf(notCanonical(this, this.relativeTarget()), VECTOR.GP)
      this.jump(this.relativeTarget())
    }
    if (condition) this.if(condition, jump, () => this.jump(this.nextRip()))
    else jump()
  }
  system(name: string, ...args: Value[]): void {
    args.forEach((arg, n) => this.setSlot(S.args + 8 * n, this.extendU(arg)))
    this.if(this.call('i32', 'system', this.i32(this.#routine(name))), () => this.return())
  }
}
