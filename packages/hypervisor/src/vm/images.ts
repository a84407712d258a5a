/** Boot images: the files that a configuration names, as bytes. */

import { NonrootError } from '@nonroot/contracts'
import type { BootImage, HostBackends } from '@nonroot/contracts'

type ReadFile = (path: string, what: string) => Promise<Uint8Array>

export interface ImageSource {
  readonly backends: HostBackends
  readonly resolvePath: (folder: string, path: string) => string
  /** Folder that paths are relative to. */
  readonly folder: string
}

export async function readImage(image: BootImage<string>, source: ImageSource): Promise<BootImage> {
  const files = await source.backends.open('files', {})
  const read: ReadFile = async (path, what) => {
    const full = source.resolvePath(source.folder, path)
    try {
      return await files.readFile(full)
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
