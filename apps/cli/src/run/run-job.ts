/** From the command line and a plan to the first message of the VM's thread. */

import { join } from 'node:path'
import { loadLimitMs } from '../host.ts'
import { type BootPlan, type BootRequest, cacheFolder } from './boot-plan.ts'
import type { HostJob, RunJob } from './protocol.ts'
import type { RunOptions, RunSource } from './run-options.ts'

/** The console back end by which a VM's agent is reached, among all VMs of a thread. */
export const agentBackend = (vm: string): string => `agent.${vm}`

/** How long a thread that was asked to stop may take. */
export const GRACE_MS = 2000

export function jobOf(
  request: RunSource & Pick<BootRequest, 'terminal' | 'interactive'> & { readonly name: string },
  { set: planned, ...plan }: BootPlan,
  options: RunOptions,
  flow: Int32Array,
): RunJob {
  const { name, stackFile, set, terminal, interactive } = request
  const { profile, symbols } = options
  return {
    ...plan,
    ...{ name, stackFile, set, planned, interactive, flow },
    ...(terminal ? { terminal } : {}),
    trace: options.trace !== undefined,
    ...(profile === undefined ? {} : { profile: symbols === undefined ? {} : { symbols } }),
  }
}

export function hostJobOf({ verbose }: RunOptions): Omit<HostJob, 'host' | 'vms'> {
  const limit = loadLimitMs()
  const codeFolder = join(cacheFolder(), 'code')
  return { logLevel: verbose ? 'debug' : 'warn', codeFolder, ...(limit === undefined ? {} : { loadLimitMs: limit }) }
}
