/** This host's sockets, resolver and capture files, as networks without privilege use them. */

import { spawn } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { createSocket } from 'node:dgram'
import { getServers } from 'node:dns'
import { lookup } from 'node:dns/promises'
import { lstatSync } from 'node:fs'
import { open } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import type { AddressInfo, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ConnectError, NonrootError } from '@nonroot/contracts'
import type {
  AcceptedStream,
  CaptureFile,
  ConnectProblem,
  DatagramHandlers,
  DatagramSocket,
  HostNetwork,
  Listener,
  SocketStream,
  StartedProgram,
  StreamAddress,
} from '@nonroot/contracts'
import { makeFolder } from './make-folder.ts'
import { listenAt, streamOf } from './sockets.ts'

const PROBLEMS: Readonly<Record<string, ConnectProblem>> = {
  ECONNREFUSED: 'refused',
  ECONNRESET: 'refused',
  ENOENT: 'refused',
  ENETUNREACH: 'unreachable',
  EHOSTUNREACH: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  EAFNOSUPPORT: 'unreachable',
  ETIMEDOUT: 'timedOut',
  EACCES: 'denied',
  EPERM: 'denied',
}
const CONNECT_MS = 60_000
const BACKLOG = 511
/** Of a capture: a disk that is slower than the network loses frames rather than memory. */
const MOST_UNWRITTEN = 16 * 1024 * 1024

const target = (to: StreamAddress, path: (name: string) => string) => ('path' in to ? { path: path(to.path) } : to)
export const addressText = (to: StreamAddress): string =>
  'path' in to ? to.path : `${to.host.includes(':') ? `[${to.host}]` : to.host}:${to.port}`

const cannot = (what: string, thing: string, error: unknown, remedy: string): NonrootError =>
  new NonrootError({
    code: 'host.backend',
    message: `cannot ${what} ${thing}: ${error instanceof Error ? error.message : String(error)}`,
    thing,
    value: thing,
    remedy,
    cause: error,
  })

/** `path`: a path of the configuration, from the root. */
export function createHostNetwork(path: (name: string) => string): HostNetwork {
  return {
    connect: (to) => openStream(target(to, path)),
    listen: (at, onStream) => listen(target(at, path), onStream),
    datagrams: openDatagrams,
    async lookUp(name, family) {
      try {
        return (await lookup(name, { all: true, family })).map(({ address }) => address)
      } catch (error) {
        // It exists, with addresses of the other family only: getaddrinfo does not tell that from a name that does not.
        const others = await lookup(name, { all: true }).catch(() => [])
        if (others.length > 0) return []
        throw error
      }
    },
    // Without ports: "[::1]:53" and "127.0.0.1:53" where they are not 53.
    nameServers: () => getServers().filter((server) => !/\]:|^[^:]+:\d+$/.test(server)),
    random: (into) => void randomFillSync(into),
    meetingPath,
    start: startProgram,
    openCapture: (name) => openCapture(path(name)),
  }
}

function openStream(to: StreamAddress): Promise<SocketStream> {
  return new Promise((resolve, reject) => {
    const socket = connect({ ...to, allowHalfOpen: true, noDelay: true } as never)
    const timer = setTimeout(() => {
      socket.destroy()
      reject(new ConnectError('timedOut'))
    }, CONNECT_MS)
    const failed = (error: NodeJS.ErrnoException): void => {
      clearTimeout(timer)
      reject(new ConnectError(PROBLEMS[error.code ?? ''] ?? 'other', error))
    }
    socket.once('error', failed)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', failed)
      resolve(streamOf(socket))
    })
  })
}

async function listen(at: StreamAddress, onStream: (accepted: AcceptedStream) => void): Promise<Listener> {
  const sockets = new Set<Socket>()
  const server = createServer({ allowHalfOpen: true, noDelay: true }, (socket) => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
    onStream({ stream: streamOf(socket), host: socket.remoteAddress ?? '', port: socket.remotePort ?? 0 })
  })
  try {
    if ('path' in at) await listenAt(server, at.path)
    else
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen({ ...at, backlog: BACKLOG }, () => {
          server.off('error', reject)
          resolve()
        })
      })
  } catch (error) {
    throw cannot('listen on', addressText(at), error, 'name an address and a port that no other program has')
  }
  // A client that goes away before it is accepted needs no handling.
  server.on('error', () => {})
  return {
    port: (server.address() as AddressInfo | null)?.port ?? 0,
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** In a folder that only this user can enter. */
function meetingPath(name: string): string {
  const user = process.getuid?.()
  const folder = join(process.env['XDG_RUNTIME_DIR'] ?? tmpdir(), `nonroot-${user ?? 'user'}`)
  makeFolder(folder, 0o700)
  const stats = lstatSync(folder)
  if (!stats.isDirectory() || (user !== undefined && (stats.uid !== user || (stats.mode & 0o077) !== 0)))
    throw cannot('use', folder, 'others can enter it', 'remove it, or set XDG_RUNTIME_DIR to a folder of your own')
  return join(folder, `${name}.sock`)
}

const LAST_WORDS = 2000

/** It does not outlive us: nothing that it holds is of use to anybody else. */
function startProgram(program: string, args: readonly string[]): Promise<StartedProgram> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'ignore', 'pipe'] })
    let words = ''
    child.stderr.on('data', (bytes: Uint8Array) => {
      words = (words + new TextDecoder().decode(bytes)).slice(-LAST_WORDS)
    })
    const stop = (): void => void child.kill()
    const ended = new Promise<string>((resolveEnd) => child.on('close', () => resolveEnd(words.trim())))
    process.on('exit', stop)
    void ended.then(() => process.off('exit', stop))
    child.on('error', (error) =>
      reject(cannot('start', program, error, `install ${program} (Debian has it as a package)`)),
    )
    child.on('spawn', () => resolve({ ended, stop }))
  })
}

async function openDatagrams(
  family: 4 | 6,
  handlers: DatagramHandlers,
  at?: { readonly host: string; readonly port: number },
): Promise<DatagramSocket> {
  const socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', ...(family === 6 ? { ipv6Only: true } : {}) })
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('error', reject)
      socket.bind(at ? { address: at.host, port: at.port } : { port: 0 }, () => {
        socket.off('error', reject)
        resolve()
      })
    })
  } catch (error) {
    socket.close()
    const name = addressText(at ?? { host: family === 4 ? '0.0.0.0' : '::', port: 0 })
    throw cannot('bind', `udp:${name}`, error, 'name an address and a port that no other program has')
  }
  let open = true
  socket.on('message', (bytes, { address, port }) => handlers.datagram(bytes, address, port))
  socket.on('error', () => handlers.refused())
  return {
    port: socket.address().port,
    send(bytes, host, port) {
      if (open)
        socket.send(bytes.slice(), port, host, (error) => {
          if (error && (error as NodeJS.ErrnoException).code === 'ECONNREFUSED') handlers.refused()
        })
    },
    close() {
      if (open) socket.close()
      open = false
    },
  }
}

async function openCapture(name: string): Promise<CaptureFile> {
  let file
  try {
    file = await open(name, 'w')
  } catch (error) {
    throw cannot('write', name, error, 'name a file in a folder that can be written')
  }
  let unwritten = 0
  let last: Promise<unknown> = Promise.resolve()
  return {
    write(bytes) {
      if (unwritten + bytes.length > MOST_UNWRITTEN) return false
      const copy = bytes.slice()
      unwritten += copy.length
      last = last
        .then(() => file.write(copy))
        .catch(() => {})
        .then(() => (unwritten -= copy.length))
      return true
    },
    async close() {
      await last
      await file.close()
    },
  }
}
