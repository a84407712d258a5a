import { describe, expect, it } from 'vitest'
import { decodeText, encodeText } from './bytes.ts'
import { cachedImages, removeImage } from './cache.ts'
import { readCpio } from './cpio.ts'
import { debianImage } from './debian.ts'
import { ImageError } from './errors.ts'
import type { Progress } from './host.ts'
import { fileOverlay, guestParameters, INIT_SCRIPT, shellCommand } from './init-script.ts'
import { Apt } from './source/apt.ts'
import { parseDepends } from './source/source.ts'
import { type ArchivePackage, createFakeHost, kernelModule, rejection } from './samples.test.support.ts'

/** A bzImage whose payload is an uncompressed "ELF". */
function bzImage(): Uint8Array {
  const image = new Uint8Array(0x400 + 64)
  const view = new DataView(image.buffer)
  view.setUint8(0x1f1, 1)
  view.setUint32(0x202, 0x53726448, true)
  view.setUint16(0x206, 0x20f, true)
  view.setUint32(0x24c, 64, true)
  image.set([0x7f, 0x45, 0x4c, 0x46], 0x400)
  return image
}

const RELEASE = '6.1.0-9-cloud-amd64'
const modules = `lib/modules/${RELEASE}`
const PACKAGES: ArchivePackage[] = [
  { name: 'linux-image-cloud-amd64', depends: `linux-image-${RELEASE} (= 6.1.9)` },
  {
    name: `linux-image-${RELEASE}`,
    depends: 'kmod, initramfs-tools (>= 0.120) | linux-initramfs-tool',
    files: [
      { name: `./boot/vmlinuz-${RELEASE}`, data: bzImage() },
      { name: `./boot/config-${RELEASE}`, data: 'CONFIG_X=y\n' },
      { name: `./${modules}/modules.builtin`, data: 'kernel/drivers/serial.ko\n' },
      { name: `./${modules}/kernel/virtio.ko`, data: kernelModule({ name: 'virtio' }) },
      {
        name: `./${modules}/kernel/virtio_blk.ko`,
        data: kernelModule({ name: 'virtio_blk', depends: 'virtio', alias: 'virtio:d2v*' }),
      },
      { name: `./${modules}/kernel/sound.ko`, data: kernelModule({ name: 'sound' }) },
    ],
  },
  { name: 'busybox-static', files: [{ name: './bin/busybox', data: 'busybox', mode: 0o755 }] },
  {
    name: 'tool',
    preDepends: 'libc6 (>= 2.36)',
    depends: 'missing | virtual-shell, libc6',
    files: [
      { name: './usr/bin/tool', data: 't', mode: 0o755 },
      { name: './usr/share/doc/tool/copyright', data: 'c' },
    ],
  },
  { name: 'libc6', files: [{ name: './lib/x86_64-linux-gnu/libc.so.6', data: 'libc' }] },
  {
    name: 'dash',
    provides: 'virtual-shell',
    files: [
      { name: './bin', type: '2', link: 'usr/bin' },
      { name: './usr/bin/dash', data: 'd' },
      { name: './usr/bin/dash2', type: '1', link: './usr/bin/dash' },
    ],
  },
]

const CACHE = { cacheFolder: '/cache' }

