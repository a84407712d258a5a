/** What a run boots: as configured, as the command line says, or else Debian, or else the demo guest. */

import { open } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { NonrootError } from '@nonroot/contracts'
import type { BootImage, ModuleSource } from '@nonroot/contracts'
import { withOverrides } from '@nonroot/hypervisor'
import type { LoadedConfig, StackConfig } from '@nonroot/hypervisor'
import type { Progress } from '@nonroot/image'
import type { AgentPlan } from './agent-plan.ts'
import { attached } from './attached.ts'
import type { Announced } from './guest-input.ts'
import type { DiskPlan } from './disk-plan.ts'
import type { ImageAddition } from './image-addition.ts'
import { planNetwork } from './network-plan.ts'
import type { NetworkOptions } from './network-plan.ts'
import type { TerminalKind } from './protocol.ts'

/** What was asked for, of a VM. */
export interface BootRequest {
  /** A disk to attach, and to boot from. */
  readonly disk?: string
  readonly kernel?: string
  readonly initrd?: string
  readonly cmdline?: string
  /** Further packages of the Debian that is booted where nothing else is named. */
  readonly include?: readonly string[]
  /** Mirrors that its packages come from. */
  readonly mirror?: readonly string[]
  readonly network: NetworkOptions
  /** Run this in the guest instead of a shell. */
  readonly command?: readonly string[]
  readonly terminal?: TerminalKind
  readonly interactive: boolean
  /** The console back end by which the caller reaches the guest's agent, where there can be one. */
  readonly agent?: string
}

export interface BootPlan {
  /** Further changes of the configuration. */
  readonly set: readonly string[]
  /** The configuration with all changes. */
  readonly config: LoadedConfig
  /** In place of the files that the configuration then names. */
  readonly image?: BootImage
  readonly addition?: ImageAddition
  /** What our init will announce on the console, with marks around a command's output. */
  readonly announced: Announced
  /** The console back end of the port by which the guest's agent is reached, if the machine has one. */
  readonly agentPort?: string
  /** Why there is none. */
  readonly noAgent?: string
}

export interface Planning {
  readonly source: ModuleSource
  /** Tells how far it is. */
  tell(text: string, done: boolean): void
  /** The demo guest will not do in place of an image that cannot be made. */
  readonly needsImage?: boolean
  /** Ends the programs that make an image. */
  readonly signal?: AbortSignal
}

export const cacheFolder = (): string =>
  process.env['NONROOT_CACHE'] ?? join(process.env['XDG_CACHE_HOME'] ?? join(homedir(), '.cache'), 'nonroot')

/** Protocols that a stack may name without a kernel: it says how its guests start, and leaves open which. */
const OPEN = ['xen-pv', 'pvh']
/** Of Linux only the bare name: `linux: { initrd: mine }` has forgotten its kernel. */
const isOpenProtocol = (protocol: string, options: object): boolean =>
  (OPEN.includes(protocol) && !('kernel' in options)) || (protocol === 'linux' && Object.keys(options).length === 0)
/** Where Linux has its console: Xen's guests on a ring, others on a serial port. */
const consoleParameter = ({ stack }: StackConfig): string =>
  `console=${stack.abi.use === '@nonroot/abi-xen' ? 'hvc0' : 'ttyS0'}`

export async function planBoot(request: BootRequest, loaded: LoadedConfig, planning: Planning): Promise<BootPlan> {
  const { set, ...plan } = await planImage(request, loaded, planning)
  return { ...plan, set, config: withOverrides(loaded, set) }
}

async function planImage(
  request: BootRequest,
  loaded: LoadedConfig,
  planning: Planning,
): Promise<Omit<BootPlan, 'config'>> {
  const { command, terminal } = request
  const { config } = loaded
  const disk = request.disk === undefined ? undefined : await diskOf(request.disk, config, planning.source)
  const chosen = await choose(request, loaded, disk, planning)
  if (chosen === undefined) {
    if (command) throw noCommandInDemo()
    const { demoGuest } = await import('@nonroot/image')
    const image = { kernel: demoGuest(), cmdline: request.cmdline ?? '' }
    const noAgent = 'it is the built-in demo guest'
    return { set: [bootSetting('multiboot', { kernel: 'demo guest' })], image, announced: undefined, noAgent }
  }
  const { ours, image } = chosen
  // A kernel or an init that someone names may do without.
  if (disk?.init === false && ours && !command && !/(^| )init=/.test(request.cmdline ?? '')) throw noInit(request.disk!)
  const network = planNetwork(request.network, config)
  const devices = [disk?.device, network.device].filter((device) => device !== undefined)
  const agent = await agentOf(request, ours, config, devices)
  const port = typeof agent === 'string' ? undefined : agent
  const set = [...attached(config, [...devices, ...(port ? [port.device] : [])]), ...chosen.set]
  // The system on a disk takes over from our init, which then announces nothing.
  const isOurs = ours && (disk === undefined || command !== undefined)
  const announced = command ? 'command' : isOurs && !request.interactive ? 'shell' : undefined
  const plan: Omit<BootPlan, 'config'> = {
    ...{ set, announced },
    ...(image ? { image } : {}),
    ...(port ? { agentPort: port.backend } : { noAgent: agent as string }),
  }
  // An init of another's does not know our parameters; the kernel passes them on, and warns of what it does not know itself.
  const dhcp = network.dhcp && (isOurs || command !== undefined)
  if (!announced && !(isOurs && terminal) && !dhcp && !disk && !port) return plan
  const { guestParameters } = await import('@nonroot/image')
  const { parameters, overlay } = guestParameters({
    ...(command ? { command } : {}),
    ...(announced ? { marks: true } : {}),
    ...(port ? { agent: true } : {}),
    ...(dhcp ? { network: 'dhcp' } : {}),
    ...(isOurs && terminal ? { rows: terminal.rows, columns: terminal.columns } : {}),
    ...(isOurs && terminal?.name ? { term: terminal.name } : {}),
  })
  const { uuid } = disk ?? {}
  const root = disk && { disk: uuid === undefined ? {} : { uuid } }
  return { ...plan, addition: { parameters, ...(overlay ? { overlay } : {}), ...root } }
}

