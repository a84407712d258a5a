/** IR as readable text: one line for each node with a position in time, pure operations inside the line that uses them. Cannot be parsed. */
import type { Body, Effect, Node, Value, Variable, Width } from './nodes.ts'
import type { Type } from './ops.ts'

export interface PrintOptions {
  /** Names of the function's parameters. */
  readonly params?: readonly string[]
  /** Name of the vCPU's slot at an offset. Default: the offset. */
  readonly slotName?: (offset: number) => string
}

export function print(body: Body, options: PrintOptions = {}): string {
  const printer = new Printer(options)
  printer.findLabels(body)
  printer.list(body, '')
  return printer.lines.join('\n')
}

/** Default width of an access. */
const NATURAL: Readonly<Record<Type, Width>> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 }

class Printer {
  readonly lines: string[] = []
  readonly #options: PrintOptions
  readonly #values = new Map<Value, string>()
  readonly #variables = new Map<Variable, string>()
  readonly #taken = new Set<string>()
  readonly #labels = new Map<object, string>()

  constructor(options: PrintOptions) {
    this.#options = options
  }

  /** Only labels that are targets get a name: other blocks are plain sequences. */
  findLabels(body: Body): void {
    for (const node of body) {
      if (node.kind === 'break' || node.kind === 'continue') {
        if (!this.#labels.has(node.label)) this.#labels.set(node.label, `L${this.#labels.size}`)
      } else if (node.kind === 'if') {
        this.findLabels(node.then)
        this.findLabels(node.else)
      } else if (node.kind === 'loop' || node.kind === 'block') this.findLabels(node.body)
    }
  }

  list(body: Body, indent: string): void {
    for (const [i, node] of body.entries()) if (!isMove(node, body[i + 1])) this.#node(node, indent)
  }

  #node(node: Node, indent: string): void {
    if (!('uses' in node)) return this.#effect(node, indent)
    // Pure values are printed where they are used, unless used more than once.
    const pure = node.kind === 'op' || node.kind === 'select' || (node.kind === 'load' && node.stable)
    if (node.kind === 'param' || node.kind === 'const' || (pure && node.uses < 2)) return
    if (node.uses === 0 && (node.kind === 'get' || node.kind === 'slot')) return
    const text = this.#expression(node)
    const name = `%${this.#values.size}`
    this.#values.set(node, name)
    this.lines.push(`${indent}${name} = ${text}`)
  }

  #effect(node: Effect, indent: string): void {
    const say = (text: string): void => void this.lines.push(indent + text)
    const inner = `${indent}  `
    switch (node.kind) {
      case 'set':
        return say(`${this.#variable(node.variable)} := ${this.#use(node.value)}`)
      case 'setSlot':
        return say(`${this.#slot(node.offset)}${sized(node.value.type, node.width)} <- ${this.#use(node.value)}`)
      case 'store':
        return say(`${this.#address(node.address, node.offset)}${sized(node.value.type, node.width)} <- ${this.#use(node.value)}`)
      case 'run':
        return say(`run ${node.callee}(${this.#uses(node.args)})`)
      case 'if':
        say(`if ${node.unlikely ? 'unlikely ' : ''}${this.#use(node.condition)} {`)
        this.list(node.then, inner)
        if (node.else.length) {
          say('} else {')
          this.list(node.else, inner)
        }
        return say('}')
      case 'loop':
        say(`loop${this.#labels.has(node.label) ? ` ${this.#labels.get(node.label)}` : ''} {`)
        this.list(node.body, inner)
        return say('}')
      case 'block': {
        const label = this.#labels.get(node.label)
        if (label === undefined) return this.list(node.body, indent)
        say(`block ${label} {`)
        this.list(node.body, inner)
        return say('}')
      }
      case 'break':
      case 'continue':
        return say(`${node.kind} ${this.#labels.get(node.label)}`)
      case 'copy':
        return say(`copy to ${this.#use(node.to)} from ${this.#use(node.from)} count ${this.#use(node.count)}`)
      case 'fill':
        return say(`fill ${this.#use(node.to)} with ${this.#use(node.byte)} count ${this.#use(node.count)}`)
      case 'return':
        return say('return')
      case 'tail':
        return say(`tail table[${this.#use(node.target)}](${this.#uses(node.args)})`)
      case 'tailCall':
        return say(`tail ${node.callee}(${this.#uses(node.args)})`)
    }
  }

  #use(value: Value): string {
    return this.#values.get(value) ?? this.#expression(value)
  }
  #uses(values: readonly Value[]): string {
    return values.map((value) => this.#use(value)).join(', ')
  }

  #expression(value: Value): string {
    switch (value.kind) {
      case 'const':
        return constant(value.type, value.value)
      case 'param':
        return this.#options.params?.[value.index] ?? `param${value.index}`
      case 'op':
        return `${value.op.name}${value.lanes ? `[${value.lanes.join(' ')}]` : ''}(${this.#uses(value.args)})`
      case 'select': {
        const [yes, no, condition] = value.args
        return `(${this.#use(condition)} ? ${this.#use(yes)} : ${this.#use(no)})`
      }
      case 'get':
        return this.#variable(value.variable)
      case 'slot':
        return `${this.#slot(value.offset)}${sized(value.type, value.width)}`
      case 'load':
        return `${this.#address(value.address, value.offset)}${sized(value.type, value.width, value.signed)}${value.stable ? ' stable' : ''}${value.atomic ? ' atomic' : ''}`
      case 'call':
        return `call ${value.callee}(${this.#uses(value.args)})`
    }
  }

  #slot(offset: number): string {
    return `$${this.#options.slotName?.(offset) ?? offset}`
  }
  #address(address: Value, offset: number): string {
    return `[${this.#use(address)}${offset ? ` + ${offset}` : ''}]`
  }
  #variable(variable: Variable): string {
    let name = this.#variables.get(variable)
    if (name === undefined) {
      const stem = variable.name || 't'
      name = stem
      for (let n = 2; this.#taken.has(name); n++) name = `${stem}.${n}`
      this.#taken.add(name)
      this.#variables.set(variable, name)
    }
    return name
  }
}

/** A read whose value the next node stores: both are printed as one line. */
const isMove = (node: Node, next: Node | undefined): boolean =>
  (node.kind === 'get' || node.kind === 'slot' || node.kind === 'load') &&
  node.uses === 1 &&
  (next?.kind === 'set' || next?.kind === 'setSlot' || (next?.kind === 'store' && next.address !== node)) &&
  next.value === node

/** `:i32`, `:i64/8s`: the type, and the width in memory if it is less. */
function sized(type: Type, width: Width, signed = false): string {
  return `:${type}${width === NATURAL[type] ? '' : `/${width}${signed ? 's' : ''}`}`
}

/** Small numbers in decimal, others in hexadecimal. */
function constant(type: Type, value: bigint): string {
  const bits = NATURAL[type]
  const signed = BigInt.asIntN(bits, value)
  return signed > -4096n && signed < 4096n ? String(signed) : `0x${value.toString(16)}`
}
