import { describe, expect, it } from 'vitest'
import { createBench } from './testing/bench.ts'

/** xorshift32: the same on every run. */
function createRandom(seed: number): () => number {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const RUNS = 60

describe('guests that run whatever bytes there are', () => {
  it.each([
    { mode: 'real mode', cr0: 0x10n, cs: 0x9b },
    { mode: 'protected mode, 32 bits', cr0: 0x11n, cs: 0xc09b },
  ])(
    '$mode: end in a neutral exit, never in an error of ours',
    ({ cr0, cs }) => {
      const reasons: Record<string, number> = {}
      const bench = createBench([])
      const { vcpu, guestMemory } = bench
      const code = new Uint8Array(0x4000)
      for (let run = 0; run < RUNS; run++) {
        const random = createRandom(0x9e37_79b9 ^ (run * 0x1234_5671))
        for (let i = 0; i < code.length; i++) code[i] = random() >>> 24
        // System instructions, ports and MSRs come up often enough to matter.
        for (let i = 0; i < code.length; i += 64)
          code.set([[0x0f, 0x30], [0x0f, 0x32], [0xef], [0xed], [0x0f, 0x22, 0xc0], [0x0f, 0xa2]][random() % 6]!, i)
        vcpu.reset('powerUp')
        guestMemory.writeBytes(0x1000, code)
        for (let vector = 0; vector < 32; vector++) guestMemory.writeU32(vector * 4, 0x1000 + (random() & 0x3fff))
        const limit = cr0 & 1n ? 0xffff_ffff : 0xffff
        const data = { selector: 0x10, base: 0n, limit, attributes: cr0 & 1n ? 0xc093 : 0x93 }
        vcpu.writeState({
          rip: 0x1000n,
          rsp: 0x8000n,
          cr0,
          cs: { selector: 8, base: 0n, limit, attributes: cs },
          ds: data,
          es: data,
          ss: data,
        })
        vcpu.writeState({
          rcx: BigInt(random()),
          rdx: BigInt(random()),
          rax: BigInt(random()),
          rsi: 0x2000n,
          rdi: 0x3000n,
        })
        const exit = vcpu.run(20_000)
        reasons[exit.reason] = (reasons[exit.reason] ?? 0) + 1
        if (exit.reason === 'failure') expect(exit.message).toMatch(/VM entry failed its check/)
      }
      expect(Object.values(reasons).reduce((sum, count) => sum + count, 0)).toBe(RUNS)
      expect(reasons['failure'] ?? 0).toBe(0)
    },
    60_000,
  )
})
