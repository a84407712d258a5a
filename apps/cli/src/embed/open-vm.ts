/** A VM for programs: made, run in a thread of its own, asked to run commands, disposed. What `nonroot run` does, without a terminal. */

import { NonrootError } from '@nonroot/contracts'
import type { MetricSample, VmEnd } from '@nonroot/contracts'
import { loadConfig } from '@nonroot/hypervisor'
import type { LogLevel, VmEvent, VmInfo } from '@nonroot/hypervisor'
import { defaultStack, moduleSource } from '../host.ts'
import { planBoot } from '../run/boot-plan.ts'
import { GRACE_MS, agentBackend, hostJobOf, jobOf } from '../run/run-job.ts'
import { VmThread } from '../run/vm-handle.ts'
import { WatchedVm } from '../run/watched-vm.ts'
import { EventStream } from './event-stream.ts'
import { StreamedConsole } from './guest-console.ts'
import type { GuestConsole } from './guest-console.ts'
import { execIn, noAgent, spawnIn } from './guest-process.ts'
import type { ExecOptions, ExecResult, GuestProcess, SpawnOptions } from './guest-process.ts'

export interface VmSettings {
  /** A stack file, or the name of a shipped stack. Default: `kvm-like`. */
  readonly stack?: string
  /** Changes of the configuration, as after `--set`: `machine.memory=1GiB`. */
  readonly set?: readonly string[]
  /** What the guest boots: Debian from its packages with these further ones, got from these mirrors if any, or files. Default: what the stack names, or else Debian. */
  readonly image?:
    | { readonly include?: readonly string[]; readonly mirror?: readonly string[] }
    | { readonly kernel: string; readonly initrd?: string; readonly cmdline?: string }
  /** A disk to attach, and to boot the system on it. */
  readonly disk?: string
  /** `user`, `none`, `hub:NAME`, ... Default: what the stack names, or else `none`. */
  readonly network?: string
  /** Default: `vm`. */
  readonly name?: string
  /** Ends the VM, or what makes it. */
  readonly signal?: AbortSignal
  /** Called while an image is made: `image: downloading linux-image 40 %`. */
  readonly onProgress?: (text: string) => void
  readonly onLog?: (level: LogLevel, message: string) => void
}

/** What happens to a VM. */
export type OpenVmEvent = VmEvent | { readonly kind: 'output'; readonly bytes: Uint8Array } | { readonly kind: 'ended'; readonly end: VmEnd }

export interface OpenVm extends AsyncDisposable {
  readonly name: string
  readonly console: GuestConsole
  /** How it ended. Rejects with a NonrootError if it cannot be made. */
  readonly ended: Promise<VmEnd>
  /** From now on, for each caller, until the VM has ended. */
  events(): AsyncIterableIterator<OpenVmEvent>
  /** Runs a command in the guest to its end, once the guest's agent is there. Rejects if there is none. */
  exec(words: readonly string[], options?: ExecOptions): Promise<ExecResult>
  /** Starts a command in the guest, once the guest's agent is there. */
  spawn(words: readonly string[], options?: SpawnOptions): Promise<GuestProcess>
  pause(): Promise<void>
  resume(): Promise<void>
  reset(): Promise<void>
  /** Asks the guest to shut down. False: it does not listen. */
  powerButton(): Promise<boolean>
  /** Undefined once it has ended. */
  info(): Promise<VmInfo | undefined>
  metrics(): Promise<readonly MetricSample[]>
  /** Ends the VM and its thread, whatever the guest does. */
  [Symbol.asyncDispose](): Promise<void>
}

/** Makes a VM and starts it. Resolves when its guest is about to run. */
export async function openVm(settings: VmSettings = {}): Promise<OpenVm> {
  settings.signal?.throwIfAborted()
  const vm = new ThreadedVm(settings)
  try {
    await vm.start()
    return vm
  } catch (error) {
    await vm[Symbol.asyncDispose]()
    throw settings.signal?.aborted ? settings.signal.reason : error
  }
}

class ThreadedVm implements OpenVm {
  readonly name: string
  readonly console: StreamedConsole
  readonly ended: Promise<VmEnd>
  readonly #settings: VmSettings
  readonly #vm: WatchedVm
  readonly #events = new EventStream<OpenVmEvent>()
  readonly #started = Promise.withResolvers<void>()
  readonly #onAbort = (): void => void this[Symbol.asyncDispose]()
  #thread: VmThread | undefined
  #disposed: Promise<void> | undefined

