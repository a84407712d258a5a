/**
 * Which values are evaluated where they are used: a local for each would be a move in the code and, at each branch, one more value to keep in its place.
 * The others are evaluated at their position in the list, and kept in a local. Independent of instructions.
 */
import type { Body, Node, Value, Variable } from '../ir/nodes.ts'

/** Whether nothing depends on when the value is computed, once its operands are. */
const isPure = (value: Value): boolean => value.kind === 'op' || value.kind === 'select' || (value.kind === 'load' && value.stable)
const isRead = (value: Value): boolean => value.kind === 'slot' || (value.kind === 'load' && !value.stable && !value.atomic)

interface Loop {
  /** Position of the last node in it. */
  end: number
}
interface Get {
  readonly value: Value
  readonly variable: Variable
  readonly at: number
  /** Number of loops around it. */
  readonly depth: number
  lastUse: number
  /** The outermost loop that repeats a use, but not the get. */
  loop: Loop | undefined
}

/** The values of kind get, slot and load that are evaluated where they are used; of pure ones, those with one use always are. */
export function placeValues(body: Body): ReadonlySet<Value> {
  return new Placement().place(body)
}

class Placement {
  readonly #atUse = new Set<Value>()
  readonly #gets = new Map<Value, Get>()
  readonly #sets = new Map<Variable, number[]>()
  readonly #loops: Loop[] = []
  /** Reads of memory with one use since the last node that emits code. */
  readonly #reads: Value[] = []
  #position = 0

  place(body: Body): ReadonlySet<Value> {
    this.#list(body)
    for (const get of this.#gets.values()) if (this.#isUnchanged(get)) this.#atUse.add(get.value)
    return this.#atUse
  }

  #list(body: Body): void {
    for (const node of body) this.#node(node)
  }

  #node(node: Node): void {
    this.#position++
    switch (node.kind) {
      case 'const':
      case 'param':
        return
      case 'get':
        if (node.uses) this.#gets.set(node, { value: node, variable: node.variable, at: this.#position, depth: this.#loops.length, lastUse: 0, loop: undefined })
        return
      case 'op':
      case 'select':
        if (node.uses > 1) this.#emits(node.args)
        return
      case 'slot':
        if (node.uses === 1) this.#reads.push(node)
        return
      case 'load':
        if (node.stable ? node.uses > 1 : node.atomic || node.uses > 1) this.#emits([node.address])
        else if (node.uses && !node.stable) this.#reads.push(node)
        return
      case 'call':
      case 'run':
      case 'tailCall':
        return this.#emits(node.args)
      case 'set':
        this.#emits([node.value])
        return this.#isSet(node.variable)
      case 'setSlot':
        return this.#emits([node.value])
      case 'store':
        return this.#emits([node.address, node.value])
      case 'if':
        this.#emits([node.condition])
        this.#list(node.then)
        this.#emits([])
        return this.#list(node.else)
      case 'loop': {
        this.#emits([])
        const loop = { end: 0 }
        this.#loops.push(loop)
        this.#list(node.body)
        this.#emits([])
        this.#loops.pop()
        loop.end = this.#position
        return
      }
      case 'block':
        this.#list(node.body)
        return this.#emits([])
      case 'copy':
        return this.#emits([node.to, node.from, node.count])
      case 'fill':
        return this.#emits([node.to, node.byte, node.count])
      case 'return':
        return this.#emits(node.value ? [node.value] : [])
      case 'tail':
        return this.#emits([...node.args, node.target])
      case 'break':
      case 'continue':
        return this.#emits([])
    }
  }

  /** A node that emits code uses these. Reads that wait move to it, as nothing writes in between; those that it does not use stay where they are. */
  #emits(used: readonly Value[]): void {
    for (const value of used) this.#use(value)
    // The last first: what it reads may be what another one waits for.
    for (let read = this.#reads.pop(); read; read = this.#reads.pop()) if (!this.#atUse.has(read)) this.#useOperands(read)
  }

  #use(value: Value): void {
    const get = this.#gets.get(value)
    if (get) {
      get.lastUse = this.#position
      if (this.#loops.length > get.depth) get.loop = this.#loops[get.depth]!
    } else if (isPure(value) && value.uses === 1) this.#useOperands(value)
    else if (isRead(value) && this.#reads.includes(value)) {
      this.#atUse.add(value)
      this.#useOperands(value)
    }
  }
  #useOperands(value: Value): void {
    if (value.kind === 'op' || value.kind === 'select') for (const arg of value.args) this.#use(arg)
    else if (value.kind === 'load') this.#use(value.address)
  }

  #isSet(variable: Variable): void {
    const sets = this.#sets.get(variable)
    if (sets) sets.push(this.#position)
    else this.#sets.set(variable, [this.#position])
  }
  /** No set between the get and its last use, nor in a loop that repeats a use. */
  #isUnchanged({ variable, at, lastUse, loop }: Get): boolean {
    const sets = this.#sets.get(variable)
    if (!sets) return true
    const end = loop ? loop.end + 1 : lastUse
    const next = sets.find((position) => position > at)
    return next === undefined || next >= end
  }
}
