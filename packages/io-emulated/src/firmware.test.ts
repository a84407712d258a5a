import { describe, expect, it } from 'vitest'
import type { I8042 } from './i8042.ts'
import type { Pc } from './pc.ts'
import type { VgaText } from './vga-text.ts'
import { startPc } from './pc-bench.test.ts'

const start = (options: Record<string, unknown> = {}) => {
  const machine = startPc({ options })
  const { readPort, writePort, guestMemory } = machine
  const bytes = (key: number, length: number): Uint8Array => {
    writePort(0x510, key, 2)
    return Uint8Array.from({ length }, () => readPort(0x511))
  }
  const swap = (value: number): number => new DataView(Uint32Array.of(value).buffer).getUint32(0)
  const dma = (control: number, length: number, address: number): number => {
    const view = new DataView(new ArrayBuffer(16))
    view.setUint32(0, control)
    view.setUint32(4, length)
    view.setUint32(8, Math.floor(address / 2 ** 32))
    view.setUint32(12, address)
    guestMemory.writeBytes(0x100, new Uint8Array(view.buffer))
    writePort(0x518, swap(0x100), 4)
    return swap(guestMemory.readU32(0x100)!)
  }
  const file = (name: string): { select: number; size: number } | undefined => {
    const view = new DataView(bytes(0x19, 4 + 64 * 20).buffer)
    for (let index = 0; index < view.getUint32(0); index++) {
      const at = 4 + index * 64
      const found = new TextDecoder().decode(new Uint8Array(view.buffer, at + 8, 56)).replace(/\0+$/, '')
      if (found === name) return { size: view.getUint32(at), select: view.getUint16(at + 4) }
    }
    return undefined
  }
  return { ...machine, bytes, dma, file }
}

describe('fw_cfg', () => {
  it('identifies itself', () => {
    const { bytes, readPort } = start()
    expect(new TextDecoder().decode(bytes(0, 4))).toBe('QEMU')
    expect([...bytes(1, 4)]).toEqual([3, 0, 0, 0])
    expect(readPort(0x514, 4)).toBe(0x554d4551)
    expect([...bytes(0x7777, 4)]).toEqual([0, 0, 0, 0])
  })

  it('has files', () => {
    const { bytes, file, guestMemory } = start({ firmware: { bootOrder: ['/rom@a', '/rom@b'] } })
    expect(file('nothing')).toBeUndefined()
    const e820 = file('etc/e820')!
    expect(e820.size).toBe(20)
    expect(new DataView(bytes(e820.select, 20).buffer).getUint32(8, true)).toBe(guestMemory.size)
    const order = file('bootorder')!
    expect(new TextDecoder().decode(bytes(order.select, order.size))).toBe('/rom@a\n/rom@b\0')
    expect([...bytes(file('etc/sercon-port')!.select, 2)]).toEqual([0xf8, 3])
  })

  it('takes files from others, later ones in place of earlier', () => {
    const { bytes, file, pc } = start()
    pc.firmwareConfiguration.addFile('etc/acpi/rsdp', Uint8Array.of(1))
    pc.firmwareConfiguration.addFile('etc/acpi/rsdp', Uint8Array.of(2, 3))
    const { select, size } = file('etc/acpi/rsdp')!
    expect([...bytes(select, size)]).toEqual([2, 3])
    expect(file('etc/e820')!.size).toBe(20)
  })

  it('copies by DMA: select, read, skip, zeros behind the end', () => {
    const { dma, guestMemory } = start()
    guestMemory.fill(0x200, 16, 0xff)
    expect(dma(0x0000_000a, 8, 0x200)).toBe(0)
    expect(guestMemory.readU32(0x200)).toBe(0x554d4551)
    expect(guestMemory.readU32(0x204)).toBe(0)
    dma(0x0000_000c, 2, 0)
    dma(2, 1, 0x200)
    expect(guestMemory.readU8(0x200)).toBe(0x4d)
  })

  it.each([
    { name: 'outside memory', control: 0xa, length: 4, address: 2 ** 40 },
    { name: 'over the end', control: 0xa, length: 0xffffffff, address: 0x200 },
    { name: 'a write', control: 0x18, length: 4, address: 0x200 },
  ])('refuses $name', ({ control, length, address }) => {
    expect(start().dma(control, length, address)).toBe(1)
  })
})

