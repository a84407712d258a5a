/** What the processor's tiers did, by name, with what each number is. Read when somebody asks; nothing here runs on the hot path. */
import type { MetricUnit } from '@nonroot/contracts'
import type { Processor } from '../processor.ts'
import { S } from '../state/layout.ts'

interface Metric {
  readonly unit: MetricUnit
  readonly help: string
}

export const TIER_METRICS = {
  interpreted: { unit: 'instructions', help: 'instructions run by the interpreter' },
  compiled: { unit: 'instructions', help: 'instructions run by compiled code, and exceptions delivered' },
  blocks: { unit: 'count', help: 'blocks decoded' },
  blocksDropped: { unit: 'count', help: 'blocks dropped, as their code was written' },
  arenaResets: { unit: 'count', help: 'times all blocks and regions were dropped, as their memory was full' },
  regions: { unit: 'count', help: 'regions compiled' },
  regionInstructions: { unit: 'instructions', help: 'guest instructions in them' },
  refused: { unit: 'count', help: 'hot blocks whose first instruction does not compile' },
  modules: { unit: 'count', help: 'modules of compiled regions' },
  wasmBytes: { unit: 'bytes', help: 'WebAssembly made for regions' },
  compileTime: { unit: 'ns', help: 'time from guest code to installed regions' },
  slowReads: { unit: 'count', help: 'reads that missed the TLB: page walks, devices, page crossings' },
  slowWrites: { unit: 'count', help: 'writes that missed the TLB: the same, and writes to pages with code' },
  tlbFills: { unit: 'count', help: 'pages entered into the TLB' },
} as const satisfies Record<string, Metric>

export type TierMetric = keyof typeof TIER_METRICS

const NS_PER_MS = 1e6

export function tierStatistics({ core, blocks, compiler, retired }: Processor): Record<TierMetric, number> {
  const { regions, instructions, modules, bytes, milliseconds, refused } = compiler.statistics
  const counted = (slot: number): number => Number(core.get64(S.statistics + 8 * slot))
  // Exceptions cost an instruction that no tier runs; without regions there is nothing to tell apart.
  const interpreted = regions ? Math.min(blocks.interpreted, retired) : retired
  return {
    interpreted,
    compiled: retired - interpreted,
    blocks: blocks.decoded,
    blocksDropped: blocks.dropped,
    arenaResets: blocks.resets,
    regions,
    regionInstructions: instructions,
    refused,
    modules,
    wasmBytes: bytes,
    compileTime: Math.round(milliseconds * NS_PER_MS),
    slowReads: counted(0),
    slowWrites: counted(1),
    tlbFills: counted(2),
  }
}
