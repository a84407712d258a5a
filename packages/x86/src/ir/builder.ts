/** Builds IR: appends nodes in order of evaluation and folds constants. Has WebAssembly's operations; independent of x86. */
import { EVALUATE } from './evaluate-op.ts'
import type { Body, Node, Value, Variable, Width } from './nodes.ts'
import { OPS, OPS_OF, type Op, type Type } from './ops.ts'

/** A value, or a number that becomes a constant of the type that fits. */
export type Operandish = Value | number | bigint

/** Most constants are offsets and widths: creating a bigint takes longer than the rest of a node. */
const SMALL: readonly bigint[] = Array.from({ length: 4096 }, (_, n) => BigInt(n))

export class IrBuilder {
  /** The function's list, and the list being built (different inside `if` and `loop`). */
  readonly root: Body = []
  protected body: Body = this.root
  readonly variables: Variable[] = []
  /** Names of the imported functions that the code calls. */
  readonly callees = new Set<string>()
  readonly #breaks: object[] = []

  // --- constants, parameters, variables ---

  const(value: number | bigint, type: Type = 'i64'): Value {
    const small = typeof value === 'number' ? SMALL[value] : undefined
    const bits = type === 'i32' ? 32 : type === 'v128' ? 128 : 64
    return { kind: 'const', type, value: small ?? BigInt.asUintN(bits, BigInt(value)), uses: 0, local: -1, depth: 0 }
  }
  i32(value: number): Value {
    return this.const(value, 'i32')
  }
  param(index: number, type: Type = 'i32'): Value {
    return this.append({ kind: 'param', type, index, uses: 0, local: -1, depth: 0 })
  }
  /** A mutable variable, live to the end of the function. */
  variable(initial: Value, name = ''): Variable {
    const variable: Variable = { type: initial.type, name, local: -1 }
    this.variables.push(variable)
    this.assign(variable, initial)
    return variable
  }
  get(variable: Variable): Value {
    return this.append({ kind: 'get', type: variable.type, variable, uses: 0, local: -1, depth: 0 })
  }
  assign(variable: Variable, value: Operandish): void {
    this.effect({ kind: 'set', variable, value: this.use(this.as(value, variable.type)) })
  }

  // --- operations ---

