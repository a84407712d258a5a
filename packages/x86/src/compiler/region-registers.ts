/**
 * General registers in compiled code: cached in wasm locals, loaded at their first use, and written back where they are dirty. Tracks at each program
 * point which registers are cached and which are dirty. At merges the incoming states are reconciled on the edges; the set of registers that a loop
 * modifies is known only after its body has been built.
 */
import type { Body, Value, Variable, Width } from '../ir/nodes.ts'
import { gpr, S } from '../state/layout.ts'
import { RECORD } from '../state/record.ts'
import { RegionFlags, STORED, UNKNOWN, UNTOUCHED, type FlagState } from './region-flags.ts'
import type { BasicBlock } from './region.ts'

/** The state of registers and flags at one program point. Registers are bits. */
interface Known {
  /** Cached in their variable. */
  readonly valid: number
  /** Dirty: the variable is newer than memory. */
  readonly dirty: number
  readonly flags: FlagState
}

/** An outermost loop of the region. Registers used in it or after it are loaded before it. */
interface Loop {
  readonly loads: Body
  valid: number
  /** Modified somewhere in the loop: must be treated as dirty everywhere until all of its body has been built. */
  changed: number
}

/**
 * An incoming edge of a merge block. `place` is an empty body on the edge, filled later with the loads and write-backs that the merged state
 * requires.
 */
interface Edge extends Known {
  readonly place: Body
  readonly loop: Loop | undefined
}

/** An exit, shared by all points that write back the same registers. */
interface Exit {
  readonly dirty: number
  /** What they modify is determined later: they end after this place. */
  readonly loop: Loop | undefined
  readonly round: { readonly changed: number } | undefined
  /** The flags were changed: the lazy variables have them. */
  readonly hasFlags: boolean
  readonly label: object
}

const bitCount = (bits: number): number => {
  let count = 0
  for (let rest = bits; rest; rest &= rest - 1) count++
  return count
}
/** Those that store most come first. */
const bySize = (a: { registers: number; hasFlags: boolean }, b: { registers: number; hasFlags: boolean }): number =>
  bitCount(b.registers) - bitCount(a.registers) || Number(b.hasFlags) - Number(a.hasFlags)

const REGISTERS = 16
const FLAG_SLOTS: ReadonlySet<number> = new Set([S.cf, S.af, S.of, S.zr, S.sp])

export abstract class RegionRegisters extends RegionFlags {
  readonly #registers: (Variable | undefined)[] = Array.from({ length: REGISTERS })
  #valid = 0
  #dirty = 0
  /** The latest value of a register in the straight-line code being built, which saves reading the variable. */
  protected readonly latest = new Map<number, Value>()
  /** The outermost loop that contains, or precedes, the code being built. */
  #outermost: Loop | undefined
  readonly #edges = new Map<BasicBlock, Edge[]>()
  /** By their tail. */
  readonly #exits = new Map<object, Exit[]>()
  /** The place where variables shared by the whole region are loaded, filled when it is known which are used. */
  readonly #loads: Body
  protected readonly ripPage: Variable
  readonly #tlb: Variable
  readonly #shared = new Set<Variable>()
  protected readonly budget: Variable
  /** The common tail of all side exits. */
  protected readonly common = {}
  #isInstruction = false
  /** The place before the current instruction's code. */
  #start!: { readonly body: Body; at: number }
  /** Registers that the current instruction has modified. */
  #written = 0
  /** Registers that the loop of a repeated instruction modifies. */
  #round: { changed: number } | undefined

  constructor() {
    super()
    this.ripPage = this.bareVariable(this.const(0), 'ripPage')
    this.#tlb = this.bareVariable(this.i32(0), 'tlb')
    this.#loads = this.#openPlace()
    this.budget = this.variable(super.slot(S.budget, 'i32'), 'budget')
  }

  // ------------------------------------------------------------------ instructions, loops, ways that meet

