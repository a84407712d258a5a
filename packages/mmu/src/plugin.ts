/** What this package offers a stack. */

import { API_VERSION, definePaging, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { createDirectPaging } from './direct/strategy.ts'
import { createEptPaging } from './ept/strategy.ts'
import { createShadowPaging } from './shadow/strategy.ts'

export default definePlugin({
  name: '@nonroot/mmu',
  apiVersion: API_VERSION,
  strategies: [
    definePaging({
      name: 'ept',
      summary: 'Second-stage tables filled as the guest touches its memory; its own tables are its own affair',
      options: z.strictObject({
        largePages: z.boolean().optional().describe('map 2 MiB at once where frames lie together (default true)'),
      }),
      needs: ['secondStage'],
      create: createEptPaging,
    }),
    definePaging({
      name: 'shadow',
      summary: "Tables built from the guest's own and kept in step; needs no second stage",
      options: z.strictObject({
        maxTables: z.number().int().min(64).optional().describe('most shadow tables (frames) at a time'),
      }),
      needs: ['hardwareRoot'],
      create: createShadowPaging,
    }),
    definePaging({
      name: 'direct',
      summary: "The guest's own tables hold machine addresses; every change of them is asked for and validated",
      options: z.strictObject({}),
      needs: ['pvEntry', 'tableHypercalls'],
      gives: ['directPaging'],
      create: createDirectPaging,
    }),
  ],
})
