/** `nonroot run`: connects the terminal with the VM's thread. */

import { constants } from 'node:os'
import { formatSize, NonrootError, parseSize } from '@nonroot/contracts'
import { openTerminal } from '@nonroot/host-node'
import type { Terminal } from '@nonroot/host-node'
import { loadConfig, VM_NAME, withOverrides } from '@nonroot/hypervisor'
import type { LoadedConfig } from '@nonroot/hypervisor'
import type { ControlServer } from '../control/control-server.ts'
import { defaultStack, moduleSource } from '../host.ts'
import { report, tell } from '../io.ts'
import { writeProfile } from '../profile/profile-file.ts'
import type { CommandIo, Level } from '../io.ts'
import { deviceSettings } from '../run/attached.ts'
import { withUnit } from '../size-option.ts'
import { planBoot } from '../run/boot-plan.ts'
import type { BootPlan, BootRequest } from '../run/boot-plan.ts'
import { parseDuration } from '../run/duration.ts'
import { ESCAPE_HELP, EscapeKeys } from '../run/escape-keys.ts'
import type { GuestAgent } from '../run/guest-agent.ts'
import type { CommandChannel } from '../run/command-channel.ts'
import { Marks } from '../run/marks.ts'
import { Monitor } from '../run/monitor.ts'
import { PanicWatch } from '../run/panic-watch.ts'
import { commandStatus, progressOf, runEnd } from '../run/run-end.ts'
import { isSameSignal, STOP_TIMEOUT } from '../run/run-end.ts'
import type { SignalReason, StopReason } from '../run/run-end.ts'
import { mark, startText, startTimes } from '../run/start-times.ts'
import type { StartTimes } from '../run/start-times.ts'
import { statsJson, statsText } from '../run/stats.ts'
import { TraceFile } from '../run/trace-file.ts'
import { agentBackend, GRACE_MS, hostJobOf, jobOf } from '../run/run-job.ts'
import type { RunOptions, RunSource } from '../run/run-options.ts'
import { VmThread } from '../run/vm-handle.ts'
import type { VmOutcome } from '../run/vm-handle.ts'
import { watchRss } from '../run/watch-rss.ts'
import { WatchedVm } from '../run/watched-vm.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

export async function run(file: string | undefined, options: RunOptions, io: CommandIo): Promise<number> {
  const timeoutMs = options.timeout === undefined ? undefined : parseDuration(options.timeout, '--timeout')
  checkName(options.name)
  const stackFile = file ?? defaultStack()
  const changes = changesOf(options)
  const first = await loadConfig(stackFile, moduleSource(), changes)
  const devices = deviceSettings(first.config, options.device ?? [])
  const set = [...changes, ...devices]
  const loaded = devices.length > 0 ? withOverrides(first, devices) : first
  if (loaded.config.vms) {
    const { runFleet } = await import('../fleet/run-fleet.ts')
    return runFleet({ stackFile, set, loaded }, options, timeoutMs, io)
  }
  const trace = options.trace === undefined ? undefined : await TraceFile.create(options.trace)
  const terminal = openTerminal()
  try {
    const request = { stackFile, set, ...requestOf(file, options, terminal) }
    const session = new Session(request, loaded, options, terminal, io, trace, timeoutMs)
    return await session.run()
  } finally {
    terminal.close()
    await trace?.close()
  }
}

interface RunRequest extends BootRequest, RunSource {}

/** It becomes the name of a file. */
function checkName(name: string | undefined): void {
  if (name === undefined || VM_NAME.test(name)) return
  throw new NonrootError({
    code: 'usage',
    message: `--name: ${JSON.stringify(name)} is not valid`,
    thing: '--name',
    value: name,
    remedy: 'a name is up to 32 letters, digits and hyphens, a letter first',
  })
}

const nameOf = ({ name }: RunOptions): string => name ?? 'vm0'

/** As after `--set`. */
const changesOf = ({ memory, set }: RunOptions): string[] => [
  ...(memory === undefined ? [] : [`machine.memory=${memoryText(memory)}`]),
  ...set,
]

