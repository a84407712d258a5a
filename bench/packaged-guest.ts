/** A guest whose root is Debian packages, unpacked in memory, without what it has no use for, and with files and an /init of its own. */
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, readFile, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Apt, debianImage, openDeb, readCpio, Tree, writeCpio } from '@nonroot/image'
import { nodeImageHost } from '../apps/cli/src/image-host.ts'
import { cacheFolder } from '../apps/cli/src/run/boot-plan.ts'

export interface Guest {
  readonly kernel: string
  readonly initrd: string
}

export interface PackagedGuest {
  readonly name: string
  /** With what they depend on. */
  readonly packages: readonly string[]
  readonly leftOut: readonly RegExp[]
  readonly init: string
  /** Changes whenever `fill` would put in something else. */
  readonly recipe: unknown
  readonly fill: (tree: Tree) => Promise<void> | void
}

/** What every such init begins with; the packages must have dash, as busybox's shell runs its own programs in place of theirs. Busybox has the names that no package brings. */
export const INIT_START = `#!/usr/bin/dash
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox mount -t tmpfs none /tmp
/bin/busybox mkdir -p /usr/local/bin
/bin/busybox --install -s /usr/local/bin
export PATH=/usr/bin:/usr/sbin:/usr/local/bin HOME=/root
echo "GUEST-INIT uptime $(cat /proc/uptime)"
`

/** Builds what is not there, in the cache. Throws with what to do where a tool is missing. */
export async function packagedGuest(
  { name, packages, leftOut, init, recipe, fill }: PackagedGuest,
  say: (text: string) => void,
): Promise<Guest> {
  const cache = cacheFolder()
  const image = await debianImage(nodeImageHost(), { cacheFolder: cache, include: packages })
  const key = JSON.stringify([init, recipe, leftOut.map(String), image.release, image.packages])
  const folder = join(cache, 'bench', `${name}-${createHash('sha256').update(key).digest('hex').slice(0, 12)}`)
  const guest = { kernel: image.kernel, initrd: join(folder, 'initrd') }
  if (existsSync(guest.initrd)) return guest
  say(`building the guest in ${folder}`)
  await mkdir(folder, { recursive: true })
  const tree = new Tree()
  copy(new Uint8Array(await readFile(image.initrd)), leftOut, tree)
  await fill(tree)
  tree.file('init', init, 0o755)
  // Last, and by renaming: only a whole guest is ever found.
  const part = `${guest.initrd}.${process.pid}.part`
  await writeFile(part, writeCpio(tree))
  await rename(part, guest.initrd)
  return guest
}

const KIND = { mask: 0o170000, directory: 0o040000, file: 0o100000, link: 0o120000, characters: 0o020000 }

function copy(archive: Uint8Array<ArrayBuffer>, leftOut: readonly RegExp[], tree: Tree): void {
  for (const { path, mode, rdev, data } of readCpio(archive)) {
    if (leftOut.some((pattern) => pattern.test(path))) continue
    const kind = mode & KIND.mask
    const rights = mode & 0o7777
    if (kind === KIND.directory) tree.directory(path, rights)
    else if (kind === KIND.link) tree.link(path, new TextDecoder().decode(data))
    else if (kind === KIND.file) tree.file(path, data as Uint8Array<ArrayBuffer>, rights)
    else if (kind === KIND.characters) tree.characterDevice(path, ...rdev, rights)
  }
}

/** One file of a package, as it would be installed: headers are not part of images. */
export async function fileOfPackage(name: string, path: string): Promise<Uint8Array<ArrayBuffer>> {
  const apt = new Apt(nodeImageHost(), cacheFolder(), () => {})
  const found = (await apt.show([name])).get(name)
  if (!found) throw new Error(`apt has no package ${name}: run apt-get update`)
  await apt.download([found])
  const deb = await openDeb(await apt.read(found), {}, found.name)
  for await (const file of deb.files((entry) => entry.path === path)) if (file.path === path) return file.data.slice()
  throw new Error(`${found.name} ${found.version} holds no ${path}`)
}
