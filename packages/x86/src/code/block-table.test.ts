/** Blocks are found by generated code where TypeScript has entered them. */
import { beforeEach, describe, expect, it } from 'vitest'
import { BLOCK_TABLE_SIZE, BlockTable, ENTRY, findEntry } from './block-table.ts'
import type { Block } from './block.ts'
import { exportedModule } from '../backend/function-module.ts'
import { IrBuilder } from '../ir/builder.ts'
import { S } from '../state/layout.ts'
import { BareMetal } from '../testing/bare-metal.ts'

const block = (host: number, mode: number, first: number): Block => ({ host, mode, first, end: first + 64, length: 16, nextPage: -1 })

describe('the table of blocks', () => {
  const machine = new BareMetal()
  const { core, processor } = machine
  const address = core.get32(S.blockTable)
  const table = new BlockTable(core.i32, address)
  const find = generated(machine)
  beforeEach(() => table.clear())

  it('finds every block that it has, by address and mode', () => {
    let [found, others] = [0, 0]
    for (let n = 1; n <= 1000; n++) {
      const [host, mode] = [(n * 0x9_1f35) >>> 0, [0x2a, 0x3a, 0x82a][n % 3]!]
      table.add(block(host, mode, n * 64))
      // The one published last is always found.
      expect(find(host, mode)).toBe(n * 64)
      if (find(host, mode ^ 0x10) !== -1 || find(host + 1, mode) !== -1) others++
    }
    for (let n = 1; n <= 1000; n++) if (find((n * 0x9_1f35) >>> 0, [0x2a, 0x3a, 0x82a][n % 3]!) === n * 64) found++
    // They spread: sets have two entries, and few blocks meet two others.
    expect([others, found]).toEqual([0, 1000])
  })

  it('keeps two of a set, the oldest goes', () => {
    const [one, two, three] = sameSet()
    table.add(one)
    table.add(two)
    expect([one, two].map(({ host, mode }) => find(host, mode))).toEqual([one.first, two.first])
    table.add(two)
    expect(find(one.host, one.mode), 'added again').toBe(one.first)
    table.add(three)
    expect([one, two, three].map(({ host, mode }) => find(host, mode))).toEqual([-1, two.first, three.first])
  })

  it('forgets a block that is removed, whichever place it has, and no other', () => {
    const [one, two] = sameSet()
    for (const gone of [one, two]) {
      table.clear()
      table.add(one)
      table.add(two)
      table.remove(gone)
      expect([one, two].map(({ host, mode }) => find(host, mode))).toEqual([one, two].map((other) => (other === gone ? -1 : other.first)))
    }
  })

  it('is empty after clear, to its last byte', () => {
    core.i32.fill(0, address >>> 2, (address + BLOCK_TABLE_SIZE) >>> 2)
    const after = core.i32[(address + BLOCK_TABLE_SIZE) >>> 2]
    table.clear()
    expect(core.i32.subarray(address >>> 2, (address + BLOCK_TABLE_SIZE) >>> 2).every((word) => word === -1)).toBe(true)
    expect(core.i32[(address + BLOCK_TABLE_SIZE) >>> 2]).toBe(after)
  })

  /** Three blocks of one set: found by what displaces the first. */
  function sameSet(): [Block, Block, Block] {
    const mode = 0x2a
    const first = block(0x12_3000, mode, 64)
    const same: Block[] = []
    for (let host = 0x12_3001; same.length < 2; host++) {
      const other = block(host, mode, host)
      const added = [first, other, block(host, mode, host + 1)]
      for (const each of added) table.add(each)
      if (find(first.host, mode) === -1) same.push(other)
      for (const each of added) table.remove(each)
    }
    table.clear()
    return [first, same[0]!, same[1]!]
  }

  function generated({ core: { base } }: BareMetal): (host: number, mode: number) => number {
    const b = new IrBuilder()
    b.param(0)
    const found = findEntry(b, b.param(1), b.param(2), () => b.return(b.i32(-1)))
    b.return(b.rawLoad('i32', b.get(found), ENTRY.first, 32))
    const code = { root: b.root, callees: b.callees, signature: { params: ['i32', 'i32', 'i32'], results: ['i32'] } as const }
    const module = new WebAssembly.Module(exportedModule([code], processor.handlers.moduleContext))
    const run = new WebAssembly.Instance(module, { e: { memory: core.memory.memory, table: processor.handlers.table } }).exports['0'] as (cpu: number, host: number, mode: number) => number
    return (host, mode) => run(base, host, mode)
  }
})
