/**
 * A region: the basic blocks on one page that are reachable from a hot block, by direct jumps or by indirect jumps through the region's switch, as a
 * reducible graph. Uses only the control flow of instructions.
 */
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import { decode, type DecodeMode } from '../decode/decoder.ts'
import { rows } from '../rows/index.ts'

/** Where control continues after a basic block. Offsets are from the page's start; those outside it are exits. */
export type Ending =
  | { readonly kind: 'conditional'; readonly taken: number; readonly next: number }
  | { readonly kind: 'jump'; readonly to: number }
  /** The last instruction sets RIP itself. A jump, but not a call or return, first tries the region's switch. */
  | { readonly kind: 'indirect'; readonly isJump: boolean }
  /** To the computed one of these targets, otherwise out of the region. */
  | { readonly kind: 'switch'; readonly targets: readonly number[] }
  /** The interpreter executes the next instruction. */
  | { readonly kind: 'leave'; readonly at: number }

export interface BasicBlock {
  readonly start: number
  readonly instructions: readonly Placed[]
  readonly ending: Ending
  /** Offset after the last instruction. */
  readonly end: number
  // Filled by `structure`:
  /** Index in reverse postorder. */
  order: number
  dominator: BasicBlock | undefined
  readonly predecessors: BasicBlock[]
  isLoop: boolean
  /** Has more than one forward edge. */
  isMerge: boolean
}

export interface Placed {
  readonly instruction: Instruction
  /** Offset in the page. */
  readonly ip: number
}

export interface Region {
  readonly page: number
  readonly mode: number
  /** In reverse postorder; the first is the entry. */
  readonly blocks: readonly BasicBlock[]
  readonly byStart: ReadonlyMap<number, BasicBlock>
  /** The switch of a region with indirect jumps whose targets are known: a block without instructions. */
  readonly switch: BasicBlock | undefined
}

/** Larger functions take long to compile for little gain. */
const MAX_INSTRUCTIONS = 200 // `remaining` of a record is a byte
const MAX_BLOCKS = 60
/** Maximum number of indirect-jump targets in a region: the opcodes of a small interpreter, the cases of a switch. */
const MAX_TARGETS = 16

export interface RegionSource {
  readonly bytes: Uint8Array
  /** HPA of the page. */
  readonly page: number
  /** Number of bytes of the page that are code. Default: all. */
  readonly end?: number
  readonly mode: number
  readonly decodeMode: DecodeMode
  /** Whether the instruction can be compiled. */
  readonly compilable: (instruction: Instruction) => boolean
  /** Whether another region begins at this offset: jumps to it are linked, and its code is not duplicated. */
  readonly isEntry: (ip: number) => boolean
  /** Possible targets of indirect jumps: code of this mode that runs often. */
  readonly targets: readonly number[]
}

/** Finds the region around the block at offset `entry`; undefined if its first instruction cannot be compiled. */
export function findRegion(source: RegionSource, entry: number): Region | undefined {
  const at = new Map<number, Placed>()
  const leaders = new Set<number>([entry])
  const open = [entry]
  let count = 0
  // First finds all instructions that are reachable by direct flow, marking block starts; then those reachable by indirect jumps from there.
  const follow = (): void => {
    while (open.length && count < MAX_INSTRUCTIONS && leaders.size < MAX_BLOCKS) {
      let ip = open.shift()!
      if (ip !== entry && source.isEntry(ip)) continue
      while (!at.has(ip) && count < MAX_INSTRUCTIONS) {
        const placed = decodeAt(source, ip)
        if (!placed || !source.compilable(placed.instruction)) break
        at.set(ip, placed)
        count++
        const next = ip + placed.instruction.length
        const { flow } = placed.instruction.row.attributes
        if (flow === undefined) {
          ip = next
          continue
        }
        const target = next + placed.instruction.immediate
        if (flow === 'conditional') {
          leaders.add(target).add(next)
          open.push(next, target)
        } else if (flow === 'jump' || flow === 'call') {
          leaders.add(target)
          open.push(target)
        }
        break
      }
    }
  }
  follow()
  if (!at.has(entry)) return undefined
  const jumps = (): number => [...at.values()].filter(isComputedJump).length
  const before = jumps()
  const targets = before ? source.targets.filter((ip) => !at.has(ip) && !source.isEntry(ip)).slice(0, MAX_TARGETS) : []
  for (const ip of targets) {
    leaders.add(ip)
    open.push(ip)
  }
  follow()
  // If the targets themselves end in indirect jumps, as an interpreter's opcodes do, the entry is probably one of them.
  if (jumps() > before) targets.push(entry)
  const byStart = new Map<number, BasicBlock>()
  for (const start of leaders) if (at.has(start)) byStart.set(start, blockAt(start, at, leaders))
  const known = targets.filter((ip) => byStart.has(ip))
  const dispatch = known.length ? createBlock(Number.NaN, [], { kind: 'switch', targets: known }, Number.NaN) : undefined
  return structure({ page: source.page, mode: source.mode, byStart, switch: dispatch }, byStart.get(entry)!)
}

