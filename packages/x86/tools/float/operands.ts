/** Random and adversarial operands: the edges of every format, and pairs that nearly cancel, nearly tie, nearly overflow. */

/** xorshift128: small, seeded, good enough to wander. */
export class Random {
  private a: number
  private b = 0x9e3779b9
  private c = 0x243f6a88
  private d = 0xb7e15162

  constructor(seed: number) {
    this.a = seed | 0 || 1
    for (let round = 0; round < 16; round++) this.u32()
  }

  u32(): number {
    let t = this.d
    const s = this.a
    this.d = this.c
    this.c = this.b
    this.b = s
    t ^= t << 11
    t ^= t >>> 8
    this.a = t ^ s ^ (s >>> 19)
    return this.a >>> 0
  }

  below(limit: number): number {
    return this.u32() % limit
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)] as T
  }
}

/** 64 bits in two words: random, runs of equal bits, few bits, or close to the halfway points of the narrower formats. */
function pattern(random: Random, into: Uint32Array, at: number): void {
  let low = random.u32()
  let high = random.u32()
  const kind = random.below(10)
  if (kind >= 4) {
    low = high = 0
    const bits = kind < 7 ? 2 : 3
    for (let index = 0; index < bits; index++) {
      const bit = random.below(64)
      if (bit < 32) low ^= kind & 1 ? -1 << bit : 1 << bit
      else high ^= kind & 1 ? -1 << (bit - 32) : 1 << (bit - 32)
      if (kind & 1 && bit < 32) high = ~high
    }
    if (random.below(4) === 0) {
      low = ~low
      high = ~high
    }
    // Around half a unit of single and double precision.
    if (kind === 9) {
      high = random.u32()
      if (random.below(2)) {
        high = (high & ~0xff) | random.pick([0x7f, 0x80, 0x80, 0x00, 0xff])
        low = random.pick([0, 1, 0xffffffff, 0x80000000])
      } else low = (random.u32() & ~0x7ff) | random.pick([0x3ff, 0x400, 0x401, 0, 0x7ff, 0x200, 1])
    }
  }
  into[at] = low
  into[at + 1] = high
}

const SPECIAL_EXPONENTS_80 = [
  0, 0, 1, 2, 0x7ffe, 0x7ffd, 0x7fff, 0x3fff, 0x3ffe, 0x403e, 0x401e, 0x3f81, 0x3f80, 0x3c01, 0x3c00, 0x43fe, 0x407e,
]

export function f80(random: Random, into: Uint32Array, at: number): void {
  pattern(random, into, at)
  const kind = random.below(16)
  let exponent: number
  if (kind < 5) exponent = random.u32() & 0x7fff
  else if (kind < 11) exponent = 0x3fff - 70 + random.below(140)
  else if (kind < 12) exponent = random.below(140)
  else if (kind < 13) exponent = 0x7fff - random.below(80)
  else exponent = (random.pick(SPECIAL_EXPONENTS_80) + (random.below(4) ? 0 : random.below(70) - 35)) & 0x7fff
  let high = into[at + 1] as number
  // Mostly in canonical form.
  if (random.below(30)) high = exponent === 0 ? (random.below(8) ? high & 0x7fffffff : high) : high | 0x80000000
  if ((exponent === 0x7fff || exponent === 0) && random.below(2)) {
    into[at] = 0
    high = exponent === 0 ? 0 : 0x80000000
  }
  into[at + 1] = high
  into[at + 2] = exponent | ((random.u32() & 1) << 15)
  into[at + 3] = 0
}

export function f64(random: Random, into: Uint32Array, at: number): void {
  pattern(random, into, at)
  const kind = random.below(16)
  let exponent: number
  if (kind < 5) exponent = random.u32() & 0x7ff
  else if (kind < 11) exponent = 0x3ff - 60 + random.below(120)
  else
    exponent = random.pick([0, 0, 0, 1, 2, 0x7fe, 0x7fd, 0x7ff, 0x7ff, 0x381, 0x380, 0x36a, 0x47e, 0x47f, 0x41e, 0x43e])
  let high = (into[at + 1] as number) & 0xfffff
  if ((exponent === 0x7ff || exponent === 0) && random.below(2)) into[at] = high = 0
  into[at + 1] = high | (exponent << 20) | ((random.u32() & 1) << 31)
}

export function f32(random: Random, into: Uint32Array, at: number): void {
  pattern(random, into, at)
  const kind = random.below(16)
  let exponent: number
  if (kind < 5) exponent = random.u32() & 0xff
  else if (kind < 11) exponent = 0x7f - 28 + random.below(56)
  else exponent = random.pick([0, 0, 0, 1, 2, 0xfe, 0xfd, 0xff, 0xff, 0x9e, 0xbe])
  let fraction = (into[at] as number) & 0x7fffff
  if ((exponent === 0xff || exponent === 0) && random.below(2)) fraction = 0
  into[at] = fraction | (exponent << 23) | ((random.u32() & 1) << 31)
}

export function integer(random: Random, into: Uint32Array, at: number): void {
  pattern(random, into, at)
  if (random.below(2)) {
    const shift = random.below(32)
    const value = random.u32()
    into[at] = value >>> shift
    into[at + 1] = random.below(2) ? 0 : -1
  }
}

export function bcd(random: Random, into: Uint32Array, at: number): void {
  for (let word = 0; word < 3; word++) {
    let digits = 0
    for (let digit = 0; digit < 8; digit++) digits = (digits << 4) | random.below(10)
    into[at + word] = random.below(4) ? digits : 0
  }
  into[at + 2] = ((into[at + 2] as number) & 0xff) | ((random.u32() & 1) << 15)
}

/** Makes the second operand of a pair close to the first: equal, opposite, next to it, or within reach of its exponent. */
export function near80(random: Random, words: Uint32Array, first: number, second: number): void {
  const kind = random.below(6)
  if (kind === 0) {
    words[second] = words[first] as number
    words[second + 1] = words[first + 1] as number
  } else if (kind === 1) {
    words[second] = (words[first] as number) + random.below(5) - 2
    words[second + 1] = words[first + 1] as number
  }
  const exponent = ((words[first + 2] as number) & 0x7fff) + (kind < 2 ? random.below(3) - 1 : random.below(136) - 68)
  words[second + 2] = (Math.min(0x7fff, Math.max(0, exponent)) & 0x7fff) | ((random.u32() & 1) << 15)
  if (words[second + 2] as number & 0x7fff) words[second + 1] = (words[second + 1] as number) | 0x80000000
}

export function near64(random: Random, words: Uint32Array, first: number, second: number): void {
  const high = words[first + 1] as number
  const exponent = Math.min(0x7ff, Math.max(0, ((high >>> 20) & 0x7ff) + random.below(112) - 56))
  if (random.below(3) === 0) {
    words[second] = (words[first] as number) + random.below(5) - 2
    words[second + 1] = high ^ ((random.u32() & 1) << 31)
  } else words[second + 1] = ((words[second + 1] as number) & 0x800fffff) | (exponent << 20)
}

export function near32(random: Random, words: Uint32Array, first: number, second: number): void {
  const bits = words[first] as number
  const exponent = Math.min(0xff, Math.max(0, ((bits >>> 23) & 0xff) + random.below(52) - 26))
  if (random.below(3) === 0) words[second] = ((bits + random.below(5) - 2) & 0x7fffffff) | ((random.u32() & 1) << 31)
  else words[second] = ((words[second] as number) & 0x807fffff) | (exponent << 23)
}
