/** Hostile guests and hostile peers, some seeds of each. `npm run fuzz:assigned -- --minutes 10` runs as many as that takes. */

import { describe, expect, it } from 'vitest'
import { fuzzAssigned } from '../testing/assigned-fuzz.ts'
import { fuzzGuestIommu } from '../testing/guest-iommu-fuzz.ts'
import { fuzzClients, fuzzServer } from '../testing/vfio-user-fuzz.ts'

describe('hostile', () => {
  it.each([1, 2, 3])('guests change nothing that is not theirs: seed %i', async (seed) => {
    await fuzzAssigned(seed)
  })

  it.each([1, 2, 3])(
    'guests reach through their IOMMU what its tables say, and nothing else: seed %i',
    async (seed) => {
      const { compared, reached } = await fuzzGuestIommu(seed)
      expect(compared).toBeGreaterThan(400)
      expect(reached).toBeGreaterThan(10)
    },
  )

  it.each([1, 2, 3])('clients of vfio-user do not keep the next one from being served: seed %i', async (seed) => {
    expect((await fuzzClients(seed)).size).toBeGreaterThan(1)
  })

  it('servers of vfio-user change nothing that is not the guest’s', async () => {
    const results = []
    for (let seed = 1; seed <= 20; seed++) results.push(await fuzzServer(seed))
    expect(new Set(results)).toEqual(new Set(['accepted', 'refused']))
  })
})
