/** Random code that reaches every opcode map often: prefixes, an opcode, random bytes after it. Same seed, same code. */

/** Marsaglia's xorshift32. */
export function xorshift(seed: number): () => number {
  let state = seed | 0 || 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const PREFIXES = [0x66, 0x67, 0xf2, 0xf3, 0xf0, 0x2e, 0x64, 0x48, 0x41, 0x44]
const ESCAPES = [[], [0x0f], [0x0f, 0x38], [0x0f, 0x3a]] as const
const TAIL = 8

export function randomCode(instructions: number, seed: number): Buffer {
  const random = xorshift(seed)
  const below = (bound: number) => random() % bound
  const bytes: number[] = []
  for (let n = 0; n < instructions; n++) {
    for (let left = below(3); left > 0; left--) bytes.push(PREFIXES[below(PREFIXES.length)] ?? 0)
    bytes.push(...(ESCAPES[below(ESCAPES.length)] ?? []))
    for (let left = TAIL; left > 0; left--) bytes.push(below(256))
  }
  return Buffer.from(bytes)
}
