import { testPagingStrategy } from '@nonroot/testkit'
import { it } from 'vitest'
import { createEptPaging, createShadowPaging } from './index.ts'

testPagingStrategy('ept', (context) => createEptPaging({}, context), it)
testPagingStrategy('shadow', (context) => createShadowPaging({}, context), it)
testPagingStrategy('shadow with few tables', (context) => createShadowPaging({ maxTables: 12 }, context), it, {
  steps: 1000,
})
