/** ext4 as we make it, judged by e2fsprogs where they are installed: fsck finds nothing to say, debugfs reads back what was put in. */

import { spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlockBackend } from '@nonroot/contracts'
import { afterAll, describe, expect, it } from 'vitest'
import { decodeText, encodeText } from '../../bytes.ts'
import { rejection } from '../../samples.test.support.ts'
import { diskEntry, fileEntry } from '../entry.ts'
import type { DiskEntry } from '../entry.ts'
import { createMemoryDisk } from '../memory.ts'
import { geometryOf } from './geometry.ts'
import { splitTime } from './inode.ts'
import { makeExt4 } from './make.ts'

const KIB = 1024
const MIB = 1024 * KIB
const UUID = Uint8Array.from({ length: 16 }, (_, index) => index * 17)
const MADE = 1_700_000_000_000_000_000n

async function* from(entries: readonly DiskEntry[]) {
  yield* entries
}

async function make(size: number, entries: readonly DiskEntry[]): Promise<{ bytes: Uint8Array; free: number }> {
  const disk = createMemoryDisk(size)
  const { freeBytes } = await makeExt4(disk, from(entries), {
    name: 'test.ext4',
    label: 'test',
    uuid: UUID,
    made: MADE,
  })
  const bytes = new Uint8Array(size)
  await disk.read(0, bytes)
  return { bytes, free: freeBytes }
}

