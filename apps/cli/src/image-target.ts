/** Disk files in the making: under a temporary name until they are complete. */

import { open, rename, rm, stat } from 'node:fs/promises'
import { NonrootError } from '@nonroot/contracts'
import { openBlockFile, openFileStore } from '@nonroot/host-node'
import { createQcow2, qcow2 } from '@nonroot/image'
import type { NewDisk } from '@nonroot/image'

export async function createDisk(path: string, size: number): Promise<NewDisk> {
  const refuse = (message: string, remedy: string): never => {
    throw new NonrootError({ code: 'host.file', message: `${path}: ${message}`, thing: path, value: path, remedy })
  }
  if (await stat(path).catch(() => undefined)) refuse('there is such a file', 'remove it, or name another one')
  const part = `${path}.part`
  try {
    const file = await open(part, 'w')
    if (!isQcow2(path)) await file.truncate(size)
    await file.close()
  } catch (error) {
    refuse(`cannot be made: ${(error as Error).message}`, 'name a file in a folder where you may write')
  }
  const disk = isQcow2(path) ? await openQcow2(part, size) : await openBlockFile(part)
  return {
    disk,
    async keep() {
      await disk.flush()
      await disk.close()
      await rename(part, path)
    },
    async discard() {
      await disk.close().catch(() => {})
      await rm(part, { force: true })
    },
  }
}

const isQcow2 = (path: string): boolean => path.endsWith(`.${qcow2.name}`)

async function openQcow2(path: string, size: number): Promise<NewDisk['disk']> {
  const store = await openFileStore(path)
  await createQcow2(store, { size })
  return qcow2.open(store, {
    name: path,
    readOnly: false,
    openBacking: () => Promise.reject(new Error('a new disk has no backing file')),
  })
}
