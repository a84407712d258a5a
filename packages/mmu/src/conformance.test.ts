import { testPagingStrategy } from '@nonroot/testkit'
import { it } from 'vitest'
import { createEptPaging, createShadowPaging } from './index.ts'

testPagingStrategy('ept', (context) => createEptPaging({}, context), it, {
  mapsRegisters: ['legacy32', 'pae', 'fourLevel'],
})
// Entries of four bytes do not reach the host's bus.
const mapsRegisters = ['pae', 'fourLevel'] as const
testPagingStrategy('shadow', (context) => createShadowPaging({}, context), it, { mapsRegisters })
testPagingStrategy('shadow with few tables', (context) => createShadowPaging({ maxTables: 12 }, context), it, {
  steps: 1000,
  mapsRegisters,
})
