/** `nonroot image debian`: Debian's own kernel and an initramfs made of Debian's packages, kept in a cache. */
import { type Bytes, decodeText, encodeText, sha256 } from './bytes.ts'
import { writeCpio } from './cpio.ts'
import { openDeb } from './deb.ts'
import { ImageError, OWN_FILES } from './errors.ts'
import { AGENT_PROGRAM_BASE64 } from './agent/program.ts'
import { EXIT_PROGRAM_BASE64 } from './exit-program.ts'
import type { ImageHost, OnProgress } from './host.ts'
import { DEFAULT_MODULES, addModules, createGuestTree, finishGuestTree, isKept } from './initramfs.ts'
import { INIT_SCRIPT, LEASE_SCRIPT } from './init-script.ts'
import { unpackKernel } from './kernel-files.ts'
import { Apt } from './source/apt.ts'
import { Mirror } from './source/mirror.ts'
import type { Mirrors } from './source/mirror.ts'
import type { DebianPackage, PackageSource } from './source/source.ts'
import type { Tree } from './tree.ts'
import { extractVmlinux } from './vmlinux.ts'

export const FLAVOURS = { cloud: 'linux-image-cloud-amd64', generic: 'linux-image-amd64' } as const
export type Flavour = keyof typeof FLAVOURS

export const SUITE = 'bookworm'

export interface DebianImageOptions {
  readonly flavour?: Flavour
  /** Debian packages whose files go into the initramfs, with what they depend on. No maintainer script is run. */
  readonly include?: readonly string[]
  /** Kernel modules to carry beyond the usual ones. An unknown one is an error. */
  readonly modules?: readonly string[]
  /** Get packages from these in place of the system's package client. */
  readonly mirrors?: Mirrors
  readonly cacheFolder: string
  /** Ask the archive again even if there is an image for these options. */
  readonly refresh?: boolean
  readonly onProgress?: OnProgress
}

export interface GuestImage {
  /** Paths: bzImage, the ELF inside it (for PVH, which the guest need not unpack), uncompressed initramfs, kernel configuration. */
  readonly kernel: string
  readonly vmlinux: string
  readonly initrd: string
  readonly config: string
  /** As `uname -r` says it. */
  readonly release: string
  readonly packages: readonly { readonly name: string; readonly version: string }[]
  /** Nothing was done: it was there. */
  readonly cached: boolean
}

interface Manifest {
  readonly release: string
  readonly folder: string
  readonly packages: readonly { readonly name: string; readonly version: string }[]
  /** As in the options. Absent: none. */
  readonly include?: readonly string[]
  readonly modules?: readonly string[]
  readonly sizes: Readonly<Record<keyof typeof NAMES, number>>
}

const NAMES = { kernel: 'vmlinuz', vmlinux: 'vmlinux', initrd: 'initrd', config: 'config' } as const
/** Changes whenever the same packages would make another image; the init script and the modules count by themselves. */
const FORMAT = 1

export const cacheKey = async ({ include, modules }: Pick<DebianImageOptions, 'include' | 'modules'>): Promise<string> =>
  (
    await sha256(
      encodeText(
        JSON.stringify([
          FORMAT,
          INIT_SCRIPT,
          LEASE_SCRIPT,
          EXIT_PROGRAM_BASE64,
          AGENT_PROGRAM_BASE64,
          DEFAULT_MODULES,
          [...(include ?? [])].sort(),
          [...(modules ?? [])].sort(),
        ]),
      ),
    )
  ).slice(0, 12)

export function parseManifest(bytes: Bytes | undefined): Manifest | undefined {
  try {
    const manifest = bytes && (JSON.parse(decodeText(bytes)) as Partial<Manifest>)
    return manifest?.release && manifest.folder && manifest.sizes ? (manifest as Manifest) : undefined
  } catch {
    return undefined // a damaged cache is made again
  }
}

const toImage = (cacheFolder: string, manifest: Manifest, cached: boolean): GuestImage => {
  const path = (name: keyof typeof NAMES) => `${cacheFolder}/${manifest.folder}/${NAMES[name]}`
  const { release, packages } = manifest
  return {
    kernel: path('kernel'),
    vmlinux: path('vmlinux'),
    initrd: path('initrd'),
    config: path('config'),
    release,
    packages,
    cached,
  }
}

