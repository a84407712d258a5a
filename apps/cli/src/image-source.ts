/** Content of disks from this host's files: a folder or a tar archive. */

import { createReadStream } from 'node:fs'
import type { BigIntStats } from 'node:fs'
import { lstat, readdir, readlink, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { NonrootError } from '@nonroot/contracts'
import { decompressStream, diskEntry, readTarStream } from '@nonroot/image'
import type { Decompressors, DiskEntries, DiskEntry, DiskSource, EntryKind } from '@nonroot/image'

const CHUNK = 1 << 18

const CODES: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file or folder',
  EACCES: 'permission denied',
  EPERM: 'permission denied',
}

function cannotRead(path: string, error: unknown): never {
  const { code = '', message } = error as NodeJS.ErrnoException
  throw new NonrootError({
    code: 'host.file',
    message: `cannot read ${path}: ${CODES[code] ?? message}`,
    thing: path,
    value: path,
    ...(code === 'EACCES' ? { remedy: 'run it as the owner of the files, or pack them into a tar archive' } : {}),
    cause: error,
  })
}

const guarded = async <T>(path: string, work: Promise<T>): Promise<T> => work.catch((error) => cannotRead(path, error))

export async function openSource(path: string, decompressors: Decompressors): Promise<DiskSource> {
  const stats = await guarded(path, stat(path))
  return stats.isDirectory() ? openFolder(path) : openArchive(path, stats.size, decompressors)
}

async function* bytesOf(path: string, onBytes: (count: number) => void): AsyncGenerator<Uint8Array> {
  try {
    for await (const chunk of createReadStream(path, { highWaterMark: CHUNK })) {
      onBytes((chunk as Uint8Array).length)
      yield chunk as Uint8Array
    }
  } catch (error) {
    cannotRead(path, error)
  }
}

function openArchive(path: string, total: number, decompressors: Decompressors): DiskSource {
  let done = 0
  const bytes = bytesOf(path, (count) => (done += count))
  return { entries: readTarStream(decompressStream(bytes, decompressors, path), path), total, done: () => done }
}

function kindOf(stats: BigIntStats): EntryKind {
  if (stats.isFile()) return 'file'
  if (stats.isDirectory()) return 'directory'
  if (stats.isSymbolicLink()) return 'symbolicLink'
  if (stats.isCharacterDevice()) return 'characterDevice'
  if (stats.isBlockDevice()) return 'blockDevice'
  return stats.isFIFO() ? 'fifo' : 'socket'
}

/** As glibc's `major` and `minor`. */
const deviceNumbers = (device: bigint) => ({
  deviceMajor: Number(((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xffff_f000n)),
  deviceMinor: Number((device & 0xffn) | ((device >> 12n) & 0xffff_ff00n)),
})

interface Found {
  /** From the folder; "" is the folder itself. */
  readonly path: string
  readonly stats: BigIntStats
}

/** All that is in a folder, names in order. What is mounted in it is left out. */
async function walk(root: string): Promise<Found[]> {
  const found: Found[] = []
  let device: bigint | undefined
  const visit = async (path: string): Promise<void> => {
    const place = join(root, path)
    const stats = await guarded(place, path === '' ? stat(place, { bigint: true }) : lstat(place, { bigint: true }))
    found.push({ path, stats })
    device ??= stats.dev
    if (!stats.isDirectory() || stats.dev !== device) return
    const names = await guarded(place, readdir(place))
    for (const name of names.sort()) await visit(path === '' ? name : `${path}/${name}`)
  }
  await visit('')
  return found
}

async function openFolder(root: string): Promise<DiskSource> {
  const found = await walk(root)
  let done = 0
  const total = found.reduce((sum, { stats }) => sum + (stats.isFile() ? Number(stats.size) : 0), 0)
  return { entries: entriesOf(root, found, (count) => (done += count)), total, done: () => done }
}

async function* entriesOf(root: string, found: readonly Found[], onBytes: (count: number) => void): DiskEntries {
  /** Files with several names: the first of them. */
  const names = new Map<bigint, string>()
  for (const { path, stats } of found) {
    const place = join(root, path)
    const kind = kindOf(stats)
    const first = kind !== 'directory' && stats.nlink > 1n ? names.get(stats.ino) : undefined
    if (first !== undefined) {
      yield diskEntry({ path, kind: 'hardLink', mode: 0, linkTarget: first })
      continue
    }
    if (stats.nlink > 1n) names.set(stats.ino, path)
    const entry: DiskEntry = diskEntry({
      path,
      kind,
      mode: Number(stats.mode & 0o7777n),
      uid: Number(stats.uid),
      gid: Number(stats.gid),
      modified: stats.mtimeNs,
      ...(kind === 'file' ? { size: Number(stats.size), content: bytesOf(place, onBytes) } : {}),
      ...(kind === 'symbolicLink' ? { linkTarget: await guarded(place, readlink(place)) } : {}),
      ...(kind === 'characterDevice' || kind === 'blockDevice' ? deviceNumbers(stats.rdev) : {}),
    })
    yield entry
  }
}
