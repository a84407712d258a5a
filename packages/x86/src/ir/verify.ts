/** Checks a function body against the rules of the IR that the lowering relies on. For tests; independent of x86. */
import { isValue, type Body, type Node, type Value, type Variable } from './nodes.ts'
import { OPS, type Type } from './ops.ts'

export interface Signature {
  readonly params: readonly Type[]
  /** One type at most. */
  readonly results: readonly Type[]
}

export interface VerifyOptions {
  /** Number of the function's parameters. */
  readonly params: number
  /** The type of an import; undefined: there is none of that name. Absent: calls are not checked. */
  readonly signature?: (callee: string) => Signature | undefined
  /** Number of parameters of functions called by a tail call through the table. Default: `params`. */
  readonly tailParams?: number
  /** Unreachable code is not an error: instructions may follow one that always raises. */
  readonly deadCode?: boolean
  /** Variables that may be read before they are set, as zero. */
  readonly mayBeUnset?: (variable: Variable) => boolean
}

/** The errors, one line each, with the position as a path of list indices; empty if there are none. */
export function verify(body: Body, options: VerifyOptions): string[] {
  const verifier = new Verifier(options)
  verifier.root(body)
  return verifier.problems
}

/** Widths that wasm has loads for, and stores. */
const LOADS: Readonly<Record<Type, readonly number[]>> = { i32: [8, 16, 32], i64: [8, 16, 32, 64], f32: [32], f64: [64], v128: [32, 64, 128] }
const STORES: Readonly<Record<Type, readonly number[]>> = { ...LOADS, v128: [128] }
const BITS: Readonly<Record<Type, number>> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 }

/** Variables known to be set; undefined where code is unreachable. */
type Assigned = ReadonlySet<Variable> | undefined

interface Open {
  readonly label: object
  readonly loop: boolean
  /** Variables set on every path that leaves by a break. */
  atBreak: Assigned
}

class Verifier {
  readonly problems: string[] = []
  readonly #options: VerifyOptions
  readonly #open: Open[] = []
  /** Values that may be used here: those before it in this list and in the enclosing lists. */
  readonly #visible = new Set<Value>()
  readonly #known = new Set<Value>()
  /** Uses found, to be compared with the nodes' counts. */
  readonly #uses = new Map<Value, number>()
  #assigned: Assigned = new Set()
  #path: (number | string)[] = []

  constructor(options: VerifyOptions) {
    this.#options = options
  }

  root(body: Body): void {
    this.#list(body)
    if (this.#assigned) this.#problem('control comes to the end of the function without a return or a tail call')
    for (const [value, uses] of this.#uses) {
      // If too few, the lowering frees its local before the last use.
      if (uses > value.uses) this.problems.push(`${describe(value)} says ${value.uses} uses and has ${uses}`)
    }
  }

  #problem(text: string): void {
    this.problems.push(`${this.#path.join('.')}: ${text}`)
  }

  #list(body: Body): void {
    const own: Value[] = []
    for (const [i, node] of body.entries()) {
      this.#path.push(i)
      if (!this.#assigned && !this.#options.deadCode && matters(node)) this.#problem(`${node.kind} is never reached`)
      this.#node(node)
      if (isValue(node)) {
        if (this.#known.has(node)) this.#problem(`${describe(node)} stands in the code twice`)
        this.#known.add(node)
        this.#visible.add(node)
        own.push(node)
      }
      this.#path.pop()
    }
    for (const value of own) this.#visible.delete(value)
  }
  #nested(name: string, body: Body): void {
    this.#path.push(name)
    this.#list(body)
    this.#path.pop()
  }

