/** What a run leaves in the cache folder of the code that it found hot. */

import { readFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { folderWith, spawnCli } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

/** MOV ECX, 10000000; loop: ADD EAX, ECX; DEC ECX; JNZ loop */
const LOOP = [0xb9, 0x80, 0x96, 0x98, 0, 0x01, 0xc8, 0x49, 0x75, 0xfb, ...Code.exit(0)]

it('is a file of hashes, to which the same run adds nothing', { timeout: 60_000 }, async () => {
  const { folder, remove } = await folderWith({})
  try {
    const [kernel, cache] = [join(folder, 'loop.elf'), join(folder, 'cache')]
    await writeFile(kernel, multibootGuest(LOOP))
    const run = async (): Promise<Buffer> => {
      expect(await spawnCli(['run', '--kernel', kernel], { env: { NONROOT_CACHE: cache } })).toMatchObject({
        status: 0,
      })
      return readFileSync(join(cache, 'hot-code'))
    }
    const first = await run()
    expect(first.length).toBe(4)
    expect(await run()).toEqual(first)
  } finally {
    remove()
  }
})
