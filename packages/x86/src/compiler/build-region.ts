/** From bytes to a region's IR: decides which instructions can be compiled, and retries without an instruction that turns out not to compile. */
import type { Instruction } from '../decode/instruction.ts'
import type { Flow, Row } from '../rows/index.ts'
import { semantics } from '../semantics/index.ts'
import { MODE } from '../state/mode.ts'
import { decodeModeOf, isUnavailable } from '../decode/decode-mode.ts'
import { NotCompilable, RegionBuilder } from './region-builder.ts'
import { findRegion, type Region, type RegionSource } from './region.ts'

export interface BuildSource extends Omit<RegionSource, 'compilable' | 'decodeMode'> {
  /** Rows whose semantics were found not to compile. Grows. */
  readonly refused: Set<Row>
  /** Ids of rows that only the interpreter executes. */
  readonly trapped: readonly number[]
}

export interface BuiltRegion {
  readonly region: Region
  readonly body: RegionBuilder
}

/** Builds the region around offset `entry` of the page; undefined if its first instruction cannot be compiled. */
export function buildRegion(source: BuildSource, entry: number): BuiltRegion | undefined {
  const { mode, refused, trapped } = source
  const decodeMode = decodeModeOf(mode)
  const compilable = (instruction: Instruction): boolean => {
    const { row } = instruction
    return !refused.has(row) && !trapped.includes(row.id) && !isUnavailable(row, mode) && isCompilable(instruction, mode)
  }
  // An instruction that turns out not to compile is excluded, and the region is built again.
  for (;;) {
    const region = findRegion({ ...source, decodeMode, compilable }, entry)
    if (!region) return undefined
    let running: Instruction | undefined
    try {
      const body = new RegionBuilder(mode, (instruction) => semantics[(running = instruction).row.semantics]!)
      body.build(region)
      return { region, body }
    } catch (error) {
      if (!(error instanceof NotCompilable) || !running) throw error
      refused.add(running.row)
    }
  }
}

/** Kinds of control flow that a region supports; the interpreter handles the rest. */
const FLOWS: ReadonlySet<Flow | undefined> = new Set([undefined, 'conditional', 'jump', 'call', 'indirectJump', 'indirectCall', 'return'])

function isCompilable(instruction: Instruction, mode: number): boolean {
  const { row } = instruction
  if (!semantics[row.semantics] || row.attributes.shadow) return false
  if (row.attributes.cpl === 0 && mode & MODE.user) return false
  // The interpreter checks whether the instruction exists.
  if (row.attributes.exit || row.attributes.enabledBy || !FLOWS.has(row.attributes.flow)) return false
  // A region assumes that branches neither truncate RIP below the code size nor exceed it.
  return row.operands[0]?.kind !== 'J' || instruction.operandSize === instruction.codeSize
}
