/** A whole PC on the test bench, for the tests of its parts. */

import { gpa } from '@nonroot/contracts'
import type { GuestFrames, GuestMemory, IoModelContext } from '@nonroot/contracts'
import { createDeviceBench } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { pcOptions } from './options.ts'
import { createPc } from './pc.ts'

export function startPc({
  options = {} as Record<string, unknown>,
  vcpuCount = 1,
  guestMemory = undefined as (GuestMemory & GuestFrames) | undefined,
} = {}) {
  const bench = createDeviceBench(guestMemory ? { guestMemory } : {})
  const buttons: (() => void)[] = []
  const context: IoModelContext = {
    ...bench.context,
    messageInterrupts: { send: (...message) => pc.interruptController.messages.send(...message) },
    power: {
      ...bench.context.power,
      onPowerButton: (listener) => {
        buttons.push(listener)
        return () => {}
      },
    },
    vcpuCount,
    mmioWindow: { start: gpa(0xc0000000), length: 0x40000000 },
    console: bench.console,
    child: (name) => ({ ...context, name }),
  }
  const pc = createPc(pcOptions.parse(options), context)
  const woken: number[] = []
  pc.interruptController.attach({ wake: (vcpu) => void woken.push(vcpu) })
  const config = {
    read(device: number, offset: number, size: 1 | 2 | 4 = 4): number {
      return bench.readMmio(0xe0000000 + device * 0x8000 + offset, size)
    },
    write(device: number, offset: number, value: number, size: 1 | 2 | 4 = 4): void {
      bench.writeMmio(0xe0000000 + device * 0x8000 + offset, value, size)
    },
  }
  return { ...bench, context, pc, config, woken, pressPowerButton: () => buttons.forEach((press) => press()) }
}

it('is a PC with every part that it describes', () => {
  const { pc } = startPc()
  expect(pc.describe!()).toMatchObject({ acpi: { pm1Event: 0x600, pmTimer: 0x608 }, serial: [{ port: 0x3f8, gsi: 4 }] })
  for (const device of pc.devices.values()) {
    const saved = device.save!()
    device.reset!()
    device.restore!(structuredClone(saved))
    expect(device.save!()).toEqual(saved)
  }
})
