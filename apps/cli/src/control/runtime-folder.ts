/** The folders with the control sockets of running hosts, each named by its process ID. */

import { chmod, readdir, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { NonrootError } from '@nonroot/contracts'
import { makeFolder } from '@nonroot/host-node'

/** Longest path of a UNIX socket on the systems that we run on, without its final zero. */
const LONGEST_PATH = 103

/** `NONROOT_RUNTIME`, or `nonroot` in the user's runtime folder or folder of states (XDG Base Directory Specification). */
export function runtimeFolder(env: NodeJS.ProcessEnv = process.env): string {
  const { NONROOT_RUNTIME, XDG_RUNTIME_DIR, XDG_STATE_HOME } = env
  if (NONROOT_RUNTIME) return NONROOT_RUNTIME
  return join(XDG_RUNTIME_DIR || XDG_STATE_HOME || join(homedir(), '.local', 'state'), 'nonroot')
}

/** The sockets of a host. */
export interface HostSockets {
  readonly folder: string
  readonly host: string
  qmp(vm: string): string
  console(vm: string): string
  /** Commands in the guest. */
  exec(vm: string): string
}

export function socketsOf(folder: string): HostSockets {
  return {
    folder,
    // No VM has a dot in its name.
    host: join(folder, 'host.sock'),
    qmp: (vm) => join(folder, `${vm}.qmp`),
    console: (vm) => join(folder, `${vm}.console`),
    exec: (vm) => join(folder, `${vm}.exec`),
  }
}

/** The folder of this process, made anew. Only its user may enter it. Throws `host.file`. */
export async function makeSockets(vms: readonly string[], runtime = runtimeFolder()): Promise<HostSockets> {
  const sockets = socketsOf(join(runtime, String(process.pid)))
  const longest = [sockets.host, ...vms.map(sockets.console)].find(({ length }) => length > LONGEST_PATH)
  if (longest !== undefined)
    throw new NonrootError({
      code: 'host.file',
      message: `a socket's path has at most ${LONGEST_PATH} characters, and ${longest} has ${longest.length}`,
      thing: longest,
      remedy: 'set NONROOT_RUNTIME to a folder with a shorter path',
    })
  // What a process of the same number left.
  await rm(sockets.folder, { recursive: true, force: true })
  makeFolder(sockets.folder, 0o700)
  await chmod(sockets.folder, 0o700)
  return sockets
}

/** Hosts that seem to run. Folders of processes that are gone are removed. */
export async function runningHosts(runtime = runtimeFolder()): Promise<{ pid: number; sockets: HostSockets }[]> {
  const names = await readdir(runtime).catch(() => [] as string[])
  const hosts: { pid: number; sockets: HostSockets }[] = []
  for (const name of names.filter((one) => /^\d+$/.test(one))) {
    const pid = Number(name)
    const sockets = socketsOf(join(runtime, name))
    if (isAlive(pid)) hosts.push({ pid, sockets })
    else await rm(sockets.folder, { recursive: true, force: true }).catch(() => {})
  }
  return hosts.toSorted((left, right) => left.pid - right.pid)
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}