  constructor(settings: VmSettings) {
    this.#settings = settings
    this.name = settings.name ?? 'vm'
    const vm = (this.#vm = new WatchedVm(this.name, {
      onOutput: (bytes, done) => {
        this.console.add(bytes)
        this.#events.emit({ kind: 'output', bytes })
        done()
      },
      onLog: (level, message) => settings.onLog?.(level, message),
      onStarted: () => this.#started.resolve(),
      onStop: () => vm.handle.stop(),
    }))
    this.console = new StreamedConsole({ type: (bytes) => vm.input(bytes), resize: (size) => vm.resizeConsole(size) })
    vm.onEvent((event) => this.#events.emit(event))
    this.ended = this.#finish()
    this.ended.catch(() => {})
    settings.signal?.addEventListener('abort', this.#onAbort, { once: true })
  }

  async start(): Promise<void> {
    const { set = [], image = {}, disk, network, signal, onProgress } = this.#settings
    const source = moduleSource()
    const stackFile = this.#settings.stack ?? defaultStack()
    const loaded = await loadConfig(stackFile, source, set)
    if (loaded.config.vms)
      throw new NonrootError({ code: 'usage', message: `${stackFile} has several VMs`, thing: stackFile, remedy: 'open each from a file of its own' })
    const request = {
      network: { usual: false, ...(network === undefined ? {} : { network }) },
      ...(disk === undefined ? {} : { disk }),
      ...image,
      interactive: true,
      agent: agentBackend(this.name),
    }
    const plan = await planBoot(request, loaded, {
      source,
      tell: (text) => text && onProgress?.(text),
      needsImage: true,
      ...(signal ? { signal } : {}),
    })
    await this.#vm.planAgent(plan)
    if (this.#disposed) throw gone(this.name)
    const { handle, flow } = this.#vm
    const thread = (this.#thread = new VmThread())
    const options = { set: [] }
    thread.start(hostJobOf(options), [{ handle, job: jobOf({ stackFile, set, interactive: true, name: this.name }, plan, options, flow) }])
    await Promise.race([this.#started.promise, this.ended])
  }

  async #finish(): Promise<VmEnd> {
    try {
      const { end } = await this.#vm.handle.ended
      this.#vm.finish({ status: 0, end, stop: undefined })
      this.#events.emit({ kind: 'ended', end })
      return end
    } finally {
      this.#vm.agent?.end()
      this.console.end()
      this.#events.end()
    }
  }

  events(): AsyncIterableIterator<OpenVmEvent> {
    return this.#events.read()
  }

  async spawn(words: readonly string[], options: SpawnOptions = {}): Promise<GuestProcess> {
    const { agent, noAgent: why } = this.#vm
    if (!agent) throw noAgent(this.name, why ?? 'it has ended')
    const { signal } = options
    const { promise: ready, resolve, reject } = Promise.withResolvers<void>()
    const stopWaiting = agent.whenReady((failure) => (failure ? reject(failure) : resolve()))
    const onAbort = (): void => reject(signal!.reason)
    signal?.addEventListener('abort', onAbort)
    try {
      await ready
    } finally {
      signal?.removeEventListener('abort', onAbort)
      stopWaiting()
    }
    return spawnIn(agent, words, options)
  }

  async exec(words: readonly string[], options: ExecOptions = {}): Promise<ExecResult> {
    return execIn(await this.spawn(words, options), options)
  }

  async pause(): Promise<void> {
    await this.#vm.request('pause')
  }
  async resume(): Promise<void> {
    await this.#vm.request('resume')
  }
  async reset(): Promise<void> {
    await this.#vm.request('reset')
  }
  async powerButton(): Promise<boolean> {
    return (await this.#vm.request('powerButton')) ?? false
  }
  info(): Promise<VmInfo | undefined> {
    return this.#vm.request('info')
  }
  async metrics(): Promise<readonly MetricSample[]> {
    return (await this.#vm.request('stats')) ?? []
  }

  [Symbol.asyncDispose](): Promise<void> {
    return (this.#disposed ??= this.#dispose())
  }
  async #dispose(): Promise<void> {
    const { handle } = this.#vm
    this.#settings.signal?.removeEventListener('abort', this.#onAbort)
    handle.stop()
    if (this.#thread) {
      let timer: NodeJS.Timeout | undefined
      const late = new Promise<void>((resolve) => (timer = setTimeout(resolve, GRACE_MS)))
      await Promise.race([this.ended.catch(() => {}), late])
      clearTimeout(timer)
      await this.#thread.end()
    }
    handle.close()
  }
}

const gone = (name: string): NonrootError => new NonrootError({ code: 'usage', message: `${name} was disposed of`, thing: name })
