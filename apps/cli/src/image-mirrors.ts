/** Mirrors that Debian's packages are got from: as the command line, the environment or the configuration names them. */

import { readFile } from 'node:fs/promises'
import { NonrootError } from '@nonroot/contracts'
import type { ModuleSource } from '@nonroot/contracts'
import { folderOf } from '@nonroot/hypervisor'
import type { LoadedConfig } from '@nonroot/hypervisor'
import type { Mirrors } from '@nonroot/image'

export interface MirrorOptions {
  readonly mirror?: readonly string[]
  /** A file with public keys. */
  readonly keyring?: string
}

/** Undefined: none is named, so packages come from the system's package client. Each way that names some hides the later ones. */
export async function mirrorsOf(
  { mirror, keyring }: MirrorOptions,
  configuration?: { readonly loaded: LoadedConfig; readonly source: ModuleSource },
): Promise<Mirrors | undefined> {
  const named = process.env['NONROOT_MIRROR']?.split(/\s+/).filter(Boolean) ?? []
  const configured = configuration?.loaded.config.image ?? {}
  const urls = [mirror ?? [], named, [configured.mirror ?? []].flat()].find((list) => list.length > 0)
  if (!urls) {
    if (keyring === undefined) return undefined
    throw new NonrootError({
      code: 'usage',
      message: '--keyring is for mirrors, and none is named',
      thing: '--keyring',
      value: keyring,
      remedy: 'name one with --mirror URL, too',
    })
  }
  const keys = keyring ?? (configuration && configured.keyring && pathOf(configured.keyring, configuration))
  return { urls, ...(keys === undefined ? {} : { keys: await readKeyring(keys) }) }
}

const pathOf = (keyring: string, { loaded, source }: { readonly loaded: LoadedConfig; readonly source: ModuleSource }): string =>
  source.resolvePath(folderOf(loaded, ['image', 'keyring'], source), keyring)

async function readKeyring(path: string): Promise<Uint8Array> {
  return readFile(path).catch((cause: NodeJS.ErrnoException) => {
    throw new NonrootError({
      code: 'host.file',
      message: `cannot read the keyring ${path}: ${cause.message}`,
      thing: 'keyring',
      value: path,
      remedy: 'name a file with OpenPGP public keys, as gpg --export writes it',
      cause,
    })
  })
}
