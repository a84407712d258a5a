import type { IoHandler, PciFunctionDescription } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { startPc } from '../pc-bench.test.ts'

const memory = (fill: number): IoHandler => ({ read: () => fill, write: () => {} })
const DEVICE: PciFunctionDescription = {
  vendorId: 0x1af4,
  deviceId: 0x1041,
  revision: 1,
  classCode: 0x020000,
  bars: {
    0: { kind: 'io', size: 32, handler: memory(0x10) },
    4: { kind: 'mmio64', size: 0x4000, handler: memory(0x44), prefetchable: true },
  },
  capabilities: [
    { id: 9, body: Uint8Array.of(14, 1, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0) },
    { id: 9, body: Uint8Array.of(5, 6), writeMask: Uint8Array.of(0, 0xf0) },
  ],
  msixVectors: 3,
  interruptPin: 'A',
}

function start(description: Partial<PciFunctionDescription> = {}) {
  const machine = startPc()
  const { pc, config } = machine
  const pciFunction = pc.pciBus.add('device', { ...DEVICE, ...description })
  pc.interruptController.hasPending(0)
  machine.writeMmio(0xfee000f0, 0x1ff)
  machine.writeMmio(0xfee00350, 0x10000)
  const read = (offset: number, size?: 1 | 2 | 4): number => config.read(1, offset, size)
  const write = (offset: number, value: number, size?: 1 | 2 | 4): void => config.write(1, offset, value, size)
  const take = (): number => {
    const { interruptController } = pc
    const vector = interruptController.hasPending(0) ? interruptController.acknowledge(0) : -1
    if (vector >= 0) machine.writeMmio(0xfee000b0, 0)
    return vector
  }
  return { ...machine, pciFunction, read, write, take }
}

describe('configuration mechanism 1', () => {
  it('is found by the probe of Linux, and reset stays in its place', () => {
    const { readPort, writePort, power } = start()
    writePort(0xcfb, 1)
    writePort(0xcf8, 0x80000000, 4)
    expect(readPort(0xcf8, 4)).toBe(0x80000000)
    expect(readPort(0xcfc, 4)).toBe(0x29c08086)
    expect(readPort(0xcfe, 2)).toBe(0x29c0)
    expect(readPort(0xcff)).toBe(0x29)
    writePort(0xcf9, 2)
    writePort(0xcf9, 6)
    expect(power).toEqual(['reset'])
    expect(readPort(0xcf8, 4)).toBe(0x80000000)
  })

  it.each([
    { address: 0x80000000 + (7 << 11), value: 0xffffffff, why: 'no device' },
    { address: 0x80010000, value: 0xffffffff, why: 'no such bus' },
    { address: 0x00000000, value: 0xffffffff, why: 'not enabled' },
    { address: 0x8000f800, value: 0x29188086, why: 'LPC bridge' },
    { address: 0x80000800, value: 0x10411af4, why: 'device' },
  ])('reads $why', ({ address, value }) => {
    const { readPort, writePort } = start()
    writePort(0xcf8, address, 4)
    expect(readPort(0xcfc, 4)).toBe(value)
  })
})

describe('accesses that configure nothing', () => {
  it.each([
    { name: 'parts of the address register', port: 0xcf8, size: 1, is: 0xff },
    { name: 'its upper word', port: 0xcfa, size: 2, is: 0xffff },
    { name: 'data while it is not enabled', port: 0xcfc, size: 2, is: 0xffff, address: 0x0000_0800 },
    { name: 'the upper byte of that', port: 0xcff, size: 1, is: 0xff, address: 0x0000_0800 },
  ] as const)('$name', ({ port, size, is, ...rest }) => {
    const { readPort, writePort, read } = start()
    const address = 'address' in rest ? rest.address : 0x8000_083c
    writePort(0xcf8, address, 4)
    expect(readPort(port, size)).toBe(is)
    const line = read(0x3c, 1)
    writePort(port, 0x5a, size)
    expect([readPort(0xcf8, 4), read(0x3c, 1), read(4, 2)]).toEqual([address, line, 0])
  })

  it('a write reaches the byte that it names, in each width', () => {
    const { writePort, read } = start()
    writePort(0xcf8, 0x8000_083c, 4)
    writePort(0xcfc, 0x12, 1)
    expect(read(0x3c, 1)).toBe(0x12)
    writePort(0xcf8, 0x8000_0804, 4)
    writePort(0xcfd, 0x04, 1)
    expect(read(4, 2)).toBe(0x400)
    writePort(0xcfc, 0x0003, 2)
    expect(read(4, 2)).toBe(0x003)
  })

  it('BARs stay where they are over accesses beside them', () => {
    const { read, write, readMmio } = start()
    write(4, 2, 2)
    const at = read(0x20) - 12
    for (const offset of [0x0c, 0x28, 0x2c, 0x30, 0x38]) write(offset, 0xffff_ffff)
    expect([read(0x20) - 12, readMmio(at)]).toEqual([at, 0x44])
  })
})

