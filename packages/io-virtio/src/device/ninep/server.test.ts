import type { FolderAttributes, FolderBackend, FolderEntryKind, FolderFile, FolderNode } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { beforeEach, describe, expect, it } from 'vitest'
import { subject, WAYS } from '../../virtio.test.support.ts'
import { ERRORS, Message, NO_FID, Reader, Writer } from './messages.ts'
import { NinePServer } from './server.ts'

/** A folder in memory: as much as the server needs. */
interface Thing {
  kind: FolderEntryKind
  inode: bigint
  bytes: Uint8Array
  names: Map<string, Thing>
  target: string
  mode: number
  held: number
}
let inodes = 1n
const thing = (kind: FolderEntryKind, mode = 0o644): Thing => ({
  kind,
  inode: inodes++,
  bytes: new Uint8Array(0),
  names: new Map(),
  target: '',
  mode: mode | { file: 0o100000, folder: 0o040000, link: 0o120000, other: 0 }[kind],
  held: 0,
})
const refuse = (code: string): never => {
  throw Object.assign(new Error(code), { code })
}

function fileOf(it: Thing): FolderFile {
  it.held++
  return {
    async read(offset, into) {
      const part = it.bytes.subarray(offset, offset + into.length)
      into.set(part)
      return part.length
    },
    async write(offset, from) {
      const bytes = new Uint8Array(Math.max(it.bytes.length, offset + from.length))
      bytes.set(it.bytes)
      bytes.set(from, offset)
      it.bytes = bytes
      return from.length
    },
    sync: async () => {},
    close: async () => void it.held--,
  }
}

