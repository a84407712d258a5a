/** A root out of a bootstrap tool onto a disk, with the tool played by a fake that leaves a small archive. The real ones: apps/cli/src/run/rootfs.test.ts. */

import { spawnSync } from 'node:child_process'
import { NonrootError } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { decodeText, encodeText } from '../bytes.ts'
import { readCpio } from '../cpio.ts'
import { createMemoryDisk } from '../disk/memory.ts'
import { Ext4Reader } from '../disk/ext4/reader.ts'
import { makeExt4 } from '../disk/ext4/make.ts'
import { diskEntry, fileEntry } from '../disk/entry.ts'
import type { DiskEntry } from '../disk/entry.ts'
import type { DiskHost, Progress, RunResult } from '../host.ts'
import { createFakeHost, kernelModule, rejection, tar } from '../samples.test.support.ts'
import { readTarStream } from '../tar.ts'
import { bootFromDisk } from './bootable.ts'
import { debianRootfs } from './rootfs.ts'

const MIB = 2 ** 20
const RELEASE = '6.1.0-9-amd64'

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

const modules = `usr/lib/modules/${RELEASE}`
const ROOT = tar([
  { name: './', type: '5', mode: 0o755 },
  { name: './etc/shadow', data: 'root:*:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n', mode: 0o640 },
  { name: './etc/hostname', data: 'builder\n' },
  { name: './etc/passwd', data: 'root:x:0:0:root:/root:/bin/bash\n' },
  { name: './usr/bin/busybox', data: 'busybox', mode: 0o755 },
  { name: `./boot/vmlinuz-${RELEASE}`, data: bzImage() },
  { name: `./boot/config-${RELEASE}`, data: 'CONFIG_X=y\n' },
  { name: `./boot/initrd.img-${RELEASE}`, data: 'theirs' },
  { name: './vmlinuz', type: '2', link: `boot/vmlinuz-${RELEASE}` },
  { name: './initrd.img', type: '2', link: `boot/initrd.img-${RELEASE}` },
  { name: `./${modules}/modules.builtin`, data: '' },
  { name: `./${modules}/kernel/virtio_blk.ko`, data: kernelModule({ name: 'virtio_blk', alias: 'virtio:d2v*' }) },
  { name: `./${modules}/kernel/sound.ko`, data: kernelModule({ name: 'sound' }) },
  { name: './var/cache/apt/archives/x.deb', data: 'x' },
  { name: './var/lib/apt/lists/y', data: 'y' },
])

interface Fake {
  readonly host: DiskHost
  readonly ran: string[][]
  readonly disks: Map<string, ReturnType<typeof createMemoryDisk>>
}

/** `tools`: what each program does, by its name; the others are not there. */
async function fakeHost(
  tools: Record<string, (args: readonly string[]) => Partial<RunResult & { found: true }>>,
): Promise<Fake> {
  const plain = await createFakeHost([])
  const ran: string[][] = []
  const disks: Fake['disks'] = new Map()
  const host: DiskHost = {
    ...plain,
    async run(program, args, options) {
      const tool = tools[program]
      if (!tool) return { found: false }
      ran.push([program, ...args])
      if (program.endsWith('debstrap')) options?.onLine?.('I: Retrieving busybox...')
      // What writes an archive names it by its ending.
      const archive = args.find((word) => word.endsWith('.tar'))
      if (archive) await plain.writeFile(archive, ROOT)
      return { found: true, status: 0, stdout: '', stderr: '', ...tool(args) }
    },
    fileSize: async (path) => disks.get(path)?.size ?? plain.fileSize(path),
    async *openStream(path) {
      yield (await plain.readFile(path))!
    },
    openSource: async (path) => ({ entries: readTarStream([(await plain.readFile(path))!]), total: 1, done: () => 1 }),
    createDisk: async (path, size) => {
      const disk = createMemoryDisk(size)
      return { disk, keep: async () => void disks.set(path, disk), discard: async () => {} }
    },
  }
  return { host, ran, disks }
}

const OPTIONS = { size: 64 * MIB, cacheFolder: '/cache' }
const SOURCES = [
  'http://mirror/debian/ bookworm main',
  'http://mirror/security/ bookworm-security main',
  'http://mirror/debian/ trixie main',
  'http://mirror/debian/ bookworm contrib',
].join('\n')

