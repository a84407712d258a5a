/**
 * A simple and slow evaluator of IR over shared memory: the test oracle for the lowering and for WebAssembly engines. Every value is a bit pattern in
 * a BigInt. Never on a hot path.
 */
import { EVALUATE } from './evaluate-op.ts'
import { FLOAT } from './evaluate-float.ts'
import { VECTOR } from './evaluate-vector.ts'
import type { Body, Node, Value, Variable } from './nodes.ts'
import type { Type } from './ops.ts'

/** Environment of the function: memory, and the functions that it calls. */
export interface Surroundings {
  readonly memory: DataView
  /** Calls an import with bit patterns; its result is one too. */
  readonly call: (callee: string, args: readonly bigint[]) => bigint | undefined
}

/** How a body ended. */
export type End =
  | { readonly kind: 'return'; readonly value?: bigint }
  | { readonly kind: 'tail'; readonly target: number; readonly args: readonly number[] }
  | { readonly kind: 'tailCall'; readonly callee: string; readonly args: readonly number[] }

/** Why a list of nodes was left before its end. */
type Leave = End | { readonly kind: 'break' | 'continue'; readonly label: object }

export function evaluate(body: Body, params: readonly number[], surroundings: Surroundings): End {
  const leave = new Evaluator(params, surroundings).list(body)
  if (!leave) return { kind: 'return' }
  if ('label' in leave) throw new Error(`IR: ${leave.kind} with a label that is not open`)
  return leave
}

/** One operation on bit patterns. Throws where WebAssembly traps: division by zero, a quotient that does not fit. */
export function evaluateOp(name: string, args: readonly bigint[], lanes: readonly number[] = []): bigint {
  const integer = EVALUATE[name]
  if (name.endsWith('.div_s') && args[0] === LEAST[name] && args[1] === LEAST[name]! * 2n - 1n) throw new RangeError(`${name} overflows`)
  if (integer) return integer(args[0]!, args[1] ?? 0n)
  const other = FLOAT[name]?.(...args) ?? VECTOR[name]?.(args, lanes)
  if (other === undefined) throw new Error(`no meaning is known of ${name}`)
  return other
}

/** The operand whose quotient by -1 does not fit. */
const LEAST: Readonly<Record<string, bigint>> = { 'i32.div_s': 1n << 31n, 'i64.div_s': 1n << 63n }

/** A value that could not be evaluated. The lowering computes values only where they are used. */
class Trap {
  readonly error: unknown
  constructor(error: unknown) {
    this.error = error
  }
}

/** Iterations after which a loop is assumed to hang. */
const MOST_ROUNDS = 1 << 20

class Evaluator {
  readonly #params: readonly number[]
  readonly #memory: DataView
  readonly #call: Surroundings['call']
  readonly #values = new Map<Value, bigint | Trap>()
  readonly #variables = new Map<Variable, bigint>()

  constructor(params: readonly number[], { memory, call }: Surroundings) {
    this.#params = params
    this.#memory = memory
    this.#call = call
  }

  list(body: Body): Leave | undefined {
    for (const node of body) {
      const leave = this.#node(node)
      if (leave) return leave
    }
    return undefined
  }

