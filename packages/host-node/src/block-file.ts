/** A disk in a raw file. */

import fs from 'node:fs'
import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { NonrootError } from '@nonroot/contracts'
import type { BlockBackend, ByteStore } from '@nonroot/contracts'

const SECTOR = 512

/**
 * Whether requests are to be done in place. From the page cache one takes a few microseconds, less than handing it to a thread of the
 * pool and hearing of its end; what has to wait for a device must not hold up the guest, and the ones after it will have to wait as well.
 */
class Patience {
  /** Longest that a request in place should take: so many ms, and so many for each MiB. */
  static readonly #MOST_MS = 0.25
  static readonly #MOST_MS_EACH = 1
  /** Requests after a slow one that are not tried in place: at first, and at most when the one tried after them was slow as well. */
  static readonly #FIRST_PAUSE = 16
  static readonly #LONGEST_PAUSE = 1024
  #pause = Patience.#FIRST_PAUSE
  #skip = 0

  try(views: readonly Uint8Array[], move: () => void): boolean {
    if (this.#skip > 0) {
      this.#skip--
      return false
    }
    const started = performance.now()
    move()
    const bytes = views.reduce((sum, view) => sum + view.length, 0)
    const most = Patience.#MOST_MS + (bytes / 2 ** 20) * Patience.#MOST_MS_EACH
    if (performance.now() - started <= most) this.#pause = Patience.#FIRST_PAUSE
    else {
      this.#skip = this.#pause
      this.#pause = Math.min(this.#pause * 2, Patience.#LONGEST_PAUSE)
    }
    return true
  }
}

type Views = readonly Uint8Array[]
type Move = (
  fd: number,
  views: Views,
  position: number,
  callback: (error: NodeJS.ErrnoException | null, moved: number) => void,
) => void

/** By a thread of the pool, straight from and to where the bytes are: shared memory, too. */
async function moveAll(path: string, fd: number, move: Move, offset: number, views: Views): Promise<void> {
  for (let rest = views; rest.length > 0;) {
    const moved = await new Promise<number>((resolve, reject) =>
      move(fd, rest, offset, (error, count) => (error ? reject(error) : resolve(count))),
    )
    rest = after(path, rest, offset, moved)
    offset += moved
  }
}

function moveAllNow(
  path: string,
  fd: number,
  move: (fd: number, views: Views, position: number) => number,
  offset: number,
  views: Views,
): void {
  for (let rest = views; rest.length > 0;) {
    const moved = move(fd, rest, offset)
    rest = after(path, rest, offset, moved)
    offset += moved
  }
}

/** What is left when some bytes were moved: all is the usual case. */
function after(path: string, views: Views, offset: number, moved: number): Views {
  if (moved === 0 && views.some(({ length }) => length > 0)) throw new Error(`${path} ends at ${offset}`)
  let left = moved
  for (const [index, view] of views.entries()) {
    if (left < view.length) return [view.subarray(left), ...views.slice(index + 1)]
    left -= view.length
  }
  return []
}

/** Interval at which the size of an open file is checked: its guest learns of a new size after this time at most. */
const LOOK_MS = 1000

/** Tells of a file's new sizes, in whole sectors. */
function watchSize(file: FileHandle, tell: (size: number) => void): () => void {
  const look = async (): Promise<void> => {
    const { size } = await file.stat()
    tell(size - (size % SECTOR))
  }
  // A file that is closed meanwhile has nothing to tell.
  const timer = setInterval(() => void look().catch(() => clearInterval(timer)), LOOK_MS)
  timer.unref()
  return () => clearInterval(timer)
}

/** The file's size must be a multiple of a sector (512 bytes). Truncating or extending it while it is open resizes the disk. */
export async function openBlockFile(path: string, readOnly = false): Promise<BlockBackend> {
  const file = await openFile(path, readOnly)
  let { size } = await file.stat()
  if (size === 0 || size % SECTOR) {
    await file.close()
    throw new NonrootError({
      code: 'host.backend',
      message: `${path} has ${size} bytes: a raw disk image is a positive multiple of ${SECTOR}`,
      thing: path,
      value: size,
      remedy: `pad it: truncate --size=%${SECTOR} ${path}`,
    })
  }
  const { fd } = file
  const now = new Patience()
  return {
    get size() {
      return size
    },
    sectorSize: SECTOR,
    readOnly,
    onResize: (listener) =>
      watchSize(file, (found) => {
        if (found === size || found === 0) return
        size = found
        listener(found)
      }),
    read: (offset, into) => moveAll(path, fd, fs.readv, offset, [into]),
    write: (offset, from) => moveAll(path, fd, fs.writev, offset, [from]),
    readVector: (offset, into) => moveAll(path, fd, fs.readv, offset, into),
    writeVector: (offset, from) => moveAll(path, fd, fs.writev, offset, from),
    readNow: (offset, into) => now.try(into, () => moveAllNow(path, fd, fs.readvSync, offset, into)),
    writeNow: (offset, from) => now.try(from, () => moveAllNow(path, fd, fs.writevSync, offset, from)),
    readBlocking: (offset, into) => moveAllNow(path, fd, fs.readvSync, offset, [into]),
    flush: () => file.datasync(),
    close: () => file.close(),
  }
}

/** A file that a disk format is laid over. */
export async function openFileStore(path: string, readOnly = false): Promise<ByteStore> {
  const file = await openFile(path, readOnly)
  let { size } = await file.stat()
  return {
    get size() {
      return size
    },
    async read(offset, into) {
      let done = 0
      while (done < into.length) {
        const { bytesRead } = await file.read(into, done, into.length - done, offset + done)
        if (bytesRead === 0) break
        done += bytesRead
      }
      into.fill(0, done)
    },
    async write(offset, from) {
      for (let done = 0; done < from.length;)
        done += (await file.write(from, done, from.length - done, offset + done)).bytesWritten
      size = Math.max(size, offset + from.length)
    },
    // The size is metadata that a file needs, which datasync makes durable, too.
    flush: () => (readOnly ? Promise.resolve() : file.datasync()),
    close: () => file.close(),
  }
}

async function openFile(path: string, readOnly: boolean): Promise<FileHandle> {
  try {
    const file = await open(path, readOnly ? 'r' : 'r+')
    if (!(await file.stat()).isDirectory()) return file
    await file.close()
    throw Object.assign(new Error('EISDIR'), { code: 'EISDIR' })
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    const why = { ENOENT: 'there is no such file', EACCES: 'permission denied', EISDIR: 'it is a folder' }[code ?? '']
    throw new NonrootError({
      code: 'host.file',
      message: `cannot open the disk image ${path}: ${why ?? (error as Error).message}`,
      thing: path,
      value: path,
      ...(code === 'EACCES' ? { remedy: 'readOnly: true opens it without write permission' } : {}),
      cause: error,
    })
  }
}
