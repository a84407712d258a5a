/** What is needed to install a compiled region in place of a block. Plain data. */

export interface CompiledRegion {
  /** The bytes it was compiled from, as [start, end) offsets in the page. */
  readonly extents: readonly { readonly start: number; readonly end: number }[]
  /** Offsets at which it exits, in the order of its exit records. */
  readonly exits: readonly number[]
  readonly usesTargets: boolean
  /** Guest instructions in it. */
  readonly instructions: number
}
