/** The thread of `listenBlocking`: owns the sockets. Independent of what the bytes mean. */

import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import type { ServeThread } from '@nonroot/contracts'
import { Ring } from './blocking-listener.ts'
import type { ListenerMessage, StreamMessage } from './blocking-listener.ts'
import { listenAt } from './sockets.ts'

const FAREWELL_MS = 1000

interface Client {
  readonly number: number
  readonly socket: Socket
  readonly control: Int32Array
  readonly bytes: Uint8Array
  /** What found no room in the ring. */
  rest: Uint8Array
}

export const serve: ServeThread = (port) => {
  const post = (message: ListenerMessage): void => port.post(message)
  const queue: Socket[] = []
  let count = 0
  let current: Client | undefined
  let server: Server | undefined

  const put = (client: Client): void => {
    const { control, bytes, rest, socket, number } = client
    const written = Atomics.load(control, Ring.written) >>> 0
    const room = Ring.size - ((written - (Atomics.load(control, Ring.read) >>> 0)) >>> 0)
    const length = Math.min(room, rest.length)
    if (length > 0) {
      const at = written % Ring.size
      const first = Math.min(length, Ring.size - at)
      bytes.set(rest.subarray(0, first), at)
      bytes.set(rest.subarray(first, length), 0)
      client.rest = rest.subarray(length)
      Atomics.store(control, Ring.written, (written + length) | 0)
      Atomics.notify(control, Ring.written)
      post({ type: 'more', client: number })
    }
    if (client.rest.length > 0) socket.pause()
    else socket.resume()
  }

  const next = (): void => {
    const socket = current ? undefined : queue.shift()
    if (!socket) return
    const ring = new SharedArrayBuffer(Ring.control + Ring.size)
    const client: Client = {
      number: count++,
      socket,
      control: new Int32Array(ring, 0, Ring.control / 4),
      bytes: new Uint8Array(ring, Ring.control),
      rest: new Uint8Array(0),
    }
    current = client
    post({ type: 'client', client: client.number, ring })
    socket.on('data', (bytes: Uint8Array) => {
      client.rest = bytes
      put(client)
    })
    const close = (): void => {
      if (current !== client) return
      current = undefined
      Atomics.store(client.control, Ring.closed, 1)
      Atomics.notify(client.control, Ring.written)
      Atomics.notify(client.control, Ring.unsent)
      post({ type: 'more', client: client.number })
      next()
    }
    socket.on('close', close)
    if (socket.destroyed) close()
    else socket.resume()
  }

  const listen = async (path: string): Promise<void> => {
    server = createServer((socket) => {
      // `close` follows.
      socket.on('error', () => {})
      socket.pause()
      queue.push(socket)
      next()
    })
    try {
      await listenAt(server, path)
      post({ type: 'listening' })
    } catch (error) {
      post({ type: 'failed', message: error instanceof Error ? error.message : String(error) })
    }
  }

  port.onMessage((given) => {
    const message = given as StreamMessage
    if (message.type === 'listen') return void listen(message.path)
    if (message.type === 'close') {
      server?.close(() => post({ type: 'closed' }))
      for (const socket of queue.splice(0)) socket.destroy()
      return current?.socket.destroy()
    }
    const client = current?.number === message.client ? current : undefined
    if (!client) return
    if (message.type === 'taken') put(client)
    else if (message.type === 'destroy') {
      client.socket.destroySoon()
      // A peer that does not take what was written does not keep it.
      setTimeout(() => client.socket.destroy(), FAREWELL_MS).unref()
    } else {
      const { length } = message.bytes
      client.socket.write(message.bytes, () => {
        Atomics.sub(client.control, Ring.unsent, length)
        Atomics.notify(client.control, Ring.unsent)
      })
    }
  })
}
