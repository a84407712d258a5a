import { describe, expect, it } from 'vitest'
import { startPc } from './pc-bench.test.ts'

describe('power', () => {
  it.each([
    { name: 'S5', value: 0x3401, power: ['powerOff'] },
    { name: 'S5 without SLP_EN', value: 0x1401, power: [] },
    { name: 'S3, which is not there', value: 0x2401 + 0x400, power: [] },
  ])('$name', ({ value, power }) => {
    const machine = startPc()
    machine.writePort(0x604, value, 2)
    expect(machine.power).toEqual(power)
    expect(machine.readPort(0x604, 2) & 0x2001).toBe(1)
  })

  it.each([
    {
      name: 'RST_CNT',
      writes: [
        [0xcf9, 0x02],
        [0xcf9, 0x06],
      ],
    },
    { name: 'RST_CNT, full', writes: [[0xcf9, 0x0e]] },
    { name: 'keyboard controller', writes: [[0x64, 0xfe]] },
    {
      name: 'keyboard controller, output port',
      writes: [
        [0x64, 0xd1],
        [0x60, 0x02],
      ],
    },
    { name: 'port 0x92', writes: [[0x92, 0x01]] },
  ])('reset: $name', ({ writes }) => {
    const { power, writePort } = startPc()
    for (const [port, value] of writes) writePort(port!, value!)
    expect(power).toEqual(['reset'])
  })

  it.each([
    { size: 1, value: 0, status: 1 },
    { size: 1, value: 0x10, status: 0x21 },
    { size: 4, value: 0x4e520007, status: 7 },
    { size: 4, value: 0x4e5200ff, status: 255 },
    { size: 4, value: 7, status: 15 },
  ] as const)('isa-debug-exit: $value of $size gives $status', ({ size, value, status }) => {
    const { power, writePort } = startPc()
    writePort(0xf4, value, size)
    expect(power).toEqual([`exit ${status}`])
  })

  it('the button raises the SCI until its status is cleared', () => {
    const { pc, pressPowerButton, readPort, writePort } = startPc()
    const { interruptController } = pc
    writePort(0x4d1, 0x02) // IRQ 9 by level
    writePort(0x602, 0x0100, 2)
    expect(interruptController.hasPending(0)).toBe(false)
    pressPowerButton()
    expect(readPort(0x600, 2) & 0x100).toBe(0x100)
    expect(interruptController.hasPending(0)).toBe(true)
    writePort(0x600, 0x0100, 2)
    expect(readPort(0x600, 2) & 0x100).toBe(0)
    expect(interruptController.hasPending(0)).toBe(false)
  })
})

describe('PM timer', () => {
  it('counts at 3.579545 MHz in 24 bits', () => {
    const { clock, readPort } = startPc()
    expect(readPort(0x608, 4)).toBe(0)
    clock.advanceNs(1e9)
    expect(readPort(0x608, 4)).toBe(3579545)
    clock.advanceNs(86400e9)
    expect(readPort(0x608, 4)).toBe((86401 * 3579545) % 2 ** 24)
  })

  it('sets TMR_STS with each turn of its top bit, and interrupts if asked', () => {
    const { clock, pc, readPort, writePort } = startPc()
    const half = Math.ceil((2 ** 23 / 3579545) * 1e9)
    clock.advanceNs(half)
    expect(readPort(0x600, 2) & 1).toBe(1)
    writePort(0x600, 1, 2)
    writePort(0x4d1, 0x02)
    writePort(0x602, 1, 2)
    expect(pc.interruptController.hasPending(0)).toBe(false)
    clock.advanceNs(half)
    expect(pc.interruptController.hasPending(0)).toBe(true)
  })
})

it('general-purpose events can be enabled, and none happens', () => {
  const { pc, readPort, writePort } = startPc()
  writePort(0x4d1, 0x02)
  for (let n = 0; n < 8; n++) writePort(0x628 + n, 0xff)
  expect([readPort(0x621), readPort(0x629), pc.interruptController.hasPending(0)]).toEqual([0, 0xff, false])
})
