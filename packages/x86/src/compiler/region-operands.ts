/**
 * Operands in compiled code: constants, registers and memory. Accesses of straight-line code through one register share one TLB lookup; a TLB miss is
 * one call.
 */
import { BASE_RIP } from '../decode/instruction.ts'
import type { Value, Variable, Width } from '../ir/nodes.ts'
import type { Near, RegisterField } from '../semantics/builder.ts'
import { pageOfLastByte, tlbEntry, tlbHost, tlbTag } from '../paging/tlb/entry.ts'
import { RSP, S, segment } from '../state/layout.ts'
import { codeSizeOf, stackSizeOf } from '../state/mode.ts'
import { escapeOf } from '../code/record.ts'
import { reachOf } from './shared-lookups.ts'
import { RegionRegisters } from './region-registers.ts'
import { packAccess } from '../code/slow-access.ts'
import type { Placed } from './region.ts'

/** Bytes around a value that are on one page. */
interface Neighbourhood {
  /** Host address of the first, or 0 if the TLB does not have all of them. */
  readonly host: Variable
  /** Offsets from the value. */
  readonly min: number
  readonly max: number
  readonly writes: boolean
}

export abstract class RegionOperands extends RegionRegisters {
  readonly stackSize: 16 | 32 | 64
  readonly #codeSize: 16 | 32 | 64
  /** Of the straight-line code being built. */
  readonly #neighbourhoods = new Map<Value, Neighbourhood>()
  #instructions: readonly Placed[] = []
  protected placed!: Placed
  /** Instructions from the current one to the end of its basic block. */
  protected remaining = 0

  constructor(mode: number) {
    super()
    this.stackSize = stackSizeOf(mode)
    this.#codeSize = codeSizeOf(mode)
  }

  override get codeSize(): 16 | 32 | 64 {
    return this.#codeSize
  }

  /** Instructions that run one after the other. */
  protected beginStraight(instructions: readonly Placed[]): void {
    this.latest.clear()
    this.#neighbourhoods.clear()
    this.#instructions = instructions
  }

  // ------------------------------------------------------------------ registers and constants

