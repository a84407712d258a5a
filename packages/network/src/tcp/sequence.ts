/** Sequence numbers: 32 bits that wrap. (RFC 9293, "Sequence Numbers") @hot */

export const isBefore = (left: number, right: number): boolean => ((left - right) | 0) < 0
export const isAtMost = (left: number, right: number): boolean => ((left - right) | 0) <= 0
export const advance = (sequence: number, bytes: number): number => (sequence + bytes) >>> 0
/** From `first` on to `last`: negative where `last` is before it. */
export const span = (first: number, last: number): number => (last - first) | 0
export const later = (left: number, right: number): number => (isBefore(left, right) ? right : left)
export const earlier = (left: number, right: number): number => (isBefore(left, right) ? left : right)
