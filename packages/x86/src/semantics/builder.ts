/**
 * What an instruction's semantics are written against. The same calls build an interpreter handler (operands read from the
 * record at run time) or compiled code (operands are constants): the tier is the subclass, and an author cannot tell.
 *
 * Guest integers are i64 values, zero-extended from their width. Rule for authors: everything that can fault comes before
 * the first change of a register, flag or memory, except where the manual says that partial progress shows.
 */
import type { IrBuilder, Operandish } from '../ir/builder.ts'
import type { Value, Variable, Width } from '../ir/nodes.ts'
import type { Instruction } from '../decode/instruction.ts'
import type { OperandSpec } from '../rows/row.ts'
import { FlagBuilder } from './flag-builder.ts'
import { pageOfLastByte, tlbEntry, tlbHost, tlbTag } from '../paging/tlb/entry.ts'
import { EXIT, gpr, RSP, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { FLAG, VECTOR } from '../state/register-bits.ts'

/** Where a register number comes from: a field of the instruction, or a fixed number. */
export type RegisterField = 'reg' | 'rm' | 'base' | 'index' | 'vvvv' | number

/** An access as passed to slow paths: bytes and segment number. */
export const accessInfo = (bytes: number, segmentNumber: number): number => bytes | (segmentNumber << 8)

/** Bytes beside others whose page was looked up: at `offset` from `host` (i32), which is 0 where that did not help. */
export interface Near {
  readonly host: Value
  readonly offset: number
}

/** A place in guest memory that was read and will be written: the write cannot fault. */
export interface Place {
  readonly value: Value
  write(value: Value): void
}

/** An explicit operand, as the row names it. */
export interface Operand {
  /** Bits. */
  readonly width: Width
  readonly isMemory: boolean
  readonly spec: OperandSpec
  /** i64 zero-extended, or v128 for vector operands. Memory operands may fault here. */
  read(): Value
  /** Registers: 32-bit writes clear the upper half. Memory operands may fault here, unless `readToWrite` came before. */
  write(value: Value): void
  /** Reads an operand that will be written: faults of the write occur now. Each call emits the access again: call it once. */
  readToWrite(): Value
  /** Effective address (offset in its segment), i64, cut to the address size. Memory operands only. */
  address(): Value
}

/** i32: a 64-bit value is not canonical. 48 bits: CR4.LA57 is not advertised. */
export const notCanonical = (b: IrBuilder, value: Value): Value => b.ne(b.shrS(b.shl(value, 16), 16), value)

export abstract class SemanticsBuilder extends FlagBuilder {
  readonly cpu: Value
  /** The instruction being built. */
  instruction!: Instruction
  operands: readonly Operand[] = []

  constructor() {
    super()
    this.cpu = this.param(0)
  }

  /** Code built from now on belongs to this instruction. */
  protected begin(instruction: Instruction, flagsDead: boolean): void {
    this.instruction = instruction
    this.flagsDead = flagsDead
    this.operands = instruction.row.operands.map((spec) => this.#operand(spec))
  }

  // ------------------------------------------------------------------ what the tiers supply

  /** General register, zero-extended from `width`. 8 bits: numbers 4..7 are AH..BH where no REX prefix is present. */
  abstract readRegister(field: RegisterField, width: Width): Value
  abstract writeRegister(field: RegisterField, width: Width, value: Value): void
  /** 16 bytes of the vector register in that field; MMX registers are 64 bits (i64). */
  abstract readVector(field: RegisterField): Value
  abstract writeVector(field: RegisterField, value: Value): void
  abstract readMmx(field: RegisterField): Value
  abstract writeMmx(field: RegisterField, value: Value): void
  /** Byte address in shared memory of the register in that field: for routines that work on memory. */
  abstract registerAddress(file: 'xmm' | 'mmx' | 'segment', field: RegisterField): Value
  /** i64, extended as the row says. */
  abstract immediate(): Value
  /** i64: ENTER's level, a far pointer's selector. */
  abstract immediate2(): Value
  /** i32: an x87 instruction's opcode: the low three bits of its first byte, then its ModRM byte. Bits 2:0 name ST(i). */
  abstract escape(): Value
  /** A relative branch may lead to another page, which alone can be beyond a limit or not canonical; true if that is not known. */
  abstract readonly leavesPage: boolean
  /** i64: RIP of this instruction, of the next one. */
  abstract currentRip(): Value
  abstract nextRip(): Value
  /** i64: target of a relative branch, cut to the operand size. */
  abstract relativeTarget(): Value
  /** i64: effective address of the memory operand before it is cut to the address size. */
  protected abstract effectiveAddress(): Value
  /** i64 base of the segment in use, or undefined where it is 0 by definition. `index`: a segment number, or the operand's own. */
  protected abstract segmentAddress(which: number | 'operand'): Value
  /** A TLB miss (paging/access/slow-path.ts): the host address as in `#translate`. Leaves on a fault. `tag`: the one that did not match. */
  protected abstract slowHost(access: 'read' | 'modify', linear: Value, bytes: number, segmentNumber: number, tag: Value): Value
  protected abstract slowWrite(linear: Value, value: Value, bytes: number, segmentNumber: number, tag?: Value): void
  /** Whether the access needs no TLB lookup of its own. */
  protected near(_linear: Value, _bytes: number, _access: 'read' | 'write'): Near | undefined {
    return undefined
  }
  /** Leaves compiled code or the handler chain at this instruction; `exit` says why. */
  abstract leave(): void
  /** Ends the block: continue at `rip`, already checked. */
  abstract jump(rip: Value): void
  /** Ends the block with a relative branch. Without a condition it is always taken. */
  abstract branch(condition?: Value): void
  /** The block ends here and continues with the next instruction, after something that changes how code decodes or translates. */
  abstract endBlock(): void
  /** Runs a system routine by name (see system/): it may raise, stop, or set RIP. Semantics end after it. */
  abstract system(name: string, ...args: Value[]): void

  // ------------------------------------------------------------------ facts about the instruction

  get operandSize(): 16 | 32 | 64 { return this.instruction.operandSize }
  get addressSize(): 16 | 32 | 64 { return this.instruction.addressSize }
  get codeSize(): 16 | 32 | 64 { return this.instruction.codeSize }
  /** Width of the stack pointer in this mode. */
  abstract get stackSize(): 16 | 32 | 64

  /** +size or -size by DF, i64. */
  stringStep(bytes: number): Value {
    return this.select(this.and(this.slot(S.flags, 'i32'), FLAG.DF), this.const(-bytes), this.const(bytes))
  }

  // ------------------------------------------------------------------ exceptions

  raise(vector: number, errorCode: Operandish = 0): void {
    this.setSlot(S.vector, this.i32(vector))
    this.setSlot(S.errorCode, this.as(errorCode, 'i32'))
    this.setSlot(S.exit, this.i32(EXIT.exception))
    this.leave()
  }
  raiseIf(condition: Value, vector: number, errorCode: Operandish = 0): void {
    this.ifUnlikely(condition, () => this.raise(vector, errorCode))
  }

  // ------------------------------------------------------------------ memory

  /** Cuts an offset to a width: an address size or the stack's. */
  cut(offset: Value, size: 16 | 32 | 64): Value {
    return this.truncate(offset, size)
  }
  /**
   * Linear address of `offset` in a segment for an access of `bytes`, checked against the segment where the mode has limits.
   * `which`: a segment number (0 = ES ..), or 'operand' for the memory operand's own.
   */
  linear(which: number | 'operand', offset: Value, bytes: number, access: 'read' | 'write'): Value {
    const number = which === 'operand' ? this.instruction.segment : which
    if (this.codeSize === 64) {
      if (number !== SEGMENT.fs && number !== SEGMENT.gs) return offset
      return this.add(offset, this.rawLoad('i64', this.segmentAddress(which), SEG.base, 64))
    }
    const seg = this.segmentAddress(which)
    const bound = this.rawLoad('i64', seg, access === 'read' ? SEG.readBound : SEG.writeBound, 64)
    this.ifUnlikely(this.gtU(this.add(offset, bytes), bound), () => {
      this.setSlot(S.address, offset)
      const info = this.or(this.i32(bytes | (access === 'write' ? 0x100_0000 : 0)), this.shl(this.#segmentNumber(seg), 16))
      this.ifUnlikely(this.call('i32', 'checkSegment', this.cpu, info), () => this.leave())
    })
    return this.and(this.add(offset, this.rawLoad('i64', seg, SEG.base, 64)), 0xffff_ffff)
  }
  /** Number of the segment register at this address, i32. */
  #segmentNumber(address: Value): Value {
    return this.divU(this.sub(this.sub(address, this.cpu), segment(0)), SEG.size)
  }
  /** Selector of the memory operand's segment, i32. */
  operandSelector(): Value {
    return this.rawLoad('i32', this.segmentAddress('operand'), SEG.selector, 16)
  }
  /** `bytes` 1, 2, 4, 8 give i64 zero-extended, 16 gives v128. */
  load(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Value {
    return this.#loadAt(this.#translate('read', linear, bytes, which), bytes)
  }
  store(linear: Value, bytes: number, value: Value, which: number | 'operand' = 'operand'): void {
    const near = this.near(linear, bytes, 'write')
    if (near) {
      this.ifUnlikely(this.eqz(near.host), () => this.slowWrite(linear, value, bytes, this.#segmentOf(which)), () => this.#storeAt(near, bytes, value))
      return
    }
    const entry = tlbEntry(this, linear)
    const tag = tlbTag(this, entry, 'write')
    this.ifUnlikely(
      this.ne(tag, pageOfLastByte(this, linear, bytes)),
      () => this.slowWrite(linear, value, bytes, this.#segmentOf(which), tag),
      () => this.#storeAt({ host: tlbHost(this, linear, entry), offset: 0 }, bytes, value),
    )
  }
  /** Reads `bytes` (1..8: i64, 16: v128) that will be written: write permission is checked now. */
  modify(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Place {
    const place = this.#translate('modify', linear, bytes, which)
    const write = (value: Value): void => {
      this.#storeAt(place, bytes, value)
      // Not plain memory: the value that was read is in the value slot, and is written by the slow path.
      this.ifUnlikely(this.eq(place.host, this.add(this.cpu, S.value - place.offset)), () => this.slowWrite(linear, value, bytes, this.#segmentOf(which)))
    }
    return { value: this.#loadAt(place, bytes), write }
  }
  /** Host address of the access; if it is not plain memory, that of the value slot, which has the value read. Leaves on a fault. */
  #translate(access: 'read' | 'modify', linear: Value, bytes: number, which: number | 'operand'): Near {
    const near = this.near(linear, bytes, access === 'read' ? 'read' : 'write')
    if (near) {
      const host = this.variable(near.host, 'host')
      this.ifUnlikely(this.eqz(near.host), () =>
        this.assign(host, this.sub(this.slowHost(access, linear, bytes, this.#segmentOf(which), this.const(0)), near.offset)),
      )
      return { host: this.get(host), offset: near.offset }
    }
    const entry = tlbEntry(this, linear)
    const host = this.variable(tlbHost(this, linear, entry), 'host')
    const tag = tlbTag(this, entry, access === 'read' ? 'read' : 'write')
    this.ifUnlikely(this.ne(tag, pageOfLastByte(this, linear, bytes)), () =>
      this.assign(host, this.slowHost(access, linear, bytes, this.#segmentOf(which), tag)),
    )
    return { host: this.get(host), offset: 0 }
  }
  #loadAt({ host, offset }: Near, bytes: number): Value {
    return this.rawLoad(bytes === 16 ? 'v128' : 'i64', host, offset, (bytes * 8) as Width)
  }
  #storeAt({ host, offset }: Near, bytes: number, value: Value): void {
    this.rawStore(host, offset, (bytes * 8) as Width, value)
  }
  /** HPA (i32) of a linear address, and whether the page is a TLB hit, so that bytes on it can be accessed directly. For bulk string operations. */
  plainHost(linear: Value, access: 'read' | 'write'): { host: Value; plain: Value } {
    const entry = tlbEntry(this, linear)
    const hit = this.eq(tlbTag(this, entry, access === 'read' ? 'read' : 'write'), this.and(linear, -4096))
    return { host: tlbHost(this, linear, entry), plain: hit }
  }
  #segmentOf(which: number | 'operand'): number {
    return which === 'operand' ? this.instruction.segment : which
  }

  // ------------------------------------------------------------------ stack

  /** Offset of the stack top, i64, cut to the stack's width. */
  stackPointer(): Value {
    return this.slot(gpr(RSP), 'i64', this.stackSize)
  }
  setStackPointer(value: Value): void {
    if (this.stackSize === 16) this.setSlot(gpr(RSP), value, 16)
    else this.setSlot(gpr(RSP), this.truncate(value, this.stackSize))
  }
  push(value: Value, bytes: number): void {
    const top = this.cut(this.sub(this.stackPointer(), bytes), this.stackSize)
    this.store(this.linear(SEGMENT.ss, top, bytes, 'write'), bytes, value, SEGMENT.ss)
    this.setStackPointer(top)
  }
  /** Value at the stack top; the pointer moves only with `setStackPointer(pointerAfter)`. */
  top(bytes: number): { value: Value; pointerAfter: Value } {
    const top = this.stackPointer()
    const value = this.load(this.linear(SEGMENT.ss, top, bytes, 'read'), bytes, SEGMENT.ss)
    return { value, pointerAfter: this.cut(this.add(top, bytes), this.stackSize) }
  }
  pop(bytes: number): Value {
    const { value, pointerAfter } = this.top(bytes)
    this.setStackPointer(pointerAfter)
    return value
  }

  // ------------------------------------------------------------------ operands

  /** Offset of the memory operand, cut to the address size. */
  address(): Value {
    return this.cut(this.effectiveAddress(), this.addressSize)
  }

  widthOf(spec: OperandSpec): Width {
    return widthOf(spec, this.instruction)
  }

  #operand(spec: OperandSpec): Operand {
    const width = this.widthOf(spec)
    const { isMemory } = this.instruction
    const number = () => { throw new Error(`operand ${spec.text} has no address`) }
    const register = (field: RegisterField): Operand => ({
      width, isMemory: false, spec, address: number,
      read: () => this.readRegister(field, width),
      readToWrite: () => this.readRegister(field, width),
      write: (value) => this.writeRegister(field, width, value),
    })
    switch (spec.kind) {
      case 'E': case 'M': return isMemory ? this.#memory(spec, width) : register('rm')
      case 'O': return this.#memory(spec, width)
      case 'R': case 'Z': return register('rm')
      case 'G': return register('reg')
      case 'B': return register('vvvv')
      case 'gpr': return register(spec.register)
      case 'I': return this.#constant(spec, width, () => this.truncate(this.immediate(), width))
      case 'one': return this.#constant(spec, width, () => this.const(1))
      case 'W': case 'Q':
        return isMemory ? this.#memory(spec, width) : this.#vector(spec, width, 'rm')
      case 'U': case 'N': return this.#vector(spec, width, 'rm')
      case 'V': case 'P': return this.#vector(spec, width, 'reg')
      case 'xmm0': return this.#vector(spec, width, 0)
      default: return this.#constant(spec, width, () => { throw new Error(`operand ${spec.text} of ${this.instruction.row.mnemonic} has no generic access`) })
    }
  }
  #constant(spec: OperandSpec, width: Width, read: () => Value): Operand {
    const never = () => { throw new Error(`operand ${spec.text} cannot be written`) }
    return { width, isMemory: false, spec, read, readToWrite: never, write: never, address: never }
  }
  /** A register of the XMM (128 bits; narrower widths are its low part) or MMX file. */
  #vector(spec: OperandSpec, width: Width, field: RegisterField): Operand {
    const mmx = spec.kind === 'P' || spec.kind === 'N' || spec.kind === 'Q'
    const read = (): Value => {
      if (mmx) return this.truncate(this.readMmx(field), width)
      const all = this.readVector(field)
      return width === 128 ? all : this.truncate(this.lane('i64x2.extract_lane', [0], all), width)
    }
    const write = (value: Value): void => {
      if (mmx) return this.writeMmx(field, value)
      if (value.type === 'v128') return this.writeVector(field, value)
      const all = this.readVector(field)
      // A narrower write does not change the rest of the register.
      this.writeVector(field, width === 32 ? this.lane('i32x4.replace_lane', [0], all, this.wrap(value)) : this.lane('i64x2.replace_lane', [0], all, value))
    }
    return { width, isMemory: false, spec, read, readToWrite: read, write, address: () => { throw new Error('a register has no address') } }
  }
  #memory(spec: OperandSpec, width: Width): Operand {
    const bytes = width / 8
    const aligned = width === 128 && this.instruction.row.attributes.aligned === true
    const linear = (access: 'read' | 'write') => {
      const address = this.linear('operand', this.address(), bytes, access)
      // (SDM Vol. 2A, "SIMD Floating-Point Exceptions and Exception Conditions", types 1, 2 and 4)
      if (aligned) this.raiseIf(this.ne(this.and(this.wrap(address), 15), 0), VECTOR.GP)
      return address
    }
    let place: Place | undefined
    return {
      width, isMemory: true, spec,
      address: () => this.address(),
      read: () => this.load(linear('read'), bytes),
      readToWrite: () => {
        place = this.modify(linear('write'), bytes)
        return place.value
      },
      write: (value) => {
        if (place) place.write(value)
        else this.store(linear('write'), bytes, value)
      },
    }
  }
}

/** Bits of an operand by the notation of the opcode maps. */
export function widthOf(spec: OperandSpec, { operandSize, isMemory }: Instruction): Width {
  if (spec.kind === 'I' && spec.signed) return operandSize // sign-extended to the operand size
  switch (spec.size) {
    case 'b': return 8
    case 'w': case 'i16': return 16
    case 'd': case 'f32': case 'i32': return 32
    case 'q': case 'f64': case 'i64': return 64
    case 'x': return 128
    case 'v': return operandSize
    case 'z': return operandSize === 64 ? 32 : operandSize
    case 'y': return operandSize === 64 ? 64 : 32
    case 'c': return operandSize === 64 ? 128 : 64
    case 'sreg': return isMemory ? 16 : operandSize
    case 'db': return isMemory ? 8 : 32
    case 'dw': return isMemory ? 16 : 32
    default: return 64
  }
}

/** What an instruction does, as IR. `operands` are those of the row, in its order. */
export type Semantics = (b: SemanticsBuilder, ...operands: Operand[]) => void

export type { Operandish, Value, Variable, Width }
