/** What a guest finds of a PC where no firmware has run, told by a guest that looks for it: guests/pc. */

import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'

const kernel = fileURLToPath(new URL('../../../../guests/pc/pc.elf', import.meta.url))
const FOUND = [
  'base memory',
  'EBDA',
  'COM1',
  'MP table',
  'MP table ends where it says',
  "MP table's timer on pin 2",
  "MP table's local APIC",
  'RSDT',
  'RTC periodic flag',
  'RTC alarm flag',
  'RTC update flag',
  'x87 errors by IRQ 13',
  'IGNNE#',
]

describe('a PC without firmware', { timeout: 120_000 }, () => {
  // x87 errors come 2,000 times: interpreted at first, then by compiled code.
  it.each(['ept', 'shadow'])('has what its guests look for: %s', async (strategy) => {
    const { status, out, err } = await spawnCli([
      'run',
      '--kernel',
      kernel,
      '--set',
      `stack.paging.strategy=${strategy}`,
    ])
    expect(out.trimEnd().split('\n')).toEqual([...FOUND.map((what) => `${what}: right`), '0 wrong'])
    expect([status, err]).toEqual([0, ''])
  })
})
