/** What the processor's tiers did, by name, with what each number is. Computed on request; nothing here runs on the hot path. */
import type { MetricUnit } from '@nonroot/contracts'
import type { Processor } from '../processor.ts'
import { EXIT, S } from '../state/layout.ts'

interface Metric {
  readonly unit: MetricUnit
  readonly help: string
}

export const TIER_METRICS = {
  interpreted: { unit: 'instructions', help: 'instructions run by the interpreter' },
  compiled: { unit: 'instructions', help: 'instructions run by compiled code, and exceptions delivered' },
  blocks: { unit: 'count', help: 'blocks decoded' },
  blocksDropped: { unit: 'count', help: 'blocks dropped, as their code was written' },
  blocksLive: { unit: 'count', help: 'blocks that may still run' },
  arenaUsed: { unit: 'bytes', help: 'memory taken by decoded code' },
  arenaResets: { unit: 'count', help: 'times all blocks and regions were dropped, as their memory was full' },
  regions: { unit: 'count', help: 'regions compiled' },
  regionsRemembered: { unit: 'count', help: 'of them, those that an earlier run had made' },
  regionInstructions: { unit: 'instructions', help: 'guest instructions in them' },
  regionsLive: { unit: 'count', help: 'regions that may still run' },
  refused: { unit: 'count', help: 'hot blocks whose first instruction does not compile' },
  modules: { unit: 'count', help: 'modules of compiled regions' },
  modulesCollected: { unit: 'count', help: 'modules of which no region was left, and which were given back' },
  wasmBytes: { unit: 'bytes', help: 'WebAssembly made for regions' },
  compileTime: { unit: 'ns', help: 'time from guest code to installed regions' },
  slowReads: { unit: 'count', help: 'reads that missed the TLB: page walks, devices, page crossings' },
  slowWrites: { unit: 'count', help: 'writes that missed the TLB: the same, and writes to pages with code' },
  tlbFills: { unit: 'count', help: 'pages entered into the TLB' },
  unknownTargets: { unit: 'count', help: 'exits to the run loop: no block was known for RIP, or its page not in the TLB' },
  hotBlocks: { unit: 'count', help: 'exits to the run loop: a block is worth compiling' },
  interpreterFaults: { unit: 'count', help: 'exits to the run loop: a fault in interpreted code' },
  interpreterSlices: { unit: 'count', help: 'exits to the run loop: the slice ended in interpreted code' },
  compiledFaults: { unit: 'count', help: 'exits from compiled code: a fault' },
  compiledSlices: { unit: 'count', help: 'exits from compiled code: the slice ended' },
  compiledRefusals: { unit: 'count', help: 'exits from compiled code: an instruction that the interpreter must do, such as a write over code' },
} as const satisfies Record<string, Metric>

export type TierMetric = keyof typeof TIER_METRICS

const NS_PER_MS = 1e6

export function tierStatistics({ core, blocks, compiler, handlers, left, leftCompiled, retired }: Processor): Record<TierMetric, number> {
  const { regions, remembered, instructions, modules, bytes, milliseconds, refused } = compiler.statistics
  const counted = (slot: number): number => Number(core.get64(S.statistics + 8 * slot))
  // Exceptions cost an instruction that no tier runs; without regions there is nothing to tell apart.
  const interpreted = regions ? Math.min(blocks.interpreted, retired) : retired
  return {
    interpreted,
    compiled: retired - interpreted,
    blocks: blocks.decoded,
    blocksDropped: blocks.dropped,
    blocksLive: blocks.size,
    arenaUsed: blocks.arenaUsed,
    arenaResets: blocks.resets,
    regions,
    regionsRemembered: remembered,
    regionInstructions: instructions,
    regionsLive: blocks.regions,
    refused,
    modules,
    modulesCollected: handlers.modulesCollected,
    wasmBytes: bytes,
    compileTime: Math.round(milliseconds * NS_PER_MS),
    slowReads: counted(0),
    slowWrites: counted(1),
    tlbFills: counted(2),
    unknownTargets: left[EXIT.lookup]!,
    hotBlocks: left[EXIT.hot]!,
    interpreterFaults: left[EXIT.exception]!,
    interpreterSlices: left[EXIT.budget]!,
    compiledFaults: leftCompiled[EXIT.exception]!,
    compiledSlices: leftCompiled[EXIT.budget]!,
    compiledRefusals: leftCompiled[EXIT.interpret]!,
  }
}
