/** Both tiers, for tests that must hold in each: the interpreter, and regions that are compiled before a block first runs. */
import type { HostMemory } from '@nonroot/contracts'
import { BareMetal } from './bare-metal.ts'

export const TIERS = ['interpreted', 'compiled'] as const
export type Tier = (typeof TIERS)[number]

export function machineOf(tier: Tier, memory?: HostMemory): BareMetal {
  const machine = new BareMetal({ compile: tier === 'compiled', memory })
  const { blocks, compiler } = machine.processor
  if (tier === 'interpreted') return machine
  blocks.hotness = 1
  const add = compiler.add.bind(compiler)
  compiler.add = (block) => {
    add(block)
    compiler.flush()
  }
  return machine
}