function nodeOf(it: Thing): FolderNode & { it: Thing } {
  it.held++
  const name = (text: string): string => (/^\.{0,2}$|\//.test(text) ? refuse('EINVAL') : text)
  const find = (text: string): Thing => it.names.get(name(text)) ?? refuse(it.kind === 'folder' ? 'ENOENT' : 'ENOTDIR')
  const add = (text: string, made: Thing): Thing => {
    if (it.names.has(name(text))) refuse('EEXIST')
    it.names.set(text, made)
    return made
  }
  const node: FolderNode & { it: Thing } = {
    it,
    kind: it.kind,
    attributes: async (): Promise<FolderAttributes> => ({
      kind: it.kind,
      inode: it.inode,
      mode: it.mode,
      uid: 0,
      gid: 0,
      links: 1,
      size: it.bytes.length,
      blockSize: 4096,
      blocks: 8,
      accessedNs: 1_500_000_001n,
      modifiedNs: 2_500_000_002n,
      changedNs: 3_500_000_003n,
    }),
    async change({ mode, size }) {
      if (mode !== undefined) it.mode = mode
      if (size !== undefined) it.bytes = it.bytes.slice(0, size)
    },
    find: async (text) => nodeOf(find(text)),
    list: async () => [...it.names].map(([text, { kind }]) => ({ name: text, kind })),
    async createFile(text, { exclusive }, mode) {
      const made = !exclusive && it.names.get(text) ? it.names.get(text)! : add(text, thing('file', mode))
      return { node: nodeOf(made), file: fileOf(made) }
    },
    createFolder: async (text, mode) => nodeOf(add(text, thing('folder', mode))),
    async createLink(text, target) {
      return nodeOf(add(text, Object.assign(thing('link'), { target })))
    },
    addName: async (text, of) => void add(text, (of as typeof node).it),
    async rename(text, into, newText) {
      const moved = find(text)
      it.names.delete(text)
      ;(into as typeof node).it.names.set(newText, moved)
    },
    async remove(text, what) {
      if ((find(text).kind === 'folder') !== (what === 'folder')) refuse(what === 'folder' ? 'ENOTDIR' : 'EISDIR')
      it.names.delete(text)
    },
    open: async () => fileOf(it),
    target: async () => it.target,
    retain() {
      it.held++
      return node
    },
    release: async () => void it.held--,
  }
  return node
}

let rootThing: Thing
const memoryFolder = (): FolderBackend => {
  rootThing = thing('folder', 0o755)
  rootThing.names.set('hello', Object.assign(thing('file'), { bytes: new TextEncoder().encode('hello world') }))
  rootThing.names.set('inner', thing('folder', 0o755))
  const root = nodeOf(rootThing)
  const space = { blockSize: 4096, blocks: 100, freeBlocks: 50, availableBlocks: 40, files: 10, freeFiles: 5 }
  return { readOnly: false, root, space: async () => space, close: async () => {} }
}

/** All that is held, but the root's own hold. */
const held = (it: Thing = rootThing): number =>
  it.held + [...it.names.values()].reduce((sum, inner) => sum + held(inner), 0) - (it === rootThing ? 1 : 0)

let server: NinePServer
let tags = 0

async function call(type: number, fill: (request: Writer) => Writer = (request) => request): Promise<Reader> {
  const reply = await server.answer(fill(new Writer()).finish(type, tags++ & 0x7fff))
  const reader = new Reader(reply, 0)
  expect(reader.u32()).toBe(reply.length)
  const answer = reader.u8()
  reader.u16()
  if (answer === Message.error) {
    const number = reader.u32()
    throw Object.assign(new Error(Object.entries(ERRORS).find(([, value]) => value === number)![0]))
  }
  expect(answer).toBe(type + 1)
  return reader
}

const walk = (from: number, to: number, ...names: string[]) =>
  call(Message.walk, (request) =>
    names.reduce((each, name) => each.text(name), request.u32(from).u32(to).u16(names.length)),
  )
const open = (fid: number, flags = 0) => call(Message.open, (request) => request.u32(fid).u32(flags))
const clunk = (fid: number) => call(Message.clunk, (request) => request.u32(fid))
const read = (fid: number, offset: bigint, count: number) =>
  call(Message.read, (request) => request.u32(fid).u64(offset).u32(count))

beforeEach(async () => {
  server = new NinePServer(memoryFolder())
  await call(Message.version, (request) => request.u32(65536).text('9P2000.L'))
  await call(Message.attach, (request) => request.u32(0).u32(NO_FID).text('root').text('').u32(0))
})

describe('9P2000.L', () => {
  it('agrees on version and message size', async () => {
    const version = async (most: number, text: string) => {
      const reply = await call(Message.version, (request) => request.u32(most).text(text))
      return [reply.u32(), reply.text()]
    }
    expect(await version(8192, '9P2000.L')).toEqual([8192, '9P2000.L'])
    expect(await version(1 << 30, '9P2000.L')).toEqual([512 * 1024, '9P2000.L'])
    expect(await version(8192, '9P2000')).toEqual([8192, 'unknown'])
    expect(await version(100, '9P2000.L')).toEqual([4096, 'unknown'])
    expect(held()).toBe(0)
  })

  it('reads a file', async () => {
    await walk(0, 1, 'hello')
    await open(1)
    const reply = await read(1, 6n, 100)
    const count = reply.u32()
    expect(new TextDecoder().decode(reply.bytes(count))).toBe('world')
    await clunk(1)
    expect(held()).toBe(1)
  })

  it('creates and writes one', async () => {
    await walk(0, 1)
    await call(Message.create, (request) => request.u32(1).text('new').u32(2).u32(0o600).u32(0))
    const data = Uint8Array.from({ length: 3000 }, (_, index) => index & 0xff)
    const reply = await call(Message.write, (request) => {
      request.u32(1).u64(5).u32(data.length)
      request.space(data.length).set(data)
      return request
    })
    expect(reply.u32()).toBe(3000)
    await call(Message.fsync, (request) => request.u32(1).u32(0))
    expect(rootThing.names.get('new')!.bytes.subarray(5)).toEqual(data)
    await expect(walk(1, 1, 'x')).rejects.toThrow('EINVAL')
  })

  it('lists a folder however large, in pieces of any size', async () => {
    for (let index = 0; index < 300; index++) rootThing.names.set(`file number ${index}`, thing('file'))
    for (const size of [60, 500, 100_000]) {
      await walk(0, 1)
      await open(1)
      const names: string[] = []
      for (let offset = 0n; ;) {
        const reply = await call(Message.readdir, (request) => request.u32(1).u64(offset).u32(size))
        const bytes = reply.u32()
        expect(bytes).toBeLessThanOrEqual(size)
        if (bytes === 0) break
        const entries = new Reader(reply.bytes(bytes), 0)
        for (let at = 0; at < bytes;) {
          entries.bytes(13)
          offset = entries.u64()
          entries.u8()
          const name = entries.text()
          names.push(name)
          at += 24 + name.length
        }
      }
      expect(names).toEqual(['.', '..', ...rootThing.names.keys()])
      await clunk(1)
    }
  })

  it('tells attributes, and changes them', async () => {
    await walk(0, 1, 'hello')
    const reply = await call(Message.getattr, (request) => request.u32(1).u64(0x7ff))
    expect([reply.u64(), reply.u8(), reply.u32(), reply.u64()]).toEqual([
      0x7ffn,
      0,
      2500,
      rootThing.names.get('hello')!.inode,
    ])
    expect([reply.u32(), reply.u32(), reply.u32(), reply.u64(), reply.u64(), reply.u64()]).toEqual([
      0o100644,
      0,
      0,
      1n,
      0n,
      11n,
    ])
    expect([reply.u64(), reply.u64(), reply.u64(), reply.u64()]).toEqual([4096n, 8n, 1n, 500_000_001n])
    const change = (valid: number, mode: number, size: bigint) =>
      call(Message.setattr, (request) =>
        request.u32(1).u32(valid).u32(mode).u32(7).u32(7).u64(size).u64(1).u64(2).u64(3).u64(4),
      )
    await change(1 | 8, 0o600, 5n)
    expect([rootThing.names.get('hello')!.mode, rootThing.names.get('hello')!.bytes.length]).toEqual([0o600, 5])
    await change(6, 0, 0n)
    await expect(change(8, 0, 1n << 60n)).rejects.toThrow('EFBIG')
  })

  it('makes folders, links and names, and takes them away', async () => {
    await call(Message.mkdir, (request) => request.u32(0).text('made').u32(0o755).u32(0))
    await call(Message.symlink, (request) => request.u32(0).text('link').text('/etc/passwd').u32(0))
    await call(Message.mknod, (request) => request.u32(0).text('node').u32(0o100644).u32(0).u32(0).u32(0))
    await walk(0, 1, 'link')
    expect((await call(Message.readlink, (request) => request.u32(1))).text()).toBe('/etc/passwd')
    await walk(0, 2, 'hello')
    await call(Message.link, (request) => request.u32(0).u32(2).text('second'))
    await walk(0, 3, 'made')
    await call(Message.renameat, (request) => request.u32(0).text('second').u32(3).text('third'))
    expect([...rootThing.names.get('made')!.names.keys()]).toEqual(['third'])
    await call(Message.unlinkat, (request) => request.u32(3).text('third').u32(0))
    await call(Message.unlinkat, (request) => request.u32(0).text('made').u32(0x200))
    await expect(call(Message.mknod, (request) => request.u32(0).text('pipe').u32(0o010644).u32(0))).rejects.toThrow(
      'EPERM',
    )
    for (const fid of [1, 2]) await clunk(fid)
    expect([...rootThing.names.keys()]).toEqual(['hello', 'inner', 'link', 'node'])
    await clunk(0)
    expect(held()).toBe(0)
  })

  it('walks as far as it gets', async () => {
    const reply = await walk(0, 1, 'inner', 'nothing')
    expect(reply.u16()).toBe(1)
    await expect(clunk(1)).rejects.toThrow('EBADF')
    await expect(walk(0, 1, 'nothing')).rejects.toThrow('ENOENT')
    await walk(0, 5)
    await walk(5, 5, 'inner')
    await expect(walk(0, 5)).rejects.toThrow('EBADF')
    // An open one may be walked from, not in place.
    await open(5)
    await walk(5, 6)
    await expect(walk(5, 5)).rejects.toThrow('EINVAL')
    for (const fid of [0, 5, 6]) await clunk(fid)
    expect(held()).toBe(0)
  })

  it('answers what it does not do with an error', async () => {
    for (const type of [Message.auth, Message.rename, Message.xattrwalk, Message.xattrcreate, 99, 255])
      await expect(call(type, (request) => request.u32(0))).rejects.toThrow('EOPNOTSUPP')
    await walk(0, 1)
    await expect(call(Message.remove, (request) => request.u32(1))).rejects.toThrow('EOPNOTSUPP')
    await expect(clunk(1)).rejects.toThrow('EBADF')
  })

  it('has nothing against locks', async () => {
    expect((await call(Message.lock, (request) => request.u32(0))).u8()).toBe(0)
    const reply = await call(Message.getlock, (request) => request.u32(0).u8(1).u64(1).u64(2).u32(3).text('me'))
    expect([reply.u8(), reply.u64(), reply.u64(), reply.u32(), reply.text()]).toEqual([2, 1n, 2n, 3, 'me'])
  })

  it('Tflush waits for what it flushes', async () => {
    const order: string[] = []
    const slow = server.answer(new Writer().u32(0).u64(0x7ff).finish(Message.getattr, 7)).then(() => order.push('slow'))
    await server.answer(new Writer().u16(7).finish(Message.flush, 8)).then(() => order.push('flush'))
    await slow
    expect(order).toEqual(['slow', 'flush'])
    await call(Message.flush, (request) => request.u16(999))
  })
})

describe('hostile 9P', () => {
  it.each(['open', 'create'])('a fid that is given back while %s is under way keeps nothing open', async (what) => {
    const before = held()
    await walk(0, 1, ...(what === 'open' ? ['hello'] : []))
    const create = () => call(Message.create, (request) => request.u32(1).text('made').u32(2).u32(0o644).u32(0))
    const opening = expect(what === 'open' ? open(1) : create()).rejects.toThrow('EBADF')
    await clunk(1)
    await opening
    expect(held()).toBe(before)
  })

  it('folders without end: keeps no more names than it may', async () => {
    const names = Array.from({ length: 300_000 }, (_, index) => [`n${index}`, thing('file')] as const)
    rootThing.names.set('huge', Object.assign(thing('folder'), { names: new Map(names) }))
    const list = (fid: number) => call(Message.readdir, (request) => request.u32(fid).u64(0).u32(4000))
    for (const fid of [1, 2, 3, 4]) {
      await walk(0, fid, 'huge')
      await open(fid)
    }
    for (const fid of [1, 2, 3, 3, 3]) await list(fid)
    await expect(list(4)).rejects.toThrow('ENOMEM')
    await clunk(1)
    await list(4)
  })

  it.each([
    { name: 'an unknown fid', run: () => read(77, 0n, 10), error: 'EBADF' },
    { name: 'reading what is not open', run: () => read(0, 0n, 10), error: 'EBADF' },
    { name: 'a fid that is no fid', run: () => walk(0, NO_FID), error: 'EBADF' },
    { name: 'too many names', run: () => walk(0, 1, ...new Array<string>(17).fill('x')), error: 'EINVAL' },
    { name: 'a way up', run: () => walk(0, 1, '..'), error: 'EINVAL' },
    { name: 'a message without its values', run: () => call(Message.walk), error: 'EINVAL' },
    {
      name: 'text that is longer than the message',
      run: () => call(Message.mkdir, (request) => request.u32(0).u16(0xffff)),
      error: 'EINVAL',
    },
    {
      name: 'text that is no UTF-8',
      run: () => call(Message.mkdir, (request) => request.u32(0).u16(1).u8(0xff)),
      error: 'EINVAL',
    },
    { name: 'writing a folder', run: () => open(0, 1), error: 'EISDIR' },
    { name: 'authentication', run: () => call(Message.attach, (request) => request.u32(9).u32(3)), error: 'EINVAL' },
  ])('$name', async ({ run, error }) => {
    await expect(run()).rejects.toThrow(error)
  })

  it('a size that is larger than the message', async () => {
    const request = new Writer().u32(0).finish(Message.clunk, 3)
    new DataView(request.buffer).setUint32(0, 1000, true)
    expect((await server.answer(request))[4]).toBe(Message.error)
    expect((await server.answer(new Uint8Array(3)))[4]).toBe(Message.error)
  })

  it('an offset beyond what is exact', async () => {
    await walk(0, 1, 'hello')
    await open(1)
    await expect(read(1, 1n << 60n, 10)).rejects.toThrow('EINVAL')
    await expect(open(1)).rejects.toThrow('EBADF')
    // A count beyond all bounds reads what fits a message.
    expect((await read(1, 0n, 0xffff_ffff)).u32()).toBe(11)
  })

  it('fids without end', async () => {
    for (let fid = 1; fid < 8192; fid++) await walk(0, fid)
    await expect(walk(0, 8192)).rejects.toThrow('ENFILE')
    await server.clear()
    expect(held()).toBe(0)
  })

  it('noise', async () => {
    const random = createRandom()
    for (let round = 0; round < 3000; round++) {
      const request = Uint8Array.from({ length: 7 + random(60) }, () => (random(3) === 0 ? random(256) : random(3)))
      new DataView(request.buffer).setUint32(0, random(8) === 0 ? random(1000) : request.length, true)
      request[4] = Object.values(Message)[random(28)] ?? random(256)
      const reply = await server.answer(request)
      expect(new DataView(reply.buffer).getUint32(0, true)).toBe(reply.length)
    }
    await server.clear()
    expect(held()).toBe(0)
  })
})

describe.each(WAYS)('virtio-9p over $way', ({ transport, ring }) => {
  it('carries requests and replies, and forgets the client at a reset', async () => {
    const backends = { folder: memoryFolder() }
    const { driver, device } = await subject(
      'virtio-9p',
      { path: 'x', tag: 'share' },
      { transport, ring },
      { backends },
    )
    driver.start()
    expect(driver.registers.readConfig(0, 2)).toBe(5)
    expect(String.fromCharCode(...[2, 3, 4, 5, 6].map((at) => driver.registers.readConfig(at, 1)))).toBe('share')
    const attach = new Writer().u32(0).u32(NO_FID).text('root').text('').u32(0).finish(Message.attach, 1)
    const { parts, written } = await driver.request(0, [attach], [64])
    expect([parts[0]![4], written]).toEqual([Message.attach + 1, 20])
    expect(held()).toBe(1)
    driver.start()
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(held()).toBe(0)
    const again = await driver.request(0, [attach], [64])
    expect(again.parts[0]![4]).toBe(Message.attach + 1)
    await device.dispose?.()
    expect(held()).toBe(0)
  })

  it('breaks on requests that are none, and on replies without room', async () => {
    for (const [out, room] of [
      [3, 64],
      [20, 3],
    ] as const) {
      const { driver } = await subject(
        'virtio-9p',
        { path: 'x' },
        { transport, ring },
        { backends: { folder: memoryFolder() } },
      )
      driver.start()
      driver.send(0, [
        { address: driver.allocate(out), length: out },
        { address: driver.allocate(room), length: room, writable: true },
      ])
      expect(driver.needsReset).toBe(true)
    }
  })
})
