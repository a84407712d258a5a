/** Serves a function of the host to one client at a time: the commands of a connection. */

import { NonrootError } from '@nonroot/contracts'
import type { BlockingStream, HostFunction, Log } from '@nonroot/contracts'
import { Connection } from './connection.ts'
import {
  Command,
  DeviceFlag,
  DeviceInfoBody,
  DmaFlag,
  DmaMapBody,
  DmaUnmapBody,
  Errno,
  InterruptBody,
  Irq,
  IrqInfoBody,
  IrqInfoFlag,
  IrqSetFlag,
  MAJOR,
  MAX_TRANSFER,
  Region,
  RegionBody,
  RegionFlag,
  RegionInfoBody,
  SetIrqsBody,
} from './facts.ts'
import { bodyOf } from './message.ts'
import type { Message } from './message.ts'
import type { RemoteMemory } from './remote-memory.ts'
import { ServedFunction } from './served-function.ts'
import type { ServingHost } from './served-function.ts'
import { answer, decodeVersion, encodeVersion, transferLimit } from './version.ts'

/** A reply's body, or an errno. */
type Outcome = Uint8Array | number
const NOTHING = new Uint8Array(0)
/** A device that reads a page by single bytes is still a device. */
const LEAST_TRANSFER = 4096

export interface ServerOptions {
  readonly log: Log
  /** Clients that are silent for so long while they owe something are sent away. Default: 10 s. */
  readonly silentMs?: number
}

export class VfioUserServer {
  readonly #served: ServedFunction
  readonly #memory: RemoteMemory
  readonly #options: ServerOptions
  #session: Session | undefined

  /** `memory`: what the function's device was created with. Throws `device.create` for a function without MSI-X and MSI. */
  constructor(host: ServingHost, owned: HostFunction, memory: RemoteMemory, options: ServerOptions) {
    this.#served = new ServedFunction(host, owned)
    this.#memory = memory
    this.#options = options
  }

