/** The NBD client against a small server; and against QEMU's where it is installed. */

import { spawn, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { Server, Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { createNodeBackends } from './index.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-nbd-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const servers: Server[] = []
const sockets: Socket[] = []
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

/** Serves `bytes`; `misbehave` replaces the greeting. Answers two requests in reverse order where it can. */
async function serve(
  path: string,
  bytes: Uint8Array,
  options: { flags?: number; greeting?: Buffer; error?: number } = {},
): Promise<string[]> {
  const said: string[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
    let buffered: Buffer = Buffer.alloc(0)
    let stage: 'option' | 'requests' = 'option'
    const greeting = Buffer.alloc(18)
    greeting.write('NBDMAGICIHAVEOPT', 0, 'latin1')
    greeting.writeUInt16BE(3, 16)
    socket.write(options.greeting ?? greeting)
    const optionReply = (type: number, body: Buffer): Buffer => {
      const reply = Buffer.alloc(20)
      reply.writeBigUInt64BE(0x3e889045565a9n, 0)
      reply.writeUInt32BE(7, 8)
      reply.writeUInt32BE(type, 12)
      reply.writeUInt32BE(body.length, 16)
      return Buffer.concat([reply, body])
    }
    const request = (): Buffer | undefined => {
      if (buffered.length < 28) return undefined
      const command = buffered.readUInt16BE(6)
      const offset = Number(buffered.readBigUInt64BE(16))
      const length = buffered.readUInt32BE(24)
      const size = 28 + (command === 1 ? length : 0)
      if (buffered.length < size) return undefined
      const cookie = buffered.subarray(8, 16)
      said.push(`${['read', 'write', 'disconnect', 'flush', 'trim', '', 'zeroes'][command]} ${offset}+${length}`)
      if (command === 1) bytes.set(buffered.subarray(28, size), offset)
      if (command === 6) bytes.fill(0, offset, offset + length)
      if (command === 2) socket.end()
      const reply = Buffer.alloc(8)
      reply.writeUInt32BE(0x67446698, 0)
      reply.writeUInt32BE(options.error ?? 0, 4)
      const data = command === 0 && !options.error ? bytes.subarray(offset, offset + length) : new Uint8Array(0)
      const whole = Buffer.concat([reply, cookie, data])
      buffered = buffered.subarray(size)
      return whole
    }
    socket.on('data', (chunk) => {
      buffered = Buffer.concat([buffered, chunk])
      if (stage === 'option') {
        if (buffered.length < 20) return
        const name = buffered.subarray(24, 24 + buffered.readUInt32BE(20)).toString()
        said.push(`export ${name}`)
        buffered = Buffer.alloc(0)
        stage = 'requests'
        if (name !== 'disk') return void socket.write(optionReply(0x8000_0006, Buffer.from('no such export')))
        const info = Buffer.alloc(12)
        info.writeBigUInt64BE(BigInt(bytes.length), 2)
        info.writeUInt16BE(options.flags ?? 1 | 4 | 32 | 64, 10)
        const sizes = Buffer.alloc(14)
        sizes.writeUInt16BE(3, 0)
        sizes.writeUInt32BE(1, 2)
        socket.write(Buffer.concat([optionReply(3, info), optionReply(3, sizes), optionReply(1, Buffer.alloc(0))]))
        return
      }
      const replies: Buffer[] = []
      for (let reply = request(); reply; reply = request()) replies.unshift(reply)
      // In pieces, to see that they are put together.
      for (const reply of replies) {
        socket.write(reply.subarray(0, 10))
        setTimeout(() => !socket.destroyed && socket.write(reply.subarray(10)), 1)
      }
    })
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return said
}

const open = (path: string, name = 'disk', readOnly = false) =>
  createNodeBackends().open('block', { image: `nbd+unix:///${name}?socket=${path}`, readOnly })

describe('a disk by NBD', () => {
  it('reads, writes, discards, writes zeroes, flushes', async () => {
    const path = join(folder, 'a.sock')
    const bytes = Uint8Array.from({ length: 8192 }, (_, index) => index & 0xff)
    const said = await serve(path, bytes)
    const disk = await open(path)
    expect(disk).toMatchObject({ size: 8192, sectorSize: 512, readOnly: false })
    const into = new Uint8Array(512)
    await disk.read(1024, into)
    expect(into).toEqual(bytes.slice(1024, 1536))
    await disk.write(512, new Uint8Array(512).fill(7))
    await disk.writeZeroes!(0, 512)
    await disk.discard!(4096, 512)
    await disk.flush()
    expect([bytes[0], bytes[511], bytes[512], bytes[1023]]).toEqual([0, 0, 7, 7])
    await disk.close()
    expect(said).toEqual([
      'export disk',
      'read 1024+512',
      'write 512+512',
      'zeroes 0+512',
      'trim 4096+512',
      'flush 0+0',
      'flush 0+0',
      'disconnect 0+0',
    ])
  })

  it('an error of the server is an error of that request', async () => {
    const path = join(folder, 'b.sock')
    await serve(path, new Uint8Array(4096), { error: 5 })
    const disk = await open(path)
    await expect(disk.read(0, new Uint8Array(512))).rejects.toThrow('error 5')
    await expect(disk.write(0, new Uint8Array(512))).rejects.toThrow('error 5')
    await disk.close()
  })

  it('a server that goes away fails all requests, soon', async () => {
    const path = join(folder, 'c.sock')
    await serve(path, new Uint8Array(4096))
    const disk = await open(path)
    const reading = disk.read(0, new Uint8Array(512))
    for (const socket of sockets) socket.destroy()
    await expect(reading).rejects.toThrow(/closed|RESET/)
    await expect(disk.read(0, new Uint8Array(512))).rejects.toThrow()
    await disk.close()
  })

  it.each([
    { name: 'an export that is not there', run: () => open(join(folder, 'd.sock'), 'other'), says: 'no such export' },
    { name: 'no server', run: () => open(join(folder, 'none.sock')), says: 'ENOENT' },
    { name: 'no URL', run: () => createNodeBackends().open('block', { image: 'nbd://:::' }), says: 'Invalid URL' },
  ])('says what is wrong: $name', async ({ run, says }) => {
    if (says === 'no such export') await serve(join(folder, 'd.sock'), new Uint8Array(4096))
    await expect(run()).rejects.toThrow(says)
  })

  it('is for reading only where the server says so', async () => {
    const path = join(folder, 'e.sock')
    await serve(path, new Uint8Array(4096), { flags: 3 })
    await expect(open(path)).rejects.toThrow('reading only')
    const disk = await open(path, 'disk', true)
    expect(disk.readOnly).toBe(true)
    await disk.flush()
    await disk.close()
  })

  it('turns away what is no NBD server', async () => {
    const path = join(folder, 'f.sock')
    await serve(path, new Uint8Array(4096), { greeting: Buffer.from('SSH-2.0-OpenSSH_9.2p1') })
    await expect(open(path)).rejects.toThrow('no NBD server')
  })
})

const hasQemu = spawnSync('qemu-system-x86_64', ['--version']).status === 0

it.skipIf(!hasQemu)('QEMU serves, we use', { timeout: 30_000 }, async () => {
  const image = join(folder, 'disk.img')
  const path = join(folder, 'qemu.sock')
  writeFileSync(image, new Uint8Array(1 << 20).fill(3))
  const qemu = spawn('qemu-system-x86_64', ['-M', 'none', '-nodefaults', '-display', 'none', '-qmp', 'stdio'], {
    stdio: ['pipe', 'pipe', 'ignore'],
  })
  const say = (execute: string, args: object = {}) => qemu.stdin.write(JSON.stringify({ execute, arguments: args }))
  say('qmp_capabilities')
  say('blockdev-add', { driver: 'raw', 'node-name': 'disk', file: { driver: 'file', filename: image } })
  say('nbd-server-start', { addr: { type: 'unix', data: { path } } })
  say('block-export-add', { type: 'nbd', id: 'export', 'node-name': 'disk', name: 'disk', writable: true })
  try {
    let disk = await open(path).catch(() => undefined)
    for (let turn = 0; turn < 100 && !disk; turn++) {
      await new Promise((resolve) => setTimeout(resolve, 100))
      disk = await open(path).catch(() => undefined)
    }
    expect(disk!.size).toBe(1 << 20)
    const data = Uint8Array.from({ length: 200_000 - (200_000 % 512) }, (_, index) => index % 251)
    await Promise.all([disk!.write(4096, data), disk!.writeZeroes!(1 << 19, 4096)])
    const back = new Uint8Array(data.length)
    await disk!.read(4096, back)
    expect(back).toEqual(data)
    await disk!.flush()
    await disk!.close()
    const file = readFileSync(image)
    expect([file[4096 + 1], file[1 << 19], file[(1 << 19) + 4096]]).toEqual([1, 0, 3])
  } finally {
    qemu.kill()
  }
})