/** Disks have much code of their own, which other starts do not wait for. */
async function diskOf(name: string, config: StackConfig, source: ModuleSource): Promise<DiskPlan> {
  const { planDisk } = await import('./disk-plan.ts')
  return planDisk(name, config, source)
}

/** Without one, why. A command is run by our init, whoever names the image. */
async function agentOf(
  { agent, command }: BootRequest,
  ours: boolean,
  config: StackConfig,
  devices: readonly object[],
): Promise<AgentPlan | string> {
  if (agent === undefined) return 'it was started without one'
  if (!ours && !command) return 'its image is not one that nonroot made'
  return (await import('./agent-plan.ts')).planAgent(agent, config, devices)
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
  request: BootRequest,
  loaded: LoadedConfig,
  disk: DiskPlan | undefined,
  { source, tell, needsImage, signal }: Planning,
): Promise<Chosen | undefined> {
  const { config } = loaded
  const { kernel, initrd, cmdline, command } = request
  const extra = { ...(initrd === undefined ? {} : { initrd }), ...(cmdline === undefined ? {} : { cmdline }) }
  const configured = config.boot && Object.keys(config.boot).find((key) => key !== 'use')
  const isOpen = configured !== undefined && isOpenProtocol(configured, Object(config.boot![configured]) as object)
  const protocol = isOpen ? configured : 'linux'
  if (kernel !== undefined)
    return { set: [await kernelSetting(kernel, protocol, request, config, source)], ours: false }
  if (configured !== undefined && !isOpen) {
    const set = Object.entries(extra).map(([key, value]) => `boot.${configured}.${key}=${JSON.stringify(value)}`)
    return { set, ours: false }
  }
  const { DEBIAN_PARAMETERS } = await import('@nonroot/image')
  // A command's caller does not see the kernel's messages: only those that matter when it goes wrong are worth their time.
  const usual = [
    ...[consoleParameter(config), ...DEBIAN_PARAMETERS.slice(1), ...(command ? ['quiet'] : [])],
    // Debian leaves it to the user to bring plugged memory online; in a movable zone it can be unplugged again.
    ...(config.machine.pluggable ? ['memhp_default_state=online_movable'] : []),
  ].join(' ')
  // Only our own init runs commands.
  if (disk?.kernel && disk.initrd && initrd === undefined && (disk.ours || !command)) {
    const image = { kernel: disk.kernel, initrd: disk.initrd, cmdline: cmdline ?? usual }
    return { set: [bootSetting(protocol, { kernel: disk.file })], ours: disk.ours, image }
  }
  const [{ debianImage, ImageError }, { nodeImageHost }, { mirrorsOf }] = await Promise.all([
    import('@nonroot/image'),
    import('../image-host.ts'),
    import('../image-mirrors.ts'),
  ])
  const mirrors = await mirrorsOf(request, { loaded, source })
  try {
    const image = await debianImage(nodeImageHost(signal), {
      cacheFolder: cacheFolder(),
      ...(request.include ? { include: request.include } : {}),
      ...(mirrors ? { mirrors } : {}),
      onProgress: (progress) => tell(progressText(progress), progress.done >= progress.total),
    })
    const options = { kernel: image.vmlinux, initrd: image.initrd, cmdline: usual, ...extra }
    return { set: [bootSetting(protocol, options)], ours: true }
  } catch (error) {
    if (!(error instanceof ImageError) || command || disk || isOpen || needsImage) throw error
    tell(`no Debian image: ${error.message}; running the built-in demo guest (for Debian: ${error.remedy})`, true)
    return undefined
  }
}

const bootSetting = (protocol: string, options: Record<string, unknown>): string =>
  `boot=${JSON.stringify({ use: '@nonroot/boot', [protocol]: options })}`

/** By what the file is: a Multiboot header in its first 8 KiB, or Linux. */
async function kernelSetting(
  kernel: string,
  protocol: string,
  request: BootRequest,
  config: StackConfig,
  source: ModuleSource,
): Promise<string> {
  const start = await readStart(source.resolvePath(source.workingFolder, kernel))
  const { initrd, cmdline } = request
  if (protocol === 'linux' && isMultiboot(start)) {
    const modules = initrd === undefined ? {} : { modules: [{ content: initrd }] }
    return bootSetting('multiboot', { kernel, ...modules, ...(cmdline ? { cmdline } : {}) })
  }
  return bootSetting(protocol, {
    kernel,
    ...(initrd ? { initrd } : {}),
    cmdline: cmdline ?? consoleParameter(config),
  })
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
    // Booting it reports what is wrong with it.
    return new Uint8Array()
  }
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

const noInit = (disk: string): NonrootError =>
  new NonrootError({
    code: 'usage',
    message: `the disk ${disk} has no system to boot: it has no /sbin/init`,
    thing: '--disk',
    value: disk,
    remedy:
      'run a command in it, -- COMMAND; name its init, --cmdline init=PATH; or make a disk with a system: nonroot image debian --rootfs',
  })

const noCommandInDemo = (): NonrootError =>
  new NonrootError({
    code: 'usage',
    message: 'the demo guest runs no commands',
    thing: 'command',
    remedy: 'give a Linux image: --kernel FILE --initrd FILE',
  })
