/** What a run leaves in the cache folder of the code that it compiled. */

import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { folderWith, isBuiltTested, spawnCli } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

/** MOV ECX, 10000000; loop: ADD EAX, ECX; DEC ECX; JNZ loop */
const LOOP = [0xb9, 0x80, 0x96, 0x98, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb, ...Code.exit(0)]

// Sources that run as they are have no build.
it.runIf(isBuiltTested)(
  'is a file of its build, to which the same run adds nothing, and which may be damaged',
  { timeout: 60_000 },
  async () => {
    const { folder, remove } = await folderWith({})
    try {
      const [kernel, cache] = [join(folder, 'loop.elf'), join(folder, 'cache')]
      await writeFile(kernel, multibootGuest(LOOP))
      const run = async () => {
        const { status, err } = await spawnCli(['run', '--stats', 'json', '--kernel', kernel], {
          env: { NONROOT_CACHE: cache },
        })
        const [name, ...others] = readdirSync(join(cache, 'code'))
        expect([status, others]).toEqual([0, []])
        const file = join(cache, 'code', name!)
        const remembered = /"vcpu0\.tiers\.regionsRemembered"[^}]*?"value":"?(\d+)/.exec(err)?.[1]
        return { remembered: Number(remembered), file, bytes: readFileSync(file) }
      }
      const first = await run()
      expect(first.remembered).toBe(0)
      const second = await run()
      expect(second).toEqual({ ...first, remembered: 1 })
      writeFileSync(first.file, first.bytes.subarray(0, -1))
      expect((await run()).remembered).toBe(0)
      expect((await run()).remembered).toBe(1)
    } finally {
      remove()
    }
  },
)
