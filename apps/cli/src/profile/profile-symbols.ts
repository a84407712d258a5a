/** Selects the symbols of a profile: of the given file, or those in the kernel's image. */
import { readFile } from 'node:fs/promises'
import { bytesOf, NonrootError } from '@nonroot/contracts'
import type { BootContent, ModuleSource } from '@nonroot/contracts'
import { nodeImageHost } from '../image-host.ts'
import { symbolsOf, type Symbols } from './symbols.ts'

/** Undefined where the kernel has none: the profile then has addresses. Throws where the file that was given has none. */
export async function profileSymbols(
  file: string | undefined,
  kernel: BootContent | undefined,
  source: ModuleSource,
): Promise<Symbols | undefined> {
  const { decompressors } = nodeImageHost()
  if (file === undefined)
    return kernel && symbolsOf(new Uint8Array(bytesOf(kernel)), decompressors).catch(() => undefined)
  let bytes: Uint8Array<ArrayBuffer>
  try {
    bytes = new Uint8Array(await readFile(source.resolvePath(source.workingFolder, file)))
  } catch (error) {
    const message = `cannot read the symbols ${file}: ${(error as Error).message}`
    throw new NonrootError({
      code: 'host.file',
      message,
      thing: '--symbols',
      value: file,
      remedy: 'give a file that can be read',
      cause: error,
    })
  }
  const symbols = await symbolsOf(bytes, decompressors)
  if (symbols) return symbols
  const remedy = 'give a System.map, an ELF with a symbol table, or an uncompressed or compressed Linux kernel'
  throw new NonrootError({
    code: 'usage',
    message: `${file} names no address`,
    thing: '--symbols',
    value: file,
    remedy,
  })
}