describe('a root on a disk', () => {
  it('has what a machine needs to come up, and what it is booted with', async () => {
    const { host, ran, disks } = await fakeHost({ mmdebstrap: () => ({}), 'apt-get': () => ({ stdout: SOURCES }) })
    const told: Progress[] = []
    const image = await debianRootfs(host, {
      ...OPTIONS,
      include: ['gcc'],
      onProgress: (progress) => told.push(progress),
    })
    expect(image).toMatchObject({ release: RELEASE, cached: false })
    expect(ran.at(-1)).toEqual([
      ...['mmdebstrap', '--variant=minbase', '--format=tar'],
      expect.stringMatching(/^--include=.*\bgcc,.*\blinux-image-amd64,.*\bsystemd-sysv/),
      ...['bookworm', expect.stringMatching(/root\.tar$/)],
      ...['deb http://mirror/debian/ bookworm main', 'deb http://mirror/security/ bookworm-security main'],
    ])
    expect(told.map(({ what }) => what)).toContain('Debian with mmdebstrap: Retrieving busybox')
    const disk = disks.get(image.disk)!
    const system = (await Ext4Reader.open(disk, 'disk'))!
    const text = async (path: string) => decodeText(await (await system.find(path))!.read())
    expect(system.uuid).toBe(image.uuid)
    expect(await text('/etc/shadow')).toBe('root::19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\n')
    expect(await text('/etc/hostname')).toBe('nonroot\n')
    expect(await text('/etc/fstab')).toBe(`UUID=${image.uuid} / ext4 errors=remount-ro 0 1\n`)
    expect(await text('/etc/passwd')).toContain('/bin/bash')
    expect(await system.find('/var/cache/apt/archives/x.deb')).toBeUndefined()
    expect(await system.find('/var/lib/apt/lists/y')).toBeUndefined()
    const { kernel, initrd, ours, uuid } = await bootFromDisk(disk, 'disk')
    expect([uuid, ours, kernel?.[1]]).toEqual([image.uuid, true, 0x45])
    const names = readCpio(initrd!).map(({ path }) => path)
    expect(names).toContain(`${modules}/kernel/virtio_blk.ko`)
    expect(names).not.toContain(`${modules}/kernel/sound.ko`)
    expect(names).toContain('init')
    expect(await debianRootfs(host, { ...OPTIONS, include: ['gcc'] })).toEqual({ ...image, cached: true })
  })

  it('by debootstrap, as root', async () => {
    const { host, ran } = await fakeHost({
      debootstrap: () => ({}),
      tar: () => ({}),
      id: () => ({ stdout: '0\n' }),
      'apt-get': () => ({ stdout: SOURCES }),
    })
    await debianRootfs(host, { ...OPTIONS, flavour: 'cloud' })
    const [tool, ...args] = ran.find(([program, word]) => program === 'debootstrap' && word !== '--version')!
    expect([tool, args.at(-3), args.at(-1)]).toEqual(['debootstrap', 'bookworm', 'http://mirror/debian/'])
    expect(args[1]).toContain('linux-image-cloud-amd64')
    expect(ran.at(-1)).toEqual(expect.arrayContaining(['tar', '--xattrs', '--numeric-owner']))
  })

  it.each([
    { name: 'no tool at all', tools: {}, says: /neither mmdebstrap nor debootstrap/, reason: 'noBootstrapTool' },
    {
      name: 'debootstrap, but not root',
      tools: { debootstrap: () => ({}), id: () => ({ stdout: '1000\n' }) },
      says: /debootstrap needs root/,
      reason: 'noBootstrapTool',
    },
    {
      name: 'a tool that fails',
      tools: {
        mmdebstrap: (args: readonly string[]) =>
          args.length > 1 ? { status: 1, stderr: 'I: x\nE: no such package gccc\n' } : {},
      },
      says: /mmdebstrap ended with status 1: E: no such package gccc/,
      reason: 'packageClientFailed',
    },
  ])('says what is wrong: $name', async ({ tools, says, reason }) => {
    const { host, disks } = await fakeHost(tools)
    const error = await rejection(debianRootfs(host, OPTIONS))
    expect(error).toBeInstanceOf(NonrootError)
    expect(error).toMatchObject({ message: expect.stringMatching(says), reason, remedy: expect.any(String) })
    expect(disks.size).toBe(0)
  })
})

