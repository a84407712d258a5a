/**
 * The compiler's side of the semantics builder: operands are constants, general registers are wasm locals, flags stay symbolic as
 * long as they can. One builder makes one region: a function with structured control flow.
 */
import { BASE_RIP, type Instruction } from '../decode/instruction.ts'
import type { Body, Value, Variable, Width } from '../ir/nodes.ts'
import { SemanticsBuilder, type ArithmeticKind, type Near, type RegisterField, type Semantics, type StatusFlag } from '../semantics/builder.ts'
import { flagsAreDead } from '../semantics/dead-flags.ts'
import { EXIT, gpr, RSP, S, segment, TLB } from '../state/layout.ts'
import { codeSizeOf, stackSizeOf } from '../state/mode.ts'
import { escapeOf, NOT_LINKED, RECORD, TARGETS } from '../interpreter/record.ts'
import { lazyKindNumber } from './lazy-flags.ts'
import { reachOf } from './reach.ts'
import { packAccess } from './slow-access.ts'
import type { BasicBlock, Placed, Region } from './region.ts'

/** What is known, at a point of the code, of where the status flags are. */
type FlagState =
  /** In memory as the region found them. */
  | { readonly state: 'untouched' }
  /** Computed from these values when asked for; the lazy variables say the same. */
  | { readonly state: 'symbolic'; readonly kind: ArithmeticKind; readonly width: Width; readonly left: Value; readonly right: Value; readonly result: Value; readonly carry: Value | undefined }
  /** In their slots; lazyKind is 0. */
  | { readonly state: 'stored' }
  /** The lazy variables say. */
  | { readonly state: 'unknown' }

const UNTOUCHED: FlagState = { state: 'untouched' }
const UNKNOWN: FlagState = { state: 'unknown' }
const STORED: FlagState = { state: 'stored' }

/** A semantics that cannot be compiled: it calls the system unconditionally. */
export class NotCompilable extends Error {}

/** What is known of registers and flags at a point of the code. Registers are bits. */
interface Known {
  /** Their variable holds them. */
  readonly valid: number
  /** Their variable is newer than memory. */
  readonly dirty: number
  readonly flags: FlagState
}

/** An outermost loop of the region. What is used in it or behind it is loaded before it. */
interface Loop {
  readonly loads: Body
  valid: number
  /** Changed somewhere in it: dirty everywhere, as far as anybody knows who has not seen all of it. */
  changed: number
}

/** Bytes around a value that lie on one page. */
interface Neighbourhood {
  /** Host address of the first, or 0 where the TLB does not answer for all of them. */
  readonly host: Variable
  /** Offsets from the value. */
  readonly min: number
  readonly max: number
  readonly writes: boolean
}

/** A way to a block where several meet: what is missing there is put into the place. */
interface Edge extends Known {
  readonly place: Body
  readonly loop: Loop | undefined
}

/** Registers that go back to memory, when it is known which: loops have their end behind the place. */
interface WriteBack {
  readonly dirty: number
  readonly loop: Loop | undefined
  readonly round: { readonly changed: number } | undefined
}
/** A way out in the middle, shared by the places where the same has to go back. */
interface Fault extends WriteBack {
  readonly flags: FlagState
  readonly label: object
}

const REGISTERS = 16
/** The others clear AF. */
const HAVE_ADJUST: ReadonlySet<ArithmeticKind> = new Set(['add', 'adc', 'sub', 'sbb', 'inc', 'dec'])
const FLAG_SLOTS: ReadonlySet<number> = new Set([S.cf, S.af, S.of, S.zr, S.sp])

