/** Boot images: the files that a configuration names, opened. */

import { NonrootError } from '@nonroot/contracts'
import type { BootContent, BootFile, BootImage, HostBackends, OpenedFile } from '@nonroot/contracts'
import type { Stack } from '../composition/stack.ts'
import type { VmOptions } from './options.ts'

export interface ImageSource {
  readonly backends: HostBackends
  readonly resolvePath: (folder: string, path: string) => string
  /** Folder that paths are relative to. */
  readonly folder: string
}

export interface OpenedImage {
  readonly image: BootImage
  /** Resolves when all requested parts of its files have been read. */
  settled(): Promise<void>
  /** Closes its files. Not while they are being read. */
  close(): void
}

/** An image whose bytes are already in memory. */
export const openedAlready = (image: BootImage): OpenedImage => ({ image, settled: async () => {}, close: () => {} })

/** The image that a VM boots: `given`, or what the stack names. Throws `stack.missing` if it names nothing. */
export async function imageFor(
  stack: Stack,
  given: VmOptions<never>['image'],
  source: Omit<ImageSource, 'folder'>,
): Promise<OpenedImage> {
  const { boot } = stack
  if (!boot) {
    throw new NonrootError({
      code: 'stack.missing',
      message: 'the stack has nothing to boot',
      thing: 'boot',
      remedy: 'name a protocol and its files, as in boot: { linux: { kernel: ./vmlinuz, initrd: ./initrd } }',
      location: { file: stack.file },
    })
  }
  if (typeof given === 'object') return openedAlready(given)
  const configured = await openImage(boot.image, { ...source, folder: boot.folder })
  if (!given) return configured
  try {
    return { ...configured, image: await given(configured.image) }
  } catch (error) {
    configured.close()
    throw error
  }
}

export async function openImage(image: BootImage<string>, source: ImageSource): Promise<OpenedImage> {
  const backend = await source.backends.open('files', {})
  const files = new ImageFiles()
  const read = async (path: string, what: string): Promise<BootContent> => {
    const full = source.resolvePath(source.folder, path)
    try {
      const file = await backend.openFile?.(full)
      return file ? files.add(file) : await backend.readFile(full)
    } catch (error) {
      throw new NonrootError({
        code: 'host.file',
        message: `cannot read the ${what} ${full}: ${reasonOf(error)}`,
        thing: what,
        value: full,
        remedy: `give the path of a file that is there`,
        cause: error,
      })
    }
  }
  try {
    return { image: await contentsOf(image, read), settled: () => files.settled(), close: () => files.close() }
  } catch (error) {
    files.close()
    throw error
  }
}

/** The open files of an image, and the reads in progress. */
class ImageFiles {
  readonly #opened: OpenedFile[] = []
  #reading: Promise<void>[] = []

  add(file: OpenedFile): BootFile {
    this.#opened.push(file)
    return {
      length: file.length,
      read: (at, length) => file.read(at, length),
      readInto: (at, views, done) => {
        const reading = file.readInto(at, views).then(done)
        // Reported to callers of `settled`.
        reading.catch(() => {})
        this.#reading.push(reading)
      },
    }
  }

  async settled(): Promise<void> {
    const results = await Promise.allSettled(this.#reading.splice(0))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  close(): void {
    for (const file of this.#opened.splice(0)) file.close()
  }
}

async function contentsOf(
  image: BootImage<string>,
  read: (path: string, what: string) => Promise<BootContent>,
): Promise<BootImage> {
  const one = async (key: 'kernel' | 'initrd' | 'firmware') =>
    image[key] === undefined ? {} : { [key]: await read(image[key], key) }
  const modules =
    image.modules &&
    (await Promise.all(
      image.modules.map(async ({ content, cmdline }, index) => ({
        content: await read(content, `module ${index}`),
        cmdline,
      })),
    ))
  return {
    ...(await one('kernel')),
    ...(await one('initrd')),
    ...(await one('firmware')),
    ...(modules ? { modules } : {}),
    ...(image.cmdline === undefined ? {} : { cmdline: image.cmdline }),
  }
}

const REASONS: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EACCES: 'permission denied',
  EISDIR: 'it is a folder',
  ERR_FS_FILE_TOO_LARGE: 'it is too large for a boot image',
}

const reasonOf = (error: unknown): string => {
  const { code, message } = error as { code?: string; message?: string }
  return (code && REASONS[code]) ?? message ?? String(error)
}
