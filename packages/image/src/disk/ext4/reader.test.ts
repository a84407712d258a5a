/** Reads what we and mke2fs make, as a boot does: by path, links followed, and refuses what is damaged. */

import { spawnSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { dataView, decodeText, encodeText } from '../../bytes.ts'
import { rejection } from '../../samples.test.support.ts'
import { diskEntry, fileEntry } from '../entry.ts'
import type { DiskEntry } from '../entry.ts'
import { createMemoryDisk } from '../memory.ts'
import { makeExt4 } from './make.ts'
import { Ext4Reader } from './reader.ts'

const MIB = 1024 * 1024
const BLOCK = 4096
const noise = (length: number): Uint8Array =>
  Uint8Array.from({ length }, (_, at) => Math.imul(at + 1, 0x9e3779b1) >>> 24)
const file = (path: string, text: string) => fileEntry(path, encodeText(text))
const link = (path: string, linkTarget: string) =>
  diskEntry({ path, kind: 'symbolicLink', mode: 0o777, linkTarget }, 0n)
/** 60 bytes: the first target that has a block of its own. */
const LONG = `//${'./'.repeat(27)}long`

const LARGE = noise(5 * MIB + 5)
const HOLES = new Uint8Array(6 * BLOCK)
HOLES.set(noise(BLOCK), 3 * BLOCK)
const ENTRIES: readonly DiskEntry[] = [
  diskEntry({ path: 'etc', kind: 'directory', mode: 0o755 }),
  file('etc/hostname', 'name\n'),
  file('etc/empty', ''),
  file('long', 'long'),
  fileEntry('large', LARGE),
  fileEntry('holes', HOLES),
  diskEntry({ path: 'pipe', kind: 'fifo', mode: 0o600 }),
  link('here', 'etc/hostname'),
  link('etc/up', '../etc/./hostname'),
  link('etc/absolute', '/etc/hostname'),
  link('folder', '/etc'),
  link('fast', LONG.slice(1)),
  link('slow', LONG),
  link('nowhere', 'nothing'),
  link('self', 'self'),
  link('chain0', 'long'),
  ...Array.from({ length: 41 }, (_, n) => link(`chain${n + 1}`, `chain${n}`)),
]

async function made(entries: readonly DiskEntry[] = ENTRIES, size = 16 * MIB): Promise<Uint8Array> {
  const disk = createMemoryDisk(size)
  await makeExt4(
    disk,
    (async function* () {
      yield* entries
    })(),
    { name: 'disk', uuid: noise(16), made: 0n },
  )
  const bytes = new Uint8Array(size)
  await disk.read(0, bytes)
  return bytes
}
async function open(bytes: Uint8Array): Promise<Ext4Reader | undefined> {
  const disk = createMemoryDisk(bytes.length)
  await disk.write(0, bytes)
  return await Ext4Reader.open(disk, 'disk')
}
async function read(system: Ext4Reader, path: string): Promise<{ path: string; text: string } | undefined> {
  const found = await system.find(path)
  return found && { path: found.path, text: decodeText(await found.read()) }
}

describe('reading ext4', () => {
  const bytes = made()
  const system = async (): Promise<Ext4Reader> => (await open(await bytes))!

  it('has the UUID as root=UUID= has it', async () => {
    const hex = Buffer.from(noise(16)).toString('hex')
    expect((await system()).uuid).toBe(hex.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-'))
  })

  const HOSTNAME = { path: '/etc/hostname', text: 'name\n' }
  it.each([
    { path: '/etc/hostname', is: HOSTNAME },
    { path: 'etc//./hostname/', is: HOSTNAME },
    { path: '../../etc/../etc/hostname', is: HOSTNAME },
    { path: '/here', is: HOSTNAME },
    { path: '/etc/up', is: HOSTNAME },
    { path: '/etc/absolute', is: HOSTNAME },
    { path: '/folder/up', is: HOSTNAME },
    { path: '/folder/../here', is: HOSTNAME },
    { path: '/etc/empty', is: { path: '/etc/empty', text: '' } },
    { path: '/fast', is: { path: '/long', text: 'long' } },
    { path: '/slow', is: { path: '/long', text: 'long' } },
    { path: '/chain39', is: { path: '/long', text: 'long' }, name: '40 links' },
    { path: '/chain40', is: undefined, name: '41 links' },
    { path: '/self', is: undefined },
    { path: '/nowhere', is: undefined },
    { path: '/etc', is: undefined },
    { path: '/', is: undefined },
    { path: '/pipe', is: undefined },
    { path: '/etc/hostname/x', is: undefined },
    { path: '/none/hostname', is: undefined },
  ])('$path', async ({ path, is }) => {
    expect(await read(await system(), path)).toEqual(is)
  })

  it.each([
    { path: '/large', content: LARGE },
    { path: '/holes', content: HOLES },
  ])('$path has what was put in', async ({ path, content }) => {
    expect(Buffer.compare(await (await (await system()).find(path))!.read(), content)).toBe(0)
  })

  it.each([
    { path: '/etc', has: ['absolute', 'empty', 'hostname', 'up'] },
    { path: '/folder', has: ['absolute', 'empty', 'hostname', 'up'] },
    { path: '/etc/hostname', has: [] },
    { path: '/none', has: [] },
  ])('lists $path', async ({ path, has }) => {
    const names = await (await system()).list(path)
    expect(names.filter((name) => !name.startsWith('.')).toSorted()).toEqual(has)
  })

  it('lists a folder of many blocks', async () => {
    const names = Array.from({ length: 400 }, (_, n) => `a-rather-long-name-${n}`)
    const many = (await open(await made(names.map((name) => file(`many/${name}`, '')))))!
    expect((await many.list('many')).filter((name) => !name.startsWith('.')).toSorted()).toEqual(names.toSorted())
  })

  it.each([
    { name: 'a disk of less than a superblock', bytes: new Uint8Array(1024) },
    { name: 'zeros', bytes: new Uint8Array(4096) },
  ])('is nothing to read: $name', async (one) => {
    expect(await open(one.bytes)).toBeUndefined()
  })
})

describe('a damaged ext4', () => {
  /** Where the inode of that size is. (Ours: one group, whose table the first descriptor names.) */
  function inodeOf(bytes: Uint8Array, size: number): number {
    const view = dataView(bytes)
    const table = view.getUint32(BLOCK + 8, true) * BLOCK
    for (let at = table; ; at += 256)
      if (view.getUint32(at + 4, true) === size && view.getUint16(at, true) >> 12 === 8) return at
  }
  const SIZE = 5000
  const MAP = 0x28
  it.each<{ name: string; says: string; damage: (view: DataView, inode: number) => void }>([
    { name: 'no inodes in a group', says: 'superblock', damage: (view) => view.setUint32(1024 + 0x28, 0, true) },
    { name: 'inodes of 127 bytes', says: 'superblock', damage: (view) => view.setUint16(1024 + 0x58, 127, true) },
    {
      name: 'descriptors of 31 bytes',
      says: 'superblock',
      damage: (view) => {
        view.setUint32(1024 + 0x60, view.getUint32(1024 + 0x60, true) | 0x80, true)
        view.setUint16(1024 + 0xfe, 31, true)
      },
    },
    {
      name: 'a table of inodes beyond the end',
      says: 'beyond the end of the disk',
      damage: (view) => view.setUint32(BLOCK + 8, 0xfffff, true),
    },
    {
      name: 'another magic number of extents',
      says: 'extents of /f is damaged',
      damage: (view, inode) => view.setUint16(inode + MAP, 0xf30b, true),
    },
    {
      name: 'more extents than have room',
      says: 'extents of /f is damaged',
      damage: (view, inode) => view.setUint16(inode + MAP + 2, 5, true),
    },
    {
      name: 'content beyond the end',
      says: 'beyond the end of the disk',
      damage: (view, inode) => view.setUint32(inode + MAP + 20, 4096, true),
    },
    {
      name: 'content above 2^32 blocks',
      says: 'beyond the end of the disk',
      damage: (view, inode) => view.setUint16(inode + MAP + 18, 1, true),
    },
    {
      name: 'a tree without end',
      says: 'extents of /f is damaged',
      damage: (view, inode) => {
        // A node that leads to itself, in the file's own first block.
        const block = view.getUint32(inode + MAP + 20, true)
        for (const node of [inode + MAP, block * BLOCK]) {
          view.setUint16(node, 0xf30a, true)
          view.setUint16(node + 2, 1, true)
          view.setUint16(node + 6, 1, true)
          view.setUint32(node + 16, block, true)
          view.setUint16(node + 20, 0, true)
        }
      },
    },
    {
      name: 'a file above 1 GiB',
      says: 'size of /f',
      damage: (view, inode) => view.setUint32(inode + 4, 2 ** 30 + 1, true),
    },
    { name: 'a file above 4 GiB', says: 'size of /f', damage: (view, inode) => view.setUint32(inode + 0x6c, 1, true) },
    {
      name: 'a file without extents',
      says: 'as ext2 and ext3',
      damage: (view, inode) => view.setUint32(inode + 0x20, 0, true),
    },
  ])('$name', async ({ says, damage }) => {
    const bytes = await made([file('f', 'x'.repeat(SIZE))])
    damage(dataView(bytes), inodeOf(bytes, SIZE))
    const reading = async () => (await (await open(bytes))!.find('/f'))!.read()
    expect((await rejection(reading()))?.message).toContain(says)
  })

  it('a folder whose entries do not go on', async () => {
    const bytes = await made([file('f', '')])
    const at = Buffer.from(bytes).indexOf(Buffer.from([1, 1, 0x66])) - 6 // its length, kind and name
    dataView(bytes).setUint16(at + 4, 7, true)
    expect((await rejection((await open(bytes))!.list('/')))?.message).toContain('folder')
  })

  it('extents that were never written are zeros', async () => {
    const bytes = await made([file('f', 'x'.repeat(SIZE))])
    const view = dataView(bytes)
    const inode = inodeOf(bytes, SIZE)
    view.setUint16(inode + MAP + 16, 0x8000 + view.getUint16(inode + MAP + 16, true), true)
    const content = await (await (await open(bytes))!.find('/f'))!.read()
    expect([...new Set(content)]).toEqual([0])
  })
})

describe.skipIf(spawnSync('mke2fs', ['-V']).status !== 0)('what mke2fs made', () => {
  it.each([
    { name: 'as by default', options: [] },
    {
      name: 'blocks of 1 KiB, inodes of 128 bytes, descriptors of 32',
      options: ['-b', '1024', '-I', '128', '-O', '^64bit,^metadata_csum'],
    },
    { name: 'an indexed folder, many groups', options: ['-b', '1024', '-g', '1024', '-O', '64bit'] },
  ])('$name', async ({ options }) => {
    const folder = mkdtempSync(join(tmpdir(), 'nonroot-reader-'))
    try {
      const root = join(folder, 'root')
      mkdirSync(join(root, 'many'), { recursive: true })
      const names = Array.from({ length: 300 }, (_, n) => `a-rather-long-name-${n}`)
      for (const name of names) writeFileSync(join(root, 'many', name), name)
      writeFileSync(join(root, 'large'), noise(3 * MIB))
      symlinkSync('many/a-rather-long-name-299', join(root, 'link'))
      const image = join(folder, 'image')
      expect(spawnSync('mke2fs', ['-q', '-t', 'ext4', ...options, '-d', root, image, '16M']).status).toBe(0)
      const system = (await open(new Uint8Array(readFileSync(image))))!
      expect((await system.list('many')).filter((name) => !name.startsWith('.')).toSorted()).toEqual(names.toSorted())
      expect(await read(system, 'link')).toEqual({
        path: '/many/a-rather-long-name-299',
        text: 'a-rather-long-name-299',
      })
      expect(Buffer.compare(await (await system.find('large'))!.read(), noise(3 * MIB))).toBe(0)
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
