/** Streams over UNIX sockets, as Firecracker has them: `CONNECT PORT` reaches the guest, `PATH_PORT` is a port of the host. */

import { unlink } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { NonrootError } from '@nonroot/contracts'
import type { IncomingStream, SocketBackend, SocketStream, StreamHandlers } from '@nonroot/contracts'

/** `CONNECT 4294967295\n` and then some. */
const LONGEST_LINE = 32
const MOST_WAITING = 64

/** A socket as a byte stream. `first`: what was read of it already. */
export function streamOf(socket: Socket, first: Uint8Array = new Uint8Array(0)): SocketStream {
  let handlers: StreamHandlers | undefined
  let paused = false
  let early = first
  socket.on('data', (bytes: Uint8Array) => handlers?.data(bytes))
  socket.on('end', () => handlers?.end())
  socket.on('close', () => handlers?.close())
  // `close` follows.
  socket.on('error', () => {})
  socket.pause()
  return {
    handle(given) {
      handlers = given
      if (early.length > 0) handlers.data(early)
      early = new Uint8Array(0)
      if (!paused) socket.resume()
    },
    write(bytes) {
      const copy = bytes.slice()
      socket.write(copy, (error) => {
        if (!error) handlers?.taken(copy.length)
      })
    },
    end: () => void socket.end(),
    pause() {
      paused = true
      socket.pause()
    },
    resume() {
      paused = false
      if (handlers) socket.resume()
    },
    destroy: () => void socket.destroy(),
  }
}

/** The line before the stream: `CONNECT PORT`. Gives the port and what follows the line. */
function readRequest(socket: Socket, done: (port: number, rest: Uint8Array) => void): void {
  let line: Buffer = Buffer.alloc(0)
  const take = (bytes: Buffer): void => {
    line = Buffer.concat([line, bytes])
    const end = line.indexOf(10)
    if (end < 0 && line.length <= LONGEST_LINE) return
    socket.off('data', take)
    socket.pause()
    const found = /^CONNECT (\d{1,10})\r?$/i.exec(line.subarray(0, Math.max(end, 0)).toString('latin1'))
    const port = Number(found?.[1])
    if (found && port < 2 ** 32) done(port, new Uint8Array(line.subarray(end + 1)))
    else socket.destroy()
  }
  socket.on('data', take)
  socket.on('error', () => {})
}

/** Connects to the program that listens there. */
export function connectStream(path: string): Promise<SocketStream> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path })
    const refuse = (cause: Error): void =>
      reject(
        new NonrootError({
          code: 'host.backend',
          message: `cannot connect to ${path}: ${cause.message}`,
          thing: path,
          value: path,
          remedy: 'start the program that listens there first',
          cause,
        }),
      )
    socket.once('error', refuse)
    socket.once('connect', () => {
      socket.off('error', refuse)
      resolve(streamOf(socket))
    })
  })
}

export async function openSockets(path: string): Promise<SocketBackend> {
  const listeners = new Set<(port: number, stream: IncomingStream) => void>()
  const sockets = new Set<Socket>()
  const keep = (socket: Socket): void => {
    sockets.add(socket)
    socket.on('close', () => sockets.delete(socket))
  }
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    keep(socket)
    readRequest(socket, (port, rest) => {
      const stream: IncomingStream = {
        ...streamOf(socket, rest),
        accepted: (local) => void socket.write(`OK ${local}\n`),
      }
      const [listener] = listeners
      if (listener) listener(port, stream)
      else socket.destroy()
    })
  })
  await listenAt(server, path)
  return {
    connect: (port) =>
      new Promise((resolve, reject) => {
        const socket = connect({ path: `${path}_${port}`, allowHalfOpen: true })
        socket.once('error', reject)
        socket.once('connect', () => {
          keep(socket)
          resolve(streamOf(socket))
        })
      }),
    onConnect(listener) {
      listeners.add(listener)
      return () => listeners.delete(listener)
    },
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}

/** Listen on a UNIX socket, in place of one that a process which is gone left. */
export async function listenAt(server: Server, path: string): Promise<void> {
  const attempt = () =>
    new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen({ path, backlog: MOST_WAITING }, () => {
        server.off('error', reject)
        resolve()
      })
    })
  try {
    await attempt().catch(async (error: NodeJS.ErrnoException) => {
      // A socket without a listener was left behind by a process that has ended.
      if (error.code !== 'EADDRINUSE' || (await answers(path))) throw error
      await unlink(path)
      await attempt()
    })
  } catch (error) {
    throw new NonrootError({
      code: 'host.file',
      message: `cannot listen on ${path}: ${error instanceof Error ? error.message : String(error)}`,
      thing: path,
      value: path,
      remedy: 'name a path in a folder that can be written, which no other VM has',
      cause: error,
    })
  }
}

const answers = (path: string): Promise<boolean> =>
  new Promise((resolve) => {
    const socket = connect({ path })
    socket.once('connect', () => {
      socket.destroy()
      resolve(true)
    })
    socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code !== 'ECONNREFUSED'))
  })