describe('an image', () => {
  it('has kernel, init, modules and packages, and is cached', async () => {
    const host = await createFakeHost(PACKAGES)
    const steps: Progress[] = []
    const image = await debianImage(host, {
      ...CACHE,
      include: ['tool'],
      onProgress: (progress) => steps.push(progress),
    })
    expect(image).toMatchObject({ release: RELEASE, cached: false })
    expect(image.packages.map(({ name }) => name)).toEqual([
      `linux-image-${RELEASE}`,
      'busybox-static',
      'tool',
      'libc6',
      'dash',
    ])
    expect(host.files.get(image.kernel)).toEqual(bzImage())
    expect(host.files.get(image.vmlinux)!.length).toBe(64)
    expect(decodeText(host.files.get(image.config)!)).toBe('CONFIG_X=y\n')

    const entries = new Map(readCpio(host.files.get(image.initrd)!).map((entry) => [entry.path, entry]))
    const text = (path: string) => decodeText(entries.get(path)!.data)
    expect(text('init')).toBe(INIT_SCRIPT)
    expect(text('usr/bin/busybox')).toBe('busybox')
    expect(text('usr/lib/x86_64-linux-gnu/libc.so.6')).toBe('libc')
    expect(text('usr/bin/dash2')).toBe('d')
    expect(entries.get('bin')!.mode).toBe(0o120777)
    expect(entries.get('nonroot/exit')!.mode).toBe(0o100755)
    expect(text(`usr/${modules}/modules.dep`)).toBe('kernel/virtio.ko:\nkernel/virtio_blk.ko: kernel/virtio.ko\n')
    expect(text(`usr/${modules}/modules.alias`)).toBe('alias virtio:d2v* virtio_blk\n')
    expect(entries.has(`usr/${modules}/kernel/sound.ko`)).toBe(false)
    expect(entries.has('usr/share/doc/tool/copyright')).toBe(false)
    expect(steps.map(({ step }) => step)).toEqual(expect.arrayContaining(['resolve', 'download', 'unpack', 'write']))
    expect(host.calls.filter((call) => call.startsWith('apt-get'))).toHaveLength(1)

    const before = host.calls.length
    expect(await debianImage(host, { ...CACHE, include: ['tool'] })).toEqual({ ...image, cached: true })
    expect(host.calls.length).toBe(before)
    host.files.set(image.initrd, new Uint8Array(3)) // cut short by somebody
    expect(await debianImage(host, { ...CACHE, include: ['tool'] })).toMatchObject({ cached: false })
    host.files.set('/cache/debian-cloud.json', encodeText('{'))
    expect((await debianImage(host, { ...CACHE, modules: ['sound'] })).cached).toBe(false)
  })

  it('are listed, and removed with what leads to them', async () => {
    const host = await createFakeHost(PACKAGES)
    const [plain, more] = [await debianImage(host, CACHE), await debianImage(host, { ...CACHE, include: ['tool'] })]
    const old = { ...(JSON.parse(decodeText(host.files.get([...host.files.keys()].find((path) => path.endsWith('.json'))!)!)) as object), folder: 'old-1' }
    host.files.set('/cache/debian-cloud-0123456789ab.json', encodeText(JSON.stringify(old)))
    host.files.set('/cache/old-1/vmlinux', new Uint8Array(5))
    host.files.set('/cache/debian-cloud-aaaaaaaaaaaa-6.1/vmlinux', new Uint8Array(7))
    host.files.set('/cache/debian-rootfs-generic-bbbbbbbbbbbb/debian.ext4', new Uint8Array(9))
    // It would lead out of the cache.
    host.files.set('/cache/debian-cloud-cccccccccccc.json', encodeText(JSON.stringify({ ...old, folder: '../precious' })))
    host.files.set('/precious/x', new Uint8Array(1))
    const shown = async () => (await cachedImages(host, '/cache')).map(({ kind, release, include, current, bytes }) => [kind, release, include.join(' '), current, bytes > 100 ? 'much' : bytes])
    expect((await shown()).toSorted()).toEqual([
      ['disk', undefined, '', false, 9],
      ['initramfs', undefined, '', false, 7],
      ['initramfs', RELEASE, '', false, 5],
      ['initramfs', RELEASE, '', true, 'much'],
      ['initramfs', RELEASE, 'tool', true, 'much'],
    ])
    for (const image of await cachedImages(host, '/cache')) if (!image.current || image.include.length) await removeImage(host, image)
    expect(await shown()).toEqual([['initramfs', RELEASE, '', true, 'much']])
    expect([host.files.has(plain.kernel), host.files.has(more.kernel), host.files.has('/precious/x')]).toEqual([true, false, true])
  })

  it.each([
    { what: 'a package', named: { name: 'tool2', byHand: '99.0-1local' }, taken: 'tool2' },
    { what: 'a dependency', named: { name: 'libc6', byHand: '99.0-1local' }, taken: 'tool' },
  ])("takes the archive's version of $what that is installed by hand in a newer one", async ({ named, taken }) => {
    const provider = { name: 'another', provides: named.name }
    const host = await createFakeHost([...PACKAGES.filter(({ name }) => name !== named.name), provider, named])
    const image = await debianImage(host, { ...CACHE, include: [taken] })
    expect(image.packages).toContainEqual({ name: named.name, version: '1:1.0-1' })
    expect(image.packages.map(({ name }) => name)).not.toContain('another')
  })

  it('says of a package that only was installed by hand which version hides it', async () => {
    const named = { name: 'mine', byHand: '99.0-1local', version: 'none' }
    const host = await createFakeHost([...PACKAGES, { name: 'another', provides: 'mine' }, named])
    const error = await rejection(debianImage(host, { ...CACHE, include: ['mine'] }))
    expect(error!.message).toBe('apt has no file of package mine, of which version 99.0-1local was installed by hand')
  })

  it.each([
    { name: 'no apt', packages: 'no apt' as const, options: {}, reason: 'noPackageClient', says: '--kernel' },
    {
      name: 'no such flavour',
      packages: PACKAGES,
      options: { flavour: 'generic' as const },
      reason: 'packageNotFound',
      says: '--kernel',
    },
    {
      name: 'no such package',
      packages: PACKAGES,
      options: { include: ['nonesuch'] },
      reason: 'packageNotFound',
      says: '--include',
    },
    {
      name: 'no such module',
      packages: PACKAGES,
      options: { modules: ['nonesuch'] },
      reason: 'moduleNotFound',
      says: 'flavour',
    },
    { name: 'a bad download', packages: PACKAGES, options: {}, reason: 'hashMismatch', says: 'mirror', damage: true },
  ])('says what to do: $name', async ({ packages, options, reason, says, damage }) => {
    const host = await createFakeHost(packages, damage)
    const error = await rejection(debianImage(host, { ...CACHE, ...options }))
    expect(error).toBeInstanceOf(ImageError)
    expect(error).toMatchObject({ reason, code: 'host.backend' })
    expect(error!.remedy).toContain(says)
  })
})

