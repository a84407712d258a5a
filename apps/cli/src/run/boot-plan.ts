/** What a run boots: what the configuration says, what the command line says, or else Debian, or else the demo guest. */

import { open } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { NonrootError } from '@nonroot/contracts'
import type { BootImage, ModuleSource } from '@nonroot/contracts'
import { loadConfig } from '@nonroot/hypervisor'
import type { StackConfig } from '@nonroot/hypervisor'
import type { Progress } from '@nonroot/image'
import type { Announced } from './guest-input.ts'
import { planDisk, withRoot } from './disk-plan.ts'
import type { DiskPlan } from './disk-plan.ts'
import type { RunJob } from './protocol.ts'

export interface BootPlan {
  /** Further changes of the configuration. */
  readonly set: readonly string[]
  /** In place of the files that the configuration then names, or what to make of them. */
  readonly image?: BootImage | ((configured: BootImage) => BootImage)
  /** What our init will announce on the console, with marks around a command's output. */
  readonly announced: Announced
}

type Tell = (text: string, done: boolean) => void

export const cacheFolder = (): string =>
  process.env['NONROOT_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'nonroot')

const LINUX_PARAMETERS = 'console=ttyS0'

export async function planBoot(job: RunJob, source: ModuleSource, tell: Tell): Promise<BootPlan> {
  const { config } = await loadConfig(job.stackFile, source, job.set)
  const disk = job.disk === undefined ? undefined : await planDisk(job.disk, config, source)
  const chosen = await choose(job, config, disk, source, tell)
  if (chosen === undefined) {
    if (job.command) throw noCommandInDemo()
    const { demoGuest } = await import('@nonroot/image')
    const image = { kernel: demoGuest(), cmdline: job.cmdline ?? '' }
    return { set: [bootSetting('multiboot', { kernel: 'demo guest' })], image, announced: undefined }
  }
  const { ours, image: found } = chosen
  const set = [...(disk?.set ?? []), ...chosen.set]
  // The system on a disk takes over from our init, which then announces nothing.
  const isOurs = ours && (disk === undefined || job.command !== undefined)
  const announced = job.command ? 'command' : isOurs && !job.interactive ? 'shell' : undefined
  if (!announced && !(isOurs && job.terminal) && !disk) return { set, announced, ...(found ? { image: found } : {}) }
  const { guestParameters } = await import('@nonroot/image')
  const { parameters, overlay } = guestParameters({
    ...(job.command ? { command: job.command } : {}),
    ...(announced ? { marks: true } : {}),
    ...(isOurs && job.terminal ? { rows: job.terminal.rows, columns: job.terminal.columns } : {}),
    ...(isOurs && job.terminal?.name ? { term: job.terminal.name } : {}),
  })
  const finish = (configured: BootImage): BootImage => {
    const { cmdline = '', initrd } = configured
    const whole = disk ? withRoot(cmdline, disk, initrd !== undefined) : cmdline
    return {
      ...configured,
      cmdline: [whole, ...parameters].join(' ').trim(),
      ...(overlay ? { initrd: concat(initrd ?? new Uint8Array(), overlay) } : {}),
    }
  }
  return { set, announced, image: found ? finish(found) : finish }
}

interface Chosen {
  readonly set: readonly string[]
  /** The guest's init is ours and knows our parameters. */
  readonly ours: boolean
  /** In place of files. */
  readonly image?: BootImage
}

/** Nothing: the demo guest it is. */
async function choose(
  job: RunJob,
  config: StackConfig,
  disk: DiskPlan | undefined,
  source: ModuleSource,
  tell: Tell,
): Promise<Chosen | undefined> {
  const { kernel, initrd, cmdline } = job
  const extra = { ...(initrd === undefined ? {} : { initrd }), ...(cmdline === undefined ? {} : { cmdline }) }
  if (kernel !== undefined) return { set: [await kernelSetting(kernel, job, source)], ours: false }
  const configured = config.boot && Object.keys(config.boot).find((key) => key !== 'use')
  if (configured !== undefined) {
    const set = Object.entries(extra).map(([key, value]) => `boot.${configured}.${key}=${JSON.stringify(value)}`)
    return { set, ours: false }
  }
  const { DEBIAN_PARAMETERS } = await import('@nonroot/image')
  // A command's caller does not see the kernel's messages: only those that matter when it goes wrong are worth their time.
  const usual = [...DEBIAN_PARAMETERS, ...(job.command ? ['quiet'] : [])].join(' ')
  // Only our own init runs commands.
  if (disk?.kernel && disk.initrd && initrd === undefined && (disk.ours || !job.command)) {
    const image = { kernel: disk.kernel, initrd: disk.initrd, cmdline: cmdline ?? usual }
    return { set: [bootSetting('linux', { kernel: disk.file })], ours: disk.ours, image }
  }
  const [{ debianImage, ImageError }, { nodeImageHost }] = await Promise.all([
    import('@nonroot/image'),
    import('../image-host.ts'),
  ])
  try {
    const image = await debianImage(nodeImageHost(), {
      cacheFolder: cacheFolder(),
      onProgress: (progress) => tell(progressText(progress), progress.done >= progress.total),
    })
    const options = { kernel: image.vmlinux, initrd: image.initrd, cmdline: usual, ...extra }
    return { set: [bootSetting('linux', options)], ours: true }
  } catch (error) {
    if (!(error instanceof ImageError) || job.command || disk) throw error
    tell(`no Debian image: ${error.message}; running the built-in demo guest`, true)
    return undefined
  }
}

const bootSetting = (protocol: string, options: Record<string, unknown>): string =>
  `boot=${JSON.stringify({ use: '@nonroot/boot', [protocol]: options })}`

/** By what the file is: a Multiboot header in its first 8 KiB, or Linux. */
async function kernelSetting(kernel: string, job: RunJob, source: ModuleSource): Promise<string> {
  const start = await readStart(source.resolvePath(source.workingFolder, kernel))
  const initrd = job.initrd
  if (isMultiboot(start)) {
    const modules = initrd === undefined ? {} : { modules: [{ content: initrd }] }
    return bootSetting('multiboot', { kernel, ...modules, ...(job.cmdline ? { cmdline: job.cmdline } : {}) })
  }
  return bootSetting('linux', { kernel, ...(initrd ? { initrd } : {}), cmdline: job.cmdline ?? LINUX_PARAMETERS })
}

const MULTIBOOT_MAGIC = 0x1bad_b002
const SEARCHED = 8192

function isMultiboot(start: Uint8Array): boolean {
  const view = new DataView(start.buffer, start.byteOffset, start.length)
  for (let at = 0; at + 12 <= start.length; at += 4) {
    if (view.getUint32(at, true) !== MULTIBOOT_MAGIC) continue
    const sum = MULTIBOOT_MAGIC + view.getUint32(at + 4, true) + view.getUint32(at + 8, true)
    if (sum >>> 0 === 0) return true
  }
  return false
}

async function readStart(path: string): Promise<Uint8Array> {
  try {
    const file = await open(path)
    try {
      const { buffer, bytesRead } = await file.read(new Uint8Array(SEARCHED), 0, SEARCHED, 0)
      return buffer.subarray(0, bytesRead)
    } finally {
      await file.close()
    }
  } catch {
    // Whoever boots it says what is wrong with it.
    return new Uint8Array()
  }
}

const concat = (first: Uint8Array, second: Uint8Array): Uint8Array => {
  // Archives of an initramfs start at multiples of four.
  const start = Math.ceil(first.length / 4) * 4
  const whole = new Uint8Array(start + second.length)
  whole.set(first)
  whole.set(second, start)
  return whole
}

const VERBS: Record<Progress['step'], string> = {
  resolve: 'looking for',
  update: 'reading package lists',
  download: 'downloading',
  unpack: 'unpacking',
  bootstrap: 'installing',
  write: 'writing',
  cached: 'cached:',
}

export function progressText({ step, what, done, total }: Progress): string {
  const share = total > 1 ? ` ${Math.floor((100 * done) / total)} %` : ''
  return step === 'cached' ? '' : `image: ${VERBS[step]} ${what}${share}`
}

const noCommandInDemo = (): NonrootError =>
  new NonrootError({
    code: 'usage',
    message: 'the demo guest runs no commands',
    thing: 'command',
    remedy: 'give a Linux image: --kernel FILE --initrd FILE',
  })