function requestOf(file: string | undefined, options: RunOptions, terminal: Terminal): BootRequest {
  const { disk, kernel, initrd, cmdline, mirror, command, network, forward, loopback } = options
  const size = terminal.interactive ? terminal.size() : undefined
  const name = process.env['TERM']
  return {
    network: {
      usual: file === undefined,
      ...(network === undefined ? {} : { network }),
      ...(forward ? { forward } : {}),
      ...(loopback ? { loopback } : {}),
    },
    ...(disk === undefined ? {} : { disk }),
    ...(kernel === undefined ? {} : { kernel }),
    ...(initrd === undefined ? {} : { initrd }),
    ...(cmdline === undefined ? {} : { cmdline }),
    ...(mirror ? { mirror } : {}),
    ...(command?.length ? { command } : {}),
    ...(size ? { terminal: { ...size, ...(name ? { name } : {}) } } : {}),
    interactive: terminal.interactive,
    agent: agentBackend(nameOf(options)),
  }
}

/** What is wrong the configuration's schema says. */
function memoryText(memory: string): string {
  const bytes = parseSize(withUnit(memory))
  return JSON.stringify(typeof bytes === 'number' ? formatSize(bytes) : memory)
}

class Session {
  readonly #request: RunRequest
  readonly #loaded: LoadedConfig
  readonly #options: RunOptions
  readonly #terminal: Terminal
  readonly #io: CommandIo
  readonly #thread = new VmThread()
  readonly #vm: WatchedVm
  readonly #monitor: Monitor
  readonly #marks: Marks | undefined
  /** To the guest's agent, where the machine has a port for one. */
  #channel: CommandChannel | undefined
  readonly #panic = new PanicWatch((message) => this.#stop({ by: 'panic', message }))
  /** Typed before it was known where it goes. */
  #typed: Uint8Array[] | undefined = []
  /** What the guest printed while the monitor was open. */
  #held: (() => void)[] = []
  #stopReason: StopReason | undefined
  /** The signal by which it was asked to end, and how long that may take. */
  #asked: SignalReason | undefined
  #askedAt = 0
  readonly #stopTimeoutMs: number
  #patience: NodeJS.Timeout | undefined
  #progressShown = false
  #control: Promise<ControlServer | undefined> | undefined
  #written = Promise.resolve()
  #timer: NodeJS.Timeout | undefined
  #stopping: NodeJS.Timeout | undefined