  /** Emits an instruction's code. */
  protected inInstruction(build: () => void): void {
    this.instructionDepth = this.depth
    this.#start = { body: this.body, at: this.body.length }
    this.#written = 0
    this.#isInstruction = true
    build()
    this.#isInstruction = false
  }
  /** Emits a loop of the region: its blocks and all that they dominate. */
  protected inLoop(build: () => void): void {
    // Back edges leave the flags in the variables.
    if (this.flagState.state === 'untouched') this.loadLazyFlags()
    this.flagState = UNKNOWN
    const isOutermost = !this.#outermost
    if (isOutermost) this.#outermost = { loads: this.#openPlace(), valid: this.#valid, changed: 0 }
    build()
    if (isOutermost) this.#outermost = undefined
  }
  /** Saves the current state, to be restored after building other code. */
  protected get known(): Known {
    return { valid: this.#valid, dirty: this.#dirty, flags: this.flagState }
  }
  protected set known({ valid, dirty, flags }: Known) {
    this.#valid = valid
    this.#dirty = dirty
    this.flagState = flags
  }
  /** Adds an edge from here to a merge block. */
  protected edgeTo(block: BasicBlock): void {
    const edges = this.#edges.get(block) ?? []
    this.#edges.set(block, edges)
    edges.push({ ...this.known, place: this.#openPlace(), loop: this.#outermost })
  }
  protected hasEdgeTo(block: BasicBlock): boolean {
    return this.#edges.has(block)
  }
  /** The state that holds on all incoming edges of the merge; on edges where it does not, code is added so that it does. */
  protected meet(block: BasicBlock): void {
    const loop = this.#outermost
    const edges = this.#edges.get(block)!.map((edge) => {
      const over = edge.loop === loop ? undefined : edge.loop
      return { ...edge, valid: edge.loop?.valid ?? edge.valid, dirty: edge.dirty | (over?.changed ?? 0) }
    })
    const valid = edges.reduce((all, edge) => all & edge.valid, -1)
    const isUntouched = edges.every(({ flags }) => flags.state === 'untouched')
    for (const { place, dirty, flags } of edges)
      this.#fill(place, () => {
        this.#store(dirty & ~valid)
        if (!isUntouched && flags.state === 'untouched') this.loadLazyFlags()
      })
    this.#valid = valid
    this.#dirty = edges.reduce((any, edge) => any | edge.dirty, 0) & valid
    this.flagState = isUntouched ? UNTOUCHED : edges.every(({ flags }) => flags.state === 'stored') ? STORED : UNKNOWN
  }

  // ------------------------------------------------------------------ slots: registers and flags are caught here

  override slot(offset: number, type: Value['type'] = 'i64', width: Width = type === 'i32' ? 32 : type === 'v128' ? 128 : 64): Value {
    if (offset < gpr(REGISTERS)) return this.readGpr(offset >> 3, offset & 7, width)
    if (offset === S.tlb) return this.useShared(this.#tlb)
    if (offset === S.ripPage) return this.useShared(this.ripPage)
    if (offset === S.budget) return this.get(this.budget)
    if (FLAG_SLOTS.has(offset)) this.settle()
    return super.slot(offset, type, width)
  }
  override setSlot(offset: number, value: Value, width: Width = value.type === 'i32' || value.type === 'f32' ? 32 : value.type === 'v128' ? 128 : 64): void {
    if (offset < gpr(REGISTERS)) return this.writeGpr(offset >> 3, offset & 7, width, value)
    if (offset === S.budget) return this.assign(this.budget, value)
    if (offset === S.tlb) this.assign(this.#tlb, value)
    if (FLAG_SLOTS.has(offset)) this.settleForWrite()
    super.setSlot(offset, value, width)
  }
  protected readGpr(n: number, byte: number, width: Width): Value {
    let whole = this.latest.get(n)
    if (!whole) {
      whole = this.get(this.#register(n))
      if (this.depth === this.instructionDepth) this.latest.set(n, whole)
    }
    return this.truncate(byte ? this.shrU(whole, 8 * byte) : whole, width)
  }
  protected writeGpr(n: number, byte: number, width: Width, value: Value): void {
    let whole = value
    if (width < 32) {
      const mask = ((1n << BigInt(width)) - 1n) << BigInt(8 * byte)
      const placed = this.and(byte ? this.shl(value, 8 * byte) : value, mask)
      whole = this.or(this.and(this.readGpr(n, 0, 64), BigInt.asUintN(64, ~mask)), placed)
    }
    this.assign(this.#toWrite(n), whole)
    if (this.depth === this.instructionDepth) this.latest.set(n, whole)
    else this.latest.delete(n)
  }
  /** Reads a register: its variable, loaded if needed. */
  #register(n: number): Variable {
    const bit = 1 << n
    const register = (this.#registers[n] ??= this.bareVariable(this.const(0), `r${n}`))
    const loop = this.#outermost
    if ((loop?.valid ?? this.#valid) & bit) return register
    const load = (): void => this.assign(register, super.slot(gpr(n)))
    if (loop) {
      loop.valid |= bit
      this.#fill(loop.loads, load)
      return register
    }
    this.#valid |= bit
    if (this.depth === this.instructionDepth) load()
    else {
      // The load is placed before the instruction, so that it holds on all of its paths.
      this.#atStart(load)
    }
    return register
  }
  /** Before the current instruction. */
  #atStart(build: () => void): void {
    const nodes = this.#apart(build)
    this.#start.body.splice(this.#start.at, 0, ...nodes)
    this.#start.at += nodes.length
  }
  /** The variable of a register that will be written. */
  #toWrite(n: number): Variable {
    const bit = 1 << n
    // A register written on one path or iteration only must be loaded for the others.
    if (this.#outermost || this.depth > this.instructionDepth) this.#register(n)
    this.#valid |= bit
    this.#dirty |= bit
    this.#written |= bit
    if (this.#outermost) this.#outermost.changed |= bit
    if (this.#round) this.#round.changed |= bit
    return (this.#registers[n] ??= this.bareVariable(this.const(0), `r${n}`))
  }
  /** In a later iteration of the loop, registers and flags may have changed. */
  override loop(body: () => void, label: object = {}): void {
    this.latest.clear()
    const outer = this.#round
    // Loops of the region do not belong to an instruction.
    if (this.#isInstruction) {
      this.#round ??= { changed: 0 }
      if (this.flagState.state !== 'untouched') this.flagState = UNKNOWN
    }
    super.loop(body, label)
    this.#round = outer
    this.latest.clear()
  }
  /** A variable that the whole region shares. */
  protected useShared(variable: Variable): Value {
    this.#shared.add(variable)
    return this.get(variable)
  }

  // ------------------------------------------------------------------ back to memory

  /** Leaves the code of `withExits`: the registers and flags are written back, and execution continues behind it. */
  protected exitBy(tail: object): void {
    const hasFlags = this.flagState.state !== 'untouched'
    const dirty = this.#dirty
    const loop = this.#outermost
    const round = this.#round
    const exits = this.#exits.get(tail) ?? []
    this.#exits.set(tail, exits)
    let exit = exits.find((e) => e.hasFlags === hasFlags && e.dirty === dirty && e.loop === loop && e.round === round)
    if (!exit) exits.push((exit = { hasFlags, dirty, loop, round, label: {} }))
    this.break(exit.label)
  }
  /** A side exit; `position` as in RECORD: ip, length, remaining. */
  protected leaveAt(position: Value): void {
    super.setSlot(S.compiledRecord + RECORD.ip, position)
    this.leaveSilently()
  }
  /** The position has already been stored. */
  protected leaveSilently(): void {
    const early = this.#dirty & ~this.#written
    if (!this.#outermost && early) {
      // Without a loop this costs only one store, and saves code at each side exit.
      this.#atStart(() => this.#store(early))
      this.#dirty &= ~early
    }
    this.exitBy(this.common)
  }
  /**
   * Code, followed by its exits by the tail that comes next. Each exit stores what no later one does, and continues with the later one that stores most
   * of the rest.
   */
  protected withExits(tail: object, build: () => void): void {
    let inner = this.#apart(build)
    const exits = (this.#exits.get(tail) ?? []).map((exit) => ({ ...exit, registers: exit.dirty | (exit.loop?.changed ?? 0) | (exit.round?.changed ?? 0) })).toSorted(bySize)
    for (const [n, { label, registers, hasFlags }] of exits.entries()) {
      inner = this.#apart(() => {
        this.effect({ kind: 'block', label, body: inner })
        const rest = exits.slice(n + 1).find((other) => (other.registers & ~registers) === 0 && (!other.hasFlags || hasFlags))
        this.#store(registers & ~(rest?.registers ?? 0))
        if (hasFlags && !rest?.hasFlags) this.storeLazyFlags()
        this.break(rest?.label ?? tail)
      })
    }
    this.effect({ kind: 'block', label: tail, body: inner })
  }
  #store(registers: number): void {
    for (const [n, register] of this.#registers.entries()) if (registers & (1 << n)) super.setSlot(gpr(n), this.get(register!))
  }
  protected storeBudget(): void {
    super.setSlot(S.budget, this.get(this.budget))
  }
  /** Called when everything has been built. */
  protected fillPlaces(): void {
    this.#fill(this.#loads, () => {
      if (this.#shared.has(this.ripPage)) this.assign(this.ripPage, super.slot(S.ripPage))
      if (this.#shared.has(this.#tlb)) this.assign(this.#tlb, super.slot(S.tlb, 'i32'))
    })
  }

  // ------------------------------------------------------------------ places

  /** A place in the code that is filled later. */
  #openPlace(): Body {
    const body: Body = []
    this.effect({ kind: 'block', label: {}, body })
    return body
  }
  #fill(place: Body, build: () => void): void {
    const { body } = this
    this.body = place
    build()
    this.body = body
  }
  #apart(build: () => void): Body {
    const place: Body = []
    this.#fill(place, build)
    return place
  }
}