async function diskOf(entries: readonly DiskEntry[]) {
  const disk = createMemoryDisk(16 * MIB)
  const all = async function* () {
    yield* entries
  }
  await makeExt4(disk, all(), { name: 'test' })
  return disk
}
const link = (path: string, linkTarget: string) => diskEntry({ path, kind: 'symbolicLink', mode: 0o777, linkTarget })
const file = (path: string, text: string) => fileEntry(path, encodeText(text))

describe('what a disk is booted with', () => {
  it("Debian's own where ours is of another kernel", async () => {
    const ours = [file('boot/nonroot/vmlinux-1', 'our kernel'), file('boot/nonroot/initrd-1', 'our initrd')]
    const older = [file('boot/vmlinuz-1', 'their kernel'), link('vmlinuz', 'boot/vmlinuz-1')]
    const newer = [
      file('boot/vmlinuz-2', 'their kernel'),
      link('vmlinuz', '/boot/vmlinuz-2'),
      link('initrd.img', 'boot/../boot/i'),
    ]
    const boot = async (...entries: DiskEntry[]) => {
      const {
        kernel,
        initrd,
        ours: isOurs,
      } = await bootFromDisk(await diskOf([...entries, file('boot/i', 'their initrd')]), 'x')
      return [kernel && decodeText(kernel), initrd && decodeText(initrd), isOurs]
    }
    expect(await boot(...ours, ...older)).toEqual(['our kernel', 'our initrd', true])
    expect(await boot(...ours, ...newer)).toEqual(['their kernel', 'their initrd', false])
    expect(await boot(...ours)).toEqual(['our kernel', 'our initrd', true])
    expect(await boot(...older)).toEqual([undefined, undefined, false])
    expect(await bootFromDisk(createMemoryDisk(MIB), 'x')).toEqual({ ours: false })
    const init = async (...entries: DiskEntry[]) => (await bootFromDisk(await diskOf(entries), 'x')).init
    expect(await init(link('sbin', 'usr/sbin'), file('lib/systemd', 'x'), link('usr/sbin/init', '/lib/systemd'))).toBe(true)
    expect(await init(link('sbin', 'usr/sbin'), link('usr/sbin/init', '/lib/systemd'))).toBe(false)
  })

  it('links in a circle lead nowhere, and damage is told', async () => {
    const disk = await diskOf([link('a', 'b'), link('b', 'a'), file('f', 'x')])
    const system = (await Ext4Reader.open(disk, 'disk'))!
    expect(await system.find('/a')).toBeUndefined()
    expect(await system.find('/f/g')).toBeUndefined()
    // The root's inode: superblock, descriptors and two bitmaps, a block each, are before the table.
    const inodes = new Uint8Array(512)
    await disk.read(4 * 4096, inodes)
    inodes[256 + 0x28] = 0xff
    await disk.write(4 * 4096, inodes)
    expect((await rejection(system.find('/f')))!.message).toContain('disk: extents of f is damaged')
  })

  it.skipIf(spawnSync('mke2fs', ['-V']).status !== 0)('reads what mke2fs made', async () => {
    const { mkdtempSync, readFileSync, rmSync, writeFileSync, mkdirSync } = await import('node:fs')
    const { join } = await import('node:path')
    const { tmpdir } = await import('node:os')
    const folder = mkdtempSync(join(tmpdir(), 'nonroot-mke2fs-'))
    try {
      mkdirSync(join(folder, 'root/many'), { recursive: true })
      for (let index = 0; index < 700; index++)
        writeFileSync(join(folder, `root/many/file-${index}`), `content ${index}`)
      writeFileSync(join(folder, 'root/large'), new Uint8Array(3 * MIB).fill(7))
      const image = join(folder, 'image')
      const made = spawnSync('mke2fs', ['-q', '-t', 'ext4', '-O', '64bit', '-d', join(folder, 'root'), image, '16M'])
      expect(made.status).toBe(0)
      const bytes = new Uint8Array(readFileSync(image))
      const disk = createMemoryDisk(bytes.length)
      await disk.write(0, bytes)
      const system = (await Ext4Reader.open(disk, 'disk'))!
      expect(decodeText(await (await system.find('many/file-345'))!.read())).toBe('content 345')
      expect((await system.list('many')).length).toBe(702)
      expect(Buffer.compare(await (await system.find('large'))!.read(), new Uint8Array(3 * MIB).fill(7))).toBe(0)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  })
})
