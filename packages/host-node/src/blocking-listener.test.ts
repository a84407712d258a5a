import { mkdtempSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlockingStream } from '@nonroot/contracts'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { listenBlocking, Ring } from './blocking-listener.ts'
import type { BlockingListener } from './blocking-listener.ts'

let folder: string
let path: string
let listener: BlockingListener
let streams: (BlockingStream & { heard: string; over: boolean })[]

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'nonroot-listener-'))
  path = join(folder, 'device.sock')
  streams = []
  listener = await listenBlocking(path, (stream) => {
    const told = Object.assign(stream, { heard: '', over: false })
    stream.handle({
      data: (bytes) => (told.heard += new TextDecoder().decode(bytes)),
      end: () => {},
      close: () => (told.over = true),
      taken: () => {},
    })
    streams.push(told)
  })
})
afterEach(async () => {
  await listener.close()
  rmSync(folder, { recursive: true, force: true })
})

const until = async (holds: () => boolean): Promise<void> => {
  for (let turn = 0; turn < 1000 && !holds(); turn++) await new Promise((resolve) => setTimeout(resolve, 5))
  expect(holds()).toBe(true)
}
const client = (): Socket & { got: string } => {
  const socket = Object.assign(connect({ path }), { got: '' })
  socket.on('data', (bytes) => (socket.got += bytes.toString()))
  socket.on('error', () => {})
  return socket
}

describe('a listener whose streams can be waited for', () => {
  it('passes bytes both ways, and the end', async () => {
    const socket = client()
    socket.write('hello')
    await until(() => streams[0]?.heard === 'hello')
    streams[0]!.write(new TextEncoder().encode('there'))
    await until(() => socket.got === 'there')
    socket.destroy()
    await until(() => streams[0]!.over)
  })

  it('waits without the event loop, for what a thread of its own brings', async () => {
    const socket = client()
    await until(() => streams.length === 1)
    expect(streams[0]!.wait(20)).toBe(false)
    // Is on its way before this thread blocks.
    await new Promise<void>((resolve) => socket.write('now', () => resolve()))
    expect([streams[0]!.wait(5000), streams[0]!.heard]).toEqual([true, 'now'])
    socket.destroy()
  })

  it('passes more than the ring holds, in order', async () => {
    const socket = client()
    const text = Array.from({ length: 400_000 }, (_, index) => String(index % 10_000).padStart(8, '0')).join('')
    expect(text.length).toBeGreaterThan(3 * Ring.size)
    socket.write(text)
    await until(() => streams[0]?.heard.length === text.length)
    expect(streams[0]!.heard === text).toBe(true)
    socket.destroy()
  })

  it('serves one client at a time', async () => {
    const [first, second] = [client(), client()]
    second.write('second')
    await until(() => streams.length === 1)
    first.write('first')
    await until(() => streams[0]!.heard === 'first')
    expect(streams).toHaveLength(1)
    first.destroy()
    await until(() => streams[1]?.heard === 'second')
    second.destroy()
  })

  it('refuses a path where it cannot listen', async () => {
    await expect(listenBlocking(join(folder, 'no', 'x.sock'), () => {})).rejects.toMatchObject({
      code: 'host.backend',
      remedy: expect.stringContaining('a folder that can be written') as string,
    })
  })
})
