/** Finds running hosts and their VMs by name: `web`, or `1234/web` where several hosts have one. */

import { NonrootError } from '@nonroot/contracts'
import { vmsCommand } from './host-commands.ts'
import type { HostSummary } from './host-commands.ts'
import { QmpClient } from './qmp-client.ts'
import { runningHosts } from './runtime-folder.ts'
import type { HostSockets } from './runtime-folder.ts'

export interface FoundHost {
  readonly sockets: HostSockets
  readonly summary: HostSummary
}

/** Every host that answers. */
export async function hosts(): Promise<FoundHost[]> {
  const found = await Promise.all(
    (await runningHosts()).map(async ({ sockets }): Promise<FoundHost[]> => {
      try {
        const client = await QmpClient.connect(sockets.host)
        try {
          return [{ sockets, summary: (await client.execute(vmsCommand)) as HostSummary }]
        } finally {
          client.close()
        }
      } catch {
        // It has just begun, or just ended.
        return []
      }
    }),
  )
  return found.flat()
}

export interface FoundVm {
  readonly sockets: HostSockets
  readonly name: string
}

/** Throws `usage` if there is none of that name, or more than one; of several, `live` ones go before those that have ended. */
export async function findVm(called: string): Promise<FoundVm> {
  const [name, host] = called.split('/').toReversed()
  const all = (await hosts()).flatMap(({ sockets, summary: { pid, vms } }) =>
    vms.map((vm) => ({
      sockets,
      name: vm.name,
      full: `${pid}/${vm.name}`,
      host: String(pid),
      live: vm.state !== 'ended',
    })),
  )
  const named = all.filter((vm) => vm.name === name && (host === undefined || vm.host === host))
  const live = named.filter((vm) => vm.live)
  const [found, ...others] = live.length ? live : named
  if (found && others.length === 0) return found
  throw new NonrootError({
    code: 'usage',
    message: found ? `several hosts have a VM "${called}"` : `no VM "${called}" is running`,
    thing: called,
    value: called,
    remedy: found
      ? `say which: ${[found, ...others].map(({ full }) => full).join(', ')}`
      : all.length
        ? `there are: ${all.map(({ full }) => full).join(', ')}`
        : 'nonroot run starts one; nonroot ps lists them',
  })
}

/** A session with the VM's control socket. Throws `usage` where the VM is gone. */
export async function withVm<T>(called: string, use: (client: QmpClient, vm: FoundVm) => Promise<T>): Promise<T> {
  const vm = await findVm(called)
  const client = await QmpClient.connect(vm.sockets.qmp(vm.name))
  try {
    return await use(client, vm)
  } finally {
    client.close()
  }
}