  /** Serves this client. Resolves, when it has gone, with the reason; the function is as at power-on then. */
  async serve(stream: BlockingStream): Promise<string> {
    if (this.#session) throw new NonrootError({ code: 'internal', message: 'a second client while there is one' })
    const session = new Session(this.#served, this.#memory, stream, this.#options)
    this.#session = session
    const reason = await session.ended
    // The specification would keep the device's state: the next client's memory would then be written where the last one's queues were.
    await this.#served.reset()
    this.#session = undefined
    return reason
  }

  async dispose(): Promise<void> {
    this.#session?.end('the server ends')
    await this.#served.dispose()
  }
}

class Session {
  /** Resolves with the reason. */
  readonly ended: Promise<string>
  readonly #served: ServedFunction
  readonly #memory: RemoteMemory
  readonly #connection: Connection
  #hasVersion = false
  readonly #commands: Readonly<Record<number, (body: DataView<ArrayBuffer>) => Outcome | Promise<Outcome>>> = {
    [Command.dmaMap]: (body) => this.#dmaMap(body),
    [Command.dmaUnmap]: (body) => this.#dmaUnmap(body),
    [Command.deviceInfo]: (body) => this.#deviceInfo(body),
    [Command.regionInfo]: (body) => this.#regionInfo(body),
    [Command.irqInfo]: (body) => this.#irqInfo(body),
    [Command.setIrqs]: (body) => this.#setIrqs(body),
    [Command.regionRead]: (body) => this.#regionRead(body),
    [Command.regionWrite]: (body) => this.#regionWrite(body),
    [Command.deviceReset]: (body) => this.#reset(body),
    // They need file descriptors.
    [Command.regionIoFds]: () => Errno.ENOTSUP,
  }

  constructor(served: ServedFunction, memory: RemoteMemory, stream: BlockingStream, options: ServerOptions) {
    this.#served = served
    this.#memory = memory
    const { promise, resolve } = Promise.withResolvers<string>()
    this.ended = promise
    this.#connection = new Connection(stream, {
      ...(options.silentMs === undefined ? {} : { silentMs: options.silentMs }),
      onCommand: (message) => this.#serve(message),
      onClose: (reason) => {
        served.onVector = undefined
        memory.disconnect()
        resolve(reason)
      },
    })
    this.#connection.start()
  }

  end(reason: string): void {
    this.#connection.close(reason)
  }

  #serve(message: Message): Promise<void> | void {
    if (!this.#hasVersion) return this.#negotiate(message)
    const outcome = this.#commands[message.command]?.(message.body) ?? Errno.EINVAL
    if (outcome instanceof Promise) return outcome.then((value) => this.#answer(message, value))
    this.#answer(message, outcome)
  }
  #answer(message: Message, outcome: Outcome): void {
    if (typeof outcome === 'number') this.#connection.refuse(message, outcome)
    else this.#connection.reply(message, outcome)
  }

  #negotiate(message: Message): void {
    const connection = this.#connection
    const proposed = message.command === Command.version ? decodeVersion(message.body) : undefined
    if (proposed?.major !== MAJOR) {
      connection.refuse(message)
      const what = proposed ? `version ${proposed.major}.${proposed.minor}` : `command ${message.command}`
      return connection.close(`the client began with ${what}, not with version ${MAJOR}`)
    }
    const limit = transferLimit(proposed.capabilities)
    if (limit < LEAST_TRANSFER) {
      connection.refuse(message)
      return connection.close(`the client takes ${limit} bytes a transfer; ${LEAST_TRANSFER} are needed`)
    }
    this.#hasVersion = true
    this.#memory.connect(connection, limit)
    if (proposed.capabilities.interrupt_messages === true) this.#served.onVector = (vector) => this.#signal(vector)
    connection.reply(message, encodeVersion(answer(proposed)))
  }

  #signal(vector: number): void {
    const body = bodyOf(InterruptBody.size, (view) => view.setUint32(InterruptBody.vector, vector, true))
    this.#connection.tell(Command.interrupt, body)
  }

  // Memory

  #dmaMap(body: DataView): Outcome {
    if (body.byteLength !== DmaMapBody.size || body.getUint32(DmaMapBody.argsz, true) < DmaMapBody.size)
      return Errno.EINVAL
    const flags = body.getUint32(DmaMapBody.flags, true)
    if (flags & ~(DmaFlag.read | DmaFlag.write)) return Errno.EINVAL
    const [address, length] = [wide(body, DmaMapBody.address), wide(body, DmaMapBody.length)]
    return this.#memory.map(address, length, flags) || NOTHING
  }

  #dmaUnmap(body: DataView<ArrayBuffer>): Outcome {
    if (body.byteLength !== DmaUnmapBody.size || body.getUint32(DmaUnmapBody.argsz, true) < DmaUnmapBody.size)
      return Errno.EINVAL
    if (body.getUint32(DmaUnmapBody.flags, true) !== 0) return Errno.ENOTSUP
    const failed = this.#memory.unmap(wide(body, DmaUnmapBody.address), wide(body, DmaUnmapBody.length))
    return failed || new Uint8Array(body.buffer)
  }

  // What there is

  #deviceInfo(body: DataView): Outcome {
    if (!isQuery(body, DeviceInfoBody.size)) return Errno.EINVAL
    return bodyOf(DeviceInfoBody.size, (view) => {
      view.setUint32(DeviceInfoBody.argsz, DeviceInfoBody.size, true)
      view.setUint32(DeviceInfoBody.flags, DeviceFlag.reset | DeviceFlag.pci, true)
      view.setUint32(DeviceInfoBody.regions, Region.count, true)
      view.setUint32(DeviceInfoBody.irqs, Irq.count, true)
    })
  }

  #regionInfo(body: DataView): Outcome {
    if (!isQuery(body, RegionInfoBody.size)) return Errno.EINVAL
    const index = body.getUint32(RegionInfoBody.index, true)
    if (index >= Region.count) return Errno.EINVAL
    const length = this.#served.regionSize(index)
    return bodyOf(RegionInfoBody.size, (view) => {
      view.setUint32(RegionInfoBody.argsz, RegionInfoBody.size, true)
      view.setUint32(RegionInfoBody.flags, length > 0 ? RegionFlag.read | RegionFlag.write : 0, true)
      view.setUint32(RegionInfoBody.index, index, true)
      view.setBigUint64(RegionInfoBody.length, BigInt(length), true)
    })
  }

  #irqInfo(body: DataView): Outcome {
    if (!isQuery(body, IrqInfoBody.size)) return Errno.EINVAL
    const index = body.getUint32(IrqInfoBody.index, true)
    if (index >= Irq.count) return Errno.EINVAL
    const count = this.#served.vectors(index)
    return bodyOf(IrqInfoBody.size, (view) => {
      view.setUint32(IrqInfoBody.argsz, IrqInfoBody.size, true)
      view.setUint32(IrqInfoBody.flags, count > 0 ? IrqInfoFlag.maskable : 0, true)
      view.setUint32(IrqInfoBody.index, index, true)
      view.setUint32(IrqInfoBody.count, count, true)
    })
  }

  #setIrqs(body: DataView): Outcome {
    if (body.byteLength < SetIrqsBody.data || body.getUint32(SetIrqsBody.argsz, true) < body.byteLength)
      return Errno.EINVAL
    const [flags, index, start, count] = [
      SetIrqsBody.flags,
      SetIrqsBody.index,
      SetIrqsBody.start,
      SetIrqsBody.count,
    ].map((at) => body.getUint32(at, true)) as [number, number, number, number]
    const [data, action] = [flags & IrqSetFlag.data, flags & IrqSetFlag.action]
    if (flags & ~(IrqSetFlag.data | IrqSetFlag.action) || !isOneBit(data) || !isOneBit(action)) return Errno.EINVAL
    if (index >= Irq.count) return Errno.EINVAL
    const there = this.#served.vectors(index)
    if (start + count > there) return Errno.EINVAL
    // An eventfd would be a file descriptor, which never arrives here: a client must not believe that it will be written.
    if (data === IrqSetFlag.eventfd) return Errno.ENOTSUP
    const given = body.byteLength - SetIrqsBody.data
    if (given !== (data === IrqSetFlag.bool ? count : 0)) return Errno.EINVAL
    if (start === 0 && count === 0 && data === IrqSetFlag.none) {
      for (let vector = 0; vector < there; vector++) this.#served.mask(vector, true)
      return NOTHING
    }
    for (let each = 0; each < count; each++) {
      if (data === IrqSetFlag.bool && body.getUint8(SetIrqsBody.data + each) === 0) continue
      if (action === IrqSetFlag.trigger) this.#served.trigger(start + each)
      else this.#served.mask(start + each, action === IrqSetFlag.mask)
    }
    return NOTHING
  }

  // Registers

  /** Undefined: it is none, or not wholly in a region. */
  #range(body: DataView): { readonly index: number; readonly offset: number; readonly count: number } | undefined {
    if (body.byteLength < RegionBody.data) return undefined
    const offset = wide(body, RegionBody.offset)
    const index = body.getUint32(RegionBody.region, true)
    const count = body.getUint32(RegionBody.count, true)
    const isInside = index < Region.count && count > 0 && offset + count <= this.#served.regionSize(index)
    return isInside && count <= MAX_TRANSFER ? { index, offset, count } : undefined
  }

  #regionRead(body: DataView<ArrayBuffer>): Outcome {
    const range = this.#range(body)
    if (!range || body.byteLength !== RegionBody.data) return Errno.EINVAL
    const reply = new Uint8Array(RegionBody.data + range.count)
    reply.set(new Uint8Array(body.buffer))
    reply.set(this.#served.read(range.index, range.offset, range.count), RegionBody.data)
    return reply
  }

  #regionWrite(body: DataView<ArrayBuffer>): Outcome {
    const range = this.#range(body)
    if (!range || body.byteLength !== RegionBody.data + range.count) return Errno.EINVAL
    this.#served.write(range.index, range.offset, new DataView(body.buffer, RegionBody.data))
    return new Uint8Array(body.buffer, 0, RegionBody.data)
  }

  async #reset(body: DataView): Promise<Outcome> {
    if (body.byteLength !== 0) return Errno.EINVAL
    await this.#served.reset()
    return NOTHING
  }
}

/** A request whose first word is the reply's largest size. */
const isQuery = (body: DataView, size: number): boolean => body.byteLength === size && body.getUint32(0, true) >= size
const isOneBit = (bits: number): boolean => bits !== 0 && (bits & (bits - 1)) === 0
/** Values that no number holds are as far beyond everything. */
const wide = (view: DataView, at: number): number => Number(view.getBigUint64(at, true))
