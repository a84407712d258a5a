/** A disk in a raw file. */

import { open } from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import { NonrootError } from '@nonroot/contracts'
import type { BlockBackend, ByteStore } from '@nonroot/contracts'

const SECTOR = 512

/** The file's size must be a multiple of a sector (512 bytes). */
export async function openBlockFile(path: string, readOnly = false): Promise<BlockBackend> {
  const file = await openFile(path, readOnly)
  const { size } = await file.stat()
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
  const all = async (offset: number, buffer: Uint8Array, step: (at: number, from: number) => Promise<number>) => {
    for (let done = 0; done < buffer.length;) {
      const moved = await step(offset + done, done)
      if (moved === 0) throw new Error(`${path} ends at ${offset + done}`)
      done += moved
    }
  }
  return {
    size,
    sectorSize: SECTOR,
    readOnly,
    read: (offset, into) =>
      all(offset, into, async (at, from) => (await file.read(into, from, into.length - from, at)).bytesRead),
    write: (offset, from) =>
      all(offset, from, async (at, start) => (await file.write(from, start, from.length - start, at)).bytesWritten),
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
    return await open(path, readOnly ? 'r' : 'r+')
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
