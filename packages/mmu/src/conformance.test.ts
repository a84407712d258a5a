import { testPagingStrategy } from '@nonroot/testkit'
import { createEptPaging, createShadowPaging } from './index.ts'

testPagingStrategy('ept', (context) => createEptPaging({}, context))
testPagingStrategy('shadow', (context) => createShadowPaging({}, context))
testPagingStrategy('shadow with few tables', (context) => createShadowPaging({ maxTables: 12 }, context), {
  steps: 1000,
})
