/** Boot images: the files that a configuration names, opened. */

import { NonrootError } from '@nonroot/contracts'
import type { BootContent, BootImage, HostBackends } from '@nonroot/contracts'

export interface ImageSource {
  readonly backends: HostBackends
  readonly resolvePath: (folder: string, path: string) => string
  /** Folder that paths are relative to. */
  readonly folder: string
}

export interface OpenedImage {
  readonly image: BootImage
  /** Its files can no longer be read. */
  close(): void
}

export async function openImage(image: BootImage<string>, source: ImageSource): Promise<OpenedImage> {
  const files = await source.backends.open('files', {})
  const opened: { close(): void }[] = []
  const close = (): void => opened.splice(0).forEach((file) => file.close())
  const read = async (path: string, what: string): Promise<BootContent> => {
    const full = source.resolvePath(source.folder, path)
    try {
      const file = await files.openFile?.(full)
      if (file) opened.push(file)
      return file ?? (await files.readFile(full))
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
    return { image: await contentsOf(image, read), close }
  } catch (error) {
    close()
    throw error
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