  /** Any operation of the table by its WebAssembly name. */
  op(name: string, ...args: Operandish[]): Value {
    return this.lane(name, undefined, ...args)
  }
  /** An operation with lane immediates. */
  lane(name: string, lanes: readonly number[] | undefined, ...args: Operandish[]): Value {
    const op = OPS[name]
    if (!op) throw new Error(`no IR operation ${name}`)
    return this.#apply(op, op.params.map((type, i) => this.as(args[i]!, type)), lanes)
  }
  #apply(op: Op, values: readonly Value[], lanes: readonly number[] | undefined): Value {
    const [a, b] = values
    if (a?.kind === 'const' && values.every((value) => value.kind === 'const')) {
      const evaluate = EVALUATE[op.name]
      const right = b as typeof a | undefined
      const divides = /div|rem/.test(op.name) && right!.value === 0n
      if (evaluate && !divides) return this.const(evaluate(a.value, right?.value ?? 0n), op.result)
    }
    const simple = simplify(op.name, a, b)
    if (simple) return simple
    for (const value of values) this.use(value)
    return this.append({ kind: 'op', type: op.result, op, args: values, lanes, uses: 0, local: -1, depth: 0 })
  }

  // Binary operations take the type of their first operand that is a value; numbers adapt.
  add(a: Operandish, b: Operandish): Value { return this.#binary('add', a, b) }
  sub(a: Operandish, b: Operandish): Value { return this.#binary('sub', a, b) }
  mul(a: Operandish, b: Operandish): Value { return this.#binary('mul', a, b) }
  and(a: Operandish, b: Operandish): Value { return this.#binary('and', a, b) }
  or(a: Operandish, b: Operandish): Value { return this.#binary('or', a, b) }
  xor(a: Operandish, b: Operandish): Value { return this.#binary('xor', a, b) }
  not(a: Value): Value { return this.xor(a, -1) }
  shl(a: Operandish, b: Operandish): Value { return this.#binary('shl', a, b) }
  shrU(a: Operandish, b: Operandish): Value { return this.#binary('shr_u', a, b) }
  shrS(a: Operandish, b: Operandish): Value { return this.#binary('shr_s', a, b) }
  rotl(a: Operandish, b: Operandish): Value { return this.#binary('rotl', a, b) }
  rotr(a: Operandish, b: Operandish): Value { return this.#binary('rotr', a, b) }
  divU(a: Operandish, b: Operandish): Value { return this.#binary('div_u', a, b) }
  divS(a: Operandish, b: Operandish): Value { return this.#binary('div_s', a, b) }
  remU(a: Operandish, b: Operandish): Value { return this.#binary('rem_u', a, b) }
  remS(a: Operandish, b: Operandish): Value { return this.#binary('rem_s', a, b) }
  // Comparisons yield i32 0 or 1.
  eq(a: Operandish, b: Operandish): Value { return this.#binary('eq', a, b) }
  ne(a: Operandish, b: Operandish): Value { return this.#binary('ne', a, b) }
  ltU(a: Operandish, b: Operandish): Value { return this.#binary('lt_u', a, b) }
  ltS(a: Operandish, b: Operandish): Value { return this.#binary('lt_s', a, b) }
  gtU(a: Operandish, b: Operandish): Value { return this.#binary('gt_u', a, b) }
  gtS(a: Operandish, b: Operandish): Value { return this.#binary('gt_s', a, b) }
  leU(a: Operandish, b: Operandish): Value { return this.#binary('le_u', a, b) }
  leS(a: Operandish, b: Operandish): Value { return this.#binary('le_s', a, b) }
  geU(a: Operandish, b: Operandish): Value { return this.#binary('ge_u', a, b) }
  geS(a: Operandish, b: Operandish): Value { return this.#binary('ge_s', a, b) }
  eqz(a: Value): Value { return this.#unary('eqz', a) }
  clz(a: Value): Value { return this.#unary('clz', a) }
  ctz(a: Value): Value { return this.#unary('ctz', a) }
  popcnt(a: Value): Value { return this.#unary('popcnt', a) }
  /** i64 → i32, low half. */
  wrap(a: Value): Value { return a.type === 'i32' ? a : this.op('i32.wrap_i64', a) }
  /** i32 → i64, zero-extended. */
  extendU(a: Value): Value { return a.type === 'i64' ? a : this.op('i64.extend_i32_u', a) }
  /** i32 → i64, sign-extended. */
  extendS(a: Value): Value { return a.type === 'i64' ? a : this.op('i64.extend_i32_s', a) }

  /** An i64 truncated to its low `width` bits, zero-extended: the representation of guest integers. */
  truncate(value: Value, width: Width): Value {
    return width >= 64 ? value : this.and(value, (1n << BigInt(width)) - 1n)
  }
  /** An i64 whose low `width` bits are sign-extended to 64. */
  signExtend(value: Value, width: Width): Value {
    return width >= 64 ? value : this.op(`i64.extend${width}_s`, value)
  }
  select(condition: Value, whenTrue: Operandish, whenFalse: Operandish): Value {
    const type = typeof whenTrue === 'object' ? whenTrue.type : typeof whenFalse === 'object' ? whenFalse.type : 'i64'
    const args = [this.as(whenTrue, type), this.as(whenFalse, type), condition] as const
    if (condition.kind === 'const') return condition.value ? args[0] : args[1]
    for (const arg of args) this.use(arg)
    return this.append({ kind: 'select', type, args, uses: 0, local: -1, depth: 0 })
  }

  // --- raw memory ---

  rawLoad(type: Type, address: Value, offset: number, width: Width, options: { signed?: boolean; stable?: boolean; atomic?: boolean } = {}): Value {
    return this.append({
      kind: 'load', type, address: this.use(address), offset, width, signed: options.signed ?? false, stable: options.stable ?? false, atomic: options.atomic ?? false,
      uses: 0, local: -1, depth: 0,
    })
  }
  rawStore(address: Value, offset: number, width: Width, value: Value): void {
    this.effect({ kind: 'store', address: this.use(address), offset, width, value: this.use(value) })
  }
  rawCopy(to: Value, from: Value, count: Value): void {
    this.effect({ kind: 'copy', to: this.use(to), from: this.use(from), count: this.use(count) })
  }
  rawFill(to: Value, byte: Value, count: Value): void {
    this.effect({ kind: 'fill', to: this.use(to), byte: this.use(byte), count: this.use(count) })
  }
  /** Calls an imported function for its value. */
  call(type: Type, callee: string, ...args: Value[]): Value {
    this.callees.add(callee)
    for (const arg of args) this.use(arg)
    return this.append({ kind: 'call', type, callee, args, uses: 0, local: -1, depth: 0 })
  }
  /** Calls an imported function that yields nothing. */
  run(callee: string, ...args: Value[]): void {
    this.callees.add(callee)
    for (const arg of args) this.use(arg)
    this.effect({ kind: 'run', callee, args })
  }

  // --- slots of the vCPU at constant offsets ---

  slot(offset: number, type: Type = 'i64', width: Width = type === 'i32' ? 32 : type === 'v128' ? 128 : 64): Value {
    return this.append({ kind: 'slot', type, offset, width, uses: 0, local: -1, depth: 0 })
  }
  setSlot(offset: number, value: Value, width: Width = value.type === 'i32' || value.type === 'f32' ? 32 : value.type === 'v128' ? 128 : 64): void {
    this.effect({ kind: 'setSlot', offset, width, value: this.use(value) })
  }

  // --- control ---

  if(condition: Value, then: () => void, otherwise?: () => void): void {
    this.#if(condition, then, otherwise, false)
  }
  /** An `if` whose body runs rarely: slow paths and faults. */
  ifUnlikely(condition: Value, then: () => void, otherwise?: () => void): void {
    this.#if(condition, then, otherwise, true)
  }
  /** Repeats the body until `break`. */
  loop(body: () => void, label: object = {}): void {
    this.#breaks.push(label)
    const list = this.#nested(body)
    this.#breaks.pop()
    this.effect({ kind: 'loop', label, body: list })
  }
  /** A body that can be left by `break(label)`. */
  block(body: () => void, label: object): void {
    this.effect({ kind: 'block', label, body: this.#nested(body) })
  }
  /** Leaves the innermost loop, or the loop or block of that label. */
  break(label: object = this.#innermost()): void {
    this.effect({ kind: 'break', label })
  }
  /** Starts the next iteration of the innermost loop, or of the loop with that label. */
  continue(label: object = this.#innermost()): void {
    this.effect({ kind: 'continue', label })
  }
  return(value?: Value): void {
    this.effect(value ? { kind: 'return', value: this.use(value) } : { kind: 'return' })
  }
  tail(target: Value, ...args: Value[]): void {
    this.effect({ kind: 'tail', target: this.use(target), args: args.map((a) => this.use(a)) })
  }
  tailCall(callee: string, ...args: Value[]): void {
    this.callees.add(callee)
    this.effect({ kind: 'tailCall', callee, args: args.map((a) => this.use(a)) })
  }

  // --- parts ---

  protected as(value: Operandish, type: Type): Value {
    if (typeof value === 'object') {
      if (value.type !== type) throw new Error(`IR: a value of type ${value.type} where ${type} is needed`)
      return value
    }
    return this.const(value, type)
  }
  protected use(value: Value): Value {
    value.uses++
    return value
  }
  protected append<T extends Value>(value: T): T {
    this.body.push(value)
    return value
  }
  protected effect(node: Exclude<Node, Value>): void {
    this.body.push(node)
  }
  #unary(name: string, a: Value): Value {
    return this.#apply(OPS_OF[a.type][name]!, [a], undefined)
  }
  #binary(name: string, a: Operandish, b: Operandish): Value {
    const type = typeof a === 'object' ? a.type : typeof b === 'object' ? b.type : 'i64'
    const op = OPS_OF[type][name]
    if (!op) throw new Error(`no IR operation ${type}.${name}`)
    return this.#apply(op, [this.as(a, op.params[0]!), this.as(b, op.params[1]!)], undefined)
  }
  /** Current nesting depth in `if`, `loop` and `block`. */
  protected depth = 0
  #nested(build: () => void): Body {
    const outer = this.body
    const list: Body = (this.body = [])
    this.depth++
    build()
    this.depth--
    this.body = outer
    return list
  }
  #if(condition: Value, then: () => void, otherwise: (() => void) | undefined, unlikely: boolean): void {
    if (condition.kind === 'const') {
      if (condition.value) then()
      else otherwise?.()
      return
    }
    this.use(condition)
    const thenList = this.#nested(then)
    const elseList = otherwise ? this.#nested(otherwise) : []
    this.effect({ kind: 'if', condition, then: thenList, else: elseList, unlikely })
  }
  #innermost(): object {
    const label = this.#breaks.at(-1)
    if (!label) throw new Error('IR: break or continue outside a loop')
    return label
  }
}

const KEEPS_LEFT_OF_ZERO: ReadonlySet<string> = new Set(['i32', 'i64'].flatMap((type) => ['add', 'sub', 'or', 'xor', 'shl', 'shr_u', 'shr_s', 'rotl', 'rotr'].map((name) => `${type}.${name}`)))

/** Identities that occur because operands are constants in compiled code: x+0, x&-1, x<<0, ... */
function simplify(name: string, a: Value | undefined, b: Value | undefined): Value | undefined {
  if (name === 'i32.wrap_i64' && a?.kind === 'op' && (a.op.name === 'i64.extend_i32_u' || a.op.name === 'i64.extend_i32_s')) return a.args[0]
  if (b?.kind !== 'const' || !a) return undefined
  if (b.value === 0n && KEEPS_LEFT_OF_ZERO.has(name)) return a
  if (name !== 'i64.and' && name !== 'i32.and') return undefined
  const ones = a.type === 'i32' ? 0xffff_ffffn : 0xffff_ffff_ffff_ffffn
  if (b.value === ones) return a
  // A mask of low bits over a value that has no others: guest integers are truncated repeatedly.
  if (((b.value + 1n) & b.value) === 0n && bitsOf(a) <= bitLength(b.value)) return a
  return undefined
}

/** How deep to analyse a value: enough for the use of one instruction's result by another. */
const DEEP = 6

/** Number of low bits of a scalar integer that may be non-zero. */
function bitsOf(value: Value, deep = DEEP): number {
  const all = value.type === 'i32' ? 32 : 64
  switch (value.kind) {
    case 'const':
      return bitLength(value.value)
    case 'load':
      return value.signed ? all : Math.min(all, value.width)
    case 'slot':
      return Math.min(all, value.width)
    case 'select':
      return deep ? Math.max(bitsOf(value.args[0], deep - 1), bitsOf(value.args[1], deep - 1)) : all
    case 'op': {
      const rule = deep ? BITS[value.op.name] : undefined
      return rule ? Math.min(all, rule(value.args, deep - 1)) : all
    }
    default:
      return all
  }
}
/** Of 64 bits at most. */
const bitLength = (value: bigint): number => (value <= 0xffff_ffffn ? 32 - Math.clz32(Number(value)) : 64 - Math.clz32(Number(value >> 32n)))

type BitsRule = (args: readonly Value[], deep: number) => number
const most: BitsRule = ([a, b], deep) => Math.max(bitsOf(a!, deep), bitsOf(b!, deep))
const truth: BitsRule = () => 1
const BITS: Readonly<Record<string, BitsRule>> = {
  'i64.and': ([a, b], deep) => Math.min(bitsOf(a!, deep), bitsOf(b!, deep)),
  'i64.or': most,
  'i64.xor': most,
  'i64.shr_u': ([a, b], deep) => Math.max(0, bitsOf(a!, deep) - (b!.kind === 'const' ? Number(b!.value & 63n) : 0)),
  'i64.shl': ([a, b], deep) => (b!.kind === 'const' ? bitsOf(a!, deep) + Number(b!.value & 63n) : 64),
  'i64.rem_u': ([, b], deep) => bitsOf(b!, deep),
  'i64.extend_i32_u': ([a], deep) => bitsOf(a!, deep),
  'i32.and': ([a, b], deep) => Math.min(bitsOf(a!, deep), bitsOf(b!, deep)),
  'i32.or': most,
  'i32.xor': most,
  'i32.shr_u': ([a, b], deep) => Math.max(0, bitsOf(a!, deep) - (b!.kind === 'const' ? Number(b!.value & 31n) : 0)),
  'i32.wrap_i64': ([a], deep) => bitsOf(a!, deep),
  ...Object.fromEntries(
    ['i32', 'i64'].flatMap((type) => [
      [`${type}.eqz`, truth],
      ...['eq', 'ne', 'lt_u', 'lt_s', 'gt_u', 'gt_s', 'le_u', 'le_s', 'ge_u', 'ge_s'].map((name) => [`${type}.${name}`, truth]),
      ...['clz', 'ctz', 'popcnt'].map((name) => [`${type}.${name}`, () => 7]),
    ]),
  ),
}
