/** Random bytes that are the same in every run, for deterministic runs. Not for secrets. */

import type { EntropyBackend } from '@nonroot/contracts'

/** xoshiro128** by Blackman and Vigna, from a fixed seed. */
export function createSeededEntropy(seed = 0x6e6f_6e72): EntropyBackend {
  const state = Uint32Array.of(seed, seed ^ 0x9e37_79b9, ~seed, seed ^ 0x7f4a_7c15)
  const rotate = (value: number, by: number): number => (value << by) | (value >>> (32 - by))
  const next = (): number => {
    const result = Math.imul(rotate(Math.imul(state[1]!, 5), 7), 9) >>> 0
    const shifted = state[1]! << 9
    state[2]! ^= state[0]!
    state[3]! ^= state[1]!
    state[1]! ^= state[2]!
    state[0]! ^= state[3]!
    state[2]! ^= shifted
    state[3] = rotate(state[3]!, 11)
    return result
  }
  return {
    fill(into) {
      for (let at = 0, word = 0; at < into.length; at++, word >>>= 8) {
        if (at % 4 === 0) word = next()
        into[at] = word
      }
    },
  }
}