describe('8042', () => {
  const wait = (machine: ReturnType<typeof start>): number | undefined =>
    machine.readPort(0x64) & 1 ? machine.readPort(0x60) : undefined

  it.each([
    { name: 'self test', command: 0xaa, answer: 0x55 },
    { name: 'keyboard test', command: 0xab, answer: 0x00 },
    { name: 'no auxiliary port', command: 0xa9, answer: 0x02 },
    { name: 'control', command: 0x20, answer: 0x61 },
    { name: 'output port: A20 on', command: 0xd0, answer: 0x03 },
  ])('$name', ({ command, answer }) => {
    const machine = start()
    machine.writePort(0x64, command)
    expect(wait(machine)).toBe(answer)
    expect(wait(machine)).toBeUndefined()
  })

  it('has a keyboard as Linux wants it', () => {
    const machine = start()
    const send = (value: number): (number | undefined)[] => {
      machine.writePort(0x60, value)
      const answers = []
      for (let byte = wait(machine); byte !== undefined; byte = wait(machine)) answers.push(byte)
      return answers
    }
    expect(send(0xff)).toEqual([0xfa, 0xaa])
    expect(send(0xf2)).toEqual([0xfa, 0xab, 0x41])
    expect(send(0xed)).toEqual([0xfa])
    expect(send(0x02)).toEqual([0xfa])
    expect(send(0x99)).toEqual([0xfe])
  })

  it('passes keys on, each an edge', () => {
    const machine = start()
    const { interruptController } = machine.pc
    machine.writePort(0x64, 0x60)
    machine.writePort(0x60, 0x41)
    expect((machine.pc.devices.get('keyboard') as I8042).keyboard.type('aB')).toBe(2)
    const codes = []
    while (interruptController.hasPending(0)) {
      interruptController.acknowledge(0)
      codes.push(machine.readPort(0x60))
      machine.writePort(0x20, 0x20)
    }
    expect(codes).toEqual([0x1e, 0x9e, 0x2a, 0x30, 0xb0, 0xaa])
    expect((machine.pc.devices.get('keyboard') as I8042).keyboard.type('x'.repeat(100))).toBe(32)
  })
})

const screen = (pc: Pc): string[] => (pc.devices.get('vga') as VgaText).screen()

describe('screen', () => {
  it('shows text, scrolled by the start address', () => {
    const { pc, readMmio, readPort, writeMmio, writePort } = start()
    ;[...'nonroot'].forEach((character, index) => writeMmio(0xb8000 + index * 2, 0x700 | character.charCodeAt(0), 2))
    writeMmio(0xb8000 + 160, 0x07db07b0)
    expect(screen(pc).slice(0, 2)).toEqual(['nonroot', '░█'])
    expect(readMmio(0xb8000, 2)).toBe(0x76e)
    writePort(0x3d4, 0x500d, 2)
    expect(readPort(0x3d5)).toBe(0x50)
    expect(screen(pc)[0]).toBe('░█')
    expect(screen(pc)).toHaveLength(25)
  })

  it('shows retrace come and go', () => {
    const { clock, readPort } = start()
    const seen = new Set<number>()
    for (let step = 0; step < 100; step++) {
      clock.advanceNs(777_777)
      seen.add(readPort(0x3da) & 8)
    }
    expect(seen).toEqual(new Set([0, 8]))
  })
})

describe('debug consoles', () => {
  it('are there, and go to the log by lines', () => {
    const { log, readPort, writePort } = start()
    expect([readPort(0xe9), readPort(0x402)]).toEqual([0xe9, 0xe9])
    for (const byte of new TextEncoder().encode('SeaBIOS\n')) writePort(0x402, byte)
    expect(JSON.stringify(log)).toContain('SeaBIOS')
  })

  it('or to the console', () => {
    const { console, writePort } = start({ debugConsole: 'console' })
    writePort(0xe9, 0x41)
    expect(console.output).toBe('A')
  })

  it('or nowhere', () => {
    expect(start({ debugConsole: 'off' }).readPort(0xe9)).toBe(0xff)
  })
})

it('the DMA controller holds addresses, the page port POST codes', () => {
  const { readPort, writePort } = start()
  writePort(0x0c, 0)
  writePort(0x02, 0x34)
  writePort(0x02, 0x12)
  expect([readPort(0x02), readPort(0x02)]).toEqual([0x34, 0x12])
  writePort(0x80, 0x7f)
  expect([readPort(0x80), readPort(0xd0)]).toEqual([0x7f, 0])
})