/** The image for these options, from the cache if it is whole there. Throws ImageError where it cannot be had. */
export async function debianImage(host: ImageHost, options: DebianImageOptions): Promise<GuestImage> {
  const { cacheFolder, flavour = 'cloud', onProgress = () => {} } = options
  const name = `debian-${flavour}-${await cacheKey(options)}`
  const pointer = `${cacheFolder}/${name}.json`
  if (options.refresh !== true) {
    const manifest = parseManifest(await host.readFile(pointer))
    if (manifest && (await isWhole(host, cacheFolder, manifest))) {
      onProgress({ step: 'cached', what: manifest.release, done: 1, total: 1 })
      return toImage(cacheFolder, manifest, true)
    }
  }

  const { mirrors } = options
  const source = mirrors ? new Mirror(host, cacheFolder, onProgress, SUITE, mirrors) : new Apt(host, cacheFolder, onProgress)
  onProgress({ step: 'resolve', what: FLAVOURS[flavour], done: 0, total: 1 })
  await source.prepare(FLAVOURS[flavour])
  const kernelPackage = await findKernel(source, FLAVOURS[flavour])
  const busybox = (await source.show(['busybox-static'])).get('busybox-static')
  if (!busybox)
    throw new ImageError(
      'packageNotFound',
      `${source.title} has no package busybox-static`,
      OWN_FILES,
    )
  const included = await source.resolve(options.include ?? [])
  const packages = [kernelPackage, busybox, ...included.filter(({ name }) => name !== busybox.name)]

  await source.download(packages)
  const tree = createGuestTree()
  for (const one of packages.slice(1)) await unpackInto(tree, host, source, one, onProgress)
  const deb = await openDeb(await source.read(kernelPackage), host.decompressors, kernelPackage.name)
  const kernel = await unpackKernel(
    deb.files,
    host.decompressors,
    kernelPackage.name,
    options.modules ?? [],
    onProgress,
  )
  addModules(tree, kernel.release, kernel.modules, kernel.builtin)
  finishGuestTree(tree)

  onProgress({ step: 'write', what: 'initramfs', done: 0, total: 1 })
  const files: Record<keyof typeof NAMES, Bytes> = {
    kernel: kernel.image,
    vmlinux: await extractVmlinux(kernel.image, host.decompressors, `${kernelPackage.name}: vmlinuz`),
    initrd: writeCpio(tree),
    config: kernel.config,
  }
  const folder = `${name}-${kernelPackage.version.replaceAll(/[^\w.+-]/g, '_')}`
  const sizes = { kernel: 0, vmlinux: 0, initrd: 0, config: 0 }
  for (const key of Object.keys(NAMES) as (keyof typeof NAMES)[]) {
    sizes[key] = files[key].length
    await host.writeFile(`${cacheFolder}/${folder}/${NAMES[key]}`, files[key])
  }
  const manifest: Manifest = {
    release: kernel.release,
    folder,
    packages: packages.map(({ name, version }) => ({ name, version })),
    ...(options.include?.length ? { include: options.include } : {}),
    ...(options.modules?.length ? { modules: options.modules } : {}),
    sizes,
  }
  // Last: only a whole image is ever found.
  await host.writeFile(pointer, encodeText(`${JSON.stringify(manifest, undefined, 2)}\n`))
  onProgress({ step: 'write', what: 'initramfs', done: 1, total: 1 })
  return toImage(cacheFolder, manifest, false)
}

async function isWhole(host: ImageHost, cacheFolder: string, { folder, sizes }: Manifest): Promise<boolean> {
  const keys = Object.keys(NAMES) as (keyof typeof NAMES)[]
  const found = await Promise.all(keys.map((key) => host.fileSize(`${cacheFolder}/${folder}/${NAMES[key]}`)))
  return keys.every((key, index) => found[index] === sizes[key])
}

/** linux-image-cloud-amd64 is empty and depends on the kernel of the day. */
async function findKernel(source: PackageSource, metaPackage: string): Promise<DebianPackage> {
  const meta = (await source.show([metaPackage])).get(metaPackage)!
  const name = meta.depends.flat().find((depends) => /^linux-image-\d/.test(depends))
  const kernel = name === undefined ? undefined : (await source.show([name])).get(name)
  if (!kernel)
    throw new ImageError(
      'packageNotFound',
      `${metaPackage} names no kernel that ${source.title} has`,
      OWN_FILES,
    )
  return kernel
}

async function unpackInto(
  tree: Tree,
  host: ImageHost,
  source: PackageSource,
  wanted: DebianPackage,
  progress: OnProgress,
): Promise<void> {
  const bytes = await source.read(wanted)
  progress({ step: 'unpack', what: wanted.name, done: 0, total: 1 })
  const deb = await openDeb(bytes, host.decompressors, wanted.name)
  for await (const file of deb.files(isKept)) if (isKept(file)) tree.add(file)
}
