/** `nonroot image`: guest images out of distribution packages, kept in a cache. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { debianImage, FLAVOURS } from '@nonroot/image'
import type { Flavour, OnProgress } from '@nonroot/image'
import { nodeImageHost } from '../image-host.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { cacheFolder, progressText } from '../run/boot-plan.ts'

export interface ImageOptions {
  readonly flavour: string
  readonly include?: readonly string[]
  readonly modules?: readonly string[]
  readonly refresh?: boolean
  readonly json?: boolean
}

export async function imageDebian(options: ImageOptions, io: CommandIo): Promise<number> {
  const { flavour, include, modules, refresh } = options
  if (!Object.hasOwn(FLAVOURS, flavour)) {
    throw new NonrootError({
      code: 'usage',
      message: `there is no flavour "${flavour}"`,
      thing: '--flavour',
      value: flavour,
      remedy: `valid: ${Object.keys(FLAVOURS).join(', ')}`,
    })
  }
  const { tell, clear } = progressTo(io)
  const image = await debianImage(nodeImageHost(), {
    flavour: flavour as Flavour,
    cacheFolder: cacheFolder(),
    ...(include?.length ? { include } : {}),
    ...(modules?.length ? { modules } : {}),
    ...(refresh ? { refresh } : {}),
    onProgress: tell,
  })
  clear()
  if (options.json) json(io, image)
  else {
    io.out(`Linux ${image.release}${image.cached ? ' (from the cache)' : ''}\n`)
    for (const key of ['kernel', 'vmlinux', 'initrd', 'config'] as const) io.out(`  ${key.padEnd(8)}${image[key]}\n`)
    io.out(`  packages ${image.packages.map(({ name, version }) => `${name} ${version}`).join(', ')}\n`)
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
