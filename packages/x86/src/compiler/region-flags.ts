/**
 * Status flags in compiled code. They are represented by the operands that they depend on as long as possible, in values known to the builder or in
 * the variables of the lazy-flags slots, and computed when they are read.
 */
import type { Value, Variable, Width } from '../ir/nodes.ts'
import { SemanticsBuilder } from '../semantics/builder.ts'
import { conditionOf, flagOf, type Arithmetic, type ArithmeticKind, type StatusFlag } from '../semantics/flag-formulas.ts'
import { S } from '../state/layout.ts'
import { lazyKindNumber } from '../code/lazy-flags.ts'

/** Where the status flags are at one point of the code. */
export type FlagState =
  /** In memory, unchanged since the region was entered. */
  | { readonly state: 'untouched' }
  /** Computed from these values when needed; the lazy variables hold the same. */
  | ({ readonly state: 'symbolic' } & Arithmetic)
  /** In their slots; lazyKind is 0. */
  | { readonly state: 'stored' }
  /** Determined by the lazy variables. */
  | { readonly state: 'unknown' }

export const UNTOUCHED: FlagState = { state: 'untouched' }
export const UNKNOWN: FlagState = { state: 'unknown' }
export const STORED: FlagState = { state: 'stored' }

export abstract class RegionFlags extends SemanticsBuilder {
  protected flagState: FlagState = UNTOUCHED
  /** Nesting depth of the current instruction's code: anything deeper is executed conditionally. */
  protected instructionDepth = 0
  readonly #lazyKind = this.bareVariable(this.i32(0), 'lazyKind')
  readonly #lazyLeft = this.bareVariable(this.const(0), 'lazyLeft')
  readonly #lazyRight = this.bareVariable(this.const(0), 'lazyRight')
  readonly #lazyResult = this.bareVariable(this.const(0), 'lazyResult')

  /** A variable initialised with wasm's zero. */
  protected bareVariable(like: Value, name: string): Variable {
    const variable: Variable = { type: like.type, name, local: -1 }
    this.variables.push(variable)
    return variable
  }

  override arithmeticFlags(kind: ArithmeticKind, width: Width, left: Value, right: Value, result: Value, carry?: Value): void {
    if (this.flagsDead) return
    if (this.depth > this.instructionDepth) {
      this.settle()
      return super.arithmeticFlags(kind, width, left, right, result, carry)
    }
    // INC and DEC preserve CF: it is kept in place of `right`, which is 1.
    const keepsCarry = kind === 'inc' || kind === 'dec'
    const carried = keepsCarry ? this.flag('cf') : carry
    this.assign(this.#lazyKind, lazyKindNumber(kind, width))
    if (kind !== 'logic') {
      this.assign(this.#lazyLeft, left)
      this.assign(this.#lazyRight, keepsCarry ? this.extendU(carried!) : right)
    }
    this.assign(this.#lazyResult, result)
    this.flagState = { state: 'symbolic', kind, width, left, right, result, carry: carried }
  }

  override flag(name: StatusFlag): Value {
    const f = this.flagState
    return f.state === 'symbolic' ? flagOf(this, name, f) : super.flag(name)
  }

  /** Fuses compare and branch if the comparison is known. */
  override condition(code: number): Value {
    const f = this.flagState
    return f.state === 'symbolic' ? conditionOf(this, code, f) : super.condition(code)
  }

  /** Stores the flags to their slots, because a single one is read or changed. */
  protected settle(): void {
    if (this.flagState.state === 'stored') return
    const f = this.flagState
    if (this.depth > this.instructionDepth) {
      // Inside a branch of the semantics: the other path must see the same state, so the flags are stored again where needed.
      return this.#settleHere(f)
    }
    this.#settleHere(f)
    this.flagState = STORED
  }
  #settleHere(f: FlagState): void {
    if (f.state === 'symbolic') {
      this.flagState = STORED
      super.arithmeticFlags(f.kind, f.width, f.left, f.right, f.result, f.carry)
      if (f.kind === 'inc' || f.kind === 'dec') super.setSlot(S.cf, f.carry!)
      this.assign(this.#lazyKind, 0)
      this.flagState = this.depth > this.instructionDepth ? UNKNOWN : STORED
      return
    }
    const isUntouched = f.state === 'untouched'
    this.if(isUntouched ? super.slot(S.lazyKind, 'i32') : this.get(this.#lazyKind), () => {
      if (!isUntouched) this.storeLazyFlags()
      this.run('settleFlags', this.cpu, this.i32(0))
    })
    this.assign(this.#lazyKind, 0)
  }
  /** The same, unless the instruction overwrites all flags. */
  protected settleForWrite(): void {
    if (this.flagState.state === 'stored') return
    // Some of the undefined flags are left unchanged.
    const { writes, undefined: left, count } = this.instruction.row.flags
    const replacesAll = !count && this.depth === this.instructionDepth && [...'OSZAPC'].every((letter) => writes.includes(letter) && !left.includes(letter))
    if (!replacesAll) return this.settle()
    this.assign(this.#lazyKind, 0)
    this.flagState = STORED
  }

  // ------------------------------------------------------------------ to memory and back

  /** Of a state that is not untouched: the variables have the flags, or their kind is 0. */
  protected storeLazyFlags(): void {
    super.setSlot(S.lazyKind, this.get(this.#lazyKind))
    super.setSlot(S.lazyLeft, this.get(this.#lazyLeft))
    super.setSlot(S.lazyRight, this.get(this.#lazyRight))
    super.setSlot(S.lazyResult, this.get(this.#lazyResult))
  }
  protected loadLazyFlags(): void {
    this.assign(this.#lazyKind, super.slot(S.lazyKind, 'i32'))
    this.assign(this.#lazyLeft, super.slot(S.lazyLeft))
    this.assign(this.#lazyRight, super.slot(S.lazyRight))
    this.assign(this.#lazyResult, super.slot(S.lazyResult))
  }
}
