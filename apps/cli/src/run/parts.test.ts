/** The small parts between terminal and guest. */

import { describe, expect, it, vi } from 'vitest'
import { parseDuration } from './duration.ts'
import { EscapeKeys } from './escape-keys.ts'
import { Marks } from './marks.ts'
import { Monitor } from './monitor.ts'
import { PanicWatch } from './panic-watch.ts'
import { splitCommand } from './split-command.ts'
import { startText, startTimes } from './start-times.ts'
import { statsJson, statsText } from './stats.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (of: Uint8Array): string => new TextDecoder().decode(of)

describe('escape keys', () => {
  it.each([
    { typed: ['abc'], guest: 'abc', commands: [] },
    { typed: ['a\x01xb'], guest: 'ab', commands: ['quit'] },
    { typed: ['\x01', 'c'], guest: '', commands: ['monitor'] },
    { typed: ['\x01\x01', '\x01a'], guest: '\x01\x01', commands: [] },
    { typed: ['\x01z', '\x01X'], guest: '\x01z', commands: ['quit'] },
    { typed: ['\x01h\x01?'], guest: '', commands: ['help', 'help'] },
  ])('$typed', ({ typed, guest, commands }) => {
    const seen: string[] = []
    const keys = new EscapeKeys((command) => seen.push(command))
    expect(typed.map((one) => text(keys.filter(bytes(one)))).join('')).toBe(guest)
    expect(seen).toEqual(commands)
  })
})

describe('marks', () => {
  const console = 'boot\n\x1b_nonroot:begin\x1b\\out \x1b[1mbold\x1b[0m\x1b_other\x1b\\\x1b_nonroot:status=7\x1b\\after'
  const expected = 'out \x1b[1mbold\x1b[0m\x1b_other\x1b\\'
  it.each([1, 2, 3, 5, 7, 1000])('in pieces of %d', (size) => {
    let shown = ''
    const marks = new Marks((one) => void (shown += text(one)))
    expect(marks.begun).toBe(false)
    const all = bytes(console)
    for (let at = 0; at < all.length; at += size) marks.feed(all.subarray(at, at + size))
    expect(shown).toBe(expected)
    expect(marks.status).toBe(7)
    expect(marks.tail).toBe('boot\nafter')
  })

  it('show what looks like one and is none', () => {
    let shown = ''
    const marks = new Marks((one) => void (shown += text(one)))
    const noise = `\x1b\x1b_x${'y'.repeat(100)}\x1b_nonroot:begin\x1b\\`
    marks.feed(bytes(`\x1b_nonroot:begin\x1b\\${noise}z`))
    expect(shown).toBe(`\x1b\x1b_x${'y'.repeat(100)}z`)
    expect(marks.status).toBeUndefined()
  })
})

describe('panic watch', () => {
  it.each([
    [
      '[    1.5] Kernel panic - not syncing: VFS\r\n[    1.612345] ---[ end Kernel panic - not syncing: VFS: no root ]---\r\n',
      'Kernel panic - not syncing: VFS: no root',
    ],
    ['echo "---[ end Kernel panic - not syncing: x ]---"\n', undefined],
    ['---[ end Kernel panic - not syncing: x ]---', undefined],
  ])('%j', (console, message) => {
    const seen: string[] = []
    const watch = new PanicWatch((one) => seen.push(one))
    for (const byte of bytes(console)) watch.feed(Uint8Array.of(byte))
    expect(seen[0]).toBe(message)
  })
})

describe('durations', () => {
  it.each([
    ['90', 90_000],
    ['1.5m', 90_000],
    ['250ms', 250],
    ['2h', 7_200_000],
  ])('%s', (written, ms) => expect(parseDuration(written, '--timeout')).toBe(ms))
  it.each(['', '0', '-1', '5 d', 'soon', '1e3', '99999h'])('refuses %j', (written) =>
    expect(() => parseDuration(written, '--timeout')).toThrow('is not a duration'),
  )
})

describe('the command after --', () => {
  it('is the guest’s', () => {
    expect(splitCommand(['run', 'a.yaml', '--', 'sh', '-c', '--', 'x'])).toEqual({
      ours: ['run', 'a.yaml'],
      command: ['sh', '-c', '--', 'x'],
    })
    expect(splitCommand(['config', 'check', '--', 'x']).command).toBeUndefined()
    expect(splitCommand(['run']).command).toBeUndefined()
  })
})

