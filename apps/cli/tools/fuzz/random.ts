/** xorshift32: the same on every run and machine. */

export interface Random {
  /** 32 bits. */
  (): number
  below(limit: number): number
  of<T>(items: readonly T[]): T
  chance(oneIn: number): boolean
}

export function createRandom(seed: number): Random {
  let state = Math.imul(seed + 1, 0x9e37_79b9) >>> 0 || 1
  const next = (): number => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>>= 0)
  }
  return Object.assign(next, {
    below: (limit: number) => next() % limit,
    of: <T>(items: readonly T[]): T => items[next() % items.length]!,
    chance: (oneIn: number) => next() % oneIn === 0,
  })
}
