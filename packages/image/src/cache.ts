/** What a cache folder has of images: which are there, and which would no longer be used. */

import { cacheKey, parseManifest } from './debian.ts'
import type { ImageHost } from './host.ts'
import { parseManifest as parseMade } from './rootfs/rootfs.ts'

export interface CachedImage {
  /** `initramfs`: kernel and initramfs. `disk`: a whole system, in which a guest may have written. */
  readonly kind: 'initramfs' | 'disk'
  readonly flavour: string
  /** As `uname -r` says it. Absent: it was not finished. */
  readonly release?: string
  /** Packages of the initramfs beyond the usual, as they were asked for. */
  readonly include: readonly string[]
  /** Of its files, in bytes. */
  readonly bytes: number
  /** This version makes the same of the same options, and takes it from here. */
  readonly current: boolean
  /** Paths. */
  readonly folder: string
  /** The file by which it is found. Absent: none leads to the folder. */
  readonly pointer?: string
}

const POINTER = /^debian-(\w+)-([\da-f]{12})\.json$/
const FOLDER = /^debian-(rootfs-)?(\w+)-[\da-f]{12}/

/** In order of their names. */
export async function cachedImages(host: ImageHost, cacheFolder: string): Promise<CachedImage[]> {
  const names = (await host.listFolder(cacheFolder)).toSorted()
  const images: CachedImage[] = []
  const found = new Set<string>()
  for (const name of names) {
    const [, flavour, key] = POINTER.exec(name) ?? []
    if (flavour === undefined) continue
    const pointer = `${cacheFolder}/${name}`
    const manifest = parseManifest(await host.readFile(pointer))
    // Folders are beside it: a path in the file would be somebody else's.
    if (!manifest || !names.includes(manifest.folder)) continue
    found.add(manifest.folder)
    const folder = `${cacheFolder}/${manifest.folder}`
    const { release, include = [], modules = [] } = manifest
    const current = (await cacheKey({ include, modules })) === key
    images.push({ kind: 'initramfs', ...{ flavour, release, include, folder, pointer, current }, bytes: await sizeOf(host, folder) })
  }
  for (const name of names) {
    const [, disk, flavour] = FOLDER.exec(name) ?? []
    if (flavour === undefined || found.has(name) || name.endsWith('.json')) continue
    const folder = `${cacheFolder}/${name}`
    const made = disk === undefined ? undefined : parseMade(await host.readFile(`${folder}/rootfs.json`))
    const release = made ? { release: made.release } : {}
    images.push({ kind: disk === undefined ? 'initramfs' : 'disk', flavour, ...release, include: [], folder, current: made !== undefined, bytes: await sizeOf(host, folder) })
  }
  return images
}

async function sizeOf(host: ImageHost, folder: string): Promise<number> {
  const files = await host.listFolder(folder)
  const sizes = await Promise.all(files.map((file) => host.fileSize(`${folder}/${file}`)))
  return sizes.reduce<number>((sum, size) => sum + (size ?? 0), 0)
}

/** Its pointer first: what is found is whole. */
export async function removeImage(host: ImageHost, { folder, pointer }: CachedImage): Promise<void> {
  if (pointer !== undefined) await host.removeFile(pointer)
  await host.removeFolder(folder)
}
