import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { CoprocessorError } from './coprocessor-error.ts'

function start() {
  const bench = createDeviceBench()
  const line = bench.line(13)
  return { ...bench, line, device: new CoprocessorError(bench.context, line) }
}
type Machine = ReturnType<typeof start>

const first = ({ device }: Machine) => device.assertFerr(0, true)
const again = ({ device }: Machine) => device.assertFerr(0, false)
const clear = ({ writePort }: Machine) => writePort(0xf0, 0)
const resetCoprocessor = ({ writePort }: Machine) => writePort(0xf1, 0)

describe('x87 errors', () => {
  it.each([
    { name: 'an error is IRQ 13 and waits', steps: [first], ignored: false, raised: true },
    { name: 'a handler that has not cleared it waits too', steps: [first, again], ignored: false, raised: true },
    {
      name: 'cleared by port, it is ignored as long as it is pending',
      steps: [first, clear, again],
      ignored: true,
      raised: false,
    },
    { name: 'the next one is not', steps: [first, clear, again, first], ignored: false, raised: true },
    { name: 'the port ignores nothing in advance', steps: [clear, again], ignored: false, raised: true },
    {
      name: 'the coprocessor is on the chip: its reset is none',
      steps: [first, resetCoprocessor, again],
      ignored: false,
      raised: true,
    },
  ])('$name', ({ steps, ignored, raised }) => {
    const machine = start()
    let last: unknown
    for (const step of steps) last = step(machine)
    expect([last, machine.line.raised]).toEqual([ignored, raised])
  })

  it('are saved, restored and reset', () => {
    const saved = start()
    first(saved)
    const other = start()
    other.device.restore(structuredClone(saved.device.save()))
    expect(other.line.raised).toBe(true)
    clear(other)
    expect(again(other)).toBe(true)
    other.device.reset()
    expect([other.line.raised, again(other)]).toEqual([false, false])
  })
})