const isComputedJump = ({ instruction }: Placed): boolean => instruction.row.attributes.flow === 'indirectJump'

function decodeAt(source: RegionSource, ip: number): Placed | undefined {
  const end = source.end ?? 0x1000
  if (ip < 0 || ip >= end) return undefined
  const instruction = createInstruction(rows[0]!)
  const result = decode(source.bytes, source.page + ip, end - ip, source.decodeMode, instruction)
  return result === 'ok' ? { instruction, ip } : undefined
}

function blockAt(start: number, at: ReadonlyMap<number, Placed>, leaders: ReadonlySet<number>): BasicBlock {
  const instructions: Placed[] = []
  let ip = start
  let ending: Ending | undefined
  while (!ending) {
    const placed = at.get(ip)
    if (!placed) {
      ending = { kind: 'leave', at: ip }
      break
    }
    instructions.push(placed)
    const next = ip + placed.instruction.length
    const target = next + placed.instruction.immediate
    switch (placed.instruction.row.attributes.flow) {
      case undefined:
        if (leaders.has(next)) ending = { kind: 'jump', to: next }
        break
      case 'conditional':
        ending = { kind: 'conditional', taken: target, next }
        break
      case 'jump':
      case 'call':
        ending = { kind: 'jump', to: target }
        break
      default:
        ending = { kind: 'indirect', isJump: isComputedJump(placed) }
    }
    ip = next
  }
  return createBlock(start, instructions, ending, ip)
}

function createBlock(start: number, instructions: readonly Placed[], ending: Ending, end: number): BasicBlock {
  return { start, instructions, ending, end, order: -1, dominator: undefined, predecessors: [], isLoop: false, isMerge: false }
}

function successors({ ending }: BasicBlock, region: Pick<Region, 'byStart' | 'switch'>): BasicBlock[] {
  if (ending.kind === 'indirect') return ending.isJump && region.switch ? [region.switch] : []
  return targetsOf(ending).map((ip) => region.byStart.get(ip)).filter((block) => block !== undefined)
}
function targetsOf(ending: Ending): readonly number[] {
  switch (ending.kind) {
    // A branch to the next instruction has two edges to it: its block is a merge, which is emitted once.
    case 'conditional': return [ending.next, ending.taken]
    case 'jump': return [ending.to]
    case 'switch': return ending.targets
    default: return []
  }
}

/**
 * Orders the graph and finds dominators, loops and merges. (Cooper, Harvey, Kennedy: "A Simple, Fast Dominance Algorithm".) A loop with a second
 * entry is irreducible: the offending block is removed, and its edges become exits.
 */
function structure(region: { page: number; mode: number; byStart: Map<number, BasicBlock>; switch: BasicBlock | undefined }, entry: BasicBlock): Region {
  for (;;) {
    const blocks: BasicBlock[] = []
    const ways = new Map<BasicBlock, readonly BasicBlock[]>()
    const visit = (block: BasicBlock): void => {
      const to = successors(block, region)
      ways.set(block, to)
      for (const next of to) if (!ways.has(next)) visit(next)
      blocks.push(block)
    }
    visit(entry)
    blocks.reverse()
    for (const [order, block] of blocks.entries()) {
      block.order = order
      block.dominator = undefined
      block.predecessors.length = 0
      block.isLoop = block.isMerge = false
    }
    for (const block of blocks) for (const next of ways.get(block)!) next.predecessors.push(block)
    findDominators(blocks)
    const wrong = blocks.find((block) => block.predecessors.some((p) => p.order >= block.order && !dominates(block, p)))
    if (wrong) {
      // Its other incoming edges would make the graph irreducible: drop the block.
      if (wrong === region.switch) region.switch = undefined
      else region.byStart.delete(wrong.start)
      continue
    }
    for (const block of blocks) {
      block.isLoop = block.predecessors.some((p) => p.order >= block.order)
      block.isMerge = block.predecessors.filter((p) => p.order < block.order).length > 1
    }
    const byStart = new Map(blocks.filter((block) => block !== region.switch).map((block) => [block.start, block]))
    return { page: region.page, mode: region.mode, blocks, byStart, switch: region.switch && ways.has(region.switch) ? region.switch : undefined }
  }
}

function findDominators(blocks: readonly BasicBlock[]): void {
  const entry = blocks[0]!
  entry.dominator = entry
  for (let changed = true; changed; ) {
    changed = false
    for (const block of blocks.slice(1)) {
      let common: BasicBlock | undefined
      for (const p of block.predecessors) if (p.dominator) common = common ? meet(common, p) : p
      if (block.dominator !== common) {
        block.dominator = common
        changed = true
      }
    }
  }
}
function meet(a: BasicBlock, b: BasicBlock): BasicBlock {
  while (a !== b) {
    while (a.order > b.order) a = a.dominator!
    while (b.order > a.order) b = b.dominator!
  }
  return a
}
function dominates(a: BasicBlock, b: BasicBlock): boolean {
  while (b.order > a.order) b = b.dominator!
  return a === b
}