describe('commands of a driver', () => {
  it('are told once, where they change', () => {
    const commands: number[] = []
    const { write } = start({ onCommand: (command) => commands.push(command) })
    write(4, 2, 2)
    write(4, 2, 2)
    write(0x3c, 1, 1)
    write(4, 6, 1)
    write(6, 0xffff, 2)
    write(4, 0, 2)
    expect(commands).toEqual([2, 6, 0])
  })

  it('a BAR of ports lies within the window, and not on the power registers', () => {
    const { read, write, readPort } = start()
    write(4, 1, 2)
    write(0x10, 0xd000)
    expect([readPort(0xd000), readPort(0xd01f), readPort(0xd020)]).toEqual([0x10, 0x10, 0xff])
    for (const to of [0x0100, 0x1_0000]) {
      write(0x10, to)
      expect(readPort(0xd000)).toBe(0xff)
    }
    write(0x10, 0xffe0)
    expect([readPort(0xffe0), readPort(0xffff), read(0x10)]).toEqual([0x10, 0x10, 0xffe1])
  })
})

describe('header', () => {
  it('shows what was described', () => {
    const { read } = start()
    expect(read(0x08)).toBe(0x02000001)
    expect(read(0x2c)).toBe(0x10411af4)
    expect([read(0x3d, 1), read(0x0e, 1), read(0x06, 2)]).toEqual([1, 0, 0x10])
    expect(read(0x100)).toBe(0)
  })

  it('lets be written what may be', () => {
    const { read, write } = start()
    write(0, 0)
    write(4, 0xffffffff)
    write(0x3c, 0xffff, 2)
    expect([read(0), read(4, 2), read(6, 2), read(0x3c, 2)]).toEqual([0x10411af4, 0x0547, 0x10, 0x01ff])
  })

  it('lists its capabilities', () => {
    const { read, write } = start()
    const ids = []
    for (let at = read(0x34, 1); at; at = read(at + 1, 1)) ids.push(read(at, 1))
    expect(ids).toEqual([9, 9, 0x11])
    const second = read(read(0x34, 1) + 1, 1)
    write(second + 2, 0xffff, 2)
    expect(read(second + 2, 2)).toBe(0xf605)
  })
})

describe('BARs', () => {
  it.each([
    { name: 'io', offset: 0x10, size: 0xffffffe1 },
    { name: 'MSI-X table', offset: 0x14, size: 0xfffff000 },
    { name: 'absent', offset: 0x18, size: 0 },
    { name: '64 bits, low', offset: 0x20, size: 0xffffc00c },
    { name: '64 bits, high', offset: 0x24, size: 0xffffffff },
  ])('size: $name', ({ offset, size }) => {
    const { read, write } = start()
    const before = read(offset)
    write(offset, 0xffffffff)
    expect(read(offset)).toBe(size)
    write(offset, before)
    expect(read(offset)).toBe(before)
  })

  it('are assigned, and answer once enabled', () => {
    const { read, write, readMmio, readPort } = start()
    const at = read(0x20) - 12
    expect(at).toBeGreaterThanOrEqual(0xc0000000)
    expect(readMmio(at)).toBe(0xffffffff)
    write(4, 2, 2)
    expect(readMmio(at)).toBe(0x44)
    expect(readPort(0xc000)).toBe(0xff)
    write(4, 3, 2)
    expect(readPort(0xc000)).toBe(0x10)
  })

  it('move, but not onto RAM, ECAM, the APICs or each other', () => {
    const { read, write, readMmio } = start()
    write(4, 2, 2)
    write(0x20, 0xd0000000)
    expect(readMmio(0xd0000000)).toBe(0x44)
    const table = read(0x14)
    for (const to of [0, 0xe0000000, 0xfee00000, 0xfec00000, table]) {
      write(0x20, to)
      expect(readMmio(0xd0000000)).toBe(0xffffffff)
    }
    write(0x14, 0xd8000000) // the table goes away: now there is room
    expect(readMmio(table + 12)).toBe(0x44)
    write(0x24, 0x10)
    expect(readMmio(0x10_0000_0000 + table)).toBe(0x44)
  })

  it('refuses descriptions that cannot be', () => {
    const { pc } = startPc()
    const handler = memory(0)
    const add = (bars: PciFunctionDescription['bars'], more = {}): unknown =>
      pc.pciBus.add('bad', { ...DEVICE, bars: bars!, ...more })
    expect(() => add({ 0: { kind: 'mmio32', size: 3000, handler } })).toThrow(/BAR 0 has 3000 bytes/)
    expect(() => add({ 5: { kind: 'mmio64', size: 4096, handler } })).toThrow(/no room for BAR 5/)
    expect(() => add({ 0: { kind: 'mmio32', size: 2 ** 30, handler } })).toThrow(/no room for a BAR/)
    expect(() => add({}, { at: { device: 31, function: 0 } })).toThrow(/lpc-bridge/)
  })
})

