/** A mirror of Debian's own packages, of those that the cache of the command has: kernel and busybox make the very image that apt's do. */
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { homedir, tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { encodeText } from '../bytes.ts'
import { readCpio } from '../cpio.ts'
import { debianImage, SUITE } from '../debian.ts'
import { openDeb } from '../deb.ts'
import { deb } from '../samples.test.support.ts'
import { addSuite, makeKey, serve } from '../testing/mirror.ts'
import type { Files, MirrorPackage } from '../testing/mirror.ts'
import { nodeImageHost } from '../testing/node-host.ts'

const cache = join(process.env['NONROOT_CACHE'] ?? join(homedir(), '.cache/nonroot'), 'packages')
const there = existsSync(cache) ? readdirSync(cache) : []
const kernel = there.find((name) => /^linux-image-[\d.-]+-cloud-amd64_.*\.deb$/.test(name))
const busybox = there.find((name) => name.startsWith('busybox-static_'))

const packaged = async (name: string): Promise<MirrorPackage> => {
  const bytes = new Uint8Array(await readFile(join(cache, name)))
  const { control } = await openDeb(bytes)
  const fields = [...control].filter(([field]) => field !== 'Description').map(([field, value]) => `${field}: ${value.replaceAll('\n', '\n ')}\n`)
  return { control: fields.join(''), bytes, path: `pool/main/${name.replaceAll('%3a', ':')}` }
}

it.skipIf(!kernel || !busybox)('makes an image without apt', { timeout: 60_000 }, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'nonroot-mirror-'))
  const key = await makeKey()
  const files: Files = new Map()
  const name = kernel!.split('_')[0]!
  const control = `Package: linux-image-cloud-amd64\nVersion: 6.1\nArchitecture: amd64\nDepends: ${name} (= 1)\n`
  await addSuite(files, [{ control, bytes: await deb(control, []) }, await packaged(kernel!), await packaged(busybox!)], { suite: SUITE, key })
  const mirror = await serve(files)
  try {
    const host = {
      ...nodeImageHost,
      run: () => Promise.reject(new Error('no program is run')),
      fetch: (url: string, signal: AbortSignal) => fetch(url, { redirect: 'manual', signal }),
    }
    const image = await debianImage(host, { cacheFolder: folder, mirrors: { urls: [mirror.url], keys: key.publicKey } })
    expect(`linux-image-${image.release}`).toBe(name)
    const paths = readCpio(new Uint8Array(readFileSync(image.initrd))).map(({ path }) => path)
    expect(paths).toEqual(expect.arrayContaining(['init', 'usr/bin/busybox', `usr/lib/modules/${image.release}/modules.dep`]))
    expect(readFileSync(image.vmlinux).subarray(0, 4)).toEqual(Buffer.from(encodeText('\x7fELF')))
  } finally {
    await mirror.close()
    await rm(folder, { recursive: true })
  }
})
