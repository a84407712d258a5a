/** The guest of the mechanisms: Debian's kernel, and an initramfs of busybox, guestbench and a short /init. Kept in the cache. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'
import { debianImage, readCpio, Tree, writeCpio } from '@nonroot/image'
import { nodeImageHost } from '../apps/cli/src/image-host.ts'
import { cacheFolder } from '../apps/cli/src/run/boot-plan.ts'
import type { Guest } from './packaged-guest.ts'

export interface BenchGuest extends Guest {
  /** The same program, to be run here for its checksums. */
  readonly guestbench: string
}

// The kernel hands `tests=a,b` of its command line to init as an environment variable.
const INIT = `#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
echo "GUEST-INIT uptime $(cat /proc/uptime)"
guestbench $(echo $tests | tr , ' ')
poweroff -f
`
export const GUESTBENCH_SOURCE = fileURLToPath(new URL('guestbench.c', import.meta.url))

/** Builds what is not there. Throws with what to do where a tool is missing. */
export async function benchGuest(say: (text: string) => void): Promise<BenchGuest> {
  const cache = cacheFolder()
  const image = await debianImage(nodeImageHost(), { cacheFolder: cache })
  const source = await readFile(GUESTBENCH_SOURCE)
  const key = createHash('sha256').update(source).update(INIT).update(image.release).digest('hex').slice(0, 12)
  const folder = join(cache, 'bench', key)
  const guest = { kernel: image.kernel, initrd: join(folder, 'initrd.gz'), guestbench: join(folder, 'guestbench') }
  if (existsSync(guest.initrd)) return guest
  say(`building the guest in ${folder}`)
  await mkdir(folder, { recursive: true })
  try {
    execFileSync('gcc', ['-O2', '-static', '-o', guest.guestbench, GUESTBENCH_SOURCE], {
      stdio: ['ignore', 'ignore', 'inherit'],
    })
  } catch (error) {
    throw new Error('guestbench did not compile: gcc with a static libc is needed (Debian: gcc, libc6-dev)', {
      cause: error,
    })
  }
  const tree = new Tree()
  for (const name of ['dev', 'proc', 'sys']) tree.directory(name)
  tree.characterDevice('dev/console', 5, 1)
  tree.file('bin/busybox', await busyboxOf(image.initrd), 0o755)
  tree.file('bin/guestbench', await readFile(guest.guestbench), 0o755)
  tree.file('init', INIT, 0o755)
  // Last, and by renaming: only a whole guest is ever found.
  const part = `${guest.initrd}.${process.pid}.part`
  await writeFile(part, gzipSync(writeCpio(tree), { level: 1 }))
  await rename(part, guest.initrd)
  return guest
}

async function busyboxOf(initrd: string): Promise<Uint8Array<ArrayBuffer>> {
  const entry = readCpio(new Uint8Array(await readFile(initrd))).find(({ path }) => path === 'usr/bin/busybox')
  if (!entry) throw new Error(`${initrd} holds no usr/bin/busybox`)
  return entry.data as Uint8Array<ArrayBuffer>
}
