/** The VM's thread: makes the host and the VM of one run, and runs it. The guest's code and all its devices are here. */

import { parentPort } from 'node:worker_threads'
import type { BootImage, ConsoleBackend, Log, ModuleSource } from '@nonroot/contracts'
import { createNodeBackends, createThreadConsole, tuneWasm } from '@nonroot/host-node'
import type { BlockParts, NetworkParts } from '@nonroot/host-node'
import { createHypervisor, createLog, resolveStack } from '@nonroot/hypervisor'
import type { LoadedConfig, Vm } from '@nonroot/hypervisor'
import { moduleSource } from './host.ts'
import { Profiler } from './profile/profiler.ts'
import { GuestInput } from './run/guest-input.ts'
import { withAddition } from './run/image-addition.ts'
import type { FromVm, RequestName, Requests, RunJob, ToVm } from './run/protocol.ts'
import { sendError } from './run/sent-error.ts'
import { now } from './run/start-times.ts'
import type { StartMarks } from './run/start-times.ts'
import { both, createThreadTracer } from './run/thread-tracer.ts'

const port = parentPort!
const marks: StartMarks = { thread: now() }
// The thread is started, and all of this loaded, before it is known what it shall run.
const job = await new Promise<RunJob>((resolve) => port.once('message', resolve))

const send = (message: FromVm, transfer: ArrayBuffer[] = []): void => port.postMessage(message, transfer)

const screen = createThreadConsole(
  (bytes) => send({ type: 'output', bytes }, [bytes.buffer as ArrayBuffer]),
  job.flow,
  job.terminal,
)
const input = new GuestInput((bytes) => screen.deliver(bytes))
const show = (bytes: Uint8Array): void => screen.write(bytes)
const console: ConsoleBackend = { ...screen, write: (bytes) => input.watch(bytes, show) }

let vm: Vm | undefined
let stopped = false
let stopNow!: () => void
const stop = new Promise<void>((resolve) => (stopNow = resolve))

const answer: { [R in RequestName]: (of: Vm) => Requests[R] } = {
  info: (of) => of.info(),
  stats: (of) => of.samples(),
  pause: (of) => (of.pause(), true),
  resume: (of) => (of.resume(), true),
  reset: (of) => (of.reset(), true),
  powerButton: (of) => of.powerButton(),
  plug: (of) => of.plug(true),
  unplug: (of) => of.plug(false),
}

port.on('message', (message: ToVm) => {
  switch (message.type) {
    case 'input':
      return input.add(message.bytes)
    case 'inputEnd':
      return input.end()
    case 'resize':
      return screen.resize(message)
    case 'request':
      return send({ type: 'reply', id: message.id, value: vm && answer[message.what](vm) })
    case 'stop':
      stopped = true
      stopNow()
      vm?.stop()
  }
})

/** How long the end of input may take before somebody who waits should know why. */
const PATIENCE_MS = 2000

/** A run repeats exactly if its input is there before its first instruction, or at its command's. */
async function allInput(log: Log): Promise<void> {
  const words =
    'the guest starts when standard input ends, so that its clock can be deterministic; </dev/null gives it none'
  const timer = setTimeout(() => log.warn(words), PATIENCE_MS)
  await Promise.race([input.ended, stop])
  clearTimeout(timer)
}

/** Most guests have no disk. */
const diskParts = async (): Promise<BlockParts> => (await import('@nonroot/image')).diskParts

const networkParts = async (): Promise<NetworkParts> => import('@nonroot/network')

/** Few configurations are code: the rest was read before. */
async function readConfig(source: ModuleSource): Promise<LoadedConfig> {
  const { loadConfig } = await import('./run/config-reader.ts')
  return loadConfig(job.stackFile, source, job.set)
}

async function main(): Promise<void> {
  const source = moduleSource()
  const limit = job.loadLimitMs === undefined ? {} : { loadLimitMs: job.loadLimitMs }
  const stack = await resolveStack(job.config ?? (await readConfig(source)), { source, ...limit })
  marks.stack = now()
  // V8 has compiled what is needed until here, and kept it.
  tuneWasm()
  const log = createLog((level, message) => send({ type: 'log', level, message }), job.logLevel)
  const hypervisor = await createHypervisor(stack, {
    backends: createNodeBackends({
      block: diskParts,
      network: networkParts,
      prebuilt: new URL('./', import.meta.url),
    }),
    log,
    resolvePath: (folder, path) => source.resolvePath(folder, path),
  })
  const tracer = job.trace
    ? createThreadTracer(
        () => vm!.samples(),
        (events) => send({ type: 'trace', events }),
      )
    : undefined
  const profiler = job.profile ? new Profiler() : undefined
  const tracers = [tracer, profiler].filter((one) => one !== undefined)
  const profiled = async (image: BootImage): Promise<BootImage> => {
    marks.image = now()
    if (profiler) {
      const { profileSymbols } = await import('./profile/profile-symbols.ts')
      profiler.symbols = await profileSymbols(job.profile?.symbols, image.kernel, source)
    }
    return job.addition ? withAddition(image, job.addition) : image
  }
  vm = await hypervisor.createVm({
    console,
    image: job.image ? await profiled(job.image) : profiled,
    ...(tracers.length ? { tracer: tracers.length === 1 ? tracers[0]! : both(tracers) } : {}),
  })
  marks.machine = now()
  send({ type: 'started' })
  input.start(job.announced)
  if (stack.config.machine.clock === 'deterministic' && !job.interactive) await allInput(log)
  if (stopped) vm.stop()
  const end = await vm.run()
  screen.flush()
  tracer?.flush()
  const profile = profiler && { profile: profiler.stacks() }
  const info = vm.info()
  const first = info.vcpus[0]?.firstInstructionAt
  if (first !== undefined) marks.guest = performance.timeOrigin + first
  send({ type: 'ended', end, stats: vm.samples(), info, marks, ...profile })
  await hypervisor.dispose()
}

main().then(
  () => port.close(),
  (error: unknown) => {
    screen.flush()
    send({ type: 'failed', error: sendError(error) })
    port.close()
  },
)
