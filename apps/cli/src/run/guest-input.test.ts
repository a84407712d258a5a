import { describe, expect, it } from 'vitest'
import { GuestInput } from './guest-input.ts'
import type { Announced } from './guest-input.ts'

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
const text = (pieces: readonly Uint8Array[]): string => pieces.map((piece) => new TextDecoder().decode(piece)).join('')
const BEGIN = '\x1b_nonroot:begin\x1b\\'

/** What the guest gets and what is shown of what it writes. */
function play(...steps: ((input: GuestInput, write: (output: string) => void) => void)[]) {
  const [got, shown]: Uint8Array[][] = [[], []]
  const input = new GuestInput((piece) => void got!.push(piece))
  const write = (output: string): void => input.watch(bytes(output), (piece) => void shown!.push(piece.slice()))
  const states = steps.map((step) => (step(input, write), text(got!)))
  return { got: text(got!), states, shown: text(shown!) }
}
const add = (typed: string) => (input: GuestInput) => input.add(bytes(typed))
const start = (announced: Announced) => (input: GuestInput) => input.start(announced)
const end = (input: GuestInput): void => input.end()
const write = (output: string) => (_: GuestInput, writes: (output: string) => void) => writes(output)
const byByte = (output: string) => (_: GuestInput, writes: (output: string) => void) => [...output].forEach(writes)

describe('input of a guest', () => {
  it('waits for the machine where nothing is announced, and has no end', () => {
    const { states } = play(add('a'), start(undefined), add('b'), end)
    expect(states).toEqual(['', 'a', 'ab', 'ab'])
  })

  it.each([write, byByte])('waits for a command, whose mark is shown', (writes) => {
    const { states, shown } = play(add('a'), start('command'), end, writes(`x${BEGIN}y`))
    expect(states).toEqual(['', '', '', 'a\x04'])
    expect(shown).toBe(`x${BEGIN}y`)
  })

  it.each([write, byByte])('waits for a shell, whose mark is not shown', (writes) => {
    const { states, shown } = play(start('shell'), add('a'), writes(`x\x1b_non\x1b${BEGIN}y`), add('b'), end)
    expect(states).toEqual(['', '', 'a', 'ab', 'ab\x04'])
    expect(shown).toBe('x\x1b_non\x1by')
  })

  it.each([write, byByte])(
    'ends again at every prompt of a shell: what came in between may have been lost',
    (writes) => {
      const { states } = play(
        start('shell'),
        add('a\n'),
        writes(`${BEGIN}root@nonroot:~# `),
        end,
        writes('a\r\n/ # \r\nroot@nonroot:~/my folder# '),
        writes('x'),
      )
      expect(states).toEqual(['', '', 'a\n', 'a\n\x04', 'a\n\x04\x04', 'a\n\x04\x04'])
    },
  )

  it('of a command ends once', () => {
    const { got } = play(start('command'), write(BEGIN), end, write('root@nonroot:~# '))
    expect(got).toBe('\x04')
  })
})