describe('interrupts', () => {
  it('pin: level on its GSI, seen in the status register, silenced by command', () => {
    const { pciFunction, read, write, writeMmio, take } = start()
    writeMmio(0xfec00000, 0x10 + 17 * 2)
    writeMmio(0xfec00010, 0x8061)
    pciFunction.interrupt.raise()
    expect(read(6, 2)).toBe(0x18)
    expect([take(), take()]).toEqual([0x61, 0x61])
    write(4, 0x400, 2)
    take()
    expect(take()).toBe(-1)
    expect(read(6, 2)).toBe(0x18)
    write(4, 0, 2)
    expect(take()).toBe(0x61)
    pciFunction.interrupt.lower()
    take()
    expect(take()).toBe(-1)
  })

  it('pin: to the 8259 as the chipset routes it', () => {
    const { pciFunction, pc, config } = start()
    const { interruptController } = pc
    interruptController.reset()
    pciFunction.interrupt.raise()
    expect(interruptController.hasPending(0)).toBe(false)
    config.write(31, 0x61, 11, 1)
    expect(interruptController.hasPending(0)).toBe(true)
  })

  it('pin: to the I/O APIC by that IRQ too, where it is not masked', () => {
    const { pciFunction, config, take, writeMmio } = start()
    config.write(31, 0x61, 11, 1)
    for (const [register, value] of [
      [0x10 + 2 * 11, 0x8047],
      [0x11 + 2 * 11, 0],
    ] as const) {
      writeMmio(0xfec00000, register)
      writeMmio(0xfec00010, value)
    }
    pciFunction.interrupt.raise()
    expect(take()).toBe(0x47)
  })

  it('MSI-X: as programmed, pending while masked', () => {
    const { pciFunction, read, write, writeMmio, readMmio, take } = start()
    write(4, 6, 2)
    const table = read(0x14)
    const capability = 0x40 + 16 + 4
    expect(read(capability, 1)).toBe(0x11)
    expect(read(capability + 2, 2)).toBe(2)
    expect(pciFunction.msixEnabled).toBe(false)
    write(capability + 2, 0x8000, 2)
    expect(pciFunction.msixEnabled).toBe(true)
    for (const vector of [0, 1, 2]) {
      writeMmio(table + vector * 16, 0xfee00000)
      writeMmio(table + vector * 16 + 8, 0x70 + vector)
    }
    pciFunction.signal(1)
    expect([take(), readMmio(table + 0x800)]).toEqual([-1, 2])
    writeMmio(table + 16 + 12, 0)
    expect([take(), readMmio(table + 0x800)]).toEqual([0x71, 0])
    pciFunction.signal(1)
    expect(take()).toBe(0x71)
    write(capability + 2, 0xc000, 2)
    pciFunction.signal(1)
    expect(take()).toBe(-1)
    write(capability + 2, 0x8000, 2)
    expect(take()).toBe(0x71)
    pciFunction.signal(7) // there is none
  })

  it.each<[string, object, (made: ReturnType<typeof start>) => number]>([
    [
      'MSI-X',
      {},
      ({ read, write, writeMmio }) => {
        const table = read(0x14) + 16
        for (const [offset, value] of [0xfee00000, 0, 0x71].entries()) writeMmio(table + 4 * offset, value)
        writeMmio(table + 12, 0)
        write(0x40 + 16 + 4 + 2, 0x8000, 2)
        return 0x71
      },
    ],
    [
      'MSI',
      { msixVectors: 0, msiVectors: 4, capabilities: [] },
      ({ write }) => {
        write(0x44, 0xfee00000)
        write(0x4c, 0x50, 2)
        write(0x42, 0x21, 2)
        return 0x51
      },
    ],
  ])('%s: no message without Bus Master Enable; what waits is sent with it', (_, description, program) => {
    const made = start(description)
    const { pciFunction, write, take } = made
    write(4, 2, 2)
    const vector = program(made)
    pciFunction.signal(1)
    expect([pciFunction.busMaster, take()]).toEqual([false, -1])
    // Any other write of configuration space changes nothing about that.
    write(0x0c, 0x10, 1)
    expect(take()).toBe(-1)
    write(4, 6, 2)
    expect([pciFunction.busMaster, take()]).toEqual([true, vector])
    pciFunction.signal(1)
    expect(take()).toBe(vector)
  })

  it('MSI-X: after a reset the table is masked and empty, and nothing is pending', () => {
    const { pc, pciFunction, read, write, writeMmio, readMmio, take } = start()
    const capability = 0x40 + 16 + 4
    const enable = (): number => {
      write(4, 6, 2)
      write(capability + 2, 0x8000, 2)
      return read(0x14)
    }
    const words = (table: number): number[] => Array.from({ length: 3 * 4 }, (_, n) => readMmio(table + 4 * n))
    const fresh = words(enable())
    expect(fresh).toEqual([0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1])
    for (let word = 0; word < 12; word++) writeMmio(read(0x14) + 4 * word, [0xfee00000, 0, 0x70 + word, 0][word % 4]!)
    writeMmio(read(0x14) + 2 * 16 + 12, 1)
    pciFunction.signal(2)
    write(capability + 2, 0xc000, 2)
    pciFunction.signal(0)
    expect(readMmio(read(0x14) + 0x800)).toBe(5)
    for (const device of pc.devices.values()) device.reset!()
    expect([pciFunction.msixEnabled, read(capability + 2, 2)]).toEqual([false, 2])
    const table = enable()
    expect([words(table), readMmio(table + 0x800)]).toEqual([fresh, 0])
    for (const vector of [0, 2]) writeMmio(table + 16 * vector + 12, 0)
    expect(take()).toBe(-1)
  })

  it('MSI: several vectors, each maskable', () => {
    const { pciFunction, read, write, take } = start({ msixVectors: 0, msiVectors: 4, capabilities: [] })
    write(4, 6, 2)
    expect(read(0x42, 2)).toBe(0x184)
    write(0x44, 0xfee00000)
    write(0x4c, 0x50, 2)
    write(0x42, 0x21, 2)
    pciFunction.signal(3)
    expect(take()).toBe(0x53)
    write(0x50, 2)
    pciFunction.signal(1)
    expect([take(), read(0x54)]).toEqual([-1, 2])
    write(0x50, 0)
    expect([take(), read(0x54)]).toEqual([0x51, 0])
  })
})

