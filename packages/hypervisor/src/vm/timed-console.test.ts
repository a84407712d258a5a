import type { ConsoleBackend } from '@nonroot/contracts'
import { createTestConsole } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { DeterministicClock } from '../time/index.ts'
import { timedConsole } from './timed-console.ts'

function bench(more: Partial<ConsoleBackend> = {}) {
  const clock = new DeterministicClock()
  let arrived = 0
  let attached = 0
  const plain = createTestConsole()
  const backend = Object.assign(plain, {
    onInput: ((onInput) => (listener) => {
      attached++
      const off = onInput(listener)
      return () => (attached--, off())
    })(plain.onInput.bind(plain)) as ConsoleBackend['onInput'],
    ...more,
  })
  const console = timedConsole(backend, clock, () => arrived++)
  const heard: string[] = []
  const listen = (name: string) => console.onInput((bytes) => heard.push(`${name} ${new TextDecoder().decode(bytes)}`))
  const pass = (ns: number) => (clock.advanceInstructions(ns), clock.runExpired())
  return { clock, console, backend, heard, listen, pass, arrived: () => arrived, attached: () => attached }
}

describe('a console under a deterministic clock', () => {
  it('delivers at the next whole millisecond, all that came until then, in order', () => {
    const { backend, heard, listen, pass, arrived } = bench()
    listen('a')
    pass(300_000)
    backend.type('x')
    backend.type('y')
    expect(arrived()).toBe(1)
    pass(699_999)
    expect(heard).toEqual([])
    pass(1)
    expect(heard).toEqual(['a x', 'a y'])
    // At a whole millisecond: the next one.
    backend.type('z')
    expect(arrived()).toBe(2)
    pass(999_999)
    expect(heard.length).toBe(2)
    pass(1)
    expect(heard.at(-1)).toBe('a z')
  })

  it('keeps what was typed though its sender uses the bytes again', () => {
    let send: ((bytes: Uint8Array) => void) | undefined
    const { heard, listen, pass } = bench({ onInput: (listener) => ((send = listener), () => {}) })
    listen('a')
    const bytes = Uint8Array.of(0x61)
    send!(bytes)
    bytes[0] = 0x62
    pass(1_000_000)
    expect(heard).toEqual(['a a'])
  })

  it('listens while somebody listens', () => {
    const { backend, heard, listen, pass, attached } = bench()
    expect(attached()).toBe(0)
    const [a, b] = [listen('a'), listen('b')]
    expect(attached()).toBe(1)
    backend.type('x')
    pass(1_000_000)
    expect(heard).toEqual(['a x', 'b x'])
    a()
    expect(attached()).toBe(1)
    backend.type('y')
    pass(1_000_000)
    expect(heard.slice(2)).toEqual(['b y'])
    b()
    expect(attached()).toBe(0)
    listen('c')
    expect(attached()).toBe(1)
  })

  it('is the console in all else', async () => {
    const calls: unknown[] = []
    const off = () => {}
    const { console, backend } = bench({ onResize: (listener) => (calls.push(listener), off), drain: async () => void calls.push('drained') })
    console.write(new TextEncoder().encode('out'))
    expect(backend.output).toBe('out')
    expect(console.size()).toEqual(backend.size())
    const listener = () => {}
    expect(console.onResize(listener)).toBe(off)
    await console.drain!()
    expect(calls).toEqual([listener, 'drained'])
    expect(bench({ drain: undefined as never }).console.drain).toBeUndefined()
  })
})
