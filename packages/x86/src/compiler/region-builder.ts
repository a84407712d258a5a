/**
 * The compiler's side of the semantics builder: operands are constants, general registers are wasm locals, flags stay symbolic as
 * long as they can (region-operands.ts, region-registers.ts, region-flags.ts). One builder makes one region: a function with structured control flow.
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

/** A semantics that cannot be compiled: it calls the system unconditionally. */
export class NotCompilable extends Error {}

export class RegionBuilder extends RegionOperands {
  readonly #meaningOf: (instruction: Instruction) => Semantics
  /** The entry record of the block that the region stands in for: there are the addresses that a region cannot know when it is built. */
  readonly #entry: Value
  /** Offsets of the page, or relative to it, that the region leaves for: the order of its records of ways out. */
  readonly waysOut: number[] = []
  /** It goes on at computed targets. */
  usesTargets = false
  /** Record to go on at, and RIP to go on at, of the exits that share one end. */
  readonly #next: Variable
  readonly #goal: Variable
  readonly #onward = {}
  readonly #computed = {}
  /** How the current basic block's last instruction goes on. */
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
    // Exits of a kind share one end: it is as long as all of a small region's instructions.
    this.block(() => {
      this.withFaults(() => {
        this.block(() => {
          this.block(() => this.#tree(region, region.blocks[0]!), this.#onward)
          this.#goOnward()
        }, this.#computed)
        if (region.blocks.some(({ ending }) => ending.kind === 'indirect')) this.#goComputed()
      })
    }, this.common)
    // The common way out for whatever leaves in the middle: the record says where.
    this.storeBudget()
    this.setSlot(S.record, this.add(this.cpu, S.compiledRecord))
    this.return()
    this.fillPlaces()
  }

  /** The block and all that it dominates. (Ramsey: "Beyond Relooper", 2022) */
  #tree(region: Region, block: BasicBlock): void {
    if (block.isMerge) this.meet(block)
    const merges = region.blocks.filter((b) => b.isMerge && b !== block && b.dominator === block).toSorted((a, b) => b.order - a.order)
    if (!block.isLoop) return this.#within(region, block, merges)
    this.inLoop(() => this.loop(() => this.#within(region, block, merges), loopLabel(block)))
  }
  /** The block, inside wasm blocks that end where its merge nodes begin; the last of them outermost. */
  #within(region: Region, block: BasicBlock, merges: readonly BasicBlock[]): void {
    const [last, ...rest] = merges
    if (!last) return this.#straight(region, block)
    this.block(() => this.#within(region, block, rest), last)
    // Where conditions turn out constant, no way may lead there.
    if (this.hasEdgeTo(last)) this.#tree(region, last)
  }
  #straight(region: Region, block: BasicBlock): void {
    if (block.ending.kind === 'switch') return this.#switch(region, block, block.ending.targets)
    const count = block.instructions.length
    this.#condition = this.#target = undefined
    this.beginStraight(block.instructions)
    const left = this.variable(this.sub(this.get(this.budget), count), 'left')
    if (block.isLoop || block.order === 0) {
      this.ifUnlikely(this.ltS(this.get(left), 0), () => {
        const over = (): void => {
          this.setSlot(S.exit, this.i32(EXIT.budget))
          this.leaveAt(this.i32(block.start))
        }
        if (block.isLoop) return refill(this, this.cpu, left, over)
        this.assign(left, this.call('i32', 'refill', this.cpu, this.get(left)))
        this.ifUnlikely(this.ltS(this.get(left), 0), over)
      })
    }
    this.assign(this.budget, this.get(left))
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
      // Flags that change only under a condition are changed in their slots.
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
        // XBEGIN, which always raises, has no condition, and has left.
        if (!this.#condition) return
        this.if(this.#condition, () => to(ending.taken))
        return to(ending.next)
      case 'jump':
        return to(ending.to)
      case 'leave':
        return this.#exitTo(ending.at)
      case 'indirect':
        // An instruction that always raises has no target, and has left.
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

  /** The goal's block, if the region has it: found by halves, as there are few. */
  #switch(region: Region, block: BasicBlock, targets: readonly number[]): void {
    this.beginStraight([])
    // The block that is gone to takes from the budget; where nothing is left, it is another region's.
    if (block.isLoop) this.ifUnlikely(this.leS(this.get(this.budget), 0), () => refill(this, this.cpu, this.budget, () => this.#exitToGoal()))
    const { known } = this
    const offset = this.get(this.variable(this.sub(this.get(this.#goal), this.useShared(this.ripPage)), 'offset'))
    const choose = (sorted: readonly BasicBlock[]): void => {
      const [target] = sorted
      // All may have been given up for the structure's sake.
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
   * Goes on at a computed RIP. On the page that the region is on, whose mapping needs no second look, a small table remembers the blocks;
   * elsewhere, and where it does not know, `dispatch` finds them and fills the table.
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

  /** Leaves by a record: for what it is linked to, or by itself. */
  #goOnward(): void {
    const record = this.add(this.rawLoad('i32', this.#entry, RECORD.waysOut, 32), this.get(this.#next))
    this.storeBudget()
    const linked = this.rawLoad('i32', record, RECORD.link, 32)
    const next = this.select(this.gtU(linked, NOT_LINKED), linked, record)
    this.tail(this.rawLoad('i32', next, RECORD.handler, 32), this.cpu, next)
  }
  /** Leaves the region for an offset of its page, or relative to it. */
  #exitTo(ip: number): void {
    let number = this.waysOut.indexOf(ip)
    if (number < 0) number = this.waysOut.push(ip) - 1
    this.writeBack()
    this.assign(this.#next, number * RECORD.size)
    this.break(this.#onward)
  }

  /** Leaves the region for the goal. */
  #exitToGoal(): void {
    this.writeBack()
    this.break(this.#computed)
  }

  // ------------------------------------------------------------------ ways out

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
  /** A target that is cut to IP lies elsewhere than its offset says: the interpreter goes there. */
  #leaveIfCut({ instruction, ip }: Placed): void {
    const target = this.add(this.useShared(this.ripPage), ip + instruction.length + instruction.immediate)
    this.ifUnlikely(this.gtU(target, 0xffff), () => {
      this.setSlot(S.exit, this.i32(EXIT.interpret))
      this.leave()
    })
  }
  /** Not from compiled code: the whole instruction is left to the interpreter, if it has done nothing yet. */
  system(): void {
    if (this.depth === this.instructionDepth) throw new NotCompilable(this.instruction.row.mnemonic)
    this.setSlot(S.exit, this.i32(EXIT.interpret))
    this.leave()
  }
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