describe('chipset', () => {
  it('moves ECAM and the ACPI registers where firmware wants them', () => {
    const { readMmio, readPort, writePort } = start()
    const write = (address: number, value: number): void => {
      writePort(0xcf8, address, 4)
      writePort(0xcfc, value, 4)
    }
    write(0x80000060, 0)
    expect(readMmio(0xe0000000)).toBe(0xffffffff)
    write(0x80000060, 0xb0000001)
    expect(readMmio(0xb0000000)).toBe(0x29c08086)
    write(0x8000f840, 0xb001)
    expect(readPort(0x604, 2)).toBe(0xffff)
    expect(readPort(0xb004, 2)).toBe(1)
  })

  it.each([
    { ecam: 0xe0000001, base: 0xe0000000, window: [0xc0000000, 0xe0000000] },
    { ecam: 0xb0000001, base: 0xb0000000, window: [0xc0000000, 0xfec00000] },
    { ecam: 0xc0000001, base: 0xc0000000, window: [0xd0000000, 0xfec00000] },
    { ecam: 0xd0000001, base: 0xd0000000, window: [0xc0000000, 0xd0000000] },
    { ecam: 0, base: undefined, window: [0xc0000000, 0xfec00000] },
  ])('tables say where ECAM is and what it leaves for BARs: $ecam', ({ ecam, base, window: [first, end] }) => {
    const { config, pc } = start()
    config.write(0, 0x60, ecam)
    const { pci } = pc.describe!()
    expect(pci!.ecam?.address).toBe(base)
    expect(pci!.windows[1]).toEqual({ kind: 'mmio', base: first, length: end! - first! })
  })

  it('tables say where the ACPI registers are', () => {
    const { pc, config } = start()
    config.write(31, 0x40, 0xb001)
    expect(pc.describe!().acpi).toMatchObject({ pm1Event: 0xb000, pm1Control: 0xb004, pmTimer: 0xb008 })
    pc.devices.get('pci')!.reset!()
    expect(pc.describe!().acpi).toMatchObject({ pm1Event: 0x600 })
  })

  it('finds memory at 0xC0000 as after a reset, and SMM done', () => {
    const { config, readPort } = start()
    expect(config.read(0, 0x90, 1)).toBe(0)
    config.write(0, 0x90, 0xff, 1)
    expect(config.read(0, 0x90, 1)).toBe(0x30)
    expect(readPort(0x630, 4) & 0x20).toBe(0x20)
  })
})

