/** Nothing is compiled that the verifier objects to. */
import { verify } from '../../src/ir/verify.ts'
import type { Built } from '../../src/ir/function.ts'

/** Variables of regions that count on being zero at first. */
const ZEROED: ReadonlySet<string> = new Set(['lazyLeft', 'lazyRight', 'lazyResult', 'next', 'goal'])

export function verifyRegion({ root }: Built): void {
  const problems = verify(root, { params: 2, deadCode: true, mayBeUnset: ({ name }) => ZEROED.has(name) })
  if (problems.length) throw new Error(`a region is not well formed:\n  ${problems.slice(0, 5).join('\n  ')}`)
}