  #node(node: Node): Leave | undefined {
    switch (node.kind) {
      case 'set':
        this.#variables.set(node.variable, this.#of(node.value))
        return
      case 'setSlot':
        return this.#store(this.#params[0]! + node.offset, node.width, this.#of(node.value))
      case 'store':
        return this.#store(this.#address(node.address) + node.offset, node.width, this.#of(node.value))
      case 'copy': {
        const [to, from, count] = [node.to, node.from, node.count].map((v) => this.#address(v)) as [number, number, number]
        this.#bytes(to, 0)
        this.#bytes(to, count).set(this.#bytes(from, count).slice())
        return
      }
      case 'fill':
        this.#bytes(this.#address(node.to), this.#address(node.count)).fill(this.#address(node.byte) & 0xff)
        return
      case 'run':
        this.#call(node.callee, this.#all(node.args))
        return
      case 'if':
        return this.list(this.#of(node.condition) ? node.then : node.else)
      case 'loop':
        return this.#loop(node.label, node.body)
      case 'block': {
        const leave = this.list(node.body)
        return leave?.kind === 'break' && leave.label === node.label ? undefined : leave
      }
      case 'break':
      case 'continue':
        return node
      case 'return':
        return node.value ? { kind: 'return', value: this.#of(node.value) } : { kind: 'return' }
      case 'tail':
        return { kind: 'tail', target: this.#address(node.target), args: this.#all(node.args).map(Number) }
      case 'tailCall':
        return { kind: 'tailCall', callee: node.callee, args: this.#all(node.args).map(Number) }
      default:
        this.#values.set(node, this.#compute(node))
        return
    }
  }

  #loop(label: object, body: Body): Leave | undefined {
    for (let round = 0; round < MOST_ROUNDS; round++) {
      const leave = this.list(body)
      if (!leave) continue
      if ('label' in leave && leave.label === label) {
        if (leave.kind === 'break') return undefined
        continue
      }
      return leave
    }
    throw new Error('IR: a loop does not end')
  }

  #compute(value: Value): bigint | Trap {
    switch (value.kind) {
      case 'const':
        return value.value
      case 'param':
        return BigInt.asUintN(32, BigInt(this.#params[value.index]!))
      case 'get':
        return this.#variables.get(value.variable) ?? 0n
      case 'slot':
        return this.#load(this.#params[0]! + value.offset, value.width)
      case 'load': {
        const bits = this.#load(this.#address(value.address) + value.offset, value.width)
        return value.signed ? BigInt.asUintN(BITS[value.type], BigInt.asIntN(value.width, bits)) : bits
      }
      case 'call':
        return this.#call(value.callee, this.#all(value.args))!
      case 'select':
        return this.#of(value.args[2]) ? this.#of(value.args[0]) : this.#of(value.args[1])
      case 'op':
        try {
          return evaluateOp(value.op.name, this.#all(value.args), value.lanes)
        } catch (error) {
          return new Trap(error)
        }
    }
  }

  #of(value: Value): bigint {
    const known = this.#values.get(value)
    if (known instanceof Trap) throw known.error
    if (known !== undefined) return known
    // Constants and parameters need no position in the code.
    if (value.kind !== 'const' && value.kind !== 'param') throw new Error(`IR: a ${value.kind} is used before its place in the code`)
    return this.#compute(value) as bigint
  }
  #all(values: readonly Value[]): bigint[] {
    return values.map((v) => this.#of(v))
  }
  #address(value: Value): number {
    return Number(this.#of(value))
  }

  #load(at: number, width: number): bigint {
    const { buffer } = this.#memory
    if (at + width / 8 > buffer.byteLength) throw new RangeError(`load of ${width} bits at 0x${at.toString(16)}`)
    switch (width) {
      case 8:
        return BigInt(this.#memory.getUint8(at))
      case 16:
        return BigInt(this.#memory.getUint16(at, true))
      case 32:
        return BigInt(this.#memory.getUint32(at, true))
      case 64:
        return this.#memory.getBigUint64(at, true)
      default:
        return this.#memory.getBigUint64(at, true) | (this.#memory.getBigUint64(at + 8, true) << 64n)
    }
  }
  #store(at: number, width: number, value: bigint): undefined {
    const { buffer } = this.#memory
    if (at + width / 8 > buffer.byteLength) throw new RangeError(`store of ${width} bits at 0x${at.toString(16)}`)
    switch (width) {
      case 64:
        this.#memory.setBigUint64(at, value, true)
        return
      case 32:
        this.#memory.setUint32(at, Number(value & 0xffff_ffffn), true)
        return
      default:
        for (let bit = 0; bit < width; bit += 8) this.#memory.setUint8(at + bit / 8, Number((value >> BigInt(bit)) & 0xffn))
    }
  }
  #bytes(at: number, count: number): Uint8Array {
    return new Uint8Array(this.#memory.buffer, at, count)
  }
}

const BITS: Readonly<Record<Type, number>> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 }