  #node(node: Node): void {
    switch (node.kind) {
      case 'const':
      case 'param':
      case 'get':
      case 'op':
      case 'select':
      case 'slot':
      case 'load':
      case 'call':
        return this.#value(node)
      case 'set':
        this.#use(node.value, node.variable.type)
        if (this.#assigned) this.#assigned = new Set(this.#assigned).add(node.variable)
        return
      case 'setSlot':
        this.#width(STORES, node.value.type, node.width)
        this.#offset(node.offset)
        return this.#use(node.value)
      case 'store':
        this.#width(STORES, node.value.type, node.width)
        this.#offset(node.offset)
        this.#use(node.address, 'i32')
        return this.#use(node.value)
      case 'copy':
        for (const value of [node.to, node.from, node.count]) this.#use(value, 'i32')
        return
      case 'fill':
        for (const value of [node.to, node.byte, node.count]) this.#use(value, 'i32')
        return
      case 'run':
        return this.#call(node.callee, node.args, undefined)
      case 'if':
        return this.#if(node)
      case 'loop':
      case 'block':
        return this.#labelled(node)
      case 'break':
      case 'continue':
        this.#leave(node.label, node.kind)
        this.#assigned = undefined
        return
      case 'tail': {
        this.#use(node.target, 'i32')
        const wanted = this.#options.tailParams ?? this.#options.params
        if (node.args.length !== wanted) this.#problem(`a tail call with ${node.args.length} arguments where functions take ${wanted}`)
        for (const arg of node.args) this.#use(arg, 'i32')
        this.#assigned = undefined
        return
      }
      case 'tailCall':
        this.#call(node.callee, node.args, undefined)
        this.#assigned = undefined
        return
      case 'return':
        if (node.value) this.#use(node.value)
        this.#assigned = undefined
    }
  }

  #value(value: Value): void {
    switch (value.kind) {
      case 'const':
        return this.#constant(value)
      case 'param':
        if (value.index >= this.#options.params) this.#problem(`parameter ${value.index} of a function that has ${this.#options.params}`)
        return
      case 'get': {
        const { variable } = value
        this.#type(`variable '${variable.name}'`, value.type, variable.type)
        if (this.#assigned && !this.#assigned.has(variable) && !this.#options.mayBeUnset?.(variable)) this.#problem(`variable '${variable.name}' is read where it may not be set`)
        return
      }
      case 'op':
        return this.#op(value)
      case 'select':
        this.#use(value.args[0], value.type)
        this.#use(value.args[1], value.type)
        return this.#use(value.args[2], 'i32')
      case 'slot':
        this.#offset(value.offset)
        return this.#width(LOADS, value.type, value.width)
      case 'load':
        this.#use(value.address, 'i32')
        this.#offset(value.offset)
        if (value.atomic && (value.type !== 'i32' || value.width !== 32)) this.#problem(`an atomic load gives 32 bits as i32, not ${value.width} as ${value.type}`)
        if (value.signed && (value.type === 'v128' || value.type === 'f32' || value.type === 'f64')) this.#problem(`a load of ${value.type} cannot extend a sign`)
        return this.#width(LOADS, value.type, value.width)
      case 'call':
        return this.#call(value.callee, value.args, value.type)
    }
  }

  #op(value: Extract<Value, { kind: 'op' }>): void {
    const { op, args, lanes } = value
    if (OPS[op.name] !== op) this.#problem(`${op.name} is not in the table of operations`)
    this.#type(op.name, value.type, op.result)
    if (args.length !== op.params.length) this.#problem(`${op.name} takes ${op.params.length} operands, not ${args.length}`)
    for (const [i, arg] of args.entries()) this.#use(arg, op.params[i])
    if ((lanes?.length ?? 0) !== op.lanes) return this.#problem(`${op.name} takes ${op.lanes} lane numbers, not ${lanes?.length ?? 0}`)
    const limit = op.lanes === 16 ? 32 : Number(op.name.slice(op.name.indexOf('x') + 1, op.name.indexOf('.')))
    for (const lane of lanes ?? []) if (!Number.isInteger(lane) || lane < 0 || lane >= limit) this.#problem(`${op.name} has no lane ${lane}`)
  }

