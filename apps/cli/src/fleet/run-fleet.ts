/** `nonroot run` of a file with several VMs: one host, one output for all consoles, one exit status. */

import { constants } from 'node:os'
import { join } from 'node:path'
import { NonrootError } from '@nonroot/contracts'
import { makeFolder, openTerminal } from '@nonroot/host-node'
import type { Terminal } from '@nonroot/host-node'
import { hostConfig, hostMemoryFor, resolveStack, vmConfigs } from '@nonroot/hypervisor'
import type { LoadedConfig, VmConfig } from '@nonroot/hypervisor'
import { serveControl } from '../control/control-server.ts'
import type { ControlServer } from '../control/control-server.ts'
import { moduleSource } from '../host.ts'
import { tell } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { planBoot } from '../run/boot-plan.ts'
import type { BootPlan } from '../run/boot-plan.ts'
import { agentBackend, GRACE_MS, hostJobOf, jobOf } from '../run/run-job.ts'
import type { RunOptions, RunSource } from '../run/run-options.ts'
import { parseDuration } from '../run/duration.ts'
import { isSameSignal, STOP_TIMEOUT } from '../run/run-end.ts'
import type { SignalReason, StopReason } from '../run/run-end.ts'
import { statsJson, statsText } from '../run/stats.ts'
import { VmThread } from '../run/vm-handle.ts'
import { watchRss } from '../run/watch-rss.ts'
import { FleetVm } from './fleet-vm.ts'
import type { FleetVmResult } from './fleet-vm.ts'
import { LinePrinter } from './line-printer.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/** Options that concern one VM: in a file with several, each has its own. */
const OF_ONE = {
  device: 'name it in its devices',
  disk: 'name a disk in its devices: { kind: virtio-blk, image: FILE }',
  network: 'name a card in its devices: { kind: virtio-net, network: user }',
  forward: 'name a card in its devices: { kind: virtio-net, forward: [...] }',
  loopback: 'name a card in its devices: { kind: virtio-net, loopback: [...] }',
  name: 'name them in vms',
  trace: 'run that VM from a file of its own',
  profile: 'run that VM from a file of its own',
} as const satisfies Partial<Record<keyof RunOptions, string>>

export interface FleetSource extends RunSource {
  readonly loaded: LoadedConfig
}

export async function runFleet(
  source: FleetSource,
  options: RunOptions,
  timeoutMs: number | undefined,
  io: CommandIo,
): Promise<number> {
  for (const [option, remedy] of Object.entries(OF_ONE))
    if (options[option as keyof typeof OF_ONE] !== undefined)
      throw new NonrootError({
        code: 'usage',
        message: `--${option} is for one VM, and ${source.stackFile} has several`,
        thing: `--${option}`,
        remedy,
      })
  const terminal = openTerminal()
  try {
    return await new Fleet(source, vmConfigs(source.loaded)!, options, timeoutMs, terminal, io).run()
  } finally {
    terminal.close()
  }
}

class Fleet {
  readonly #source: FleetSource
  readonly #configs: readonly VmConfig[]
  readonly #options: RunOptions
  readonly #terminal: Terminal
  readonly #io: CommandIo
  readonly #vms: readonly FleetVm[]
  readonly #threads: VmThread[] = []
  readonly #planning = new AbortController()
  #stopping: NodeJS.Timeout | undefined
  #askedAt: number | undefined
  readonly #stopTimeoutMs: number

