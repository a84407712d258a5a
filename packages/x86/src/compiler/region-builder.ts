/**
 * The compiler's side of the semantics builder: operands are constants, general registers are wasm locals, flags stay symbolic as long as possible
 * (region-operands.ts, region-registers.ts, region-flags.ts). One builder builds one region: a function with structured control flow.
 */
import type { Instruction } from '../decode/instruction.ts'
import type { Value, Variable } from '../ir/nodes.ts'
import type { Semantics } from '../semantics/builder.ts'
import { flagsAreDead } from '../semantics/dead-flags.ts'
import { EXIT, S } from '../state/layout.ts'
import { NOT_LINKED, TARGETS } from '../code/record.ts'
import { refill } from '../code/refill.ts'
import { RECORD } from '../state/record.ts'
import { RegionOperands } from './region-operands.ts'
import type { BasicBlock, Placed, Region } from './region.ts'

/** Semantics that cannot be compiled: they call a system routine unconditionally. */
export class NotCompilable extends Error {}

export class RegionBuilder extends RegionOperands {
  readonly #meaningOf: (instruction: Instruction) => Semantics
  /** The entry record of the block that the region replaces: it contains the addresses that are not known when a region is built. */
  readonly #entry: Value
  /** Offsets in the page, or relative to it, at which the region exits, in the order of its exit records. */
  readonly exits: number[] = []
  /** The region has indirect jumps. */
  usesTargets = false
  /** Record and RIP at which execution continues, for the exits that share one tail. */
  readonly #next: Variable
  readonly #goal: Variable
  readonly #onward = {}
  readonly #computed = {}
  /** The control flow of the current basic block's last instruction. */
  #condition: Value | undefined
  #target: Value | undefined

  constructor(mode: number, meaningOf: (instruction: Instruction) => Semantics) {
    super(mode)
    this.#meaningOf = meaningOf
    this.#entry = this.param(1)
    this.#next = this.bareVariable(this.i32(0), 'next')
    this.#goal = this.bareVariable(this.const(0), 'goal')
  }

  // ------------------------------------------------------------------ the region as a whole

