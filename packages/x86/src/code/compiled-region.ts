/** What is to be known of a compiled region to put it in a block's place. Plain data. */

export interface CompiledRegion {
  /** The bytes it was made from, as [start, end) offsets in the page. */
  readonly extents: readonly { readonly start: number; readonly end: number }[]
  /** Offsets that it leaves for, in the order of its records of ways out. */
  readonly waysOut: readonly number[]
  readonly usesTargets: boolean
  /** Guest instructions in it. */
  readonly instructions: number
}
