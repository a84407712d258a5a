import { expect, it } from 'vitest'
import { Processor, type ProcessorHost } from './processor.ts'

it('says that host memory is too small for a processor', () => {
  const host = { memory: { allocateFrames: () => undefined } } as unknown as ProcessorHost
  const error = { code: 'host.memory', remedy: expect.stringContaining('host.memory larger') as string }
  expect(() => new Processor(host)).toThrow(expect.objectContaining(error))
})
