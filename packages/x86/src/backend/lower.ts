/** IR → WebAssembly: the only lowering. Decides which values live in locals and writes the bytes. */
import { Bytes, type BranchHint, type ValueType } from '@nonroot/wasm-encoder'
import type { Body, Node, Value } from '../ir/nodes.ts'
import type { Type } from '../ir/ops.ts'
import { placeValues } from './place-values.ts'

/** A function in no module yet. Plain data. */
export interface Lowered {
  /** Its instructions, with the final `end`. The indices of the functions that it calls are left out. */
  readonly code: Uint8Array
  /** Types of the locals after the parameters. */
  readonly locals: readonly ValueType[]
  readonly hints: readonly BranchHint[]
  readonly calls: readonly Call[]
}

/** A function's index is two bytes, for a LEB128 below 2^14, at this offset of the code. */
export interface Call {
  readonly at: number
  readonly callee: string
}

/** Of tail calls through the table: the first type of a module. */
export const TAIL_TYPE = 0

/** The code with the indices of what it calls. */
export function link({ code, calls }: Pick<Lowered, 'code' | 'calls'>, indexOf: (callee: string) => number): Uint8Array {
  const linked = new Bytes(code.length)
  linked.put(code)
  for (const { at, callee } of calls) {
    linked.length = at
    linked.padded(indexOf(callee))
  }
  linked.length = code.length
  return linked.buffer
}

/** `params`: the number of the function's parameters. */
export function lower(body: Body, params: number): Lowered {
  const lowering = new Lowering(params, placeValues(body))
  lowering.list(body)
  const { code, locals, hints, calls } = lowering
  code.byte(0x0b)
  return { code: code.toUint8Array(), locals, hints, calls }
}

/** Loads by type, width and sign. (WebAssembly Core Specification, "Memory Instructions") */
type ByWidth = Readonly<Partial<Record<Type, Readonly<Record<number, number>>>>>
const LOAD: ByWidth = { i32: { 8: 0x2d, 16: 0x2f, 32: 0x28 }, i64: { 8: 0x31, 16: 0x33, 32: 0x35, 64: 0x29 }, f32: { 32: 0x2a }, f64: { 64: 0x2b } }
const LOAD_SIGNED: ByWidth = { i32: { 8: 0x2c, 16: 0x2e, 32: 0x28 }, i64: { 8: 0x30, 16: 0x32, 32: 0x34, 64: 0x29 } }
const STORE: ByWidth = { i32: { 8: 0x3a, 16: 0x3b, 32: 0x36 }, i64: { 8: 0x3c, 16: 0x3d, 32: 0x3e, 64: 0x37 }, f32: { 32: 0x38 }, f64: { 64: 0x39 } }
/** v128 loads: whole, or the low bits with zeros above. */
const LOAD_VECTOR: Record<number, number> = { 128: 0, 64: 93, 32: 92 }

class Lowering {
  readonly code = new Bytes(4096)
  readonly locals: ValueType[] = []
  readonly hints: BranchHint[] = []
  readonly calls: Call[] = []
  readonly #free: Record<Type, number[]> = { i32: [], i64: [], f32: [], f64: [], v128: [] }
  readonly #params: number
  /** Reads that are evaluated where they are used. */
  readonly #atUse: ReadonlySet<Value>
  /** Open wasm blocks, innermost last; loops carry their label twice: the block around (break) and the loop (continue). */
  readonly #open: { label: object | undefined; loop: boolean }[] = []
  #loopDepth = 0

  constructor(params: number, atUse: ReadonlySet<Value>) {
    this.#params = params
    this.#atUse = atUse
  }

  list(body: Body): void {
    for (const node of body) this.#node(node)
  }

  #node(node: Node): void {
    const { code } = this
    switch (node.kind) {
      case 'const':
      case 'param':
        return
      case 'op':
      case 'select':
        if (node.uses > 1) this.#keep(node)
        return
      case 'load':
        if (node.uses > (node.stable ? 1 : 0) && !this.#atUse.has(node)) this.#keep(node)
        return
      case 'get':
      case 'slot':
        if (node.uses && !this.#atUse.has(node)) this.#keep(node)
        return
      case 'call':
        if (node.uses) return this.#keep(node)
        this.#compute(node)
        code.byte(0x1a)
        return
      case 'set':
        this.#value(node.value)
        if (node.variable.local < 0) node.variable.local = this.#newLocal(node.variable.type)
        code.byte(0x21)
        code.u32(node.variable.local)
        return
      case 'setSlot':
        code.byte(0x20)
        code.byte(0)
        this.#value(node.value)
        return this.#store(node.value.type, node.width, node.offset)
      case 'store':
        this.#value(node.address)
        this.#value(node.value)
        return this.#store(node.value.type, node.width, node.offset)
      case 'run':
        for (const arg of node.args) this.#value(arg)
        return this.#call(0x10, node.callee)
      case 'if':
        this.#value(node.condition)
        if (node.unlikely) this.hints.push({ at: code.length, likely: false })
        if (node.then.length === 1 && node.then[0]!.kind === 'break' && !node.else.length) return this.#branch(0x0d, node.then[0]!)
        code.byte(0x04)
        code.byte(0x40)
        this.#open.push({ label: undefined, loop: false })
        this.list(node.then)
        if (node.else.length) {
          code.byte(0x05)
          this.list(node.else)
        }
        this.#open.pop()
        code.byte(0x0b)
        return
      case 'loop':
        for (const opcode of [0x02, 0x40, 0x03, 0x40]) code.byte(opcode)
        this.#open.push({ label: node.label, loop: false }, { label: node.label, loop: true })
        this.#loopDepth++
        this.list(node.body)
        this.#loopDepth--
        this.#open.length -= 2
        for (const opcode of [0x0c, 0, 0x0b, 0x0b]) code.byte(opcode)
        return
      case 'block':
        code.byte(0x02)
        code.byte(0x40)
        this.#open.push({ label: node.label, loop: false })
        this.list(node.body)
        this.#open.pop()
        code.byte(0x0b)
        return
      case 'break':
      case 'continue':
        return this.#branch(0x0c, node)
      case 'copy':
        this.#value(node.to)
        this.#value(node.from)
        this.#value(node.count)
        for (const byte of [0xfc, 0x0a, 0, 0]) code.byte(byte)
        return
      case 'fill':
        this.#value(node.to)
        this.#value(node.byte)
        this.#value(node.count)
        for (const byte of [0xfc, 0x0b, 0]) code.byte(byte)
        return
      case 'return':
        if (node.value) this.#value(node.value)
        code.byte(0x0f)
        return
      case 'tail':
        for (const arg of node.args) this.#value(arg)
        this.#value(node.target)
        code.byte(0x13)
        code.u32(TAIL_TYPE)
        code.byte(0)
        return
      case 'tailCall':
        for (const arg of node.args) this.#value(arg)
        return this.#call(0x12, node.callee)
    }
  }

  /** A call or return_call. */
  #call(opcode: number, callee: string): void {
    this.code.byte(opcode)
    this.calls.push({ at: this.code.length, callee })
    this.code.padded(0)
  }

