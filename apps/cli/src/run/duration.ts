/** Durations as people write them: `90`, `90s`, `1.5m`, `2h`, `250ms`. */

import { NonrootError } from '@nonroot/contracts'

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }
/** Longer ones overflow the timers of Node. */
const MOST = 2 ** 31 - 1

/** Milliseconds. Without a unit: seconds. */
export function parseDuration(text: string, option: string): number {
  const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text.trim())
  const ms = match ? Number(match[1]) * UNITS[match[2] ?? 's']! : NaN
  if (ms > 0 && ms <= MOST) return ms
  throw new NonrootError({
    code: 'usage',
    message: `${option}: "${text}" is not a duration`,
    thing: option,
    value: text,
    remedy: 'write it as 90, 90s, 1.5m or 250ms; at most 24 days',
  })
}
