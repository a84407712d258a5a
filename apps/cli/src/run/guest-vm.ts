/** One VM in the thread that runs it: its console, its requests, its life. */

import type { MessagePort } from 'node:worker_threads'
import type { BootImage, ConsoleBackend, Log } from '@nonroot/contracts'
import { createThreadConsole } from '@nonroot/host-node'
import type { ThreadConsole } from '@nonroot/host-node'
import { resolveStack } from '@nonroot/hypervisor'
import type { Hypervisor, LoadedConfig, ResolveOptions, Stack, Vm } from '@nonroot/hypervisor'
import { Profiler } from '../profile/profiler.ts'
import { diskInfo } from './disk-info.ts'
import { GuestInput } from './guest-input.ts'
import { withAddition } from './image-addition.ts'
import type { FromVm, RequestName, Requests, RunJob, ToVm } from './protocol.ts'
import { sendError } from './sent-error.ts'
import { now } from './start-times.ts'
import type { StartMarks } from './start-times.ts'
import { both, createThreadTracer } from './thread-tracer.ts'

export interface ThreadParts {
  readonly log: Log
  readonly resolving: ResolveOptions
  /** When the thread was loaded. */
  readonly threadMark: number
}

/** How long the end of input may take before the user is shown the reason. */
const PATIENCE_MS = 2000

interface Machine {
  readonly stack: Stack
  readonly hypervisor: Hypervisor
  readonly vm: Vm
}

const answer: { [R in RequestName]: (of: Machine, what: Requests[R]['of']) => Requests[R]['gives'] } = {
  info: ({ vm }) => vm.info(),
  stats: ({ vm }) => vm.samples(),
  hostStats: ({ hypervisor }) => hypervisor.samples(),
  memory: ({ vm }) => vm.memory(),
  hostMemory: ({ hypervisor: { hostMemory } }) => ({
    guestFrames: hostMemory.guestFrames,
    freeGuestFrames: hostMemory.freeGuestFrames,
    totalFrames: hostMemory.totalFrames,
    freeFrames: hostMemory.freeFrames,
  }),
  hostFunctions: ({ hypervisor }) => hypervisor.functions(),
  disks: ({ stack }) => diskInfo(stack),
  pause: ({ vm }) => (vm.pause(), true),
  resume: ({ vm }) => (vm.resume(), true),
  reset: ({ vm }) => (vm.reset(), true),
  powerButton: ({ vm }) => vm.powerButton(),
  plug: ({ vm }, { on, device }) => vm.plug(on, device),
  requestMemory: ({ vm }, frames) => vm.requestMemory(frames),
}

export class GuestVm {
  ended = false
  /** The port of the guest's agent. Without flow control: the agent's protocol bounds what is under way. */
  readonly agent: ThreadConsole
  readonly agentPort: string | undefined
  readonly #job: RunJob
  readonly #port: MessagePort
  readonly #parts: ThreadParts
  readonly #screen: ThreadConsole
  readonly #console: ConsoleBackend
  readonly #input: GuestInput
  readonly #marks: StartMarks
  readonly #tracer: ReturnType<typeof createThreadTracer> | undefined
  readonly #profiler: Profiler | undefined
  #machine: Machine | undefined
  #isStopped = false
  #stopNow!: () => void
  readonly #stop = new Promise<void>((resolve) => (this.#stopNow = resolve))

  constructor(job: RunJob, port: MessagePort, parts: ThreadParts) {
    this.#job = job
    this.#port = port
    this.#parts = parts
    this.#marks = { thread: parts.threadMark }
    this.#screen = createThreadConsole(
      (bytes) => this.send({ type: 'output', bytes }, [bytes.buffer as ArrayBuffer]),
      job.flow,
      job.terminal,
    )
    this.agentPort = job.agentPort
    this.agent = createThreadConsole(
      (bytes) => this.send({ type: 'agent', bytes }, [bytes.buffer as ArrayBuffer]),
      undefined,
      undefined,
    )
    this.#input = new GuestInput((bytes) => this.#screen.deliver(bytes))
    const show = (bytes: Uint8Array): void => this.#screen.write(bytes)
    this.#console = { ...this.#screen, write: (bytes) => this.#input.watch(bytes, show) }
    this.#tracer = job.trace
      ? createThreadTracer(
          () => this.#machine!.vm.samples(),
          (events) => this.send({ type: 'trace', events }),
        )
      : undefined
    this.#profiler = job.profile ? new Profiler() : undefined
    port.on('message', (message: ToVm) => this.#receive(message))
  }

  send(message: FromVm, transfer: ArrayBuffer[] = []): void {
    this.#port.postMessage(message, transfer)
  }

