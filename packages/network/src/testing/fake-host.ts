/** A host whose sockets are in memory, and a card for tests. Not part of the package. */

import { ALL_OFFLOADS, ConnectError } from '@nonroot/contracts'
import type {
  AcceptedStream,
  CableEnd,
  ConnectProblem,
  DatagramHandlers,
  FrameOffloads,
  FrameWork,
  HostNetwork,
  Log,
  NetworkSurroundings,
  SocketStream,
  StreamAddress,
  StreamHandlers,
} from '@nonroot/contracts'
import { createTestClock, createTestLog, createTestMetrics } from '@nonroot/testkit'
import type { TestClock } from '@nonroot/testkit'

/** A stream of the host, seen from the program at its other end. */
export class FakeStream {
  handlers: StreamHandlers | undefined
  readonly received: Uint8Array[] = []
  ended = false
  destroyed = false
  paused = false
  /** Does not take what it gets, until it does. */
  slow = false
  #untaken = 0
  readonly stream: SocketStream = {
    handle: (handlers) => (this.handlers = handlers),
    write: (bytes) => {
      this.received.push(bytes.slice())
      if (this.slow) this.#untaken += bytes.length
      else queueMicrotask(() => this.handlers?.taken(bytes.length))
    },
    end: () => (this.ended = true),
    pause: () => (this.paused = true),
    resume: () => (this.paused = false),
    destroy: () => (this.destroyed = true),
  }

  get text(): string {
    return this.received.map((bytes) => new TextDecoder().decode(bytes)).join('')
  }

  get length(): number {
    return this.received.reduce((sum, { length }) => sum + length, 0)
  }

  say(data: string | Uint8Array): void {
    this.handlers!.data(typeof data === 'string' ? new TextEncoder().encode(data) : data)
  }

  takeAll(): void {
    const bytes = this.#untaken
    this.#untaken = 0
    this.slow = false
    this.handlers!.taken(bytes)
  }
}

export interface FakeDatagram {
  readonly text: string
  readonly host: string
  readonly port: number
}

export class FakeHost implements HostNetwork {
  /** `127.0.0.1:80` and so on: who listens there, or what connecting there comes to. */
  readonly services = new Map<string, FakeStream[] | ConnectProblem>()
  readonly connected: string[] = []
  readonly sent: FakeDatagram[] = []
  readonly sockets: { handlers: DatagramHandlers; closed: boolean; at: unknown }[] = []
  readonly listening = new Map<number, (accepted: AcceptedStream) => void>()
  readonly names = new Map<string, readonly string[]>()
  readonly captured: Uint8Array[] = []
  #next = 1

  /** Streams of connections to that address, as they come. */
  serve(address: string): FakeStream[] {
    const streams: FakeStream[] = []
    this.services.set(address, streams)
    return streams
  }

  async connect(to: StreamAddress): Promise<SocketStream> {
    const address = 'path' in to ? to.path : `${to.host}:${to.port}`
    this.connected.push(address)
    const service = this.services.get(address)
    if (!Array.isArray(service)) throw new ConnectError(service ?? 'refused')
    const stream = new FakeStream()
    service.push(stream)
    return stream.stream
  }

  async listen(at: StreamAddress, onStream: (accepted: AcceptedStream) => void) {
    const port = 'path' in at ? 0 : at.port
    this.listening.set(port, onStream)
    return { port, close: async () => void this.listening.delete(port) }
  }

  async datagrams(_family: 4 | 6, handlers: DatagramHandlers, at?: { host: string; port: number }) {
    const socket = { handlers, closed: false, at }
    this.sockets.push(socket)
    return {
      port: at?.port ?? 40000,
      send: (bytes: Uint8Array, host: string, port: number) =>
        void this.sent.push({ text: new TextDecoder('latin1').decode(bytes), host, port }),
      close: () => void (socket.closed = true),
    }
  }

  async lookUp(name: string, family: 4 | 6): Promise<readonly string[]> {
    const found = this.names.get(name)
    if (!found) throw Object.assign(new Error(name), { code: 'ENOTFOUND' })
    return found.filter((address) => address.includes(':') === (family === 6))
  }

  nameServers(): readonly string[] {
    return ['192.0.2.53']
  }

  /** Not random: tests repeat. */
  random(into: Uint8Array): void {
    for (let index = 0; index < into.length; index++) into[index] = this.#next = (this.#next * 73 + 41) & 0xff
  }

  meetingPath(name: string): string {
    return `/meet/${name}`
  }

  async start(): Promise<never> {
    throw new Error('this host has no programs')
  }

  async openCapture() {
    return { write: (bytes: Uint8Array) => this.captured.push(bytes.slice()) > 0, close: async () => {} }
  }
}

/** A card whose driver sees what it gets when it is notified: at the end of a batch. */
export class FakeCard implements CableEnd {
  offloads: FrameOffloads = ALL_OFFLOADS
  readonly frames: Uint8Array[] = []
  readonly works: FrameWork[] = []
  readonly #unseen: { frame: Uint8Array; work: FrameWork }[] = []
  flushed = 0
  /** Room for so many more frames. */
  room = Infinity
  readied = 0
  on = true

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    if (this.room <= 0) return false
    this.room--
    this.#unseen.push({ frame: frame.slice(), work: { ...work } })
    return true
  }

  flush(): void {
    this.flushed++
    for (const { frame, work } of this.#unseen.splice(0)) {
      this.frames.push(frame)
      this.works.push(work)
    }
  }

  ready(): void {
    this.readied++
  }

  carrier(on: boolean): void {
    this.on = on
  }

  take(): Uint8Array[] {
    this.works.length = 0
    return this.frames.splice(0)
  }
}

export function surroundings(): NetworkSurroundings & { clock: TestClock; log: Log } {
  return { clock: createTestClock(), metrics: createTestMetrics(), log: createTestLog() }
}

/** Lets promises of the fake host come true. */
export const settle = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0))
