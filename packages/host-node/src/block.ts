/** Disks by what a configuration says of them: where the bytes are, which format they have, what becomes of what is written. */

import { dirname, relative, resolve } from 'node:path'
import { NonrootError, parseSize } from '@nonroot/contracts'
import type { BlockBackend, BlockFormat, BlockRequest } from '@nonroot/contracts'
import { openBlockFile, openFileStore } from './block-file.ts'
import { isNbd, openNbd } from './nbd.ts'

/** What a host needs to open more than raw files. `@nonroot/image` has both. */
export interface BlockParts {
  readonly formats: readonly BlockFormat[]
  /** Writes to memory over a disk. */
  readonly overlay: (base: BlockBackend) => BlockBackend
  readonly memory: (size: number) => BlockBackend
}

/** A chain of backing files ends somewhere. */
const LONGEST_CHAIN = 16
const MEMORY = 'memory://'

const refuse = (image: string, message: string, remedy?: string): never => {
  throw new NonrootError({
    code: 'host.backend',
    message: `${image}: ${message}`,
    thing: image,
    value: image,
    ...(remedy === undefined ? {} : { remedy }),
  })
}

export async function openBlock(
  request: BlockRequest,
  path: (name: string) => string,
  parts?: BlockParts,
): Promise<BlockBackend> {
  const { image, temporary } = request
  const needs = (what: string): BlockParts =>
    parts ?? refuse(image, `${what} needs the disk formats`, 'createNodeBackends({ block: ... })')
  if (image.startsWith(MEMORY)) {
    const size = parseSize(image.slice(MEMORY.length))
    if (typeof size === 'object') return refuse(image, size.problem, 'memory://64MiB')
    return needs('a disk in memory').memory(size)
  }
  if (isNbd(image)) {
    const served = await openNbd(image, request.readOnly === true || temporary === true)
    return temporary ? needs('a temporary disk').overlay(served) : served
  }
  const opened = await open(path(image), { ...request, readOnly: request.readOnly || temporary === true }, parts, 0)
  return temporary ? needs('a temporary disk').overlay(opened) : opened
}

async function open(
  file: string,
  request: BlockRequest,
  parts: BlockParts | undefined,
  depth: number,
): Promise<BlockBackend> {
  const { readOnly = false, backingFiles = 'beside' } = request
  const formats = parts?.formats ?? []
  const name = request.format ?? formats.find((format) => file.endsWith(`.${format.name}`))?.name ?? 'raw'
  if (name === 'raw') return openRaw(file, readOnly, request.format === undefined ? formats : [])
  const format =
    formats.find((known) => known.name === name) ??
    refuse(
      file,
      `disk format "${name}" is not known`,
      `known are raw${formats.map((known) => `, ${known.name}`).join('')}`,
    )
  const store = await openFileStore(file, readOnly)
  try {
    return await format.open(store, {
      name: file,
      readOnly,
      openBacking(backing, backingFormat) {
        if (depth + 1 >= LONGEST_CHAIN) refuse(file, `more than ${LONGEST_CHAIN} images lie one over the other`)
        const folder = dirname(file)
        const below = resolve(folder, backing)
        // An image says which file of the host is read: one from elsewhere must not name any.
        if (backingFiles === 'beside' && relative(folder, below).startsWith('..'))
          refuse(
            file,
            `its backing file ${below} is in another folder`,
            'backingFiles: anywhere, if you trust the image',
          )
        return open(
          below,
          {
            image: below,
            readOnly: true,
            backingFiles,
            ...(backingFormat === undefined ? {} : { format: backingFormat }),
          },
          parts,
          depth + 1,
        )
      },
    })
  } catch (error) {
    await store.close()
    throw error
  }
}

/** Raw by its name: then it should not look like anything else. (A guest that writes a header must not change what the image is.) */
async function openRaw(file: string, readOnly: boolean, formats: readonly BlockFormat[]): Promise<BlockBackend> {
  const disk = await openBlockFile(file, readOnly)
  const head = new Uint8Array(512)
  await disk.read(0, head)
  const other = formats.find((format) => format.detects(head))
  if (!other) return disk
  await disk.close()
  return refuse(file, `the image begins like ${other.name}`, `say which: format: ${other.name}, or format: raw`)
}