  /** A br or br_if. */
  #branch(opcode: number, { kind, label }: Extract<Node, { kind: 'break' | 'continue' }>): void {
    this.code.byte(opcode)
    this.code.u32(this.#open.length - 1 - this.#open.findLastIndex((b) => b.label === label && b.loop === (kind === 'continue')))
  }

  /** Evaluates a value here and keeps it in a local. */
  #keep(value: Value): void {
    this.#compute(value)
    value.local = this.#free[value.type].pop() ?? this.#newLocal(value.type)
    value.depth = this.#loopDepth
    this.code.byte(0x21)
    this.code.u32(value.local)
  }

  #newLocal(type: Type): number {
    return this.#params + this.locals.push(type) - 1
  }

  /** Pushes a value on the wasm stack: from its local if it has one, otherwise computed here. */
  #value(value: Value): void {
    if (value.local < 0) return this.#compute(value)
    this.code.byte(0x20)
    this.code.u32(value.local)
    // A local is free after its last use, but not inside a loop that repeats that use.
    if (--value.uses === 0 && value.depth === this.#loopDepth) this.#free[value.type].push(value.local)
  }

  #compute(value: Value): void {
    const { code } = this
    switch (value.kind) {
      case 'const':
        return this.#const(value.type, value.value)
      case 'param':
        code.byte(0x20)
        code.u32(value.index)
        return
      case 'get':
        if (value.variable.local < 0) value.variable.local = this.#newLocal(value.type)
        code.byte(0x20)
        code.u32(value.variable.local)
        return
      case 'slot':
        code.byte(0x20)
        code.byte(0)
        return this.#load(value.type, value.width, false, value.offset)
      case 'load':
        this.#value(value.address)
        return value.atomic ? this.#loadAtomic(value.offset) : this.#load(value.type, value.width, value.signed, value.offset)
      case 'select':
        for (const arg of value.args) this.#value(arg)
        code.byte(0x1b)
        return
      case 'call':
        for (const arg of value.args) this.#value(arg)
        return this.#call(0x10, value.callee)
      case 'op':
        for (const arg of value.args) this.#value(arg)
        if (value.op.prefix) {
          code.byte(value.op.prefix)
          code.u32(value.op.code)
        } else code.byte(value.op.code)
        if (value.lanes) for (const lane of value.lanes) code.byte(lane)
        return
    }
  }

  #const(type: Type, value: bigint): void {
    const { code } = this
    if (type === 'i32') {
      code.byte(0x41)
      code.i32(Number(value))
    } else if (type === 'i64') {
      code.byte(0x42)
      code.i64(value)
    } else {
      // Floats and vectors are given by their bits.
      const bytes = type === 'f32' ? 4 : type === 'f64' ? 8 : 16
      if (type === 'v128') {
        code.byte(0xfd)
        code.u32(12)
      } else code.byte(type === 'f32' ? 0x43 : 0x44)
      for (let i = 0; i < bytes; i++) code.byte(Number((value >> BigInt(8 * i)) & 0xffn))
    }
  }

  #load(type: Type, width: number, signed: boolean, offset: number): void {
    const { code } = this
    if (type === 'v128') {
      code.byte(0xfd)
      code.u32(LOAD_VECTOR[width]!)
    } else code.byte((signed ? LOAD_SIGNED : LOAD)[type]![width]!)
    code.byte(0)
    code.u32(offset)
  }

  /** i32.atomic.load, which must state its natural alignment. (WebAssembly threads, "Atomic Memory Instructions") */
  #loadAtomic(offset: number): void {
    const { code } = this
    code.byte(0xfe)
    code.u32(0x10)
    code.byte(2)
    code.u32(offset)
  }

  #store(type: Type, width: number, offset: number): void {
    const { code } = this
    if (type === 'v128') {
      code.byte(0xfd)
      code.u32(11)
    } else code.byte(STORE[type]![width]!)
    code.byte(0)
    code.u32(offset)
  }
}
