import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { IncomingStream, SocketBackend } from '@nonroot/contracts'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openSockets } from './sockets.ts'

let folder: string
let path: string
let sockets: SocketBackend
let clients: Socket[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nonroot-sockets-'))
  path = join(folder, 'vm.sock')
  sockets = await openSockets(path)
  clients = []
})
afterEach(async () => {
  for (const client of clients) client.destroy()
  await sockets.close()
  rmSync(folder, { recursive: true, force: true })
})

const dial = (text: string): Socket & { heard: string; over: boolean } => {
  const client = Object.assign(connect({ path, allowHalfOpen: true }), { heard: '', over: false })
  clients.push(client)
  client.on('data', (bytes) => (client.heard += bytes.toString()))
  client.on('close', () => (client.over = true))
  client.on('end', () => (client.over = true))
  client.on('error', () => {})
  client.write(text)
  return client
}
const until = async (holds: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 400 && !holds(); turn++) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(holds()).toBe(true)
}
const collect = (stream: IncomingStream, into: { text: string; events: string[] }): void =>
  stream.handle({
    data: (bytes) => (into.text += new TextDecoder().decode(bytes)),
    end: () => into.events.push('end'),
    close: () => into.events.push('close'),
    taken: (bytes) => into.events.push(`taken ${bytes}`),
  })

describe('streams over UNIX sockets', () => {
  it('CONNECT reaches the guest', async () => {
    const found = { port: 0, text: '', events: [] as string[] }
    sockets.onConnect((port, stream) => {
      found.port = port
      stream.accepted(1234)
      collect(stream, found)
      stream.write(new TextEncoder().encode('welcome'))
    })
    const client = dial('CONNECT 52\nhello')
    await until(() => client.heard === 'OK 1234\nwelcome')
    client.write(' again')
    client.end()
    await until(() => found.events.includes('end'))
    expect([found.port, found.text]).toEqual([52, 'hello again'])
    expect(found.events).toContain('taken 7')
  })

  it.each(['HELLO\n', 'CONNECT\n', 'CONNECT 4294967296\n', 'CONNECT -1\n', 'C'.repeat(64)])(
    'refuses %j',
    async (line) => {
      let called = false
      sockets.onConnect(() => (called = true))
      const client = dial(line)
      await until(() => client.over)
      expect([client.heard, called]).toEqual(['', false])
    },
  )

  it('refuses while nobody takes connections', async () => {
    const client = dial('CONNECT 1\n')
    await until(() => client.over)
  })

  it('ports of the host are sockets beside it', async () => {
    await expect(sockets.connect(80)).rejects.toThrow()
    let heard = ''
    const server = createServer((socket) =>
      socket.on('data', (bytes) => socket.write(`${(heard += bytes.toString())}!`)),
    )
    await new Promise<void>((resolve) => server.listen(`${path}_80`, resolve))
    const stream = await sockets.connect(80)
    const found = { text: '', events: [] as string[] }
    collect(stream as IncomingStream, found)
    stream.pause()
    stream.write(new TextEncoder().encode('ping'))
    await until(() => heard === 'ping')
    expect(found.text).toBe('')
    stream.resume()
    await until(() => found.text === 'ping!')
    stream.destroy()
    await until(() => found.events.includes('close'))
    await new Promise((resolve) => server.close(resolve))
  })

  it('takes over a socket that nobody listens on, and no other', async () => {
    await expect(openSockets(path)).rejects.toMatchObject({ code: 'host.file' })
    writeFileSync(join(folder, 'file'), 'not a socket')
    await expect(openSockets(join(folder, 'none/vm.sock'))).rejects.toMatchObject({ code: 'host.file' })
    expect(existsSync(join(folder, 'file'))).toBe(true)
  })
})
