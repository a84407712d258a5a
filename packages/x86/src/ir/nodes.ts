/**
 * The nodes of IR. A function body is a list of nodes in order of evaluation, with structured control flow inside. Later nodes may use a node's
 * value, which is the one at the node's position in the list.
 */
import type { Op, Type } from './ops.ts'

export interface Variable {
  readonly type: Type
  readonly name: string
  /** Index of the wasm local, set by the lowering. */
  local: number
}

export type Width = 8 | 16 | 32 | 64 | 128

interface Base {
  /** How many nodes use this one's value. The lowering counts down to 0. */
  uses: number
  /** Wasm local that holds the value once evaluated; -1 none. Owned by the lowering, as is `depth`: of loops, where the local was set. */
  local: number
  depth: number
}

/** A value-yielding node. */
export type Value =
  | (Base & { kind: 'const'; type: Type; value: bigint })
  | (Base & { kind: 'op'; type: Type; op: Op; args: readonly Value[]; lanes: readonly number[] | undefined })
  | (Base & { kind: 'select'; type: Type; args: readonly [Value, Value, Value] })
  /** Parameter of the function: the vCPU base, the pre-decoded record, or a helper's argument. */
  | (Base & { kind: 'param'; type: Type; index: number })
  | (Base & { kind: 'get'; type: Type; variable: Variable })
  /** A slot of the vCPU at a constant offset (see state/layout.ts): a wasm local if the lowering keeps it in one. */
  | (Base & { kind: 'slot'; type: Type; offset: number; width: Width })
  /** Raw memory: `width` bits at address + offset, zero- or sign-extended to the type. `stable`: nothing in this function changes it. `atomic`: another thread may, at any time. */
  | (Base & { kind: 'load'; type: Type; address: Value; offset: number; width: Width; signed: boolean; stable: boolean; atomic: boolean })
  | (Base & { kind: 'call'; type: Type; callee: string; args: readonly Value[] })

export type Effect =
  | { kind: 'set'; variable: Variable; value: Value }
  | { kind: 'setSlot'; offset: number; width: Width; value: Value }
  | { kind: 'store'; address: Value; offset: number; width: Width; value: Value }
  | { kind: 'run'; callee: string; args: readonly Value[] }
  | { kind: 'if'; condition: Value; then: Node[]; else: Node[]; unlikely: boolean }
  /** Repeats until a `break` with its label. */
  | { kind: 'loop'; label: object; body: Node[] }
  /** A `break` with its label continues after it. */
  | { kind: 'block'; label: object; body: Node[] }
  | { kind: 'break' | 'continue'; label: object }
  /** Copies or fills raw memory: wasm's bulk instructions. */
  | { kind: 'copy'; to: Value; from: Value; count: Value }
  | { kind: 'fill'; to: Value; byte: Value; count: Value }
  /** Ends the function. */
  | { kind: 'return'; value?: Value }
  /** Ends the function with a tail call: by table index, or by name. */
  | { kind: 'tail'; target: Value; args: readonly Value[] }
  | { kind: 'tailCall'; callee: string; args: readonly Value[] }

export type Node = Value | Effect

export type Body = Node[]

export const isValue = (node: Node): node is Value => 'uses' in node
