/** Blocks are found by generated code where TypeScript has entered them. */
import { expect, it } from 'vitest'
import { BLOCK_TABLE_BITS, blockHash } from './block-table.ts'
import { exportedModule } from '../backend/function-module.ts'
import { IrBuilder } from '../ir/builder.ts'
import type { Value } from '../ir/nodes.ts'
import { BareMetal } from '../testing/bare-metal.ts'

it('one hash, in numbers and in IR', () => {
  const b = new IrBuilder()
  b.return(blockHash<Value>(b, b.param(0), b.param(1)))
  const { core, processor } = new BareMetal()
  const code = { root: b.root, callees: b.callees, signature: { params: ['i32', 'i32'], results: ['i32'] } as const }
  const module = new WebAssembly.Module(exportedModule([code], processor.handlers.moduleContext))
  const run = new WebAssembly.Instance(module, { e: { memory: core.memory.memory, table: processor.handlers.table } }).exports['0'] as (host: number, mode: number) => number
  const numbers = { xor: (x: number, y: number) => x ^ y, shl: (x: number, by: number) => x << by, mul: Math.imul, shrU: (x: number, by: number) => x >>> by }
  const sets = new Set<number>()
  for (let n = 0; n < 1000; n++) {
    const [host, mode] = [(n * 0x9_1f35) >>> 0, [0x2a, 0x3a, 0x82a][n % 3]!]
    expect(run(host, mode)).toBe(blockHash(numbers, host, mode))
    sets.add(run(host, mode))
  }
  expect(sets.size).toBeGreaterThan(950)
  expect(Math.max(...sets)).toBeLessThan(1 << BLOCK_TABLE_BITS)
})
