/** Whether something that is measured again and again stays within bounds. */
export interface Reading {
  readonly seconds: number
  /** Bytes of the process in memory. */
  readonly rss: number
  /** Bytes of decoded code. */
  readonly arena: number
  readonly regions: number
  /** Modules of compiled code that the garbage collector has not taken. */
  readonly modules: number
  readonly instructions: number
}

export interface Verdict {
  readonly what: string
  readonly before: number
  readonly after: number
  readonly bounded: boolean
}

/** What is warm in the second quarter grows no more than this up to the last. */
const ALLOWED = 1.15
/** Decoded code is only given back as a whole, when the cache of blocks is full (ProcessorOptions.codeCache): for hours it may grow, to there. */
const CODE_CACHE_MB = (128 << 20) / 1e6
/** Fewer readings say nothing. */
const LEAST = 12

const MEASURES = [
  { what: 'memory of the process (MB)', of: ({ rss }: Reading) => rss / 1e6, slack: 100, limit: 0 },
  { what: 'decoded code (MB)', of: ({ arena }: Reading) => arena / 1e6, slack: 8, limit: CODE_CACHE_MB },
  { what: 'regions', of: ({ regions }: Reading) => regions, slack: 500, limit: 0 },
  { what: 'modules', of: ({ modules }: Reading) => modules, slack: 100, limit: 0 },
] as const

/** The most of the last quarter against that of the second. Empty where there are too few readings. */
export function isBounded(readings: readonly Reading[]): Verdict[] {
  if (readings.length < LEAST) return []
  const quarter = Math.floor(readings.length / 4)
  return MEASURES.map(({ what, of, slack, limit }) => {
    const most = (from: number, to: number): number => Math.max(...readings.slice(from, to).map(of))
    const before = most(quarter, 2 * quarter)
    const after = most(readings.length - quarter, readings.length)
    return { what, before, after, bounded: after <= Math.max(limit, before * ALLOWED + slack) }
  })
}
