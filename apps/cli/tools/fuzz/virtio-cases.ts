/** Virtio devices on real back ends, and what drivers ask of each: nearly right requests, by seed. */

import { execFileSync } from 'node:child_process'
import { existsSync, lstatSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { BackendKinds, IncomingStream, SocketBackend, SocketStream, StreamHandlers } from '@nonroot/contracts'
import { createNodeBackends } from '@nonroot/host-node'
import { createMemoryStore, createQcow2, diskParts } from '@nonroot/image'
import virtio, { createVirtio, virtioOptions } from '@nonroot/io-virtio'
import { benchVirtio, createRandom } from '@nonroot/testkit'
import type { FuzzRequest, Random, VirtioSubject } from '@nonroot/testkit'

export interface VirtioCase {
  readonly name: string
  readonly random: Random
  create(): Promise<VirtioSubject>
  readonly request?: (random: Random) => FuzzRequest
  readonly outside?: (random: Random) => void
  /** Throws if something outside changed. */
  close(): Promise<void>
}

interface Kind {
  readonly kind: string
  /** Given a folder of the case's own. */
  options(random: Random, folder: string): object | Promise<object>
  backends?(random: Random): { [K in keyof BackendKinds]?: BackendKinds[K]['backend'] }
  readonly request?: (random: Random) => FuzzRequest
  readonly outside?: (subject: VirtioSubject, random: Random) => void
  check?(folder: string): void
}

const KINDS: readonly Kind[] = [
  { kind: 'virtio-rng', options: () => ({}), request: (random) => ({ queue: 0, out: [], room: [random(100_000)] }) },
  {
    kind: 'virtio-blk',
    options: async (random, folder) => ({
      image: await diskImage(random, folder),
      queues: 1 + random(3),
      queueSize: 2 ** (2 + random(7)),
      readOnly: random(8) === 0,
      temporary: random(4) === 0,
    }),
    request: blockRequest,
  },
  {
    kind: 'virtio-console',
    options: (random) =>
      random(2) ? {} : { ports: [{ console: true }, { name: 'org.nonroot.agent' }, { console: true, name: 'x' }] },
    request: (random) =>
      random(2)
        ? {
            queue: 1 + 2 * random(4),
            out: [words(random, [0, 1, 2, 3, 4, 5, 6, 7, 1 << 16, 0x1_0003], 2 + random(3))],
            room: [],
          }
        : { queue: 2 * random(5), out: [], room: [1 + random(300)] },
    outside: ({ bench }, random) => bench.console.type('x'.repeat(random(5000))),
  },
  {
    kind: 'virtio-balloon',
    options: (random) => ({ deflateOnOutOfMemory: random(2) === 0, freePageReporting: random(4) !== 0 }),
    request: (random) =>
      random(3)
        ? {
            queue: random(5),
            out: [words(random, [0, 1, 2, 3, 200, 201, 255, 256, 0xffff_ffff], 1 + random(40))],
            room: [],
          }
        : { queue: 3 + random(2), out: [], room: [1 + random(30_000)] },
    outside({ device }, random) {
      for (const offered of device.offers?.values() ?? []) {
        const balloon = offered as { setTarget(frames: number): void; statistics(): unknown; freePages(): unknown }
        if (random(2)) balloon.setTarget(random(400))
        else void (random(2) ? balloon.statistics() : balloon.freePages())
      }
    },
  },
  {
    kind: 'virtio-9p',
    options: (random, folder) => ({ path: sharedFolder(folder), readOnly: random(5) === 0 }),
    request: ninePRequest,
    check: checkShared,
  },
  {
    kind: 'virtio-vsock',
    options: () => ({ path: 'unused' }),
    backends: (random) => ({ sockets: noisySockets(random) }),
    request: socketRequest,
  },
]

export function virtioCase(seed: number, base: string, device: string | undefined): VirtioCase {
  // Neighbouring seeds begin alike: the first numbers are thrown away.
  const random = createRandom(Math.imul(seed + 1, 0x9e37_79b9))
  for (let skip = 0; skip < 8; skip++) random(2)
  const kinds = KINDS.filter(({ kind }) => device === undefined || kind === device)
  const chosen = kinds[random(kinds.length)]!
  const transport = random(2) ? 'pci' : 'mmio'
  const ring = random(2) ? 'split' : 'packed'
  const model = {
    transport,
    ring,
    indirect: random(4) !== 0,
    eventIndex: random(3) !== 0,
    inOrder: random(2) === 0,
    notificationData: random(2) === 0,
  }
  const folder = join(base, String(seed))
  let subject: VirtioSubject | undefined
  return {
    name: `${chosen.kind}, ${transport}, ${ring}`,
    random,
    async create() {
      mkdirSync(folder, { recursive: true })
      const options = (await chosen.options(random, folder)) as { path?: string; image?: string }
      const host = createNodeBackends({ folder, block: diskParts })
      const backends = {
        ...(chosen.kind === 'virtio-blk' ? { block: await host.open('block', options as never) } : {}),
        ...(chosen.kind === 'virtio-9p' ? { folder: await host.open('folder', options as never) } : {}),
        entropy: await host.open('entropy', {}),
        ...chosen.backends?.(random),
      }
      const definition = virtio.devices!.find(({ kind }) => kind === chosen.kind)!
      subject = await benchVirtio(definition, options, createVirtio(virtioOptions.parse(model)), { backends })
      return subject
    },
    ...(chosen.request ? { request: chosen.request } : {}),
    ...(chosen.outside ? { outside: (random) => chosen.outside!(subject!, random) } : {}),
    async close() {
      chosen.check?.(folder)
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** 32-bit words, mostly of some that mean something. */
function words(random: Random, meaningful: readonly number[], count: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(4 * count))
  for (let index = 0; index < count; index++)
    view.setUint32(4 * index, random(8) ? meaningful[random(meaningful.length)]! : random(2 ** 32), true)
  return new Uint8Array(view.buffer)
}

// Block

const DISK = 256 * 1024

async function diskImage(random: Random, folder: string): Promise<string> {
  if (random(3) === 0) return 'memory://256KiB'
  if (random(2)) {
    writeFileSync(join(folder, 'disk.img'), new Uint8Array(DISK))
    return 'disk.img'
  }
  const store = createMemoryStore()
  await createQcow2(store, { size: DISK, clusterBits: 9 + random(4) })
  const bytes = new Uint8Array(store.size)
  await store.read(0, bytes)
  writeFileSync(join(folder, 'disk.qcow2'), bytes)
  return 'disk.qcow2'
}

function blockRequest(random: Random): FuzzRequest {
  const type = [0, 0, 1, 1, 4, 8, 11, 13, random(32)][random(9)]!
  const sector = random(6) ? random(DISK / 512) : random(2 ** 32)
  const header = new DataView(new ArrayBuffer(16))
  header.setUint32(0, type, true)
  header.setUint32(8, sector, true)
  header.setUint32(12, random(10) ? 0 : random(2 ** 32), true)
  const data =
    type === 11 || type === 13
      ? words(random, [0, 1, 8, 64, 511, 512, 2 ** 21], 4 * (1 + random(random(8) ? 4 : 40)))
      : new Uint8Array(random(6) ? 512 * random(24) : random(9000))
  const queue = random(4) ? 0 : random(4)
  if (type === 0)
    return { queue, out: [new Uint8Array(header.buffer)], room: [random(6) ? 512 * random(24) : random(9000), 1] }
  return { queue, out: [new Uint8Array(header.buffer), data], room: random(3) ? [1] : [20, 1] }
}

// 9P

const SECRET = 'nobody in the guest may know or change this'

/** A share beside what is none of the guest's business, with links that lead there. */
function sharedFolder(folder: string): string {
  const shared = join(folder, 'shared')
  mkdirSync(join(shared, 'inner'), { recursive: true })
  mkdirSync(join(folder, 'outside'))
  writeFileSync(join(folder, 'outside/secret'), SECRET)
  writeFileSync(join(shared, 'file'), 'hello')
  execFileSync('ln', ['-s', '../outside', join(shared, 'up')])
  execFileSync('ln', ['-s', join(folder, 'outside/secret'), join(shared, 'inner/link')])
  return shared
}

function checkShared(folder: string): void {
  const outside = join(folder, 'outside')
  const found = existsSync(outside) ? readdirSync(outside).join() : 'nothing'
  if (found !== 'secret' || readFileSync(join(outside, 'secret'), 'utf8') !== SECRET)
    throw new Error(`the folder beside the share has ${found} now`)
  const beside = readdirSync(folder).toSorted().join()
  if (beside !== 'outside,shared') throw new Error(`beside the share there is ${beside} now`)
  if (lstatSync(join(outside, 'secret')).nlink !== 1) throw new Error('the secret has another name now')
}

const NAMES = [
  'file',
  'inner',
  'up',
  'link',
  'a',
  'b',
  'c',
  '..',
  '.',
  '',
  '../outside',
  'up/secret',
  '/etc/passwd',
  'x\0y',
  'n'.repeat(300),
]
/** Message types with the shape of what follows: d word, q quadword, w 16 bits, b byte, s text, D data. */
const MESSAGES: readonly (readonly [type: number, shape: string])[] = [
  [100, 'ds'],
  [104, 'dfssd'],
  [104, 'dfssd'],
  [110, 'ffW'],
  [110, 'ffW'],
  [110, 'ffW'],
  [120, 'f'],
  [12, 'fd'],
  [12, 'fd'],
  [14, 'fsddd'],
  [14, 'fsddd'],
  [16, 'fssd'],
  [18, 'fsdddd'],
  [20, 'ffs'],
  [22, 'f'],
  [24, 'fq'],
  [26, 'fddddqqqqq'],
  [30, 'ffs'],
  [40, 'fqd'],
  [50, 'fd'],
  [52, 'fbdqqds'],
  [54, 'fbqqds'],
  [70, 'ffs'],
  [72, 'fsdd'],
  [74, 'fsfs'],
  [76, 'fsd'],
  [108, 'w'],
  [116, 'fqd'],
  [118, 'fqD'],
  [122, 'f'],
  [8, 'f'],
]
const WORDS = [0, 1, 2, 3, 0x40, 0x241, 0o100644, 0o40755, 0x200, 4096, 8192, 0x7ff, 0xffff_ffff]

function ninePRequest(random: Random): FuzzRequest {
  const [type, shape] = MESSAGES[random(MESSAGES.length)]!
  const bytes: number[] = []
  const put = (value: number, size: number): void => {
    for (let byte = 0; byte < size; byte++) bytes.push(Math.floor(value / 2 ** (8 * byte)) & 0xff)
  }
  const word = (): number => (random(8) ? WORDS[random(WORDS.length)]! : random(2 ** 32))
  const name = (): void => {
    const chosen = new TextEncoder().encode(type === 100 ? '9P2000.L' : NAMES[random(NAMES.length)])
    put(random(40) ? chosen.length : random(0x10000), 2)
    bytes.push(...chosen)
  }
  const fields: Readonly<Record<string, () => void>> = {
    b: () => put(random(256), 1),
    w: () => put(random(8), 2),
    d: () => put(word(), 4),
    q: () => (put(random(4) ? random(9000) : word(), 4), put(random(8) ? 0 : word(), 4)),
    // Few fids, so that they meet again.
    f: () => put(random(12) ? random(6) : 0xffff_ffff, 4),
    s: name,
    W() {
      const count = random(random(10) ? 4 : 20)
      put(count, 2)
      for (let index = 0; index < count; index++) name()
    },
    D() {
      const length = random(2000)
      put(random(20) ? length : word(), 4)
      for (let index = 0; index < length; index++) bytes.push(index & 0xff)
    },
  }
  for (const field of shape) fields[field]!()
  const message = new Uint8Array(7 + bytes.length)
  const view = new DataView(message.buffer)
  view.setUint32(0, random(20) ? message.length : word(), true)
  view.setUint8(4, random(50) ? type : random(256))
  view.setUint16(5, random(16), true)
  message.set(bytes, 7)
  return { queue: 0, out: [message], room: [random(10) ? 8192 + 24 : 1 + random(64)] }
}

// Sockets

function socketRequest(random: Random): FuzzRequest {
  if (random(2)) return { queue: random(3) ? 0 : 2, out: [], room: [random(4) ? 4096 : 1 + random(100)] }
  const length = random(3) ? 0 : random(3000)
  const view = new DataView(new ArrayBuffer(44 + length))
  const put = (at: number, value: number): void => view.setUint32(at, random(40) ? value : random(2 ** 32), true)
  put(0, 3)
  put(8, 2)
  put(16, random(6))
  put(20, random(3) ? 1 + random(6) : 0x4000_0000 + random(6))
  put(24, length)
  view.setUint16(28, random(40) ? 1 : random(4), true)
  view.setUint16(30, [1, 1, 2, 3, 4, 5, 5, 5, 6, 7, random(16)][random(11)]!, true)
  put(32, random(4))
  put(36, [0, 4096, 262_144, 0xffff_ffff][random(4)]!)
  put(40, random(3) ? 0 : random(100_000))
  return { queue: 1, out: [new Uint8Array(view.buffer)], room: [] }
}

/** Programs of the host that echo, chatter, refuse, close and connect as they like. */
function noisySockets(random: Random): SocketBackend {
  let listener: ((port: number, stream: IncomingStream) => void) | undefined
  const stream = (): IncomingStream => {
    let handlers: StreamHandlers | undefined
    let over = false
    const soon = (run: (told: StreamHandlers) => void): void =>
      void setTimeout(() => {
        if (!over && handlers) run(handlers)
      }, random(3))
    const close = (told: StreamHandlers): void => {
      over = true
      told.close()
    }
    const made: IncomingStream & SocketStream = {
      accepted: () => {},
      handle(told) {
        handlers = told
        if (random(2)) soon((now) => now.data(new Uint8Array(random(20_000))))
        if (random(8) === 0) soon((now) => now.end())
        if (random(8) === 0) soon(close)
      },
      write(bytes) {
        const { length } = bytes
        soon((told) => told.taken(length))
        if (random(2)) soon((told) => told.data(new Uint8Array(length)))
      },
      end: () => soon(close),
      pause: () => {},
      resume: () => {},
      destroy() {
        over = true
      },
    }
    if (random(4) === 0) setTimeout(() => listener?.(random(6), stream()), random(5))
    return made
  }
  return {
    connect: (port) => (port % 3 === 0 ? Promise.reject(new Error('connection refused')) : Promise.resolve(stream())),
    onConnect: (told) => ((listener = told), () => (listener = undefined)),
    close: async () => {},
  }
}