  constructor(
    source: FleetSource,
    configs: readonly VmConfig[],
    options: RunOptions,
    timeoutMs: number | undefined,
    terminal: Terminal,
    io: CommandIo,
  ) {
    this.#source = source
    this.#configs = configs
    this.#options = options
    this.#stopTimeoutMs = parseDuration(options.stopTimeout ?? STOP_TIMEOUT, '--stop-timeout')
    this.#terminal = terminal
    this.#io = io
    const { command, logs, timeout } = options
    if (logs !== undefined) makeFolder(logs)
    const printer = new LinePrinter({
      write: (bytes, done) => terminal.write(bytes, done),
      isScreen: terminal.size() !== undefined,
    })
    const errors = new LinePrinter({
      write: (bytes, done) => void process.stderr.write(bytes, () => done()),
      isScreen: process.stderr.isTTY === true,
    })
    const width = Math.max(...configs.map(({ name }) => name.length))
    this.#vms = configs.map(
      ({ name }, index) =>
        new FleetVm({
          name,
          lines: printer.add(name, index, width),
          errors: errors.add(name, index, width),
          ...(command === undefined ? {} : { command }),
          ...(logs === undefined ? {} : { log: join(logs, `${name}.log`) }),
          ...(timeoutMs === undefined ? {} : { timeout: { ms: timeoutMs, text: timeout! } }),
          drained: () => terminal.drain(),
          abandon: () => this.#abandon(index),
          io,
        }),
    )
  }

  async run(): Promise<number> {
    const onSignal = (signal: NodeJS.Signals): void => this.#shutDown({ by: 'signal', number: constants.signals[signal] })
    for (const signal of SIGNALS) process.on(signal, onSignal)
    this.#terminal.onOutputClosed(({ code }) =>
      this.#stop(code === 'EPIPE' ? { by: 'signal', number: constants.signals.SIGPIPE } : { by: 'output' }),
    )
    let control: ControlServer | undefined
    const unwatch = watchRss(this.#options.maxRss, (words) => this.#stop({ by: 'memory', words }))
    try {
      const plans = await this.#plan()
      if (plans) await this.#start(plans)
      control = await this.#serve()
      const results = await Promise.all(this.#vms.map(({ result }) => result))
      await this.#terminal.drain()
      this.#tellStats(results)
      // That of the first in the file that did not end well.
      return results.find(({ status }) => status !== 0)?.status ?? 0
    } finally {
      this.#planning.abort()
      unwatch()
      await control?.close()
      clearTimeout(this.#stopping)
      for (const signal of SIGNALS) process.off(signal, onSignal)
      for (const { vm } of this.#vms) vm.handle.close()
      await Promise.all(this.#threads.map((thread) => thread.end()))
    }
  }

  /** A host that cannot be controlled runs nonetheless. */
  async #serve(): Promise<ControlServer | undefined> {
    try {
      return await serveControl({ file: this.#source.stackFile, vms: this.#vms.map(({ vm }) => vm) })
    } catch (error) {
      tell(this.#io, 'notice', `no control sockets: ${error instanceof NonrootError ? error.describe() : (error as Error).message}`)
      return undefined
    }
  }

  /** Undefined: it was stopped meanwhile. */
  async #plan(): Promise<BootPlan[] | undefined> {
    const { kernel, initrd, cmdline, mirror, command } = this.#options
    const request = {
      network: { usual: false },
      ...(kernel === undefined ? {} : { kernel }),
      ...(initrd === undefined ? {} : { initrd }),
      ...(cmdline === undefined ? {} : { cmdline }),
      ...(mirror ? { mirror } : {}),
      ...(command?.length ? { command } : {}),
      // A client may attach.
      interactive: command === undefined,
    }
    const { signal } = this.#planning
    const plans: BootPlan[] = []
    for (const [index, { name, loaded }] of this.#configs.entries()) {
      const plan = await planBoot({ ...request, agent: agentBackend(name) }, loaded, {
        ...{ source: moduleSource(), signal },
        tell: (text, done) => void (text && done && tell(this.#io, 'notice', text)),
      })
      await this.#vms[index]!.plan(plan)
      plans.push(plan)
      if (signal.aborted) return undefined
    }
    return plans
  }

  async #start(plans: readonly BootPlan[]): Promise<void> {
    const { loaded } = this.#source
    const host = hostConfig(loaded)
    const memory = hostMemoryFor(
      host.config,
      plans.map(({ config }) => config.config),
    )
    const job = { ...hostJobOf(this.#options), host: { config: host, memory: memory.memory } }
    const started = this.#vms.map(({ vm: { name, handle, flow } }, index) => {
      const request = { ...this.#source, name, interactive: this.#options.command === undefined }
      return { handle, job: jobOf(request, plans[index]!, this.#options, flow) }
    })
    const isEach = await hasThreadEach(host)
    for (const vms of isEach ? started.map((one) => [one]) : [started]) {
      const thread = new VmThread()
      this.#threads.push(thread)
      thread.start(job, vms)
    }
  }

  /** A second signal does not wait. */
  #shutDown(reason: SignalReason): void {
    if (this.#askedAt !== undefined) return isSameSignal(this.#askedAt) ? undefined : this.#stop(reason)
    this.#askedAt = performance.now()
    this.#planning.abort()
    for (const vm of this.#vms) void vm.shutDown(reason, this.#stopTimeoutMs)
  }

  #stop(reason: StopReason): void {
    // The second request stops them at once.
    if (this.#stopping) return this.#endThreads()
    this.#planning.abort()
    for (const vm of this.#vms) vm.stop(reason)
    this.#stopping = setTimeout(() => this.#endThreads(), GRACE_MS)
  }
  /** If it has a thread for itself. */
  #abandon(index: number): void {
    if (this.#threads.length > 1 || this.#vms.length === 1) void this.#threads[index]?.end()
  }
  #endThreads(): void {
    for (const thread of this.#threads) void thread.end()
  }

  #tellStats(results: readonly FleetVmResult[]): void {
    const { stats: wanted } = this.#options
    if (wanted === undefined || wanted === false) return
    const ended = results.flatMap(({ outcome }, index) =>
      outcome ? [{ name: this.#vms[index]!.vm.name, stats: outcome.stats }] : [],
    )
    if (wanted === 'json')
      this.#io.err(`${JSON.stringify(Object.fromEntries(ended.map(({ name, stats }) => [name, statsJson(stats)])))}\n`)
    else for (const { name, stats } of ended) this.#io.err(`${name}\n${statsText(stats)}`)
  }
}

/** The scheduler leaves it to the system which VM runs. */
async function hasThreadEach(host: LoadedConfig): Promise<boolean> {
  if (!host.config.stack.scheduler) return false
  const { scheduler } = await resolveStack(host, { source: moduleSource() })
  return scheduler?.definition.gives?.includes('threadPerVm') ?? false
}
