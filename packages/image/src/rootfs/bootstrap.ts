/** The distribution's bootstrap tools: finds one, and makes a root with it as a tar archive. Independent of disks. */

import { SUITE } from '../debian.ts'
import { ImageError } from '../errors.ts'
import type { ImageHost, OnProgress } from '../host.ts'
import type { MirroredSuite } from '../source/mirror.ts'

/** What makes a minimal system one that boots, and one that can be looked into. */
export const BASE_PACKAGES: readonly string[] = [
  ...['systemd-sysv', 'udev', 'dbus', 'kmod', 'login', 'passwd', 'e2fsprogs'],
  ...['procps', 'iproute2', 'less', 'busybox-static', 'ca-certificates'],
]

/** Where the system's package client gets the suite and its updates from; nowhere where it is another system. */
async function configured(host: ImageHost): Promise<MirroredSuite[]> {
  const format = '$(REPO_URI) $(RELEASE) $(COMPONENT)'
  const result = await host.run('apt-get', ['indextargets', '--format', format, 'Created-By: Packages'])
  if (!result.found || result.status !== 0) return []
  const found = new Map<string, MirroredSuite>()
  for (const line of result.stdout.split('\n')) {
    const [uri, suite, component] = line.split(' ')
    if (uri && component === 'main' && (suite === SUITE || suite?.startsWith(`${SUITE}-`)))
      found.set(`${uri} ${suite}`, { uri, suite })
  }
  return [...found.values()]
}

export interface Bootstrap {
  readonly packages: readonly string[]
  /** The archive to write. */
  readonly to: string
  /** A folder of its own, which is there. Emptied afterwards. */
  readonly scratch: string
  /** Where packages are; absent: where the system's package client gets them from. */
  readonly mirrors?: readonly MirroredSuite[]
  readonly onProgress: OnProgress
}

/** mmdebstrap, which needs no privilege and takes the updates, too; else debootstrap, which root alone can run. */
export async function bootstrap(host: ImageHost, wanted: Bootstrap): Promise<void> {
  if ((await host.run('mmdebstrap', ['--version'])).found) return mmdebstrap(host, wanted)
  if (!(await host.run('debootstrap', ['--version'])).found) {
    throw new ImageError(
      'noBootstrapTool',
      'there is neither mmdebstrap nor debootstrap here',
      'on Debian and its derivatives: apt-get install mmdebstrap; elsewhere make a root otherwise and a disk of it: nonroot image disk --from DIR|TAR',
    )
  }
  const user = await host.run('id', ['-u'])
  if (user.found && user.stdout.trim() !== '0') {
    throw new ImageError(
      'noBootstrapTool',
      'debootstrap needs root',
      'apt-get install mmdebstrap, which does not, or run this as root',
    )
  }
  return debootstrap(host, wanted)
}

async function runTool(host: ImageHost, tool: string, args: readonly string[], onProgress: OnProgress): Promise<void> {
  const tell = (done: number, what: string) =>
    onProgress({ step: 'bootstrap', what: `Debian with ${tool}${what}`, done, total: 1 })
  tell(0, '')
  // The tool's words: the step or package that it spoke of last.
  const onLine = (line: string): void => {
    const what = /^I: (.+?)\.*$/.exec(line)?.[1]
    if (what) tell(1, `: ${what}`)
  }
  const result = await host.run(tool, args, { onLine })
  if (result.found && result.status === 0) return
  const status = result.found ? `ended with status ${result.status}` : 'is not here'
  const lines = result.found ? `${result.stdout}\n${result.stderr}`.trim().split('\n') : []
  const errors = lines.filter((line) => /^(E|W): /.test(line))
  throw new ImageError(
    'packageClientFailed',
    `${tool} ${status}: ${(errors.length > 0 ? errors : lines).slice(-3).join(' ')}`,
    'check the network and the names after --include',
  )
}

async function mmdebstrap(host: ImageHost, { packages, to, mirrors = [], onProgress }: Bootstrap): Promise<void> {
  const sources = (mirrors.length > 0 ? mirrors : await configured(host)).map(({ uri, suite }) => `deb ${uri} ${suite} main`)
  const args = ['--variant=minbase', '--format=tar', `--include=${packages.join(',')}`, SUITE, to, ...sources]
  await runTool(host, 'mmdebstrap', args, onProgress)
}

async function debootstrap(host: ImageHost, { packages, to, scratch, mirrors = [], onProgress }: Bootstrap): Promise<void> {
  const mirror = (mirrors.length > 0 ? mirrors : await configured(host)).find(({ suite }) => suite === SUITE)
  const root = `${scratch}/root`
  const args = ['--variant=minbase', `--include=${packages.join(',')}`, SUITE, root, ...(mirror ? [mirror.uri] : [])]
  await host.removeFolder(root)
  try {
    await runTool(host, 'debootstrap', args, onProgress)
    // An archive has the extended attributes, capabilities among them.
    const tar = ['--xattrs', '--xattrs-include=*', '--numeric-owner', '--one-file-system', '-C', root, '-cf', to, '.']
    await runTool(host, 'tar', tar, onProgress)
  } finally {
    await host.removeFolder(root)
  }
}
