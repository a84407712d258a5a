import { describe, expect, it } from 'vitest'
import { Processor, type ProcessorHost } from './processor.ts'
import { BareMetal } from './testing/bare-metal.ts'

it('says that host memory is too small for a processor', () => {
  const host = { memory: { allocateFrames: () => undefined } } as unknown as ProcessorHost
  const error = { code: 'host.memory', remedy: expect.stringContaining('host.memory larger') as string }
  expect(() => new Processor(host)).toThrow(expect.objectContaining(error))
})

describe.each([false, true])('an exact budget (compiled: %s)', (compile) => {
  // MOV ECX, rounds; again: twenty times (INC EAX; JZ next); DEC ECX; JNZ again; HLT
  const round = Array.from({ length: 20 }, () => [0x40, 0x74, 0]).flat()
  const program = [0xb9, 0, 0, 1, 0, ...round, 0x49, 0x75, -(round.length + 3) & 0xff, 0xf4]
  const hot = () => {
    const machine = new BareMetal({ compile, exactBudget: 256 })
    machine.enter('protected')
    if (compile) machine.processor.blocks.hotness = 2
    machine.run(program)
    return machine.processor
  }
  const retiredBy = (processor: Processor, budget: number): number => {
    const before = processor.retired
    expect(processor.run(budget)).toBe('budget')
    return processor.retired - before
  }

  it.each([1, 41, 63, 200, 256])('of %i instructions is kept from wherever the last one ended', (budget) => {
    const processor = hot()
    const retired = Array.from({ length: 50 }, () => retiredBy(processor, budget))
    expect([...new Set(retired)]).toEqual([budget])
  })
  it('does not include one more', () => {
    const processor = hot()
    const retired = Array.from({ length: 50 }, () => retiredBy(processor, 257))
    expect([...new Set(retired)]).not.toEqual([257])
  })
})
