/** The thread that runs VMs: creates their host, creates and runs them. Guest code and all devices run here. */

import { parentPort } from 'node:worker_threads'
import { createNodeBackends, openStreamConsole, tuneWasm } from '@nonroot/host-node'
import type { BlockParts, NetworkParts } from '@nonroot/host-node'
import { createHypervisor, createLog, openHostMemory, resolveStack } from '@nonroot/hypervisor'
import type { Hypervisor, Stack } from '@nonroot/hypervisor'
import { moduleSource } from './host.ts'
import { GuestVm } from './run/guest-vm.ts'
import type { HostJob } from './run/protocol.ts'
import { now } from './run/start-times.ts'

const port = parentPort!
const threadMark = now()
// The thread is started, and all of this loaded, before it is known what it shall run.
const job = await new Promise<HostJob>((resolve) => port.once('message', resolve))
const source = moduleSource()
const resolving = { source, ...(job.loadLimitMs === undefined ? {} : { loadLimitMs: job.loadLimitMs }) }
/** What concerns no VM in particular is sent by one that is there. */
const log = createLog(
  (level, message) => (vms.find((vm) => !vm.ended) ?? vms[0]!).send({ type: 'log', level, message }),
  job.logLevel,
)
const vms = job.vms.map((vm) => new GuestVm(vm.job, vm.port, { log, resolving, threadMark }))

/** Most guests have no disk. */
const diskParts = async (): Promise<BlockParts> => (await import('@nonroot/image')).diskParts

const networkParts = async (): Promise<NetworkParts> => import('@nonroot/network')

let hypervisor: Promise<Hypervisor> | undefined

/** Made for the first VM. Without a host of its own in the job, the VM's stack is the host's. */
const hostOf = (stack: Stack): Promise<Hypervisor> => (hypervisor ??= createHost(stack))

async function createHost(ofVm: Stack): Promise<Hypervisor> {
  const { host } = job
  const stack = host ? await resolveStack(host.config ?? (await vms[0]!.hostConfig()), resolving) : ofVm
  // V8 has compiled what is needed until here, and kept it.
  tuneWasm()
  return createHypervisor(stack, {
    backends: createNodeBackends({
      block: diskParts,
      network: networkParts,
      openers: { console: async ({ name }) => vms.find((vm) => vm.agentPort === name)?.agent ?? openStreamConsole() },
      prebuilt: new URL('./', import.meta.url),
      ...(job.codeFolder === undefined ? {} : { codeFolder: job.codeFolder }),
    }),
    log,
    ...(host ? { hostMemory: openHostMemory(host.memory) } : {}),
    resolvePath: (folder, path) => source.resolvePath(folder, path),
  })
}

/** One is made after the other; those that are there run meanwhile. */
async function runAll(): Promise<void> {
  const running: Promise<void>[] = []
  for (const vm of vms) if (await vm.create(hostOf)) running.push(vm.run())
  await Promise.all(running)
  await (await hypervisor)?.dispose()
}

await runAll().catch(() => {})
for (const vm of vms) vm.close()
port.close()
