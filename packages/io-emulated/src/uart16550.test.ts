import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { Uart16550 } from './uart16550.ts'

const BASE = 0x3f8
const [DATA, IER, IIR, LCR, MCR, LSR, MSR, SCR] = [0, 1, 2, 3, 4, 5, 6, 7].map((offset) => BASE + offset) as [
  number,
  number,
  number,
  number,
  number,
  number,
  number,
  number,
]

function start() {
  const bench = createDeviceBench()
  const line = bench.line(4)
  const uart = new Uart16550(bench.context, BASE, line, bench.console)
  const { readPort: read, writePort: write } = bench
  return { ...bench, bench, uart, line, read, write }
}

describe('16550A', () => {
  it('passes what Linux checks before it believes in a 16550A', () => {
    const { read, write } = start()
    write(IER, 0)
    expect(read(IER) & 0x0f).toBe(0)
    write(IER, 0x0f)
    expect(read(IER) & 0x0f).toBe(0x0f)
    write(IER, 0xff)
    expect(read(IER)).toBe(0x0f) // no UART unit enable bit: not an XScale
    write(IER, 0)
    write(SCR, 0xa5)
    expect(read(SCR)).toBe(0xa5)
    write(MCR, 0x1a) // loop, OUT2, RTS
    expect(read(MSR) & 0xf0).toBe(0x90) // DCD, CTS
    write(MCR, 0)
    write(IIR, 1)
    expect(read(IIR) >> 6).toBe(3)
    write(LCR, 0xbf)
    expect(read(IIR)).not.toBe(0) // no EFR
    write(LCR, 0x80)
    write(IIR, 0x21)
    expect(read(IIR) >> 5).not.toBe(7) // no 64-byte FIFO
    write(LCR, 0)
  })

  it('gives the transmit interrupt again each time it is enabled (no UART_BUG_THRE, no UART_BUG_TXEN)', () => {
    const { read, write } = start()
    write(IIR, 1)
    write(IER, 2)
    expect(read(IIR) & 0x0f).toBe(2)
    expect(read(IIR) & 0x0f).toBe(1)
    write(IER, 0)
    write(IER, 2)
    expect(read(IIR) & 0x0f).toBe(2)
    write(IER, 2) // still enabled: nothing new
    expect(read(IIR) & 0x0f).toBe(1)
    write(DATA, 0x41)
    expect(read(IIR) & 0x0f).toBe(2)
    expect(read(LSR)).toBe(0x60)
  })

  it('sends to the console and keeps the divisor apart', () => {
    const { console, read, write } = start()
    write(LCR, 0x83)
    write(DATA, 1)
    write(IER, 0)
    expect([read(DATA), read(IER)]).toEqual([1, 0])
    write(LCR, 0x03)
    for (const byte of new TextEncoder().encode('hé\n')) write(DATA, byte)
    expect(console.output).toBe('hé\n')
    expect(read(IER)).toBe(0)
  })

  it.each([
    { fcr: 0x00, typed: 'a', iir: 0x04, why: 'no FIFO' },
    { fcr: 0x01, typed: 'a', iir: 0xc4, why: 'trigger level 1' },
    { fcr: 0x81, typed: 'abc', iir: 0xcc, why: 'below the trigger level: time-out' },
    { fcr: 0x81, typed: 'abcdefgh', iir: 0xc4, why: 'at the trigger level' },
  ])('identifies input: $why', ({ fcr, typed, iir }) => {
    const { console, line, read, write } = start()
    write(IIR, fcr)
    write(MCR, 0x0b)
    write(IER, 1)
    console.type(typed)
    expect(line.raised).toBe(true)
    expect(read(IIR)).toBe(iir)
    let text = ''
    while (read(LSR) & 1) text += String.fromCharCode(read(DATA))
    expect(text).toBe(typed)
    expect(line.raised).toBe(false)
  })

  it('holds back what the FIFO has no room for, and loses nothing', () => {
    const { console, read, write } = start()
    write(IIR, 1)
    const typed = 'x'.repeat(10000) + 'end'
    console.type(typed)
    let text = ''
    while (read(LSR) & 1) text += String.fromCharCode(read(DATA))
    expect(text).toBe(typed)
  })

  it('interrupts only with OUT2 set', () => {
    const { line, write } = start()
    write(IER, 2)
    expect(line.raised).toBe(false)
    write(MCR, 0x08)
    expect(line.raised).toBe(true)
    write(MCR, 0)
    expect(line.raised).toBe(false)
  })

  it('loops back data, overruns, and reports changes of modem lines', () => {
    const { console, read, write } = start()
    write(MCR, 0x10)
    read(MSR)
    write(DATA, 1)
    write(DATA, 2)
    expect(read(LSR)).toBe(0x63) // data, overrun, empty
    expect(read(DATA)).toBe(1)
    expect(console.output).toBe('')
    write(MCR, 0x13)
    expect(read(MSR)).toBe(0x33)
    expect(read(MSR)).toBe(0x30)
  })

  it('takes wide accesses apart', () => {
    const { read, bench } = start()
    bench.writePort(SCR, 0xbbaa, 2)
    expect(read(SCR)).toBe(0xaa)
    expect(bench.readPort(LCR, 4)).toBe(0xb0_60_00_00 + 0)
  })

  it('saves and restores', () => {
    const first = start()
    first.write(IIR, 1)
    first.write(MCR, 8)
    first.write(IER, 1)
    first.console.type('0123456789abcdefghij')
    const second = start()
    second.uart.restore(structuredClone(first.uart.save()))
    expect(second.line.raised).toBe(true)
    let text = ''
    while (second.read(LSR) & 1) text += String.fromCharCode(second.read(DATA))
    expect(text).toBe('0123456789abcdefghij')
  })
})