  #receive(message: ToVm): void {
    switch (message.type) {
      case 'input':
        return this.#input.add(message.bytes)
      case 'agent':
        return this.agent.deliver(message.bytes)
      case 'inputEnd':
        return this.#input.end()
      case 'resize':
        return this.#screen.resize(message)
      case 'request': {
        const value = this.#machine && answer[message.what](this.#machine, message.of as never)
        return this.send({ type: 'reply', id: message.id, value })
      }
      case 'stop':
        this.#isStopped = true
        this.#stopNow()
        this.#machine?.vm.stop()
    }
  }

  /** The file's part that all its VMs share, read here. */
  async hostConfig(): Promise<LoadedConfig> {
    const { hostConfig, loadConfig } = await import('./config-reader.ts')
    return hostConfig(await loadConfig(this.#job.stackFile, this.#parts.resolving.source, this.#job.set))
  }

  /** Few configurations are code: the rest was read before. */
  async #readConfig(): Promise<LoadedConfig> {
    const { loadConfig, vmConfigs, withOverrides } = await import('./config-reader.ts')
    const { name, stackFile, set, planned } = this.#job
    const loaded = await loadConfig(stackFile, this.#parts.resolving.source, set)
    const own = vmConfigs(loaded)?.find((vm) => vm.name === name)?.loaded ?? loaded
    return withOverrides(own, planned)
  }

  /** False: it could not be made, and has said why. */
  async create(hostOf: (stack: Stack) => Promise<Hypervisor>): Promise<boolean> {
    try {
      await this.#create(hostOf)
      return true
    } catch (error) {
      this.#failed(error)
      return false
    }
  }
  async #create(hostOf: (stack: Stack) => Promise<Hypervisor>): Promise<void> {
    const job = this.#job
    const stack = await resolveStack(job.config ?? (await this.#readConfig()), this.#parts.resolving)
    this.#marks.stack = now()
    const hypervisor = await hostOf(stack)
    const tracers = [this.#tracer, this.#profiler].filter((one) => one !== undefined)
    const vm = await hypervisor.createVm({
      name: job.name,
      stack,
      console: this.#console,
      image: job.image ? await this.#prepare(job.image) : (image) => this.#prepare(image),
      ...(tracers.length ? { tracer: tracers.length === 1 ? tracers[0]! : both(tracers) } : {}),
    })
    this.#machine = { stack, hypervisor, vm }
    vm.watch((event) => {
      // What the agent sent before a reset is not to come after it.
      this.agent.flush()
      this.send({ type: 'event', event })
    })
    this.#marks.machine = now()
  }

  async #prepare(image: BootImage): Promise<BootImage> {
    this.#marks.image = now()
    if (this.#profiler) {
      const { profileSymbols } = await import('../profile/profile-symbols.ts')
      const { symbols } = this.#job.profile ?? {}
      this.#profiler.symbols = await profileSymbols(symbols, image.kernel, this.#parts.resolving.source)
    }
    const { addition } = this.#job
    return addition ? withAddition(image, addition) : image
  }

  /** Runs it to its end, and returns how it ended. */
  async run(): Promise<void> {
    const { stack, vm } = this.#machine!
    try {
      this.send({ type: 'started' })
      this.#input.start(this.#job.announced)
      if (stack.config.machine.clock === 'deterministic' && !this.#job.interactive) await this.#allInput()
      if (this.#isStopped) vm.stop()
      const end = await vm.run()
      this.#screen.flush()
      this.#tracer?.flush()
      const profile = this.#profiler && { profile: this.#profiler.stacks() }
      const info = vm.info()
      const first = info.vcpus[0]?.firstInstructionAt
      if (first !== undefined) this.#marks.guest = performance.timeOrigin + first
      this.send({ type: 'ended', end, stats: vm.samples(), info, marks: this.#marks, ...profile })
      this.ended = true
      await vm.dispose()
    } catch (error) {
      this.#failed(error)
    }
  }

  /** A run repeats exactly if its input is there before its first instruction, or at its command's. */
  async #allInput(): Promise<void> {
    const words =
      'the guest starts when standard input ends, so that its clock can be deterministic; </dev/null gives it none'
    const timer = setTimeout(() => this.#parts.log.warn(words), PATIENCE_MS)
    await Promise.race([this.#input.ended, this.#stop])
    clearTimeout(timer)
  }

  #failed(error: unknown): void {
    this.#screen.flush()
    this.ended = true
    this.send({ type: 'failed', error: sendError(error) })
  }

  /** No more messages. */
  close(): void {
    this.#port.close()
  }
}
