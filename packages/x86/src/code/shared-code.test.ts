/** Code that one processor runs and another one writes. */
import { describe, expect, it } from 'vitest'
import { RAX, S } from '../state/layout.ts'
import type { BareMetal } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'

/** Each has its own program; both have the function. */
const [PROGRAM, OTHER, FUNCTION] = [0x8000, 0xa000, 0x22_0000]
const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)
/** mov eax, value; ret */
const returns = (value: number): number[] => [0xb8, ...u32(value), 0xc3]
/** mov eax, FUNCTION; call rax */
const CALL = [0xb8, ...u32(FUNCTION), 0xff, 0xd0]
/** mov byte ptr [address], value */
const store = (address: number, value: number): number[] => [0xc6, 0x04, 0x25, ...u32(address), value]
const UD2 = [0x0f, 0x0b]

function runAt(machine: BareMetal, at: number, code: readonly number[]): void {
  machine.write(at, [...code, ...UD2])
  machine.core.set64(S.rip, BigInt(at))
  machine.go()
}

describe.each(TIERS)('%s', (tier) => {
  function pair() {
    const one = machineOf(tier)
    one.enter('long', 0)
    const other = machineOf(tier, one.memory)
    other.enter('long', 0)
    one.write(FUNCTION, returns(1))
    const resultOf = (machine: BareMetal, at: number): bigint => {
      runAt(machine, at, CALL)
      return machine.register(RAX)
    }
    return {
      one,
      result: () => resultOf(one, PROGRAM),
      otherResult: () => resultOf(other, OTHER),
      write: (code: readonly number[]) => runAt(other, OTHER, code),
      holders: () => one.memory.codeHolders[((16 << 20) + FUNCTION) >>> 12],
    }
  }

  it.each([
    ['was not written before', [0x90]],
    ['was written while it had none', store(FUNCTION + 0x800, 1)],
  ])('is not what it was, on a page that %s', (_what, before) => {
    const { result, write } = pair()
    write(before)
    for (let value = 2; value < 60; value++) {
      expect(result()).toBe(BigInt(value - 1))
      write(store(FUNCTION + 1, value))
    }
    expect(result()).toBe(59n)
  })
  it.each<[what: string, code: number[], result: bigint]>([
    // mov edi; mov eax; mov ecx, 1; rep stosb
    ['a repeated string', [0xbf, ...u32(FUNCTION + 1), 0xb8, ...u32(7), 0xb9, ...u32(1), 0xf3, 0xaa], 7n],
    // mov dword ptr
    ['a word across pages', [0xc7, 0x04, 0x25, ...u32(FUNCTION - 1), ...u32(0x0009_b800)], 9n],
    // mov eax, 2; lock xadd byte ptr, al
    ['a locked instruction', [0xb8, ...u32(2), 0xf0, 0x0f, 0xc0, 0x04, 0x25, ...u32(FUNCTION + 1)], 3n],
  ])('is overwritten by %s', (_what, code, expected) => {
    const { result, write } = pair()
    write(store(FUNCTION + 0x800, 1))
    expect(result()).toBe(1n)
    write(code)
    expect(result()).toBe(expected)
  })
  it('is given up where its page is written again and again', () => {
    const { result, write, holders } = pair()
    result()
    expect(holders()).toBe(1)
    // mov ecx, 100; the store; loop
    write([0xb9, ...u32(100), ...store(FUNCTION + 1, 5), 0xe2, 0xf6])
    expect([holders(), result()]).toEqual([0, 5n])
  })
  it('is that of both, and overwritten for both', () => {
    const { one, result, otherResult, holders } = pair()
    expect([otherResult(), result(), holders()]).toEqual([1n, 1n, 2])
    one.write(FUNCTION, returns(3))
    expect([otherResult(), result()]).toEqual([3n, 3n])
  })
})