export class RegionBuilder extends SemanticsBuilder {
  readonly stackSize: 16 | 32 | 64
  readonly #meaningOf: (instruction: Instruction) => Semantics
  /** The entry record of the block that the region stands in for: there are the addresses that a region cannot know when it is built. */
  readonly #entry: Value
  /** Offsets of the page, or relative to it, that the region leaves for: the order of its records of ways out. */
  readonly waysOut: number[] = []
  /** It goes on at computed targets. */
  usesTargets = false
  readonly #registers: (Variable | undefined)[] = Array.from({ length: REGISTERS })
  #valid = 0
  #dirty = 0
  /** The latest value of a register on the straight line being built, to save reading it back. */
  readonly #latest = new Map<number, Value>()
  /** The outermost loop around what is being built, or that it lies behind. */
  #loop: Loop | undefined
  readonly #edges = new Map<BasicBlock, Edge[]>()
  readonly #writeBacks: (WriteBack & { readonly place: Body })[] = []
  readonly #faults: Fault[] = []
  /** Of the straight line being built. */
  readonly #neighbourhoods = new Map<Value, Neighbourhood>()
  #instructions: readonly Placed[] = []
  /** Where variables are loaded that the whole region shares, once it is known that it uses them. */
  readonly #loads: Body
  readonly #ripPage: Variable
  readonly #tlb: Variable
  readonly #shared = new Set<Variable>()
  readonly #budget: Variable
  readonly #lazyKind: Variable
  readonly #lazyLeft: Variable
  readonly #lazyRight: Variable
  readonly #lazyResult: Variable
  /** Record to go on at, and RIP to go on at, of the exits that share one end. */
  readonly #next: Variable
  readonly #goal: Variable
  readonly #common = {}
  readonly #onward = {}
  readonly #computed = {}
  #flags: FlagState = UNTOUCHED
  #placed!: Placed
  /** Instructions from the current one to the end of its basic block. */
  #remaining = 0
  #instructionDepth = 0
  #isInstruction = false
  /** Where the current instruction's code begins. */
  #start!: { readonly body: Body; at: number }
  /** Registers that the current instruction has changed. */
  #written = 0
  /** Registers that the loop of a repeated instruction changes. */
  #round: { changed: number } | undefined
  /** How the current basic block's last instruction goes on. */
  #condition: Value | undefined
  #target: Value | undefined
  readonly #codeSize: 16 | 32 | 64

