/** Grants as back ends in domain 0 use them: by reference and address in devices' memory, without a mapping. */

import type { GrantAccess } from '@nonroot/contracts'
import type { DomainFrames } from '../frames.ts'
import type { GrantUses } from './uses.ts'

const CONTROL = 0

export const controlAccess = (uses: GrantUses, frames: DomainFrames): GrantAccess => ({
  begin(reference, writable) {
    const frame = uses.begin(reference, CONTROL, writable)
    if (typeof frame !== 'number') return undefined
    const address = frames.addressOf(frame)
    if (address === undefined) uses.end(reference, writable)
    return address
  },
  end: (reference, writable) => uses.end(reference, writable),
})