  constructor(
    request: RunRequest,
    loaded: LoadedConfig,
    options: RunOptions,
    terminal: Terminal,
    io: CommandIo,
    trace: TraceFile | undefined,
    timeoutMs: number | undefined,
  ) {
    this.#request = request
    this.#loaded = loaded
    this.#options = options
    this.#stopTimeoutMs = parseDuration(options.stopTimeout ?? STOP_TIMEOUT, '--stop-timeout')
    this.#terminal = terminal
    this.#io = io
    if (request.command)
      this.#marks = new Marks(
        (bytes) => this.#write(bytes, () => {}),
        () => this.#useConsole(),
      )
    this.#vm = new WatchedVm(nameOf(options), {
      onOutput: (bytes, done) => this.#output(bytes, done),
      onLog: (level, message) => tell(this.#io, level, message),
      onStarted: () => this.#started(timeoutMs),
      onTrace: (events) => trace?.add(events),
      onStop: (reason) => this.#stop(reason),
    })
    this.#monitor = new Monitor({
      vm: this.#vm,
      print: (text) => this.#write(new TextEncoder().encode(text), () => {}),
      quit: () => this.#stop({ by: 'user' }),
      closed: () => {
        for (const show of this.#held.splice(0)) show()
      },
    })
  }

  async run(): Promise<number> {
    this.#connectTerminal()
    const onSignal = (signal: NodeJS.Signals): void => void this.#shutDown({ by: 'signal', number: constants.signals[signal] })
    for (const signal of SIGNALS) process.on(signal, onSignal)
    const planning = new AbortController()
    const unwatch = watchRss(this.#options.maxRss, (words) => this.#stop({ by: 'memory', words }))
    try {
      // Who stops it ends the thread.
      const { name, handle, flow } = this.#vm
      const plan = await Promise.race([this.#plan(planning.signal), handle.ended as Promise<never>])
      const agent = await this.#vm.planAgent(plan)
      if (agent && this.#request.command) await this.#openChannel(agent)
      else this.#connectInput()
      const job = jobOf({ ...this.#request, name }, plan, this.#options, flow)
      this.#thread.start(hostJobOf(this.#options), [{ handle, job }])
      mark('program')
      const outcome = await handle.ended
      const status = await this.#finish(outcome)
      this.#vm.finish({ status, end: outcome.end, stop: this.#stopReason })
      return status
    } catch (error) {
      return await this.#failed(error)
    } finally {
      planning.abort()
      unwatch()
      clearTimeout(this.#timer)
      clearTimeout(this.#patience)
      for (const signal of SIGNALS) process.off(signal, onSignal)
      clearTimeout(this.#stopping)
      this.#vm.handle.close()
      await (await this.#control)?.close()
      await this.#thread.end()
    }
  }

  #plan(signal: AbortSignal): Promise<BootPlan> {
    return planBoot(this.#request, this.#loaded, {
      source: moduleSource(),
      tell: (text, done) => this.#progress(text, done),
      signal,
    })
  }

  /** The guest's time is counted from here: making its image may take minutes. */
  #started(timeoutMs: number | undefined): void {
    this.#progress('', true)
    this.#control = this.#serve()
    if (timeoutMs === undefined) return
    this.#timer = setTimeout(() => this.#stop({ by: 'timeout', text: this.#options.timeout! }), timeoutMs)
  }

  /** A VM that cannot be controlled runs nonetheless. */
  async #serve(): Promise<ControlServer | undefined> {
    try {
      const { serveControl } = await import('../control/control-server.ts')
      return await serveControl({ file: this.#request.stackFile, vms: [this.#vm] })
    } catch (error) {
      if (this.#options.verbose) this.#say(`no control sockets: ${(error as Error).message}`)
      return undefined
    }
  }

  // Between terminal and guest

  #connectTerminal(): void {
    const terminal = this.#terminal
    const keys = new EscapeKeys((command) => {
      if (command === 'quit') this.#stop({ by: 'user' })
      else if (command === 'monitor') this.#monitor.toggle()
      else this.#write(new TextEncoder().encode(ESCAPE_HELP), () => {})
    })
    if (terminal.interactive)
      terminal.onInput((bytes) => {
        const kept = keys.filter(bytes)
        if (kept.length === 0) return
        if (this.#monitor.open) this.#monitor.feed(kept)
        else if (this.#typed) this.#typed.push(kept)
        else this.#feed(kept)
      })
    terminal.onResize((size) => {
      this.#vm.resizeConsole(size)
      this.#channel?.resize(size)
    })
    terminal.onOutputClosed(({ code }) =>
      this.#stop(code === 'EPIPE' ? { by: 'signal', number: constants.signals.SIGPIPE } : { by: 'output' }),
    )
  }

  #feed(bytes: Uint8Array): void {
    if (this.#channel) this.#channel.input(bytes)
    else this.#vm.input(bytes)
  }

  /** It is known where input goes: to the console or the guest's agent. What no person types is not read before. */
  #connectInput(): void {
    for (const bytes of this.#typed ?? []) this.#feed(bytes)
    this.#typed = undefined
    const terminal = this.#terminal
    if (terminal.interactive) return
    terminal.onInput((bytes) => this.#feed(bytes))
    terminal.onInputEnd(() => (this.#channel ?? this.#vm.handle).inputEnd())
  }

  async #openChannel(agent: GuestAgent): Promise<void> {
    const { CommandChannel } = await import('../run/command-channel.ts')
    const terminal = this.#terminal
    this.#channel = new CommandChannel(agent, this.#request.command!, this.#request.terminal, {
      interactive: terminal.interactive,
      pause: () => terminal.pause(),
      resume: () => terminal.resume(),
      output: (bytes, done) => this.#unlessMonitor(() => this.#write(bytes, done)),
      errors: (bytes, done) => this.#unlessMonitor(() => void process.stderr.write(bytes, () => done())),
      started: () => this.#connectInput(),
      failed: (error) => this.#stop({ by: 'agent', message: error.describe() }),
    })
  }

  /** The guest has no agent: the command's streams are the console's. */
  #useConsole(): void {
    if (!this.#channel || this.#channel.started) return
    this.#channel = undefined
    this.#connectInput()
  }

  #unlessMonitor(show: () => void): void {
    if (this.#monitor.open) this.#held.push(show)
    else show()
  }

  #output(bytes: Uint8Array, done: () => void): void {
    if (this.#monitor.open) return void this.#held.push(() => this.#output(bytes, done))
    this.#panic.feed(bytes)
    if (!this.#marks) return this.#write(bytes, done)
    this.#marks.feed(bytes)
    this.#written = this.#terminal.drain().then(done)
  }

  #write(bytes: Uint8Array, done: () => void): void {
    this.#terminal.write(bytes, done)
  }

  // Our own words go to standard error.

  #say(words: string, level: Level = 'notice'): void {
    tell(this.#io, level, words)
  }

  /** One line that is written over, where a person watches. */
  #progress(text: string, done: boolean): void {
    const over = process.stderr.isTTY && !this.#io.jsonLog
    if (over && this.#progressShown) this.#io.err('\r\x1b[K')
    this.#progressShown = over && text !== '' && !done
    if (text === '') return
    if (over && !done) this.#io.err(text)
    else if (done) this.#say(text)
  }

  /** Asks first: the command by the signal itself, a guest by its power button. A second signal does not wait. */
  async #shutDown(reason: SignalReason): Promise<void> {
    if (this.#asked) return isSameSignal(this.#askedAt) ? undefined : this.#stop(reason)
    this.#asked = reason
    this.#askedAt = performance.now()
    if (this.#channel?.started) this.#channel.signal(reason.number)
    else if (!this.#control || !(await this.#vm.request('powerButton'))) return this.#stop(reason)
    this.#patience = setTimeout(() => this.#stop(reason), this.#stopTimeoutMs)
  }

  #stop(reason: StopReason): void {
    // The second request stops it at once.
    if (this.#stopReason) void this.#thread.end()
    this.#stopReason ??= reason
    this.#vm.handle.stop()
    this.#stopping ??= setTimeout(() => void this.#thread.end(), GRACE_MS)
  }

  // The end

  async #finish({ end, stats, info, marks, profile }: VmOutcome): Promise<number> {
    if (this.#monitor.open) this.#monitor.toggle()
    await this.#written
    await this.#terminal.drain()
    this.#terminal.close()
    const { status, words, level } = runEnd(end, this.#stopReason ?? this.#asked, info.vcpus[0]?.rip)
    if (words) this.#say(words, level)
    this.#tellStats(stats, startTimes(marks))
    if (profile) await writeProfile(this.#options.profile!, profile)
    if (!this.#marks || this.#stopReason?.by === 'user') return status
    const command = commandStatus(status, end.state, progressOf(this.#marks, this.#channel))
    if (command.words) this.#say(command.words)
    return command.status
  }

  #tellStats(stats: VmOutcome['stats'], start: StartTimes | undefined): void {
    const { stats: wanted } = this.#options
    if (wanted === undefined || wanted === false) return
    if (wanted === 'json') this.#io.err(`${JSON.stringify({ ...statsJson(stats), ...start })}\n`)
    else this.#io.err(`${start ? `${startText(start)}\n` : ''}${statsText(stats)}`)
  }

  async #failed(error: unknown): Promise<number> {
    this.#progress('', true)
    await this.#terminal.drain()
    this.#terminal.close()
    // We ended it before it could say anything.
    if (this.#stopReason) {
      const { status, words, level } = runEnd({ state: 'stopped' }, this.#stopReason, undefined)
      if (words) this.#say(words, level)
      return status
    }
    return report(error, this.#io, false)
  }
}