const folder = mkdtempSync(join(tmpdir(), 'nonroot-ext4-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const image = join(folder, 'disk.ext4')
const hasTools = spawnSync('e2fsck', ['-V']).status === 0 && spawnSync('debugfs', ['-V']).status === 0

/** What fsck says beyond the names of its passes and its closing line; nothing where all is well. */
function fsck(): { status: number | null; said: string[] } {
  const { status, stdout } = spawnSync('e2fsck', ['-fn', image], {
    encoding: 'utf8',
    env: { ...process.env, LC_ALL: 'C' },
  })
  return {
    status,
    said: stdout.split('\n').filter((line) => line !== '' && !/^Pass \d|^\S+: \d+\/\d+ files/.test(line)),
  }
}
function check(bytes: Uint8Array): ReturnType<typeof fsck> {
  writeSparse(bytes)
  return fsck()
}
/** Most of a disk is zeros, which are holes of the file. */
function writeSparse(bytes: Uint8Array): void {
  const file = openSync(image, 'w')
  ftruncateSync(file, bytes.length)
  for (let at = 0; at < bytes.length; at += ZEROS.length) {
    const part = bytes.subarray(at, at + ZEROS.length)
    if (ZEROS.compare(part, 0, part.length, 0, part.length) !== 0) writeSync(file, part, 0, part.length, at)
  }
  closeSync(file)
}
const ZEROS = Buffer.alloc(64 * KIB)
const sound = { status: 0, said: [] }
const debugfs = (request: string): string =>
  spawnSync('debugfs', ['-R', request, image], { encoding: 'utf8', env: { ...process.env, TZ: 'UTC' } }).stdout
function contentOf(path: string): Uint8Array {
  const out = join(folder, 'out')
  debugfs(`dump ${path} ${out}`)
  return new Uint8Array(readFileSync(out))
}

const file = (path: string, text: string, rest: Partial<DiskEntry> = {}): DiskEntry => ({
  ...fileEntry(path, encodeText(text)),
  ...rest,
})
const noise = (length: number, seed: number): Uint8Array => {
  const bytes = new Uint8Array(length)
  for (let at = 0, state = seed; at < length; at++) bytes[at] = (state = (state * 1103515245 + 12345) >>> 0) >>> 16
  return bytes
}

const CAPABILITY = Uint8Array.of(1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
/** user::rw- user:1000:r-- group::r-- mask::r-- other::r--, as Linux hands it out. */
const ACL = Uint8Array.from(
  [
    [2, 0, 0, 0],
    ...[
      [1, 6, -1],
      [2, 4, 1000],
      [4, 4, -1],
      [16, 4, -1],
      [32, 4, -1],
    ].map(([tag, permission, id]) => [
      ...[tag!, 0, permission!, 0],
      ...[0, 8, 16, 24].map((shift) => (id! >>> shift) & 0xff),
    ]),
  ].flat(),
)

const EVERYTHING: readonly DiskEntry[] = [
  diskEntry({ path: '', kind: 'directory', mode: 0o755 }, MADE),
  diskEntry({ path: 'etc', kind: 'directory', mode: 0o750, uid: 7, gid: 8 }),
  file('etc/hostname', 'hello\n', { modified: 1_600_000_000_123_456_789n, mode: 0o4711, uid: 100_000, gid: 70_000 }),
  file('etc/empty', ''),
  diskEntry({ path: 'etc/short', kind: 'symbolicLink', mode: 0o777, linkTarget: 'hostname' }),
  diskEntry({ path: 'etc/fast', kind: 'symbolicLink', mode: 0o777, linkTarget: 'x'.repeat(59) }),
  diskEntry({ path: 'etc/slow', kind: 'symbolicLink', mode: 0o777, linkTarget: 'y'.repeat(60) }),
  diskEntry({ path: 'etc/name', kind: 'hardLink', mode: 0, linkTarget: 'etc/hostname' }),
  diskEntry({ path: 'dev/null', kind: 'characterDevice', mode: 0o666, deviceMajor: 1, deviceMinor: 3 }),
  diskEntry({ path: 'dev/large', kind: 'blockDevice', mode: 0o660, deviceMajor: 259, deviceMinor: 70_000 }),
  diskEntry({ path: 'run/pipe', kind: 'fifo', mode: 0o600 }),
  diskEntry({ path: 'run/socket', kind: 'socket', mode: 0o600 }),
  file('bin/ping', 'ping', { attributes: new Map([['security.capability', CAPABILITY]]) }),
  file('bin/many', 'many', {
    attributes: new Map([
      ['user.large', noise(2000, 5)],
      ['trusted.none', new Uint8Array(0)],
      ['user.b', encodeText('b')],
      ['system.posix_acl_access', ACL],
    ]),
  }),
  ...Array.from({ length: 1500 }, (_, index) => file(`many/a-name-that-is-rather-long-${index}`, 'z'.repeat(index))),
  ...Array.from({ length: 40 }, (_, index) => diskEntry({ path: `folders/${index}`, kind: 'directory', mode: 0o700 })),
  fileEntry('large', noise(20 * MIB + 5, 3)),
  // What comes again counts.
  file('many/a-name-that-is-rather-long-7', 'seven'),
  diskEntry({ path: 'many/a-name-that-is-rather-long-8', kind: 'symbolicLink', mode: 0o777, linkTarget: '7' }),
]

describe.skipIf(!hasTools)('ext4, by e2fsprogs', () => {
  it.each([
    { size: 256 * KIB, name: 'the least' },
    { size: MIB + 512, name: 'no whole number of blocks' },
    { size: 8 * MIB, name: 'with a journal' },
    { size: 128 * MIB, name: 'one whole group' },
    { size: 128 * MIB + 4 * KIB, name: 'a last group too short to be one' },
    { size: 140 * MIB, name: 'a short last group' },
  ])('is sound when empty: $name', async ({ size }) => {
    const { bytes } = await make(size, [])
    expect(check(bytes)).toEqual(sound)
  })

  it('is sound with everything in it, and has what was put in', async () => {
    expect(check((await make(64 * MIB, EVERYTHING)).bytes)).toEqual(sound)
    const stat = (path: string) => debugfs(`stat ${path}`)
    expect(stat('/etc')).toMatch(/Type: directory\s+Mode: {2}0750[^]*User: +7 +Group: +8/)
    expect(stat('/etc/hostname')).toMatch(/Mode: {2}04711[^]*User: 100000 +Group: 70000[^]*Size: 6\n[^]*Links: 2/)
    expect(stat('/etc/hostname')).toContain('mtime: 0x5f5e1000:1d6f3454 -- Sun Sep 13 12:26:40 2020')
    expect(decodeText(contentOf('/etc/name'))).toBe('hello\n')
    expect(contentOf('/etc/empty').length).toBe(0)
    expect(stat('/etc/short')).toContain('Fast link dest: "hostname"')
    expect(stat('/etc/fast')).toContain(`Fast link dest: "${'x'.repeat(59)}"`)
    expect(decodeText(contentOf('/etc/slow'))).toBe('y'.repeat(60))
    expect(stat('/dev/null')).toMatch(/Type: character special[^]*Device major\/minor number: 01:03/)
    expect(stat('/dev/large')).toMatch(/Type: block special[^]*Device major\/minor number: 259:70000/)
    expect(stat('/run/pipe')).toContain('Type: FIFO')
    expect(stat('/run/socket')).toContain('Type: socket')
    expect(debugfs('ea_list /bin/ping')).toContain('security.capability (20) = 01 00 00 02 00 20 00')
    const attributes = debugfs('ea_list /bin/many')
    for (const one of ['user.large (2000)', 'trusted.none (0)', 'user.b (1) = "b"', 'system.posix_acl_access'])
      expect(attributes).toContain(one)
    expect(debugfs('ea_get /bin/many system.posix_acl_access')).not.toContain('Invalid')
    expect(decodeText(contentOf('/many/a-name-that-is-rather-long-1234'))).toBe('z'.repeat(1234))
    expect(decodeText(contentOf('/many/a-name-that-is-rather-long-7'))).toBe('seven')
    expect(stat('/many/a-name-that-is-rather-long-8')).toContain('Fast link dest: "7"')
    expect(Buffer.compare(contentOf('/large'), noise(20 * MIB + 5, 3))).toBe(0)
  })

  it('a file in more pieces than an inode has room for has a tree of extents', async () => {
    const size = 640 * MIB
    const handle = openSync(image, 'w+')
    ftruncateSync(handle, size)
    const disk: BlockBackend = {
      ...createMemoryDisk(size),
      write: async (at, from) => void writeSync(handle, from, 0, from.length, at),
    }
    const zeros = new Uint8Array(MIB)
    const content = async function* () {
      for (let at = 0; at < 600; at++) yield at === 599 ? noise(MIB, 9) : zeros
    }
    const entry = diskEntry({ path: 'huge', kind: 'file', mode: 0o644, size: 600 * MIB, content: content() })
    await makeExt4(disk, from([entry]), { name: 'test', uuid: UUID, made: MADE })
    expect(fsck()).toEqual(sound)
    expect(debugfs('stat /huge')).toContain('(ETB0)')
    const last = new Uint8Array(4096)
    readSync(handle, last, 0, 4096, 4096 * Number(debugfs(`bmap /huge ${600 * 256 - 1}`)))
    closeSync(handle)
    expect(Buffer.compare(last, noise(MIB, 9).subarray(MIB - 4096))).toBe(0)
  })
})

describe('ext4', () => {
  it('is the same for the same entries', async () => {
    const once = await make(16 * MIB, EVERYTHING.slice(0, 14))
    expect(Buffer.compare(once.bytes, (await make(16 * MIB, EVERYTHING.slice(0, 14))).bytes)).toBe(0)
  })

  it('zeros are not written', async () => {
    const written: number[] = []
    const disk = createMemoryDisk(32 * MIB)
    const spied = {
      ...disk,
      write: (at: number, from: Uint8Array) => (written.push(from.length), disk.write(at, from)),
    }
    await makeExt4(spied, from([fileEntry('zeros', new Uint8Array(16 * MIB))]), {
      name: 'test',
      uuid: UUID,
      made: MADE,
    })
    expect(written.reduce((sum, length) => sum + length, 0)).toBeLessThan(MIB)
  })

  const twice = diskEntry({ path: 'a', kind: 'directory', mode: 0o755 })
  it.each([
    {
      name: 'no room for the content',
      entries: [fileEntry('big', noise(MIB, 1))],
      says: '/big: 1 MiB do not fit any more',
    },
    {
      name: 'no room for the names',
      entries: Array.from({ length: 300 }, (_, index) => file(`f${index}`, '')),
      says: 'there is room for 256 files',
    },
    { name: 'a name that is too long', entries: [file('x'.repeat(256), '')], says: 'at most 255 bytes' },
    {
      name: 'a further name of nothing',
      entries: [diskEntry({ path: 'b', kind: 'hardLink', mode: 0, linkTarget: 'none' })],
      says: '/b: it is a further name of /none, which is not there',
    },
    { name: 'a folder that becomes a file', entries: [twice, file('a', '')], says: '/a: it is a folder' },
    { name: 'a file with something in it', entries: [file('a', ''), file('a/b', '')], says: 'a is no folder' },
    { name: 'a file that shrinks', entries: [{ ...file('a', 'abc'), size: 4 }], says: 'has not the 4 bytes' },
    { name: 'a file that grows', entries: [{ ...file('a', 'abc'), size: 2 }], says: 'has not the 2 bytes' },
    {
      name: 'attributes that are too long',
      entries: [file('a', '', { attributes: new Map([['user.x', new Uint8Array(5000)]]) })],
      says: 'more than 4096 bytes',
    },
    {
      name: 'a link to nowhere',
      entries: [diskEntry({ path: 'a', kind: 'symbolicLink', mode: 0o777 })],
      says: 'a name of 0 bytes',
    },
  ])('refuses $name', async ({ entries, says }) => {
    expect((await rejection(make(MIB, entries)))!.message).toContain(says)
  })

  // As mke2fs has them.
  it.each([
    { size: 8 * MIB - 4096, blocks: 0 },
    { size: 8 * MIB, blocks: 1024 },
    { size: 128 * MIB - 4096, blocks: 1024 },
    { size: 128 * MIB, blocks: 4096 },
    { size: 1024 * MIB - 4096, blocks: 4096 },
    { size: 1024 * MIB, blocks: 8192 },
    { size: 2048 * MIB - 4096, blocks: 8192 },
    { size: 2048 * MIB, blocks: 16384 },
    { size: 16384 * MIB - 4096, blocks: 16384 },
    { size: 16384 * MIB, blocks: 32768 },
  ])('a disk of $size bytes has a journal of $blocks blocks', ({ size, blocks }) => {
    expect(geometryOf(size, 'x').journalBlocks).toBe(blocks)
  })

  it('each superblock says to which group it belongs, and what its hashes are', async () => {
    const { bytes } = await make(512 * MIB, [])
    const view = new DataView(bytes.buffer)
    for (const [group, at] of [
      [0, 1024],
      [1, 128 * MIB],
      [3, 3 * 128 * MIB],
    ] as const) {
      expect(view.getUint16(at + 0x38, true)).toBe(0xef53)
      expect(view.getUint16(at + 0x5a, true)).toBe(group)
      expect(view.getUint8(at + 0xfc)).toBe(1) // half MD4
      expect(view.getUint32(at + 0x160, true)).toBe(2) // of unsigned characters
    }
  })

  it.each([
    { size: 100 * KIB, says: 'too small' },
    { size: 2 ** 44, says: 'too much' },
  ])('refuses a disk of $size bytes', ({ size, says }) => {
    expect(() => geometryOf(size, 'x')).toThrow(says)
  })

  it.each([
    { time: 0n, seconds: 0, extra: 0 },
    { time: -1n, seconds: -1, extra: 999_999_999 * 4 },
    { time: (2n ** 31n - 1n) * 1_000_000_000n, seconds: 2 ** 31 - 1, extra: 0 },
    { time: 2n ** 31n * 1_000_000_000n, seconds: -(2 ** 31), extra: 1 },
    { time: (2n ** 32n + 5n) * 1_000_000_000n + 1n, seconds: 5, extra: 1 | 4 },
  ])('has times before 1970 and after 2038: $time', ({ time, ...split }) => {
    expect(splitTime(time)).toEqual(split)
  })
})