it('saves and restores', () => {
  const first = start()
  first.write(4, 7, 2)
  first.write(0x20, 0xd0000000)
  first.pciFunction.interrupt.raise()
  const second = start()
  second.pc.devices.get('pci')!.restore!(structuredClone(first.pc.devices.get('pci')!.save!()))
  expect(second.readMmio(0xd0000000)).toBe(0x44)
  expect(second.read(6, 2)).toBe(0x18)
  second.pc.devices.get('pci')!.reset!()
  expect(second.readMmio(0xd0000000)).toBe(0xffffffff)
  expect(second.read(6, 2)).toBe(0x10)
  expect(() => startPc().pc.devices.get('pci')!.restore!(first.pc.devices.get('pci')!.save!())).toThrow(
    /other PCI functions/,
  )
})

describe('a function that the guest unplugs', () => {
  it('answers nowhere and interrupts nobody, until reset', () => {
    const { pc, pciFunction, read, write, readMmio, take } = start({ unpluggable: 'network' })
    write(0x20, 0xe000_0000 + 0x1000_0000)
    write(0x24, 0)
    write(4, 6, 2)
    pciFunction.interrupt.raise()
    expect([read(0), readMmio(0xf000_0000, 1)]).toEqual([0x10411af4, 0x44])

    expect([pc.pciBus.unplug('disk'), pc.pciBus.unplug('network'), pc.pciBus.unplug('network')]).toEqual([0, 1, 0])
    write(4, 6, 2)
    pciFunction.interrupt.raise()
    expect([read(0), read(4), readMmio(0xf000_0000, 1), take()]).toEqual([0xffff_ffff, 0xffff_ffff, 0xff, -1])

    pc.pciBus.reset()
    expect([read(0), read(4, 2)]).toEqual([0x10411af4, 0])
  })

  it('stays unplugged in a snapshot', () => {
    const { pc, read } = start({ unpluggable: 'network' })
    const before = pc.pciBus.save()
    pc.pciBus.unplug('network')
    const saved = pc.pciBus.save()
    pc.pciBus.restore(before)
    expect(read(0)).toBe(0x10411af4)
    pc.pciBus.restore(saved)
    expect(read(0)).toBe(0xffff_ffff)
  })
})

describe('the pin of a function', () => {
  it('hears of the end of its interrupt before its level is looked at again', () => {
    const { pciFunction, readMmio, writeMmio, take } = start()
    const { interrupt } = pciFunction
    // The pin's entry: level-triggered, vector 0x40.
    const entry = 0x10 + 2 * 17
    writeMmio(0xfec0_0000, entry, 4)
    writeMmio(0xfec0_0010, 0x8040, 4)
    expect(readMmio(0xfec0_0010, 4)).toBe(0x8040)
    let ends = 0
    interrupt.onEnd!(() => {
      if (++ends === 2) interrupt.lower()
    })
    interrupt.raise()
    expect([take(), take(), take(), ends]).toEqual([0x40, 0x40, -1, 2])
  })
})