  constructor(mode: number, meaningOf: (instruction: Instruction) => Semantics) {
    super()
    this.#meaningOf = meaningOf
    this.#entry = this.param(1)
    this.stackSize = stackSizeOf(mode)
    this.#codeSize = codeSizeOf(mode)
    this.#ripPage = this.#bare(this.const(0), 'ripPage')
    this.#tlb = this.#bare(this.i32(0), 'tlb')
    this.#loads = this.#place()
    this.#budget = this.variable(super.slot(S.budget, 'i32'), 'budget')
    this.#lazyKind = this.#bare(this.i32(0), 'lazyKind')
    this.#lazyLeft = this.#bare(this.const(0), 'lazyLeft')
    this.#lazyRight = this.#bare(this.const(0), 'lazyRight')
    this.#lazyResult = this.#bare(this.const(0), 'lazyResult')
    this.#next = this.#bare(this.i32(0), 'next')
    this.#goal = this.#bare(this.const(0), 'goal')
  }
  /** A variable that wasm's zero initialises. */
  #bare(like: Value, name: string): Variable {
    const variable: Variable = { type: like.type, name, local: -1 }
    this.variables.push(variable)
    return variable
  }

  override get codeSize(): 16 | 32 | 64 {
    return this.#codeSize
  }

  // ------------------------------------------------------------------ the region as a whole

  build(region: Region): void {
    // Exits of a kind share one end: it is as long as all of a small region's instructions.
    this.block(() => {
      const main = this.#apart(() => {
        this.block(() => {
          this.block(() => this.#tree(region, region.blocks[0]!), this.#onward)
          this.#goOnward()
        }, this.#computed)
        if (region.blocks.some(({ ending }) => ending.kind === 'indirect')) this.#goComputed()
      })
      // What is rare comes last.
      let inner = main
      for (const fault of this.#faults)
        inner = this.#apart(() => {
          this.effect({ kind: 'block', label: fault.label, body: inner })
          this.#storeAll(fault)
          this.#storeFlags(fault.flags)
          this.break(this.#common)
        })
      this.body.push(...inner)
    }, this.#common)
    // The common way out for whatever leaves in the middle: the record says where.
    super.setSlot(S.budget, this.get(this.#budget))
    super.setSlot(S.record, this.add(this.cpu, S.compiledRecord))
    this.return()
    this.#fill(this.#loads, () => {
      if (this.#shared.has(this.#ripPage)) this.assign(this.#ripPage, super.slot(S.ripPage))
      if (this.#shared.has(this.#tlb)) this.assign(this.#tlb, super.slot(S.tlb, 'i32'))
    })
    for (const writeBack of this.#writeBacks) this.#fill(writeBack.place, () => this.#storeAll(writeBack))
  }

  /** A place in the code to be filled later. */
  #place(): Body {
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

  /** The block and all that it dominates. (Ramsey: "Beyond Relooper", 2022) */
  #tree(region: Region, block: BasicBlock): void {
    if (block.isMerge) this.#meet(block)
    const merges = region.blocks.filter((b) => b.isMerge && b !== block && b.dominator === block).toSorted((a, b) => b.order - a.order)
    if (!block.isLoop) return this.#within(region, block, merges)
    // Ways that come round find flags in the variables.
    if (this.#flags.state === 'untouched') this.#loadLazyFlags()
    this.#flags = UNKNOWN
    const isOutermost = !this.#loop
    if (isOutermost) this.#loop = { loads: this.#place(), valid: this.#valid, changed: 0 }
    this.loop(() => this.#within(region, block, merges), loopLabel(block))
    if (isOutermost) this.#loop = undefined
  }
  /** What holds whichever way led to the block; what holds on some ways only is made to. */
  #meet(block: BasicBlock): void {
    const loop = this.#loop
    const edges = this.#edges.get(block)!.map((edge) => {
      const over = edge.loop === loop ? undefined : edge.loop
      return { ...edge, valid: edge.loop?.valid ?? edge.valid, dirty: edge.dirty | (over?.changed ?? 0) }
    })
    const valid = edges.reduce((all, edge) => all & edge.valid, -1)
    const isUntouched = edges.every(({ flags }) => flags.state === 'untouched')
    for (const { place, dirty, flags } of edges)
      this.#fill(place, () => {
        this.#store(dirty & ~valid)
        if (!isUntouched && flags.state === 'untouched') this.#loadLazyFlags()
      })
    this.#valid = valid
    this.#dirty = edges.reduce((any, edge) => any | edge.dirty, 0) & valid
    this.#flags = isUntouched ? UNTOUCHED : edges.every(({ flags }) => flags.state === 'stored') ? STORED : UNKNOWN
  }
  /** The block, inside wasm blocks that end where its merge nodes begin; the last of them outermost. */
  #within(region: Region, block: BasicBlock, merges: readonly BasicBlock[]): void {
    const [last, ...rest] = merges
    if (!last) return this.#straight(region, block)
    this.block(() => this.#within(region, block, rest), last)
    // Where conditions turn out constant, no way may lead there.
    if (this.#edges.has(last)) this.#tree(region, last)
  }
  #straight(region: Region, block: BasicBlock): void {
    const count = block.instructions.length
    this.#condition = this.#target = undefined
    this.#latest.clear()
    this.#neighbourhoods.clear()
    this.#instructions = block.instructions
    const left = this.sub(this.get(this.#budget), count)
    if (block.isLoop || block.order === 0) {
      this.ifUnlikely(this.ltS(left, 0), () => {
        super.setSlot(S.exit, this.i32(EXIT.budget))
        this.#leaveAt(this.i32(block.start))
      })
    }
    this.assign(this.#budget, left)
    for (const [i, placed] of block.instructions.entries()) {
      this.#remaining = count - i
      const dead = flagsAreDead(placed.instruction, following(block.instructions, i + 1))
      this.#instruction(placed, dead)
    }
    this.#end(region, block)
  }

  #instruction(placed: Placed, flagsDead: boolean): void {
    this.#placed = placed
    this.begin(placed.instruction, flagsDead)
    this.#instructionDepth = this.depth
    this.#start = { body: this.body, at: this.body.length }
    this.#written = 0
    // Flags that change only under a condition are changed in their slots.
    const { row } = placed.instruction
    if (!flagsDead && row.flags.count && row.operands.at(-1)!.kind === 'gpr') this.#settle()
    this.#isInstruction = true
    this.#meaningOf(placed.instruction)(this, ...this.operands)
    this.#isInstruction = false
  }

  #end(region: Region, block: BasicBlock): void {
    const { ending } = block
    const known = { valid: this.#valid, dirty: this.#dirty, flags: this.#flags }
    const to = (ip: number): void => {
      this.#valid = known.valid
      this.#dirty = known.dirty
      this.#flags = known.flags
      const target = region.byStart.get(ip)
      if (!target) return this.#exitTo(ip)
      if (target.order <= block.order) return this.continue(loopLabel(target))
      if (!target.isMerge) return this.#tree(region, target)
      const edges = this.#edges.get(target) ?? []
      this.#edges.set(target, edges)
      edges.push({ ...known, place: this.#place(), loop: this.#loop })
      this.break(target)
    }
    switch (ending.kind) {
      case 'conditional':
        this.if(this.#condition!, () => to(ending.taken))
        return to(ending.next)
      case 'jump':
        return to(ending.to)
      case 'leave':
        return this.#exitTo(ending.at)
      case 'indirect':
        // An instruction that always raises has no target, and has left.
        if (!this.#target) return
        this.#writeBack()
        this.assign(this.#goal, this.#target)
        return this.break(this.#computed)
    }
  }

  /**
   * Goes on at a computed RIP. On the page that the region is on, whose mapping needs no second look, a small table remembers the blocks;
   * elsewhere, and where it does not know, `dispatch` finds them and fills the table.
   */
  #goComputed(): void {
    const target = this.get(this.#goal)
    this.usesTargets = true
    super.setSlot(S.budget, this.get(this.#budget))
    const distance = this.sub(target, this.#use(this.#ripPage))
    this.if(this.ltU(distance, 0x1000), () => {
      const offset = this.wrap(distance)
      const entry = this.add(this.rawLoad('i32', this.#entry, RECORD.targets, 32), this.shl(this.and(offset, TARGETS - 1), 3))
      this.ifUnlikely(this.ne(this.rawLoad('i32', entry, 0, 32), offset), () => {
        this.rawStore(entry, 0, 32, offset)
        this.rawStore(entry, 4, 32, this.i32(NOT_LINKED))
      })
      const block = this.rawLoad('i32', entry, 4, 32)
      this.ifUnlikely(this.leU(block, NOT_LINKED), () => {
        super.setSlot(S.rip, target)
        this.tailCall('dispatch', this.cpu, this.add(entry, 4))
      })
      this.tail(this.rawLoad('i32', block, RECORD.handler, 32), this.cpu, block)
    })
    super.setSlot(S.rip, target)
    this.tailCall('dispatch', this.cpu, this.add(this.cpu, S.zero))
  }

  /** Leaves by a record: for what it is linked to, or by itself. */
  #goOnward(): void {
    const record = this.add(this.rawLoad('i32', this.#entry, RECORD.waysOut, 32), this.get(this.#next))
    super.setSlot(S.budget, this.get(this.#budget))
    const linked = this.rawLoad('i32', record, RECORD.link, 32)
    const next = this.select(this.gtU(linked, NOT_LINKED), linked, record)
    this.tail(this.rawLoad('i32', next, RECORD.handler, 32), this.cpu, next)
  }
  /** Leaves the region for an offset of its page, or relative to it. */
  #exitTo(ip: number): void {
    let number = this.waysOut.indexOf(ip)
    if (number < 0) number = this.waysOut.push(ip) - 1
    this.#writeBack()
    this.assign(this.#next, number * RECORD.size)
    this.break(this.#onward)
  }

  /** Registers and flags to memory, as far as it does not have them. */
  #writeBack(): void {
    this.#writeBacks.push({ place: this.#place(), dirty: this.#dirty, loop: this.#loop, round: this.#round })
    this.#storeFlags(this.#flags)
  }
  #storeAll({ dirty, loop, round }: WriteBack): void {
    this.#store(dirty | (loop?.changed ?? 0) | (round?.changed ?? 0))
  }
  #storeFlags(f: FlagState): void {
    switch (f.state) {
      case 'untouched':
        return
      case 'stored':
        return super.setSlot(S.lazyKind, this.i32(0))
      case 'symbolic':
        super.setSlot(S.lazyKind, this.i32(lazyKindNumber(f.kind, f.width)))
        if (f.kind === 'logic') return super.setSlot(S.lazyResult, this.get(this.#lazyResult))
        return this.#storeLazyOperands()
      case 'unknown':
        super.setSlot(S.lazyKind, this.get(this.#lazyKind))
        return this.#storeLazyOperands()
    }
  }
  #storeLazyOperands(): void {
    super.setSlot(S.lazyLeft, this.get(this.#lazyLeft))
    super.setSlot(S.lazyRight, this.get(this.#lazyRight))
    super.setSlot(S.lazyResult, this.get(this.#lazyResult))
  }
  #loadLazyFlags(): void {
    this.assign(this.#lazyKind, super.slot(S.lazyKind, 'i32'))
    this.assign(this.#lazyLeft, super.slot(S.lazyLeft))
    this.assign(this.#lazyRight, super.slot(S.lazyRight))
    this.assign(this.#lazyResult, super.slot(S.lazyResult))
  }
  #store(registers: number): void {
    for (const [n, register] of this.#registers.entries()) if (registers & (1 << n)) super.setSlot(gpr(n), this.get(register!))
  }
  /** A variable that the whole region shares. */
  #use(variable: Variable): Value {
    this.#shared.add(variable)
    return this.get(variable)
  }

  // ------------------------------------------------------------------ slots: registers and flags are caught here

  override slot(offset: number, type: Value['type'] = 'i64', width: Width = type === 'i32' ? 32 : type === 'v128' ? 128 : 64): Value {
    if (offset < gpr(REGISTERS)) return this.#readGpr(offset >> 3, offset & 7, width)
    if (offset === S.tlb) return this.#use(this.#tlb)
    if (offset === S.ripPage) return this.#use(this.#ripPage)
    if (offset === S.budget) return this.get(this.#budget)
    if (FLAG_SLOTS.has(offset)) this.#settle()
    return super.slot(offset, type, width)
  }
  override setSlot(offset: number, value: Value, width: Width = value.type === 'i32' || value.type === 'f32' ? 32 : value.type === 'v128' ? 128 : 64): void {
    if (offset < gpr(REGISTERS)) return this.#writeGpr(offset >> 3, offset & 7, width, value)
    if (offset === S.budget) return this.assign(this.#budget, value)
    if (offset === S.tlb) this.assign(this.#tlb, value)
    if (FLAG_SLOTS.has(offset)) this.#settleForWrite()
    super.setSlot(offset, value, width)
  }
  #readGpr(n: number, byte: number, width: Width): Value {
    let whole = this.#latest.get(n)
    if (!whole) {
      whole = this.get(this.#register(n))
      if (this.depth === this.#instructionDepth) this.#latest.set(n, whole)
    }
    return this.truncate(byte ? this.shrU(whole, 8 * byte) : whole, width)
  }
  #writeGpr(n: number, byte: number, width: Width, value: Value): void {
    let whole = value
    if (width < 32) {
      const mask = ((1n << BigInt(width)) - 1n) << BigInt(8 * byte)
      const placed = this.and(byte ? this.shl(value, 8 * byte) : value, mask)
      whole = this.or(this.and(this.#readGpr(n, 0, 64), BigInt.asUintN(64, ~mask)), placed)
    }
    this.assign(this.#toWrite(n), whole)
    if (this.depth === this.#instructionDepth) this.#latest.set(n, whole)
    else this.#latest.delete(n)
  }
  /** The register's variable, loaded. */
  #register(n: number): Variable {
    const bit = 1 << n
    const register = (this.#registers[n] ??= this.#bare(this.const(0), `r${n}`))
    const loop = this.#loop
    if ((loop?.valid ?? this.#valid) & bit) return register
    const load = (): void => this.assign(register, super.slot(gpr(n)))
    if (loop) {
      loop.valid |= bit
      this.#fill(loop.loads, load)
      return register
    }
    this.#valid |= bit
    if (this.depth === this.#instructionDepth) load()
    else {
      // Whatever way the instruction takes, it is there behind it.
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
  /** The register's variable, about to be written. */
  #toWrite(n: number): Variable {
    const bit = 1 << n
    // What is written on one way only, or in one round, must be there on the others.
    if (this.#loop || this.depth > this.#instructionDepth) this.#register(n)
    this.#valid |= bit
    this.#dirty |= bit
    this.#written |= bit
    if (this.#loop) this.#loop.changed |= bit
    if (this.#round) this.#round.changed |= bit
    return (this.#registers[n] ??= this.#bare(this.const(0), `r${n}`))
  }
  /** A later round of the loop may find registers and flags changed. */
  override loop(body: () => void, label: object = {}): void {
    this.#latest.clear()
    const outer = this.#round
    // The region's own loops are no instruction's.
    if (this.#isInstruction) {
      this.#round ??= { changed: 0 }
      if (this.#flags.state !== 'untouched') this.#flags = UNKNOWN
    }
    super.loop(body, label)
    this.#round = outer
    this.#latest.clear()
  }

  // ------------------------------------------------------------------ flags

  override arithmeticFlags(kind: ArithmeticKind, width: Width, left: Value, right: Value, result: Value, carry?: Value): void {
    if (this.flagsDead) return
    if (this.depth > this.#instructionDepth) {
      this.#settle()
      return super.arithmeticFlags(kind, width, left, right, result, carry)
    }
    // INC and DEC keep CF: it travels where `right` would, which is 1.
    const keepsCarry = kind === 'inc' || kind === 'dec'
    const carried = keepsCarry ? this.flag('cf') : carry
    this.assign(this.#lazyKind, lazyKindNumber(kind, width))
    if (kind !== 'logic') {
      this.assign(this.#lazyLeft, left)
      this.assign(this.#lazyRight, keepsCarry ? this.extendU(carried!) : right)
    }
    this.assign(this.#lazyResult, result)
    this.#flags = { state: 'symbolic', kind, width, left, right, result, carry: carried }
  }

  override flag(name: StatusFlag): Value {
    const f = this.#flags
    if (f.state !== 'symbolic') return super.flag(name)
    switch (name) {
      case 'zf':
        return this.eqz(f.result)
      case 'sf':
        return this.wrap(this.shrU(this.signExtend(f.result, f.width), 63))
      case 'pf':
        return this.eqz(this.and(this.popcnt(this.and(this.wrap(f.result), 0xff)), 1))
      case 'cf':
        switch (f.kind) {
          case 'logic': return this.i32(0)
          case 'shl': case 'shr': case 'sar': return this.shiftedOut(f.kind, f.width, f.left, f.right)
          case 'mul': case 'imul': return this.overflow(f.kind, f.width, f.left, f.right, f.result)
          case 'add': return this.ltU(f.result, f.left)
          case 'sub': return this.ltU(f.left, f.right)
          case 'adc': return this.or(this.ltU(f.result, f.left), this.and(f.carry!, this.eq(f.result, f.left)))
          case 'sbb': return this.or(this.ltU(f.left, f.right), this.and(f.carry!, this.eq(f.left, f.right)))
          default: return f.carry!
        }
      case 'of': {
        if (f.kind === 'logic' || f.kind === 'sar') return this.i32(0)
        if (f.kind === 'mul' || f.kind === 'imul') return this.flag('cf')
        if (f.kind === 'shr') return this.and(this.wrap(this.shrU(f.left, f.width - 1)), 1)
        if (f.kind === 'shl') return this.xor(this.flag('sf'), this.flag('cf'))
        const adds = f.kind === 'add' || f.kind === 'adc' || f.kind === 'inc'
        const bit = this.and(this.xor(f.left, f.result), this.xor(adds ? f.result : f.left, f.right))
        return this.and(this.wrap(this.shrU(bit, f.width - 1)), 1)
      }
      case 'af':
        if (!HAVE_ADJUST.has(f.kind)) return this.i32(0)
        return this.and(this.wrap(this.shrU(this.xor(this.xor(f.left, f.right), f.result), 4)), 1)
    }
  }

  /** Compare and branch in one where the comparison is known. */
  override condition(code: number): Value {
    const f = this.#flags
    if (f.state !== 'symbolic') return super.condition(code)
    const { left, right, result, width } = f
    const signed = (v: Value) => this.signExtend(v, width)
    const negate = (v: Value) => (code & 1 ? this.eqz(v) : v)
    const pair = code >> 1
    if (f.kind === 'sub') {
      switch (pair) {
        case 1: return code & 1 ? this.geU(left, right) : this.ltU(left, right)
        case 2: return code & 1 ? this.ne(left, right) : this.eq(left, right)
        case 3: return code & 1 ? this.gtU(left, right) : this.leU(left, right)
        case 6: return code & 1 ? this.geS(signed(left), signed(right)) : this.ltS(signed(left), signed(right))
        case 7: return code & 1 ? this.gtS(signed(left), signed(right)) : this.leS(signed(left), signed(right))
      }
    }
    switch (pair) {
      case 0: return negate(this.flag('of'))
      case 1: return negate(this.flag('cf'))
      case 2: return code & 1 ? this.ne(result, 0) : this.eqz(result)
      case 3: return negate(this.or(this.flag('cf'), this.flag('zf')))
      case 4: return code & 1 ? this.geS(signed(result), 0) : this.ltS(signed(result), 0)
      case 5: return negate(this.flag('pf'))
      case 6:
        if (f.kind === 'logic') return code & 1 ? this.geS(signed(result), 0) : this.ltS(signed(result), 0)
        return negate(this.xor(this.flag('sf'), this.flag('of')))
      default:
        if (f.kind === 'logic') return code & 1 ? this.gtS(signed(result), 0) : this.leS(signed(result), 0)
        return negate(this.or(this.xor(this.flag('sf'), this.flag('of')), this.flag('zf')))
    }
  }

  /** Makes the slots hold the flags, because somebody reads or changes one of them by itself. */
  #settle(): void {
    if (this.#flags.state === 'stored') return
    const f = this.#flags
    if (this.depth > this.#instructionDepth) {
      // Inside a branch of the semantics: the other way must find the same, so the settling is repeated where it is needed.
      return this.#settleHere(f)
    }
    this.#settleHere(f)
    this.#flags = STORED
  }
  #settleHere(f: FlagState): void {
    if (f.state === 'symbolic') {
      this.#flags = STORED
      super.arithmeticFlags(f.kind, f.width, f.left, f.right, f.result, f.carry)
      if (f.kind === 'inc' || f.kind === 'dec') super.setSlot(S.cf, f.carry!)
      this.assign(this.#lazyKind, 0)
      this.#flags = this.depth > this.#instructionDepth ? UNKNOWN : STORED
      return
    }
    const isUntouched = f.state === 'untouched'
    this.if(isUntouched ? super.slot(S.lazyKind, 'i32') : this.get(this.#lazyKind), () => {
      if (!isUntouched) {
        super.setSlot(S.lazyKind, this.get(this.#lazyKind))
        this.#storeLazyOperands()
      }
      this.run('settleFlags', this.cpu, this.i32(0))
    })
    this.assign(this.#lazyKind, 0)
  }
  /** The same, unless the instruction overwrites every flag anyway. */
  #settleForWrite(): void {
    if (this.#flags.state === 'stored') return
    // Of the undefined ones some stay as they were.
    const { writes, undefined: left, count } = this.instruction.row.flags
    const replacesAll = !count && this.depth === this.#instructionDepth && [...'OSZAPC'].every((letter) => writes.includes(letter) && !left.includes(letter))
    if (!replacesAll) return this.#settle()
    this.assign(this.#lazyKind, 0)
    this.#flags = STORED
  }

  // ------------------------------------------------------------------ operands

  #number(field: RegisterField): number {
    const i = this.instruction
    return typeof field === 'number' ? field : field === 'base' ? i.base : field === 'index' ? i.index : field === 'vvvv' ? i.vvvv : i[field]
  }
  readRegister(field: RegisterField, width: Width): Value {
    const n = this.#number(field)
    const high = width === 8 && n >= 4 && n < 8 && (typeof field === 'number' || !this.instruction.rexPresent)
    return high ? this.#readGpr(n - 4, 1, 8) : this.#readGpr(n, 0, width)
  }
  writeRegister(field: RegisterField, width: Width, value: Value): void {
    const n = this.#number(field)
    const high = width === 8 && n >= 4 && n < 8 && (typeof field === 'number' || !this.instruction.rexPresent)
    if (high) this.#writeGpr(n - 4, 1, 8, value)
    else this.#writeGpr(n, 0, width, value)
  }
  readVector(field: RegisterField): Value {
    return super.slot(S.xmm + 16 * this.#number(field), 'v128')
  }
  writeVector(field: RegisterField, value: Value): void {
    super.setSlot(S.xmm + 16 * this.#number(field), value)
  }
  readMmx(field: RegisterField): Value {
    return super.slot(S.fpr + 16 * (this.#number(field) & 7))
  }
  writeMmx(field: RegisterField, value: Value): void {
    super.setSlot(S.fpr + 16 * (this.#number(field) & 7), value)
    super.setSlot(S.fpr + 16 * (this.#number(field) & 7) + 8, this.i32(0xffff), 16)
  }
  registerAddress(file: 'xmm' | 'mmx' | 'segment', field: RegisterField): Value {
    const n = this.#number(field)
    return this.add(this.cpu, file === 'xmm' ? S.xmm + n * 16 : file === 'mmx' ? S.fpr + (n & 7) * 16 : segment(n))
  }
  immediate(): Value {
    const { immediate, immediateHigh } = this.instruction
    return this.const((BigInt(immediateHigh) << 32n) | BigInt(immediate >>> 0))
  }
  immediate2(): Value {
    return this.const(this.instruction.immediate2)
  }
  escape(): Value {
    return this.i32(escapeOf(this.instruction))
  }
  /** RIP at an offset from the page's start. */
  #rip(offset: number): Value {
    return this.truncate(this.add(this.#use(this.#ripPage), offset), this.codeSize)
  }
  currentRip(): Value {
    return this.#rip(this.#placed.ip)
  }
  nextRip(): Value {
    return this.#rip(this.#placed.ip + this.instruction.length)
  }
  relativeTarget(): Value {
    const { ip } = this.#placed
    const offset = ip + this.instruction.length + this.instruction.immediate
    return this.truncate(this.add(this.#use(this.#ripPage), offset), this.codeSize === 64 ? 64 : this.operandSize)
  }
  protected effectiveAddress(): Value {
    const { base, index, scale, displacement, displacementHigh, row, length } = this.instruction
    if (row.operands.some((o) => o.kind === 'O')) return this.const((BigInt(displacementHigh) << 32n) | BigInt(displacement >>> 0))
    if (base === BASE_RIP) return this.add(this.#use(this.#ripPage), this.#placed.ip + length + displacement)
    let sum: Value | undefined = base >= 0 ? this.#readGpr(base, 0, 64) : undefined
    if (index >= 0) {
      const scaled = this.shl(this.#readGpr(index, 0, 64), scale)
      sum = sum ? this.add(sum, scaled) : scaled
    }
    return sum ? this.add(sum, displacement) : this.const(displacement)
  }
  protected segmentAddress(which: number | 'operand'): Value {
    return this.add(this.cpu, segment(which === 'operand' ? this.instruction.segment : which))
  }

  protected override near(linear: Value, bytes: number, access: 'read' | 'write'): Near | undefined {
    const { root, offset } = partsOf(linear)
    let near = this.#neighbourhoods.get(root)
    if (!near && this.depth === this.#instructionDepth) near = this.#neighbourhoodOf(root)
    if (!near || offset < near.min || offset + bytes > near.max || (access === 'write' && !near.writes)) return undefined
    return { host: this.get(near.host), offset: offset - near.min }
  }
  /** Looks up what the instructions from here on reach by the register whose value is the root. */
  #neighbourhoodOf(root: Value): Neighbourhood | undefined {
    for (const register of [this.instruction.base, RSP]) {
      const value = this.#latest.get(register)
      if (!value) continue
      const { root: own, offset } = partsOf(value)
      const reach = own === root ? reachOf(this.#instructions, this.#instructions.length - this.#remaining, register) : undefined
      if (!reach) continue
      const { writes } = reach
      const [min, max] = [offset + reach.min, offset + reach.max]
      const first = this.add(root, min)
      const entry = this.tlbEntry(first)
      const host = this.variable(this.hostOf(first, entry), 'near')
      const tag = this.rawLoad('i64', entry, writes ? TLB.write : TLB.read, 64)
      this.ifUnlikely(this.ne(tag, this.pageOfLastByte(first, max - min)), () => this.assign(host, 0))
      const near = { host, min, max, writes }
      this.#neighbourhoods.set(root, near)
      return near
    }
    return undefined
  }
  /** What a device may have changed meanwhile is looked up anew. */
  #forgetNeighbourhoods(): void {
    for (const { host } of this.#neighbourhoods.values()) this.assign(host, 0)
  }

  /** In one call: this stands at every access. (compiler/slow-access.ts) */
  protected slowHost(access: 'read' | 'modify', linear: Value, bytes: number, segmentNumber: number, tag: Value): Value {
    const host = this.call('i32', access === 'read' ? 'compiledRead' : 'compiledModify', this.cpu, linear, this.#access(bytes, segmentNumber), tag)
    this.ifUnlikely(this.eqz(host), () => this.#leaveSilently())
    this.#forgetNeighbourhoods()
    return host
  }
  protected slowWrite(linear: Value, value: Value, bytes: number, segmentNumber: number, tag: Value = this.const(0)): void {
    const vector = value.type === 'v128'
    if (vector) super.setSlot(S.value, value)
    const args = vector ? [this.cpu, linear] : [this.cpu, linear, value]
    const left = this.call('i32', vector ? 'compiledWriteVector' : 'compiledWrite', ...args, this.#access(bytes, segmentNumber), tag)
    this.ifUnlikely(left, () => this.#leaveSilently())
    this.#forgetNeighbourhoods()
  }
  #access(bytes: number, segmentNumber: number): Value {
    return this.i32(packAccess(bytes, segmentNumber, this.#placed.ip, this.instruction.length, this.#remaining))
  }
  /** The current instruction as RECORD has it: ip, length, remaining. */
  #position(): Value {
    return this.i32(this.#placed.ip | (this.instruction.length << 16) | (this.#remaining << 24))
  }

  // ------------------------------------------------------------------ ways out

  leave(): void {
    this.#leaveAt(this.#position())
  }
  #leaveAt(position: Value): void {
    super.setSlot(S.compiledRecord + RECORD.ip, position)
    this.#leaveSilently()
  }
  /** The position is known already. */
  #leaveSilently(): void {
    const early = this.#dirty & ~this.#written
    if (!this.#loop && early) {
      // Without a loop one store is all that this costs, and there is less to do for every place that may leave.
      this.#atStart(() => this.#store(early))
      this.#dirty &= ~early
    }
    this.break(this.#faultLabel())
  }
  #faultLabel(): object {
    const flags = this.#flags
    const dirty = this.#dirty
    const loop = this.#loop
    const round = this.#round
    if (!dirty && !loop && !round && flags.state === 'untouched') return this.#common
    let fault = this.#faults.find((f) => f.flags === flags && f.dirty === dirty && f.loop === loop && f.round === round)
    if (!fault) this.#faults.push((fault = { flags, dirty, loop, round, label: {} }))
    return fault.label
  }
  jump(rip: Value): void {
    this.#target = rip
  }
  endBlock(): void {
    throw new NotCompilable(this.instruction.row.mnemonic)
  }
  branch(condition?: Value): void {
    this.#condition = condition
  }
  /** Not from compiled code: the whole instruction is left to the interpreter, if it has done nothing yet. */
  system(): void {
    if (this.depth === this.#instructionDepth) throw new NotCompilable(this.instruction.row.mnemonic)
    super.setSlot(S.exit, this.i32(EXIT.interpret))
    this.leave()
  }
}

/** A sum as a value and a constant. */
function partsOf(sum: Value): { root: Value; offset: number } {
  let root = sum
  let offset = 0n
  while (root.kind === 'op' && (root.op.name === 'i64.add' || root.op.name === 'i64.sub')) {
    const [value, by] = root.args
    if (by!.kind !== 'const') break
    offset += BigInt.asIntN(64, root.op.name === 'i64.add' ? by!.value : -by!.value)
    root = value!
  }
  return { root, offset: Number(offset) }
}

function* following(instructions: readonly Placed[], from: number): Iterable<Instruction> {
  for (let i = from; i < instructions.length; i++) yield instructions[i]!.instruction
}

const loops = new WeakMap<BasicBlock, object>()
function loopLabel(block: BasicBlock): object {
  let label = loops.get(block)
  if (!label) loops.set(block, (label = {}))
  return label
}