  /** A use of a value by the current node. */
  #use(value: Value, type?: Type): void {
    if (type) this.#type(describe(value), value.type, type)
    // Constants and parameters are the same everywhere: they need no position in the code.
    if (value.kind === 'const' || value.kind === 'param') return this.#value(value)
    this.#uses.set(value, (this.#uses.get(value) ?? 0) + 1)
    if (!this.#visible.has(value)) this.#problem(`${describe(value)} is used ${this.#known.has(value) ? 'outside the list it stands in' : 'before its place in the code'}`)
  }

  #if(node: Extract<Node, { kind: 'if' }>): void {
    this.#use(node.condition, 'i32')
    const before = this.#assigned
    this.#nested('then', node.then)
    const after = this.#assigned
    this.#assigned = before
    this.#nested('else', node.else)
    this.#assigned = meet(after, this.#assigned)
  }

  #labelled(node: Extract<Node, { kind: 'loop' | 'block' }>): void {
    if (this.#open.some(({ label }) => label === node.label)) this.#problem(`the label of this ${node.kind} is open already`)
    const open: Open = { label: node.label, loop: node.kind === 'loop', atBreak: undefined }
    this.#open.push(open)
    this.#nested(node.kind, node.body)
    this.#open.pop()
    // The end of a loop continues with its next iteration; only a break leaves it.
    this.#assigned = open.loop ? open.atBreak : meet(open.atBreak, this.#assigned)
  }

  #leave(label: object, kind: 'break' | 'continue'): void {
    const open = this.#open.findLast((one) => one.label === label)
    if (!open) return this.#problem(`${kind} with a label that is not open`)
    if (kind === 'break') open.atBreak = meet(open.atBreak, this.#assigned)
    else if (!open.loop) this.#problem('continue with the label of a block')
  }

  #call(callee: string, args: readonly Value[], result: Type | undefined): void {
    const { signature } = this.#options
    const known = signature?.(callee)
    if (signature && !known) this.#problem(`${callee} is not imported`)
    if (known) {
      if (args.length !== known.params.length) this.#problem(`${callee} takes ${known.params.length} arguments, not ${args.length}`)
      if (known.results[0] !== result) this.#problem(`${callee} yields ${known.results[0] ?? 'nothing'}, not ${result ?? 'nothing'}`)
    }
    for (const [i, arg] of args.entries()) this.#use(arg, known?.params[i])
  }

  #constant({ type, value }: Extract<Value, { kind: 'const' }>): void {
    if (value < 0n || value >> BigInt(BITS[type])) this.#problem(`constant ${value} is not a bit pattern of ${type}`)
  }
  #type(what: string, found: Type, wanted: Type): void {
    if (found !== wanted) this.#problem(`${what} is of type ${found} where ${wanted} is needed`)
  }
  #width(table: Readonly<Record<Type, readonly number[]>>, type: Type, width: number): void {
    if (!table[type].includes(width)) this.#problem(`no ${table === LOADS ? 'load' : 'store'} of ${width} bits as ${type}`)
  }
  #offset(offset: number): void {
    if (!Number.isInteger(offset) || offset < 0 || offset > 0xffff_ffff) this.#problem(`offset ${offset} is not an unsigned 32-bit number`)
  }
}

const meet = (a: Assigned, b: Assigned): Assigned => (a && b ? new Set([...a].filter((v) => b.has(v))) : (a ?? b))

/** Whether it is an error that this node is unreachable. Builders may end a body that has already ended. */
const matters = (node: Node): boolean => !isValue(node) && node.kind !== 'return' && node.kind !== 'tail' && node.kind !== 'tailCall'

function describe(value: Value): string {
  switch (value.kind) {
    case 'op':
      return value.op.name
    case 'get':
      return `the value of '${value.variable.name}'`
    case 'const':
      return `constant ${value.value}`
    case 'slot':
      return `slot 0x${value.offset.toString(16)}`
    case 'call':
      return `the result of ${value.callee}`
    default:
      return `a ${value.kind}`
  }
}
