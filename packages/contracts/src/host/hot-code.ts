/** What a host remembers of guest code from one run to the next. */

/**
 * Which code was worth compiling, by content: hashes of 32 bits, whose meaning is the processor's own. Only ever a hint. Hashes may be missing, or be
 * anybody's, which costs time and nothing else; so a host that cannot read or write remembers nothing, and says nothing.
 */
export interface HotCodeMemory {
  /** Those of earlier runs. */
  known(): Uint32Array
  /** Remembers more of them. */
  add(hashes: Uint32Array): void
}
