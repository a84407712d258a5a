/** `nonroot image`: makes guest images of distribution packages, and keeps them in a cache. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { debianImage, debianRootfs, FLAVOURS } from '@nonroot/image'
import type { Flavour, OnProgress } from '@nonroot/image'
import { nodeImageHost } from '../image-host.ts'
import { mirrorsOf } from '../image-mirrors.ts'
import type { MirrorOptions } from '../image-mirrors.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { sizeOption } from '../size-option.ts'
import { cacheFolder, progressText } from '../run/boot-plan.ts'

export interface ImageOptions extends MirrorOptions {
  readonly flavour?: string
  /** A whole Debian on a disk. */
  readonly rootfs?: boolean
  readonly size?: string
  readonly to?: string
  readonly include?: readonly string[]
  readonly modules?: readonly string[]
  readonly refresh?: boolean
  readonly json?: boolean
}

const usage = (option: string, value: string, message: string, remedy: string): NonrootError =>
  new NonrootError({ code: 'usage', message, thing: option, value, remedy })

/** Of a disk, where none is said: sparse, so that what is not used costs nothing. */
const ROOTFS_SIZE = '4 GiB'

export async function imageDebian(options: ImageOptions, io: CommandIo): Promise<number> {
  const { flavour = options.rootfs ? 'generic' : 'cloud', include, modules, refresh } = options
  if (!Object.hasOwn(FLAVOURS, flavour)) {
    throw usage('--flavour', flavour, `there is no flavour "${flavour}"`, `valid: ${Object.keys(FLAVOURS).join(', ')}`)
  }
  if (options.rootfs) return imageRootfs(flavour as Flavour, options, io)
  for (const option of ['size', 'to'] as const)
    if (options[option] !== undefined)
      throw usage(`--${option}`, options[option], `--${option} is for a disk`, 'say --rootfs, too')
  const mirrors = await mirrorsOf(options)
  const { tell, clear } = progressTo(io)
  const image = await debianImage(nodeImageHost(), {
    flavour: flavour as Flavour,
    cacheFolder: cacheFolder(),
    ...(include?.length ? { include } : {}),
    ...(modules?.length ? { modules } : {}),
    ...(mirrors ? { mirrors } : {}),
    ...(refresh ? { refresh } : {}),
    onProgress: tell,
  }).finally(clear)
  if (options.json) json(io, image)
  else {
    io.out(`Linux ${image.release}${image.cached ? ' (from the cache)' : ''}\n`)
    for (const key of ['kernel', 'vmlinux', 'initrd', 'config'] as const) io.out(`  ${key.padEnd(8)}${image[key]}\n`)
    io.out(`  packages ${image.packages.map(({ name, version }) => `${name} ${version}`).join(', ')}\n`)
  }
  return ExitCode.ok
}

async function imageRootfs(flavour: Flavour, options: ImageOptions, io: CommandIo): Promise<number> {
  const { include, refresh, to } = options
  if (options.modules?.length)
    throw usage('--modules', options.modules.join(' '), '--modules is for an initramfs', 'the disk has all modules')
  if (options.keyring !== undefined)
    throw usage('--keyring', options.keyring, '--keyring is for an initramfs', 'mmdebstrap and debootstrap check signatures by keys of their own')
  const mirrors = await mirrorsOf(options)
  const { tell, clear } = progressTo(io)
  const image = await debianRootfs(nodeImageHost(), {
    flavour,
    size: sizeOption('--size', options.size ?? ROOTFS_SIZE),
    cacheFolder: cacheFolder(),
    ...(to === undefined ? {} : { to }),
    ...(include?.length ? { include } : {}),
    ...(mirrors ? { mirrors: mirrors.urls } : {}),
    ...(refresh ? { refresh } : {}),
    onProgress: tell,
  }).finally(clear)
  if (options.json) json(io, image)
  else {
    io.out(`Debian 12, Linux ${image.release}${image.cached ? ' (from the cache)' : ''}, root has no password\n`)
    io.out(`  disk     ${image.disk}\n`)
    io.out(`  run it   nonroot run --memory 1G --disk ${image.disk}\n`)
  }
  return ExitCode.ok
}

/** Written over where a person watches; elsewhere one line a step. */
export function progressTo(io: CommandIo): { tell: OnProgress; clear: () => void } {
  const over = process.stderr.isTTY === true
  let last = ''
  return {
    tell(progress) {
      const text = progressText(progress)
      if (text === '' || text === last) return
      last = text
      if (over) io.err(`\r\x1b[K${text}`)
      else if (progress.done === 0) io.err(`${text}\n`)
    },
    clear() {
      if (over && last) io.err('\r\x1b[K')
    },
  }
}