  build(region: Region): void {
    // Exits of one kind share one tail, which is as long as all instructions of a small region.
    this.withExits(this.common, () => {
      this.withExits(this.#computed, () => {
        this.withExits(this.#onward, () => {
          if (this.codeSize === 64 && region.blocks.some(leavesPage)) this.#leaveNearBoundary(region.blocks[0]!.start)
          this.#tree(region, region.blocks[0]!)
        })
        this.#goOnward()
      })
      if (region.blocks.some(({ ending }) => ending.kind === 'indirect')) this.#goComputed()
    })
    // The common tail of side exits: the record says where the region was left.
    this.storeBudget()
    this.setSlot(S.record, this.add(this.cpu, S.compiledRecord))
    this.return()
    this.fillPlaces()
  }

  /**
   * #GP of a relative branch out of the canonical addresses comes before it has done anything, and there is always a page or two from which it can: there the interpreter
   * executes. One check of the region's page stands for one at each branch out of it.
   */
  #leaveNearBoundary(start: number): void {
    const page = this.useShared(this.ripPage)
    const chunk = this.shrS(page, REACH_BITS)
    this.ifUnlikely(this.eq(this.xor(chunk, this.shrS(page, 63)), (1 << (47 - REACH_BITS)) - 1), () => {
      this.setSlot(S.exit, this.i32(EXIT.interpret))
      this.leaveAt(this.i32(start))
    })
  }

  /** Emits the block and all that it dominates. (Ramsey: "Beyond Relooper", 2022) */
  #tree(region: Region, block: BasicBlock): void {
    if (block.isMerge) this.meet(block)
    const merges = region.blocks.filter((b) => b.isMerge && b !== block && b.dominator === block).toSorted((a, b) => b.order - a.order)
    if (!block.isLoop) return this.#within(region, block, merges)
    this.inLoop(() => this.loop(() => this.#within(region, block, merges), loopLabel(block)))
  }
  /** Emits the block inside wasm blocks that end where its merge nodes begin, the last of them outermost. */
  #within(region: Region, block: BasicBlock, merges: readonly BasicBlock[]): void {
    const [last, ...rest] = merges
    if (!last) return this.#straight(region, block)
    this.block(() => this.#within(region, block, rest), last)
    // If conditions turn out to be constant, a block may be unreachable.
    if (this.hasEdgeTo(last)) this.#tree(region, last)
  }
  #straight(region: Region, block: BasicBlock): void {
    if (block.ending.kind === 'switch') return this.#switch(region, block, block.ending.targets)
    const count = block.instructions.length
    this.#condition = this.#target = undefined
    this.beginStraight(block.instructions)
    const { budget } = this
    this.assign(budget, this.sub(this.get(budget), count))
    if (block.isLoop || block.order === 0) {
      this.ifUnlikely(this.ltS(this.get(budget), 0), () => {
        const over = (): void => {
          this.assign(budget, this.add(this.get(budget), count))
          this.setSlot(S.exit, this.i32(EXIT.budget))
          this.leaveAt(this.i32(block.start))
        }
        if (block.isLoop) return refill(this, this.cpu, budget, over)
        this.assign(budget, this.call('i32', 'refill', this.cpu, this.get(budget)))
        this.ifUnlikely(this.ltS(this.get(budget), 0), over)
      })
    }
    for (const [i, placed] of block.instructions.entries()) {
      this.remaining = count - i
      const dead = flagsAreDead(placed.instruction, following(block.instructions, i + 1))
      this.#instruction(placed, dead)
    }
    this.#end(region, block)
  }

  #instruction(placed: Placed, flagsDead: boolean): void {
    this.placed = placed
    this.begin(placed.instruction, flagsDead)
    this.inInstruction(() => {
      // Flags that are changed conditionally are changed in their slots.
      const { row } = placed.instruction
      if (this.codeSize === 16 && row.operands[0]?.kind === 'J') this.#leaveIfCut(placed)
      if (!flagsDead && row.flags.count && row.operands.at(-1)!.kind === 'gpr') this.settle()
      this.#meaningOf(placed.instruction)(this, ...this.operands)
    })
  }

  #end(region: Region, block: BasicBlock): void {
    const { ending } = block
    const { known } = this
    const to = (ip: number): void => {
      this.known = known
      const target = region.byStart.get(ip)
      if (target) this.#goTo(region, block, target)
      else this.#exitTo(ip)
    }
    switch (ending.kind) {
      case 'conditional':
        // XBEGIN always raises: it has no condition, and the region has already been left.
        if (!this.#condition) return
        this.if(this.#condition, () => to(ending.taken))
        return to(ending.next)
      case 'jump':
        return to(ending.to)
      case 'leave':
        return this.#exitTo(ending.at)
      case 'indirect':
        // An instruction that always raises has no target, and the region has already been left.
        if (!this.#target) return
        this.assign(this.#goal, this.#target)
        return ending.isJump && region.switch ? this.#goTo(region, block, region.switch) : this.#exitToGoal()
    }
  }
  #goTo(region: Region, from: BasicBlock, target: BasicBlock): void {
    if (target.order <= from.order) return this.continue(loopLabel(target))
    if (!target.isMerge) return this.#tree(region, target)
    this.edgeTo(target)
    this.break(target)
  }

  /** The target's block, if it is in the region: found by bisection, as there are few. */
  #switch(region: Region, block: BasicBlock, targets: readonly number[]): void {
    this.beginStraight([])
    // The target block consumes budget; if none is left, leaves the region for it instead.
    if (block.isLoop) this.ifUnlikely(this.leS(this.get(this.budget), 0), () => refill(this, this.cpu, this.budget, () => this.#exitToGoal()))
    const { known } = this
    const offset = this.get(this.variable(this.sub(this.get(this.#goal), this.useShared(this.ripPage)), 'offset'))
    const choose = (sorted: readonly BasicBlock[]): void => {
      const [target] = sorted
      // All targets may have been dropped to keep the graph reducible.
      if (!target) return
      if (sorted.length === 1) {
        return this.if(this.eq(offset, target.start), () => {
          this.known = known
          this.#goTo(region, block, target)
        })
      }
      const half = sorted.length >> 1
      this.if(this.ltU(offset, sorted[half]!.start), () => choose(sorted.slice(0, half)), () => choose(sorted.slice(half)))
    }
    choose(targets.map((ip) => region.byStart.get(ip)).filter((target) => target !== undefined).toSorted((a, b) => a.start - b.start))
    this.known = known
    this.#exitToGoal()
  }

  /**
   * Continues at a computed RIP. For targets on the region's own page, whose mapping need not be checked, a small table caches the blocks; for other
   * targets, and on a miss, `dispatch` finds the block and fills the table.
   */
  #goComputed(): void {
    const target = this.get(this.#goal)
    this.usesTargets = true
    this.storeBudget()
    const distance = this.sub(target, this.useShared(this.ripPage))
    this.if(this.ltU(distance, 0x1000), () => {
      const offset = this.wrap(distance)
      const entry = this.add(this.rawLoad('i32', this.#entry, RECORD.targets, 32), this.shl(this.and(offset, TARGETS - 1), 3))
      this.ifUnlikely(this.ne(this.rawLoad('i32', entry, 0, 32), offset), () => {
        this.rawStore(entry, 0, 32, offset)
        this.rawStore(entry, 4, 32, this.i32(NOT_LINKED))
      })
      const block = this.rawLoad('i32', entry, 4, 32)
      this.ifUnlikely(this.leU(block, NOT_LINKED), () => {
        this.setSlot(S.rip, target)
        this.tailCall('dispatch', this.cpu, this.add(entry, 4))
      })
      this.tail(this.rawLoad('i32', block, RECORD.handler, 32), this.cpu, block)
    })
    this.setSlot(S.rip, target)
    this.tailCall('dispatch', this.cpu, this.add(this.cpu, S.zero))
  }

  /** Leaves by an exit record: to the code it is linked to, or to the run loop. */
  #goOnward(): void {
    const record = this.add(this.rawLoad('i32', this.#entry, RECORD.exits, 32), this.get(this.#next))
    this.storeBudget()
    const linked = this.rawLoad('i32', record, RECORD.link, 32)
    const next = this.select(this.gtU(linked, NOT_LINKED), linked, record)
    this.tail(this.rawLoad('i32', next, RECORD.handler, 32), this.cpu, next)
  }
  /** Leaves the region for an offset in its page, or relative to it. */
  #exitTo(ip: number): void {
    let number = this.exits.indexOf(ip)
    if (number < 0) number = this.exits.push(ip) - 1
    this.assign(this.#next, number * RECORD.size)
    this.exitBy(this.#onward)
  }

  /** Leaves the region for the target. */
  #exitToGoal(): void {
    this.exitBy(this.#computed)
  }

  // ------------------------------------------------------------------ exits

  leave(): void {
    this.leaveAt(this.position())
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
  /** A target truncated to IP differs from its offset: the interpreter continues there. */
  #leaveIfCut({ instruction, ip }: Placed): void {
    const target = this.add(this.useShared(this.ripPage), ip + instruction.length + instruction.immediate)
    this.ifUnlikely(this.gtU(target, 0xffff), () => {
      this.setSlot(S.exit, this.i32(EXIT.interpret))
      this.leave()
    })
  }
  /** Not from compiled code: the interpreter executes the whole instruction, provided that it has had no effect yet. */
  system(): void {
    if (this.depth === this.instructionDepth) throw new NotCompilable(this.instruction.row.mnemonic)
    this.setSlot(S.exit, this.i32(EXIT.interpret))
    this.leave()
  }
}

/** Displacements reach so far to either side. */
const REACH_BITS = 31
/** It has a relative branch out of its page. */
const leavesPage = ({ instructions }: BasicBlock): boolean =>
  instructions.some(({ instruction: { row, length, immediate }, ip }) => {
    const target = ip + length + immediate
    return row.operands[0]?.kind === 'J' && (target < 0 || target >= 0x1000)
  })

function* following(instructions: readonly Placed[], from: number): Iterable<Instruction> {
  for (let i = from; i < instructions.length; i++) yield instructions[i]!.instruction
}

const loops = new WeakMap<BasicBlock, object>()
function loopLabel(block: BasicBlock): object {
  let label = loops.get(block)
  if (!label) loops.set(block, (label = {}))
  return label
}
