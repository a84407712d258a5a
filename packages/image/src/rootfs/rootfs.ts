/** `nonroot image debian --rootfs`: a whole Debian on a disk, made once by the distribution's bootstrap tool and kept in a cache. */

import { encodeText, decodeText, sha256 } from '../bytes.ts'
import type { Bytes } from '../bytes.ts'
import { writeCpio } from '../cpio.ts'
import { FLAVOURS, SUITE } from '../debian.ts'
import type { Flavour } from '../debian.ts'
import { makeDisk } from '../disk/make.ts'
import { formatUuid, randomUuid } from '../disk/ext4/make.ts'
import { invalidImage } from '../errors.ts'
import type { DiskHost, OnProgress } from '../host.ts'
import { addModules, createGuestTree, finishGuestTree } from '../initramfs.ts'
import { INIT_SCRIPT } from '../init-script.ts'
import { unpackKernel } from '../kernel-files.ts'
import type { FilesOf } from '../kernel-files.ts'
import { Mirror } from '../source/mirror.ts'
import { readTar } from '../tar.ts'
import { extractVmlinux } from '../vmlinux.ts'
import { BASE_PACKAGES, bootstrap } from './bootstrap.ts'
import { settle } from './settle.ts'

export interface DebianRootfsOptions {
  readonly flavour?: Flavour
  /** Further packages; their maintainer scripts run. */
  readonly include?: readonly string[]
  /** Of the disk, in bytes. */
  readonly size: number
  /** The disk to make, raw or qcow2; in the cache where absent. */
  readonly to?: string
  /** Addresses of mirrors, in place of those of the system's package client. The bootstrap tool checks signatures by its own keys. */
  readonly mirrors?: readonly string[]
  readonly cacheFolder: string
  readonly refresh?: boolean
  readonly onProgress?: OnProgress
}

export interface RootfsImage {
  readonly disk: string
  readonly uuid: string
  /** As `uname -r` says it. */
  readonly release: string
  /** Nothing was done: it was there. */
  readonly cached: boolean
}

/**
 * Where the disk has what it is booted with: the ELF of its kernel, and an initramfs of ours. Debian's own, beside them, are booted where these
 * are of another kernel than the system's, which is so once the system has got a newer one.
 */
export const BOOT_FOLDER = 'boot/nonroot'
export const bootFiles = (release: string) => ({
  kernel: `${BOOT_FOLDER}/vmlinux-${release}`,
  initrd: `${BOOT_FOLDER}/initrd-${release}`,
})

const FORMAT = 2 // changes when the same packages would make another disk; the init script counts by itself

interface Manifest {
  readonly uuid: string
  readonly release: string
}

export async function debianRootfs(host: DiskHost, options: DebianRootfsOptions): Promise<RootfsImage> {
  const { cacheFolder, flavour = 'generic', size, include = [], onProgress = () => {} } = options
  const packages = [...new Set([...BASE_PACKAGES, FLAVOURS[flavour], ...include])].sort()
  const key = (await sha256(encodeText(JSON.stringify([FORMAT, SUITE, INIT_SCRIPT, packages, size])))).slice(0, 12)
  const folder = `${cacheFolder}/debian-rootfs-${flavour}-${key}`
  const disk = options.to ?? `${folder}/debian.ext4`
  const pointer = `${folder}/rootfs.json`
  if (options.to === undefined && options.refresh !== true) {
    const there = parseManifest(await host.readFile(pointer))
    if (there && (await host.fileSize(disk)) === size) {
      onProgress({ step: 'cached', what: there.release, done: 1, total: 1 })
      return { disk, ...there, cached: true }
    }
  }
  if (options.to === undefined) await host.removeFile(disk)
  await host.makeFolder(folder)
  const archive = `${folder}/root.tar`
  try {
    const urls = options.mirrors ?? []
    const mirrors = urls.length > 0 ? await new Mirror(host, cacheFolder, onProgress, SUITE, { urls }).suites() : []
    await bootstrap(host, { packages, to: archive, scratch: folder, mirrors, onProgress })
    const made = await fill(host, archive, disk, size, onProgress)
    // Last: only a whole disk is ever found.
    if (options.to === undefined) await host.writeFile(pointer, encodeText(`${JSON.stringify(made)}\n`))
    return { disk, ...made, cached: false }
  } finally {
    await host.removeFile(archive)
  }
}

export function parseManifest(bytes: Bytes | undefined): Manifest | undefined {
  try {
    const { uuid, release } = JSON.parse(decodeText(bytes ?? new Uint8Array(0))) as Partial<Manifest>
    return uuid && release ? { uuid, release } : undefined
  } catch {
    return undefined // there is none, or it is damaged: the disk is made again
  }
}

async function fill(
  host: DiskHost,
  archive: string,
  to: string,
  size: number,
  onProgress: OnProgress,
): Promise<Manifest> {
  const boot = await bootOf(host, archive, onProgress)
  const uuid = randomUuid()
  const modified = BigInt(Date.now()) * 1_000_000n
  await makeDisk(host, {
    from: archive,
    to,
    size,
    uuid,
    label: 'debian',
    adapt: (entries) => settle(entries, formatUuid(uuid), modified, boot.files),
    onProgress,
  })
  return { uuid: formatUuid(uuid), release: boot.release }
}

/** The kernel that is in the archive, and an initramfs with its modules. */
async function bootOf(
  host: DiskHost,
  archive: string,
  onProgress: OnProgress,
): Promise<{ release: string; files: Record<string, Bytes> }> {
  const files: FilesOf = (wanted) => readTar(host.openStream(archive), wanted, archive)
  const kernel = await unpackKernel(files, host.decompressors, 'Linux', [], onProgress)
  const tree = createGuestTree()
  const isBusybox = ({ path }: { path: string }) => /^(usr\/)?bin\/busybox$/.test(path)
  let busybox: Bytes | undefined
  for await (const file of files(isBusybox)) if (isBusybox(file) && file.kind === 'file') busybox = file.data.slice()
  if (!busybox) throw invalidImage(archive, 'bin/busybox', 'not there', 'the package busybox-static has it')
  tree.file('usr/bin/busybox', busybox, 0o755)
  addModules(tree, kernel.release, kernel.modules, kernel.builtin)
  finishGuestTree(tree)
  const names = bootFiles(kernel.release)
  return {
    release: kernel.release,
    files: {
      [names.kernel]: await extractVmlinux(kernel.image, host.decompressors, `vmlinuz-${kernel.release}`),
      [names.initrd]: writeCpio(tree),
    },
  }
}
