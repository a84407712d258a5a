import { createRandom } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { startPc } from './pc-bench.test.ts'

const PORTS = [
  0x00, 0x20, 0x21, 0x40, 0x43, 0x60, 0x61, 0x64, 0x70, 0x71, 0x80, 0x92, 0xa0, 0xa1, 0xc0, 0xe9, 0xf4, 0x3c0, 0x3d4,
  0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x402, 0x4d0, 0x510, 0x511, 0x514, 0x518, 0x600, 0x602, 0x604, 0x608, 0x620,
  0xcf8, 0xcf9, 0xcfc,
]
const MEMORY = [
  0xb8000, 0xe0000000, 0xe0008000, 0xe00f8000, 0xfec00000, 0xfec00010, 0xfee00000, 0xfee00080, 0xfee00300, 0xfee00320,
  0xc0000000,
]
const MSRS = [0x1b, 0x6e0, 0x800, 0x80b, 0x830, 0x832, 0x83f, 0x8ff]
const SIZES = [1, 2, 4] as const

it.each([1, 2, 3, 4, 5])('survives any guest (seed %d)', (seed) => {
  const random = createRandom(seed)
  const machine = startPc({ vcpuCount: 3 })
  const { pc, clock } = machine
  const { interruptController } = pc
  pc.pciBus.add('device', {
    vendorId: 1,
    deviceId: 2,
    classCode: 0xff0000,
    bars: { 0: { kind: 'mmio64', size: 4096, handler: { read: () => 0, write: () => {} } } },
    msixVectors: 4,
    msiVectors: 8,
    interruptPin: 'B',
  })
  const value = (): number => (random(4) === 0 ? random(256) : random(2) * 2 ** 31 + random(2 ** 31))
  for (let step = 0; step < 20_000; step++) {
    const size = SIZES[random(3)]!
    const vcpu = random(3)
    const port = random(8) === 0 ? random(0x10000) : PORTS[random(PORTS.length)]! + random(2)
    const address = MEMORY[random(MEMORY.length)]! + random(8) * 16 + (random(8) === 0 ? random(4096) : 0)
    const written = size === 4 ? value() : value() % 2 ** (8 * size)
    const limit = 2 ** (8 * size)
    let answer = 0
    switch (random(7)) {
      case 0:
        answer = machine.readPort(port, size)
        break
      case 1:
        machine.writePort(port, written, size)
        break
      case 2:
        answer = machine.readMmio(address, size)
        break
      case 3:
        machine.writeMmio(address, written, size)
        break
      case 4:
        interruptController.writeMsr(vcpu, MSRS[random(MSRS.length)]!, (BigInt(value()) << 32n) | BigInt(value()))
        interruptController.readMsr(vcpu, MSRS[random(MSRS.length)]! + random(4))
        break
      case 5:
        if (interruptController.hasPending(vcpu)) expect(interruptController.acknowledge(vcpu)).toBeLessThan(256)
        for (const signal of [1, 2, 4, 8])
          if (interruptController.signals(vcpu) & signal) interruptController.takeSignal(vcpu, signal)
        if (random(4) === 0) machine.console.type('text')
        break
      case 6:
        clock.advanceNs(random(4) === 0 ? random(3_000_000) : random(1000))
    }
    if (!Number.isInteger(answer) || answer < 0 || answer >= limit) {
      expect.fail(`read of ${size} at port 0x${port.toString(16)} or 0x${address.toString(16)} gave ${answer}`)
    }
  }
  for (const part of [...pc.devices.values(), interruptController]) {
    const saved = part.save!()
    part.restore!(structuredClone(saved))
    expect(part.save!()).toEqual(saved)
    part.reset!()
  }
})
