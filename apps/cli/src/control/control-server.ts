/** The control sockets of a running host: one for the host, for each VM one that speaks QMP, one that is its console and one for commands in its guest. */

import { chmod, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import type { VmEvent } from '@nonroot/hypervisor'
import type { ControlledEnd, ControlledHost, ControlledVm } from './controlled-vm.ts'
import { hostCommands } from './host-commands.ts'
import { MOST_WAITING, QmpSession } from './qmp-session.ts'
import type { QmpCommands, QmpEvent } from './qmp-session.ts'
import { makeSockets } from './runtime-folder.ts'
import type { HostSockets } from './runtime-folder.ts'
import { vmCommands } from './vm-commands.ts'

/** Clients of one socket at a time; further ones are dropped. */
const MOST_CLIENTS = 32
/** A balloon on its way changes all the time: its event comes at most so often, as QEMU's does. */
const BALLOON_MS = 1000

export interface ControlServer {
  readonly sockets: HostSockets
  close(): Promise<void>
}

/** Throws if the sockets cannot be made. */
export async function serveControl(host: ControlledHost, runtime?: string): Promise<ControlServer> {
  const sockets = await makeSockets(
    host.vms.map(({ name }) => name),
    runtime,
  )
  const open: ListeningSocket[] = []
  const listen = async (path: string, accept: (client: Socket) => void): Promise<ListeningSocket> => {
    const socket = await ListeningSocket.open(path, accept)
    open.push(socket)
    return socket
  }
  const close = async (): Promise<void> => {
    await Promise.all(open.map((socket) => socket.close()))
    await rm(sockets.folder, { recursive: true, force: true })
  }
  try {
    const broadcast = await serveQmp(listen, sockets.host, hostCommands(host))
    for (const vm of host.vms) await serveVm(vm, sockets, listen, broadcast)
    return { sockets, close }
  } catch (error) {
    await close()
    throw error
  }
}

type Listen = (path: string, accept: (client: Socket) => void) => Promise<ListeningSocket>

async function serveVm(
  vm: ControlledVm,
  sockets: HostSockets,
  listen: Listen,
  broadcast: (event: QmpEvent) => void,
): Promise<void> {
  const tell = await serveQmp(listen, sockets.qmp(vm.name), vmCommands(vm))
  const both = (event: QmpEvent): void => {
    tell(event)
    // Who listens to the host hears whose it is.
    broadcast({ ...event, data: { vm: vm.name, ...event.data } })
  }
  const console = await listen(sockets.console(vm.name), (client) => attach(vm, client))
  const commands = await listen(sockets.exec(vm.name), (client) => void execute(vm, client))
  vm.onEvent(eventsOf(both))
  void vm.ended.then((end) => {
    both(shutdownEvent(end))
    console.endClients()
    commands.endClients()
  })
}

/** Returns a function that sends an event to all clients. */
async function serveQmp(listen: Listen, path: string, commands: QmpCommands): Promise<(event: QmpEvent) => void> {
  const sessions = new Set<QmpSession>()
  await listen(path, (client) => {
    const session = new QmpSession(client, commands)
    sessions.add(session)
    client.on('close', () => sessions.delete(session))
  })
  return (event) => sessions.forEach((session) => session.tell(event))
}

function eventsOf(tell: (event: QmpEvent) => void): (event: VmEvent) => void {
  let actual: number | undefined
  const tellBalloon = (): void => tell({ event: 'BALLOON_CHANGE', data: { actual } })
  let timer: NodeJS.Timeout | undefined
  return (event) => {
    switch (event.kind) {
      case 'paused':
        return tell({ event: 'STOP' })
      case 'resumed':
        return tell({ event: 'RESUME' })
      case 'powerButton':
        return tell({ event: 'POWERDOWN' })
      case 'reset': {
        const reason = event.guest ? 'guest-reset' : 'host-qmp-system-reset'
        return tell({ event: 'RESET', data: { guest: event.guest, reason } })
      }
      case 'balloon':
        actual = event.remainingBytes
        if (timer) return
        tellBalloon()
        timer = setTimeout(() => {
          timer = undefined
          if (actual !== event.remainingBytes) tellBalloon()
        }, BALLOON_MS)
        timer.unref()
    }
  }
}

/** ShutdownCause, by why it ended. */
function shutdownEvent({ end, stop }: ControlledEnd): QmpEvent {
  const guest = end?.state === 'poweredOff' || end?.state === 'exited' || end?.state === 'crashed'
  const reason =
    end?.state === 'crashed' || stop?.by === 'panic'
      ? 'guest-panic'
      : guest
        ? 'guest-shutdown'
        : stop?.by === 'user'
          ? 'host-qmp-quit'
          : stop?.by === 'signal'
            ? 'host-signal'
            : 'host-error'
  return { event: 'SHUTDOWN', data: { guest: guest || stop?.by === 'panic', reason } }
}

/** Bytes of the guest's console both ways. A client that does not read is dropped: the guest does not wait for it. */
function attach(vm: ControlledVm, client: Socket): void {
  const stop = vm.onConsole((bytes) => {
    client.write(bytes)
    if (client.writableLength > MOST_WAITING) client.destroy()
  })
  client.on('data', (bytes) => vm.input(bytes))
  client.on('close', stop)
}

/** Few VMs run commands: what that takes is loaded by the first. */
async function execute(vm: ControlledVm, client: Socket): Promise<void> {
  const { ExecSession } = await import('./exec-session.ts')
  new ExecSession(client, vm)
}

class ListeningSocket {
  readonly #server: Server
  readonly #clients = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
  }

  static async open(path: string, accept: (client: Socket) => void): Promise<ListeningSocket> {
    const server = createServer()
    const socket = new ListeningSocket(server)
    server.maxConnections = MOST_CLIENTS
    server.on('connection', (client) => {
      socket.#clients.add(client)
      // Its end is all that there is to know of a client that fails.
      client.on('error', () => client.destroy())
      client.on('close', () => socket.#clients.delete(client))
      accept(client)
    })
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    await chmod(path, 0o600)
    // It is no reason for the process to stay.
    server.unref()
    return socket
  }

  /** When they have what was written. */
  endClients(): void {
    for (const client of this.#clients) client.end()
  }

  async close(): Promise<void> {
    this.endClients()
    // A client that does not read must not keep the process alive.
    const timer = setTimeout(() => this.#clients.forEach((client) => client.destroy()), 100)
    await new Promise<void>((resolve) => this.#server.close(() => resolve()))
    clearTimeout(timer)
  }
}
