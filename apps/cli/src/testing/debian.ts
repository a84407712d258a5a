/** Debian guests for tests, from the cache that all such tests share. Not part of the package. */

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { spawnCli } from './cli.ts'

export const debianEnv = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }

/** What `nonroot run` boots. Made at the first call, with the network. */
export async function guestOf(flavour: 'cloud' | 'generic', include: readonly string[] = []): Promise<string[]> {
  const packages = include.flatMap((name) => ['--include', name])
  const made = await spawnCli(['image', 'debian', '--flavour', flavour, ...packages, '--json'], { env: debianEnv })
  if (made.status !== 0) throw new Error(made.err)
  const { vmlinux, initrd } = JSON.parse(made.out) as { vmlinux: string; initrd: string }
  return ['--kernel', vmlinux, '--initrd', initrd]
}
