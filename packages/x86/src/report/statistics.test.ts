import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it } from 'vitest'
import { HOT } from '../code/record.ts'
import { BareMetal, PLACE } from '../testing/bare-metal.ts'
import { TIER_METRICS, tierStatistics } from './statistics.ts'

const ROUNDS = 10_000
/** MOV ECX, rounds; DEC ECX; JNZ back; HLT: 16-bit code. */
const LOOP = [0x66, 0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0, 0, 0x66, 0x49, 0x75, 0xfc, 0xf4]

function run(compile: boolean) {
  const machine = new BareMetal({ compile })
  machine.enter('real')
  // Small slices: what is hot is compiled between them.
  let stop = machine.run(LOOP, 100)
  while (stop !== 'halt') stop = machine.processor.run(100)
  return { machine, statistics: tierStatistics(machine.processor) }
}

describe('statistics of the tiers', () => {
  it('tell interpreted from compiled instructions', () => {
    const { machine, statistics } = run(true)
    const { retired, blocks } = machine.processor
    expect(retired).toBe(2 + 2 * ROUNDS)
    expect(statistics).toMatchObject({ regions: 1, modules: 1, regionInstructions: 2, interpreted: blocks.interpreted })
    expect(statistics.interpreted + statistics.compiled).toBe(retired)
    // MOV, HLT, and the runs of the loop before it was hot, with some until the batch was compiled.
    expect(statistics.interpreted).toBeGreaterThanOrEqual(2 + 2 * (HOT - 1))
    expect(statistics.interpreted).toBeLessThan(2 + 2 * (HOT + 500))
    expect(statistics.wasmBytes).toBeGreaterThan(100)
    // Blocks that are dropped are still counted.
    machine.write(PLACE.code, LOOP)
    expect(blocks.interpreted).toBe(statistics.interpreted)
    blocks.reset()
    expect(blocks.interpreted).toBe(statistics.interpreted)
  })

  it('are the interpreter’s alone without the compiler, to the instruction', () => {
    const { machine, statistics } = run(false)
    expect(statistics).toMatchObject({ interpreted: machine.processor.retired, compiled: 0, regions: 0 })
    expect(machine.processor.blocks.interpreted).toBe(machine.processor.retired)
  })

  it.each([false, true])('count what a device is spoken to by, which asks for the end of the slice: compiled: %s', (compile) => {
    const machine = new BareMetal({ compile })
    machine.enter('protected')
    machine.onDevice = () => machine.processor.yield()
    // MOV ECX, rounds; MOV [device], EAX; MOV EAX, [device]; DEC ECX; JNZ back; HLT
    const device = [0, 0, 0x50, 0]
    let stop = machine.run([0xb9, ROUNDS & 0xff, ROUNDS >> 8, 0, 0, 0xa3, ...device, 0xa1, ...device, 0x49, 0x75, 0xf3, 0xf4], 100)
    let before = machine.processor.retired
    while (stop !== 'halt') {
      stop = machine.processor.run(100)
      expect(machine.processor.retired).toBeGreaterThanOrEqual(before)
      before = machine.processor.retired
    }
    expect(machine.deviceLog.length).toBe(2 * ROUNDS)
    expect(machine.processor.retired).toBe(2 + 4 * ROUNDS)
  })

  it('count exits from compiled code by cause, and what lives', () => {
    const { machine, statistics } = run(true)
    expect(statistics.compiledSlices).toBeGreaterThan(100)
    expect(statistics).toMatchObject({ hotBlocks: 1, compiledFaults: 0, compiledRefusals: 0, regionsLive: 1 })
    expect(statistics.unknownTargets).toBeGreaterThan(0)
    expect(statistics.blocksLive).toBe(statistics.blocks)
    expect(statistics.arenaUsed).toBeGreaterThan(100)
    machine.write(PLACE.code, LOOP)
    expect(tierStatistics(machine.processor)).toMatchObject({ regionsLive: 0, blocksDropped: statistics.blocks, blocksLive: 0 })
  })

  it('tell that dropped modules are given back, and their places in the table used again', async () => {
    setFlagsFromString('--expose-gc')
    const collect = runInNewContext('gc') as () => void
    const machine = new BareMetal({ compile: true })
    machine.enter('real')
    const round = (): void => {
      let stop = machine.run(LOOP, 100)
      while (stop !== 'halt') stop = machine.processor.run(100)
    }
    round()
    const { length } = machine.processor.handlers.table
    for (let n = 0; n < 40; n++) round()
    const { modules, regionsLive } = tierStatistics(machine.processor)
    expect(modules).toBeGreaterThan(30)
    expect(regionsLive).toBe(1)
    for (let turn = 0; turn < 20 && tierStatistics(machine.processor).modulesCollected < modules - 2; turn++) {
      collect()
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    expect(tierStatistics(machine.processor).modulesCollected).toBeGreaterThanOrEqual(modules - 2)
    expect(machine.processor.handlers.table.length).toBe(length)
  })

  it('are all described', () => expect(Object.keys(run(false).statistics)).toEqual(Object.keys(TIER_METRICS)))
})
