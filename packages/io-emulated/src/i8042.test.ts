/** The keyboard and its controller: commands that wait for their argument, over reset and restore. What is typed is in firmware.test.ts. */

import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { I8042 } from './i8042.ts'

function start() {
  const bench = createDeviceBench()
  const line = bench.line(1)
  const device = new I8042(bench.context, line)
  const { readPort, writePort } = bench
  /** All that waits. */
  const answers = (): number[] => {
    const bytes: number[] = []
    while (readPort(0x64) & 1) bytes.push(readPort(0x60))
    return bytes
  }
  /** To the keyboard: what it answers. */
  const say = (...bytes: number[]): number[] => bytes.flatMap((byte) => (writePort(0x60, byte), answers()))
  return { ...bench, device, line, answers, say }
}

const ACK = 0xfa
const ECHO = 0xee
const SCAN_CODE_SET = 0xf0

/** Commands of which each is followed by one byte. */
const WITH_ARGUMENT = [
  { name: 'indicators', command: 0xed, argument: 2 },
  { name: 'scan code set', command: SCAN_CODE_SET, argument: 1 },
  { name: 'rate', command: 0xf3, argument: 0x20 },
]

describe('a command of the keyboard that waits for its argument', () => {
  it.each(WITH_ARGUMENT)('$name: takes one byte, and the next is a command again', ({ command, argument }) => {
    const { say } = start()
    expect(say(command, argument, ECHO)).toEqual([ACK, ACK, ECHO])
  })

  it.each(WITH_ARGUMENT)('$name: waits no longer after a reset of the machine', ({ command }) => {
    const { say, device } = start()
    expect(say(command)).toEqual([ACK])
    device.reset()
    expect(say(ECHO)).toEqual([ECHO])
  })

  it.each(WITH_ARGUMENT)('$name: waits on after a restore', ({ command, argument }) => {
    const { say, device } = start()
    say(command)
    const other = start()
    other.device.restore(structuredClone(device.save()))
    expect(other.say(argument, ECHO)).toEqual([ACK, ECHO])
  })
})

describe('the scan code set', () => {
  it.each([
    { by: 'a reset of the machine', reset: ({ device }: ReturnType<typeof start>) => device.reset() },
    {
      by: "the keyboard's own reset",
      reset: ({ say }: ReturnType<typeof start>) => expect(say(0xff)).toEqual([ACK, 0xaa]),
    },
  ])('is the second again after $by', ({ reset }) => {
    const made = start()
    expect(made.say(SCAN_CODE_SET, 1, SCAN_CODE_SET, 0)).toEqual([ACK, ACK, ACK, ACK, 1])
    reset(made)
    expect(made.say(SCAN_CODE_SET, 0)).toEqual([ACK, ACK, 2])
  })
})

describe('a reset', () => {
  it('drops what waits, and lowers the line', () => {
    const { device, line, answers, readPort } = start()
    device.keyboard.type('abc')
    expect([line.raised, readPort(0x64) & 1]).toEqual([true, 1])
    device.reset()
    expect([line.raised, answers()]).toEqual([false, []])
  })

  it('drops an answer of the controller', () => {
    const { device, answers, writePort } = start()
    writePort(0x64, 0xaa)
    device.reset()
    expect(answers()).toEqual([])
  })

  it('ends a command of the controller that waits for its byte', () => {
    const { device, say, writePort } = start()
    writePort(0x64, 0x60)
    device.reset()
    expect(say(ECHO)).toEqual([ECHO])
  })

  it('turns on a keyboard that was told to be silent, at either end', () => {
    const { device, say, answers, writePort } = start()
    expect(say(0xf5)).toEqual([ACK])
    writePort(0x64, 0xad)
    expect([device.keyboard.type('a'), answers()]).toEqual([0, []])
    device.reset()
    expect([device.keyboard.type('a'), answers()]).toEqual([1, [0x1e, 0x9e]])
  })
})
