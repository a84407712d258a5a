/** What a configuration may say of the device. */

import { z } from 'zod'

/** `{ kind: acme-sensor, rate: 10 }` */
export const options = z.strictObject({
  rate: z.number().positive().max(1e6).default(10).meta({ description: 'counts a second' }),
})

export type Options = z.output<typeof options>