it('fetches lists of its own where the system has none', async () => {
  const host = await createFakeHost([])
  const apt = new Apt(host, '/cache', () => {})
  await rejection(apt.prepare('linux-image-cloud-amd64'))
  expect(host.calls.some((call) => /apt-get .*Dir::State=\/cache\/apt\/state.* update/.test(call))).toBe(true)
})

it('parses dependencies', () => {
  expect(parseDepends('libc6 (>= 2.36), a | b:any (<< 3) [amd64], python3:any')).toEqual([
    ['libc6'],
    ['a', 'b'],
    ['python3'],
  ])
})

describe('parameters', () => {
  it('quotes for the shell', () => {
    expect(shellCommand(['sh', '-c', "echo 'a b'; exit 7", ''])).toBe(`sh -c 'echo '\\''a b'\\''; exit 7' ''`)
  })

  it('puts a command into a parameter, a long one into an overlay', () => {
    const { parameters, overlay } = guestParameters({
      command: ['echo', 'grüße'],
      marks: true,
      rows: 24,
      columns: 80,
      term: 'xterm; rm',
      modules: ['tun', 'loop'],
    })
    expect(parameters.slice(1)).toEqual([
      'nonroot.marks=1',
      'nonroot.modules=tun,loop',
      'nonroot.rows=24',
      'nonroot.columns=80',
    ])
    expect(Buffer.from(parameters[0]!.split('nonroot.command=')[1]!, 'base64').toString()).toBe("echo 'grüße'")
    expect(overlay).toBeUndefined()
    const long = guestParameters({ command: ['echo', 'x'.repeat(5000)] })
    expect(long.parameters).toEqual([])
    expect(readCpio(long.overlay!).map(({ path }) => path)).toEqual(['nonroot', 'nonroot/command'])
  })

  it('makes overlays of several files', () => {
    expect(readCpio(fileOverlay({ 'a/b': '1', 'a/c': '2' })).map(({ path }) => path)).toEqual(['a', 'a/b', 'a/c'])
  })
})
