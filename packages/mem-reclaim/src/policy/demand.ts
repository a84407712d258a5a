/** How much is taken of whom: by shares, and a tax on idle memory. (Waldspurger 2002, 5.2) */

/** A VM's claim to memory. In frames. */
export interface Claim {
  readonly residentFrames: number
  readonly minimumFrames: number
  readonly maximumFrames: number
  readonly shares: number
  /** 0 to 1. */
  readonly activePart: number
}

/** The smallest number of frames that is assigned at once. */
const LEAST_STEP = 16
const STEPS = 64

/** Shares per frame. An idle frame counts as `1 / (1 - idleTax)` active ones. Who pays least gives first. */
export function pricePerFrame({ shares, activePart }: Claim, frames: number, idleTax: number): number {
  const idleCost = 1 / (1 - idleTax)
  return shares / (frames * (activePart + idleCost * (1 - activePart)))
}

/**
 * Divides `wanted` frames among the VMs: what exceeds a maximum first, then step by step from the one with the lowest price. No VM goes below its
 * minimum: the sum is smaller than `wanted` if all have reached it.
 */
export function divide(claims: readonly Claim[], wanted: number, idleTax: number): number[] {
  const demands = claims.map(({ residentFrames, maximumFrames }) => Math.max(0, residentFrames - maximumFrames))
  const step = Math.max(LEAST_STEP, Math.ceil(wanted / STEPS))
  let left = wanted - demands.reduce((sum, demand) => sum + demand, 0)
  while (left > 0) {
    let [cheapest, lowest] = [-1, Infinity]
    for (const [index, claim] of claims.entries()) {
      const frames = claim.residentFrames - demands[index]!
      if (frames <= claim.minimumFrames) continue
      const price = pricePerFrame(claim, frames, idleTax)
      if (price < lowest) [cheapest, lowest] = [index, price]
    }
    if (cheapest < 0) break
    const { residentFrames, minimumFrames } = claims[cheapest]!
    const take = Math.min(step, left, residentFrames - demands[cheapest]! - minimumFrames)
    demands[cheapest]! += take
    left -= take
  }
  return demands
}