describe('statistics', () => {
  const samples = [
    { name: 'vcpu0.exits.cpuid', kind: 'counter', unit: 'count', help: '', value: 30 },
    { name: 'vcpu0.exits.cpuidNs', kind: 'counter', unit: 'ns', help: '', value: 6000 },
    { name: 'vcpu0.exits.hlt', kind: 'histogram', unit: 'ns', help: '', value: 1e6, count: 10, max: 5e5 },
    { name: 'device.uart0.bytesOut', kind: 'counter', unit: 'bytes', help: 'bytes sent', value: 1234 },
    { name: 'vm.idle', kind: 'counter', unit: 'count', help: 'nothing', value: 0 },
  ] as const
  it('as a table', () => {
    const table = statsText(samples)
    expect(table).toMatch(/cpuid +30 +75\.0 % +6 µs +200 ns\n/)
    expect(table).toMatch(/hlt +10 +25\.0 % +1 ms +100 µs\n/)
    expect(table).toMatch(/device\.uart0\n {2}bytesOut +1,234 B {3}bytes sent\n/)
    expect(table).not.toContain('vm')
  })
  it('as JSON', () =>
    expect(statsJson(samples).exits).toEqual([
      { reason: 'cpuid', count: 30, ns: 6000 },
      { reason: 'hlt', count: 10, ns: 1e6 },
    ]))
})

describe('the way to the first instruction', () => {
  const own = { began: 1000, node: 1040, program: 1090 }
  const marks = { thread: 1080, stack: 1150.25, machine: 1160, guest: 1162.5 }
  it.each([
    {
      name: 'in parts, which add up; where threads overlap, what was done last counts',
      marks,
      parts: { node: 40, program: 50, thread: 0, stack: 60.25, image: 0, machine: 9.75, guest: 2.5 },
      ms: 162.5,
    },
    { name: 'to what another thread did first', marks: { guest: 1080 }, parts: { program: 50, guest: 0 }, ms: 90 },
  ])('$name', ({ marks: of, parts, ms }) => {
    const times = startTimes(of, own)!
    expect(times.startMs).toBe(ms)
    expect(times.startParts).toMatchObject(parts)
    expect(Object.values(times.startParts).reduce((sum, part) => sum + part, 0)).toBeCloseTo(ms)
  })
  it('is not told of a guest that never got there', () => expect(startTimes({ thread: 1080 }, own)).toBeUndefined())
  it('as a table', () => expect(startText(startTimes(marks, own)!)).toMatch(/^start +162\.5 ms .*\n {2}node +40\.0 ms/))
})

describe('the monitor', () => {
  const open = () => {
    let shown = ''
    const ports = {
      vm: {
        request: vi.fn(async (what: string) => (what === 'stats' ? [] : what === 'powerButton' ? false : undefined)),
      },
      print: (one: string) => void (shown += one),
      quit: vi.fn(),
      closed: vi.fn(),
    }
    const monitor = new Monitor(ports as never)
    monitor.toggle()
    const type = async (keys: string): Promise<string> => {
      shown = ''
      monitor.feed(bytes(keys))
      await new Promise((resolve) => setTimeout(resolve, 5))
      return shown
    }
    return { ports, monitor, type }
  }

  it('runs commands, by their beginnings too', async () => {
    const { ports, type, monitor } = open()
    expect(await type('paux\x7f\x7fuse\r')).toBe('paux\b \b\b \buse\n(nonroot) ')
    expect(ports.vm.request).toHaveBeenLastCalledWith('pause')
    await type('resu\r')
    expect(ports.vm.request).toHaveBeenLastCalledWith('resume')
    expect(await type('re\r')).toContain('there is no "re"')
    expect(await type('help\r')).toContain('power button')
    expect(await type('power\r')).toContain('does not listen')
    expect(await type('unplug\r')).toContain('there is no network card')
    expect(ports.vm.request).toHaveBeenLastCalledWith('plug', { on: false })
    expect(monitor.open).toBe(true)
    await type('continue\r')
    expect(monitor.open).toBe(false)
    expect(ports.closed).toHaveBeenCalledTimes(1)
  })

  it('quits', async () => {
    const { ports, type } = open()
    await type('quit\r')
    expect(ports.quit).toHaveBeenCalledTimes(1)
  })
})
