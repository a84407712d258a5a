/** `nonroot image ls` and `image prune`: the images in the cache. */

import { ExitCode, formatSize } from '@nonroot/contracts'
import { cachedImages, removeImage } from '@nonroot/image'
import type { CachedImage } from '@nonroot/image'
import { nodeImageHost } from '../image-host.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { cacheFolder } from '../run/boot-plan.ts'
import { tableText } from '../table.ts'

export interface PruneOptions {
  readonly all?: boolean
  readonly dryRun?: boolean
  readonly json?: boolean
}

const mebibytes = (bytes: number): string => formatSize(Math.ceil(bytes / (1 << 20)) << 20)

export async function imageLs(options: { readonly json?: boolean }, io: CommandIo): Promise<number> {
  const images = await cachedImages(nodeImageHost(), cacheFolder())
  if (options.json) json(io, images)
  else if (images.length === 0) io.out(`no images in ${cacheFolder()}\n`)
  else {
    const rows = images.map(({ kind, flavour, release, include, bytes, current, folder }) => [
      ...[kind, flavour, release ?? '', include.join(' '), mebibytes(bytes), current ? '' : 'old', folder],
    ])
    io.out(tableText(['KIND', 'FLAVOUR', 'LINUX', 'INCLUDE', 'SIZE', '', 'FOLDER'], rows, [4]))
  }
  return ExitCode.ok
}

/** Disks stay, since guests have written in them; one without a release is not finished, or never will be. */
const isPruned = ({ kind, current, release }: CachedImage, all: boolean): boolean =>
  kind === 'disk' ? all && release === undefined : all || !current

export async function imagePrune({ all = false, dryRun = false, json: asJson }: PruneOptions, io: CommandIo): Promise<number> {
  const host = nodeImageHost()
  const pruned = (await cachedImages(host, cacheFolder())).filter((image) => isPruned(image, all))
  if (!dryRun) for (const image of pruned) await removeImage(host, image)
  const bytes = pruned.reduce((sum, image) => sum + image.bytes, 0)
  if (asJson) json(io, { removed: pruned, bytes })
  else {
    for (const { folder } of pruned) io.out(`${folder}\n`)
    io.out(`${dryRun ? 'would remove' : 'removed'} ${pruned.length} images, ${mebibytes(bytes)}\n`)
  }
  return ExitCode.ok
}