  #number(field: RegisterField): number {
    const i = this.instruction
    return typeof field === 'number' ? field : field === 'base' ? i.base : field === 'index' ? i.index : field === 'vvvv' ? i.vvvv : i[field]
  }
  readRegister(field: RegisterField, width: Width): Value {
    const n = this.#number(field)
    const high = width === 8 && n >= 4 && n < 8 && (typeof field === 'number' || !this.instruction.rexPresent)
    return high ? this.readGpr(n - 4, 1, 8) : this.readGpr(n, 0, width)
  }
  writeRegister(field: RegisterField, width: Width, value: Value): void {
    const n = this.#number(field)
    const high = width === 8 && n >= 4 && n < 8 && (typeof field === 'number' || !this.instruction.rexPresent)
    if (high) this.writeGpr(n - 4, 1, 8, value)
    else this.writeGpr(n, 0, width, value)
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
    this.setSlot(S.fpr + 16 * (this.#number(field) & 7), value)
    this.setSlot(S.fpr + 16 * (this.#number(field) & 7) + 8, this.i32(0xffff), 16)
  }
  registerAddress(file: 'xmm' | 'mmx' | 'segment', field: RegisterField): Value {
    const n = this.#number(field)
    return this.add(this.cpu, file === 'xmm' ? S.xmm + n * 16 : file === 'mmx' ? S.fpr + (n & 7) * 16 : segment(n))
  }
  immediate(): Value {
    const { immediate, immediateHigh } = this.instruction
    if (immediateHigh === immediate >> 31) return this.const(immediate)
    return this.const((BigInt(immediateHigh) << 32n) | BigInt(immediate >>> 0))
  }
  immediate2(): Value {
    return this.const(this.instruction.immediate2)
  }
  escape(): Value {
    return this.i32(escapeOf(this.instruction))
  }
  /** RIP at an offset from the page's start. */
  #rip(offset: number): Value {
    return this.truncate(this.add(this.useShared(this.ripPage), offset), this.codeSize === 64 ? 64 : 32)
  }
  currentRip(): Value {
    return this.#rip(this.placed.ip)
  }
  nextRip(): Value {
    return this.#rip(this.placed.ip + this.instruction.length)
  }
  get #target(): number {
    return this.placed.ip + this.instruction.length + this.instruction.immediate
  }
  /** Outside 64-bit mode the limit may be anywhere. In it no region runs from where a relative branch could leave the canonical addresses (`leaveNearBoundary`). */
  get leavesPage(): boolean {
    return this.codeSize !== 64
  }
  relativeTarget(): Value {
    return this.truncate(this.add(this.useShared(this.ripPage), this.#target), this.codeSize === 64 ? 64 : this.operandSize)
  }
  protected effectiveAddress(): Value {
    const { base, index, scale, displacement, displacementHigh, row, length } = this.instruction
    if (row.operands.some((o) => o.kind === 'O')) return this.const((BigInt(displacementHigh) << 32n) | BigInt(displacement >>> 0))
    if (base === BASE_RIP) return this.add(this.useShared(this.ripPage), this.placed.ip + length + displacement)
    let sum: Value | undefined = base >= 0 ? this.readGpr(base, 0, 64) : undefined
    if (index >= 0) {
      const scaled = this.shl(this.readGpr(index, 0, 64), scale)
      sum = sum ? this.add(sum, scaled) : scaled
    }
    return sum ? this.add(sum, displacement) : this.const(displacement)
  }
  protected segmentAddress(which: number | 'operand'): Value {
    return this.add(this.cpu, segment(which === 'operand' ? this.instruction.segment : which))
  }

  // ------------------------------------------------------------------ memory

  protected override near(linear: Value, bytes: number, access: 'read' | 'write'): Near | undefined {
    const { root, offset } = partsOf(linear)
    let near = this.#neighbourhoods.get(root)
    if (!near && this.depth === this.instructionDepth) near = this.#neighbourhoodOf(root)
    if (!near || offset < near.min || offset + bytes > near.max || (access === 'write' && !near.writes)) return undefined
    return { host: this.get(near.host), offset: offset - near.min }
  }
  /** Emits one TLB lookup for the accesses that the following instructions make through a register. `root` is its value. */
  #neighbourhoodOf(root: Value): Neighbourhood | undefined {
    for (const register of [this.instruction.base, RSP]) {
      const value = this.latest.get(register)
      if (!value) continue
      const { root: own, offset } = partsOf(value)
      const reach = own === root ? reachOf(this.#instructions, this.#instructions.length - this.remaining, register) : undefined
      if (!reach) continue
      const { writes } = reach
      const [min, max] = [offset + reach.min, offset + reach.max]
      const first = this.add(root, min)
      const entry = tlbEntry(this, first)
      const host = this.variable(tlbHost(this, first, entry), 'near')
      const tag = tlbTag(this, entry, writes ? 'write' : 'read')
      this.ifUnlikely(this.ne(tag, pageOfLastByte(this, first, max - min)), () => this.assign(host, 0))
      const near = { host, min, max, writes }
      this.#neighbourhoods.set(root, near)
      return near
    }
    return undefined
  }
  /** A device access may have changed the mapping: look it up again. */
  #forgetNeighbourhoods(): void {
    for (const { host } of this.#neighbourhoods.values()) this.assign(host, 0)
  }

  /** One call, because it is emitted for every access. (code/slow-access.ts) */
  protected slowHost(access: 'read' | 'modify', linear: Value, bytes: number, segmentNumber: number, tag: Value): Value {
    const host = this.call('i32', access === 'read' ? 'compiledRead' : 'compiledModify', this.cpu, linear, this.#access(bytes, segmentNumber), tag)
    this.ifUnlikely(this.eqz(host), () => this.leaveSilently())
    this.#forgetNeighbourhoods()
    return host
  }
  protected slowWrite(linear: Value, value: Value, bytes: number, segmentNumber: number, tag: Value = this.const(0)): void {
    const vector = value.type === 'v128'
    if (vector) this.setSlot(S.value, value)
    const args = vector ? [this.cpu, linear] : [this.cpu, linear, value]
    const left = this.call('i32', vector ? 'compiledWriteVector' : 'compiledWrite', ...args, this.#access(bytes, segmentNumber), tag)
    this.ifUnlikely(left, () => this.leaveSilently())
    this.#forgetNeighbourhoods()
  }
  #access(bytes: number, segmentNumber: number): Value {
    return this.i32(packAccess(bytes, segmentNumber, this.placed.ip, this.instruction.length, this.remaining))
  }
  /** The current instruction as RECORD has it: ip, length, remaining. */
  protected position(): Value {
    return this.i32(this.placed.ip | (this.instruction.length << 16) | (this.remaining << 24))
  }
}

/** A sum as a value and a constant. */
function partsOf(sum: Value): { root: Value; offset: number } {
  let root = sum
  let offset = 0
  while (root.kind === 'op' && (root.op.name === 'i64.add' || root.op.name === 'i64.sub')) {
    const [value, by] = root.args
    if (by!.kind !== 'const') break
    // A displacement is sign-extended; larger numbers would not be exact.
    const constant = by!.value <= 0x7fff_ffffn ? Number(by!.value) : Number(BigInt.asIntN(64, by!.value))
    if (Math.abs(constant) > 2 ** 32) break
    offset += root.op.name === 'i64.add' ? constant : -constant
    root = value!
  }
  return { root, offset }
}
