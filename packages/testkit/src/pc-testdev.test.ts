import { describe, expect, it } from 'vitest'
import { benchDevice, testDevice } from './index.ts'
import plugin from './plugin.ts'

const [testdev] = plugin.devices!
testDevice(testdev!, {}, it)

const start = async () => {
  const { bench } = await benchDevice(testdev!, {})
  return bench
}

describe('pc-testdev', () => {
  it('raises and lowers interrupt lines by number', async () => {
    const { writePort, line } = await start()
    for (const number of [1, 9, 14, 23]) {
      writePort(0x2000 + number, 1)
      expect(line(number).raised).toBe(true)
      writePort(0x2000 + number, 0)
      expect(line(number).raised).toBe(false)
    }
  })

  it.each([
    { size: 1, value: 0x12 },
    { size: 2, value: 0x1234 },
    { size: 4, value: 0x89abcdef },
  ] as const)('keeps what is written in $size bytes, by ports and in memory', async ({ size, value }) => {
    const { writePort, readPort, writeMmio, readMmio } = await start()
    writePort(0xe0, value, size)
    expect([readPort(0xe0, size), readPort(0xe0)]).toEqual([value, value & 0xff])
    writeMmio(0xff00_0100, value, size)
    expect([readMmio(0xff00_0100, size), readMmio(0xff00_0100, 1)]).toEqual([value, value & 0xff])
  })

  it('takes the address of a page to flush', async () => {
    const { writePort } = await start()
    expect(() => writePort(0xe4, 0x12345000, 4)).not.toThrow()
  })
})
