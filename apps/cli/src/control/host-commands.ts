/** Commands of the control socket of a `nonroot run`: its VMs, and what they share. */

import { checked } from './arguments.ts'
import type { ControlledHost, ControlledVm } from './controlled-vm.ts'
import { prometheusText } from './prometheus.ts'
import type { LabelledSamples } from './prometheus.ts'
import { versionInfo } from './qmp-session.ts'
import type { QmpCommands } from './qmp-session.ts'
import { memoryCommand, metricsCommand } from './vm-commands.ts'
import type { MemoryUse } from '@nonroot/contracts'
import type { HostMemoryUse } from '../run/protocol.ts'

export const vmsCommand = '__dev.nonroot_vms'
export const functionsCommand = '__dev.nonroot_host_functions'

/** A VM in a list. */
export interface VmSummary {
  readonly name: string
  readonly state: ControlledVm['state']
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  /** Exit status, once it has ended. */
  readonly status?: number
  readonly vcpus?: number
  readonly memory?: MemoryUse
}

export interface HostSummary {
  readonly pid: number
  readonly file: string
  readonly vms: readonly VmSummary[]
  /** Undefined: no VM is there that could say. */
  readonly memory?: HostMemoryUse
}

export function hostCommands(host: ControlledHost): QmpCommands {
  const { vms } = host
  return {
    'query-version': (given) => (checked(given, {}), versionInfo()),
    quit(given) {
      checked(given, {})
      setImmediate(() => vms.forEach((vm) => vm.stop({ by: 'user' })))
    },
    async [functionsCommand](given) {
      checked(given, {})
      return (await firstAnswer(vms, 'hostFunctions')) ?? []
    },
    [vmsCommand]: (given) => (checked(given, {}), hostSummary(host)),
    [memoryCommand]: (given) => (checked(given, {}), hostSummary(host)),
    async [metricsCommand](given) {
      checked(given, {})
      const samples = await Promise.all(vms.map(samplesOf))
      const shared = await firstAnswer(vms, 'hostStats')
      return prometheusText([...(shared ? [{ labels: {}, samples: shared }] : []), ...samples.flat()])
    },
  }
}

const samplesOf = async (vm: ControlledVm): Promise<LabelledSamples[]> => {
  const samples = await vm.request('stats')
  return samples ? [{ labels: { vm: vm.name }, samples }] : []
}

async function hostSummary({ file, vms }: ControlledHost): Promise<HostSummary> {
  const memory = await firstAnswer(vms, 'hostMemory')
  return {
    pid: process.pid,
    file,
    ...(memory ? { memory } : {}),
    vms: await Promise.all(
      vms.map(async (vm) => {
        const [use, info] = await Promise.all([vm.request('memory'), vm.request('info')])
        const { name, state, startedAt, status } = vm
        return {
          ...{ name, state, startedAt },
          ...(status === undefined ? {} : { status }),
          ...(info ? { vcpus: info.vcpus.length } : {}),
          ...(use ? { memory: use } : {}),
        }
      }),
    ),
  }
}

/** What is the host's any of its VMs' threads can say. */
async function firstAnswer<R extends 'hostStats' | 'hostMemory' | 'hostFunctions'>(vms: readonly ControlledVm[], what: R) {
  for (const vm of vms) {
    const answer = await vm.request(what)
    if (answer !== undefined) return answer
  }
  return undefined
}
