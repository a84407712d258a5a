/** The guest of the disk benchmark: Debian's generic kernel, its usual initramfs, and diskbench laid over it. Kept in the cache. */
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { DEBIAN_PARAMETERS, debianImage, fileOverlay, guestParameters } from '@nonroot/image'
import { nodeImageHost } from '../apps/cli/src/image-host.ts'
import { cacheFolder } from '../apps/cli/src/run/boot-plan.ts'

export interface DiskGuest {
  readonly kernel: string
  /** The ELF inside it: spares the guest the unpacking. */
  readonly vmlinux: string
  readonly initrd: string
  readonly cmdline: string
}

const SOURCE = fileURLToPath(new URL('diskbench.c', import.meta.url))
const PROGRAM = 'nonroot/diskbench'

/** Builds what is not there. The generic flavour: the cloud one has no driver for AHCI. */
export async function diskGuest(words: readonly number[], say: (text: string) => void): Promise<DiskGuest> {
  const cache = cacheFolder()
  const image = await debianImage(nodeImageHost(), { cacheFolder: cache, flavour: 'generic' })
  const source = await readFile(SOURCE)
  const key = createHash('sha256').update(source).update(image.initrd).digest('hex').slice(0, 12)
  const folder = join(cache, 'bench', `disk-${key}`)
  const initrd = join(folder, 'initrd')
  if (!existsSync(initrd)) {
    say(`building the guest in ${folder}`)
    await mkdir(folder, { recursive: true })
    const program = join(folder, 'diskbench')
    execFileSync('gcc', ['-O2', '-static', '-o', program, SOURCE], { stdio: ['ignore', 'ignore', 'inherit'] })
    const overlay = fileOverlay({ [PROGRAM]: await readFile(program) })
    const part = `${initrd}.${process.pid}.part`
    await writeFile(part, Buffer.concat([await readFile(image.initrd), overlay]))
    await rename(part, initrd)
  }
  const script = `echo GUEST-INIT; /${PROGRAM} $(ls /dev/sda /dev/vda /dev/nvme0n1 2>/dev/null) ${words.join(' ')}`
  // QEMU's timer is late for Linux's check of it on a busy machine, which ends in a panic.
  const { parameters } = guestParameters({ command: ['sh', '-c', script] })
  const cmdline = [...DEBIAN_PARAMETERS, 'no_timer_check', 'panic=-1', 'quiet', ...parameters].join(' ')
  return { kernel: image.kernel, vmlinux: image.vmlinux, initrd, cmdline }
}
