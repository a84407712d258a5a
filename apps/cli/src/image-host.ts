/** This process as the host of the image pipeline: files, programs, disks, and zstd. */

import { execFile } from 'node:child_process'
import { createReadStream } from 'node:fs'
import { readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { makeFolder } from '@nonroot/host-node'
import type { Decompressors, DiskHost } from '@nonroot/image'
import { openSource } from './image-source.ts'
import { createDisk } from './image-target.ts'

const isMissing = (error: unknown): boolean => (error as NodeJS.ErrnoException).code === 'ENOENT'
const unlessMissing = async <T>(work: Promise<T>): Promise<T | undefined> =>
  work.catch((error: unknown) => {
    if (isMissing(error)) return undefined
    throw error
  })

/** Package lists are long. */
const MOST_OUTPUT = 1 << 28

const decompressors: Decompressors = { zstd: async (bytes) => promisify(zlib.zstdDecompress)(bytes) }

/** The signal ends the programs that it runs. */
export const nodeImageHost = (signal?: AbortSignal): DiskHost => ({
  run: (program, args, options) =>
    new Promise((resolve, reject) => {
      const settings = {
        maxBuffer: MOST_OUTPUT,
        env: { ...process.env, LC_ALL: 'C' },
        ...(options?.folder === undefined ? {} : { cwd: options.folder }),
        ...(signal ? { signal } : {}),
      }
      const child = execFile(program, [...args], settings, (error, stdout, stderr) => {
        if (isMissing(error ?? {})) resolve({ found: false })
        else if (error && typeof error.code !== 'number') reject(error)
        else resolve({ found: true, status: error ? Number(error.code) : 0, stdout, stderr })
      })
      const { onLine } = options ?? {}
      if (onLine)
        for (const stream of [child.stdout, child.stderr]) if (stream) createInterface(stream).on('line', onLine)
    }),
  readFile: async (path) => unlessMissing(readFile(path)),
  async writeFile(path, bytes) {
    makeFolder(dirname(path))
    const beside = `${path}.${process.pid}.part`
    await writeFile(beside, bytes)
    await rename(beside, path)
  },
  makeFolder: async (path) => makeFolder(path),
  listFolder: async (path) => (await unlessMissing(readdir(path))) ?? [],
  fileSize: async (path) => (await unlessMissing(stat(path)))?.size,
  removeFile: (path) => rm(path, { force: true }),
  removeFolder: (path) => rm(path, { recursive: true, force: true }),
  decompressors,
  fetch: (url, requestSignal) =>
    // A body as it is: package lists and packages are compressed already.
    fetch(url, {
      redirect: 'manual',
      headers: { 'accept-encoding': 'identity' },
      signal: signal ? AbortSignal.any([signal, requestSignal]) : requestSignal,
    }),
  openStream: (path) => createReadStream(path, { highWaterMark: 1 << 18 }),
  openSource: (path) => openSource(path, decompressors),
  createDisk,
})
