/** An ImageHost on Node, for this package's own tests against real packages. Not exported: programs bring their own. */
import { execFile } from 'node:child_process'
import { mkdir, readdir, readFile, rename, rm, stat, writeFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { zstdDecompressSync } from 'node:zlib'
import type { ImageHost } from '../host.ts'

const unlessMissing = async <T>(promise: Promise<T>): Promise<T | undefined> => {
  try {
    return await promise
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
    throw error
  }
}

const LONGEST_OUTPUT = 256 << 20 // apt-cache show of some hundred packages

export const nodeImageHost: ImageHost = {
  run: (program, args, { folder } = {}) =>
    new Promise((resolve) => {
      const options = {
        env: { ...process.env, LC_ALL: 'C' },
        maxBuffer: LONGEST_OUTPUT,
        ...(folder && { cwd: folder }),
      }
      execFile(program, args, options, (error, stdout, stderr) => {
        if (error?.code === 'ENOENT') resolve({ found: false })
        else
          resolve({ found: true, status: typeof error?.code === 'number' ? error.code : error ? 1 : 0, stdout, stderr })
      })
    }),
  readFile: (path) => unlessMissing(readFile(path)),
  listFolder: async (path) => (await unlessMissing(readdir(path))) ?? [],
  fileSize: async (path) => (await unlessMissing(stat(path)))?.size,
  async writeFile(path, bytes) {
    await mkdir(dirname(path), { recursive: true })
    const beside = `${path}.${process.pid}.part`
    await writeFile(beside, bytes)
    await rename(beside, path)
  },
  makeFolder: async (path) => void (await mkdir(path, { recursive: true })),
  removeFile: (path) => rm(path, { force: true }),
  removeFolder: (path) => rm(path, { recursive: true, force: true }),
  decompressors: { zstd: (bytes) => zstdDecompressSync(bytes) },
}
