/** The client's side of a connection: what the function of a peer is, its registers, and its accesses to our memory. */

import { NonrootError } from '@nonroot/contracts'
import type { DmaMemory, SocketStream } from '@nonroot/contracts'
import { Connection } from './connection.ts'
import {
  Command,
  CONFIGURATION_SIZE,
  DeviceFlag,
  DeviceInfoBody,
  DmaBody,
  DmaFlag,
  DmaMapBody,
  Errno,
  InterruptBody,
  Irq,
  IrqInfoBody,
  MAX_TRANSFER,
  Region,
  RegionBody,
  RegionInfoBody,
  MAJOR,
  MINOR,
} from './facts.ts'
import { bodyOf } from './message.ts'
import type { Message } from './message.ts'
import { decodeVersion, encodeVersion, OWN_VERSION } from './version.ts'

export interface ClientOptions {
  /** For messages: the socket's path. */
  readonly name: string
  readonly memory: DmaMemory
  readonly onVector: (vector: number) => void
  /** The peer has gone, or was sent away for this reason. */
  readonly onClose: (reason: string) => void
  readonly silentMs?: number
}

/** What the peer says of its function. */
export interface RemoteDescription {
  /** The first 256 bytes. */
  readonly configuration: DataView
  /** Bytes of each BAR, by number; 0 where there is none. */
  readonly bars: readonly number[]
  readonly msix: boolean
  readonly vectors: number
}

/** Resets without a reply yet. */
interface Gate {
  resets: number
}

/** What the peer may access: all addresses of the guest's processor. Those without memory behind them, and those that an IOMMU refuses, are refused one by one. */
const DMA_SPACE = 2 ** 40
const MOST_VECTORS = 2048
const LARGEST_BAR = 2 ** 31

export class VfioUserClient {
  readonly #options: ClientOptions
  readonly #connection: Connection
  readonly #gate: Gate
  readonly description: RemoteDescription

  /** Asks for all that is to be known, and resets the function. Throws `device.create`: what the peer answers cannot be used. */
  static async connect(stream: SocketStream, options: ClientOptions): Promise<VfioUserClient> {
    let isReady = false
    const early: (() => void)[] = []
    const after = (act: () => void): void => void (isReady ? act() : early.push(act))
    const gate: Gate = { resets: 0 }
    const connection = new Connection(stream, {
      ...(options.silentMs === undefined ? {} : { silentMs: options.silentMs }),
      onCommand: (message) => after(() => serve(connection, options, gate, message)),
      onClose: (reason) => after(() => options.onClose(reason)),
    })
    connection.start()
    const ask = asker(connection, options.name)
    try {
      await negotiate(ask)
      const description = await describe(ask)
      await ask(Command.deviceReset, new Uint8Array(0), 0)
      await ask(Command.dmaMap, wholeSpace(), 0)
      isReady = true
      for (const act of early) act()
      return new VfioUserClient(connection, options, gate, description)
    } catch (error) {
      // Its maker is notified by this error.
      connection.close('the function cannot be used')
      throw error
    }
  }

  private constructor(connection: Connection, options: ClientOptions, gate: Gate, description: RemoteDescription) {
    this.#connection = connection
    this.#gate = gate
    this.#options = options
    this.description = description
  }

  get closed(): string | undefined {
    return this.#connection.closed
  }
  /** Requests without a reply yet. */
  get inFlight(): number {
    return this.#connection.inFlight
  }

  /** `done` gets the value, or undefined: there is none. Reads are served after all writes before them. */
  read(region: number, offset: number, size: 1 | 2 | 4 | 8, done: (value: bigint | undefined) => void): void {
    this.#connection.request(Command.regionRead, access(region, offset, size), (reply) => {
      if (!reply || reply.error !== undefined) return done(undefined)
      if (reply.body.byteLength !== RegionBody.data + size) {
        this.#connection.close(`the peer answered a read of ${size} bytes with a body of ${reply.body.byteLength}`)
        return done(undefined)
      }
      let value = 0n
      for (let byte = size - 1; byte >= 0; byte--)
        value = (value << 8n) | BigInt(reply.body.getUint8(RegionBody.data + byte))
      done(value)
    })
  }

  /** Posted. `failed`: the peer refused it. */
  write(region: number, offset: number, size: 1 | 2 | 4 | 8, value: bigint, failed: () => void): void {
    const body = access(region, offset, size, size)
    for (let byte = 0; byte < size; byte++) body[RegionBody.data + byte] = Number((value >> BigInt(8 * byte)) & 0xffn)
    this.#connection.request(Command.regionWrite, body, (reply) => {
      if (reply?.error !== undefined) failed()
    })
  }

  /** Nothing that the function does before the peer has reset it reaches memory, or the guest. */
  reset(): void {
    this.#gate.resets++
    this.#connection.request(Command.deviceReset, new Uint8Array(0), () => this.#gate.resets--)
  }

  /** Resolves when the peer has served everything that was asked of it, or has gone. */
  settle(): Promise<void> {
    return new Promise((resolve) => {
      this.#connection.request(Command.regionRead, access(Region.configuration, 0, 4), () => resolve())
    })
  }

  close(): void {
    this.#connection.close(`${this.#options.name} is not needed any more`)
  }
}

const access = (region: number, offset: number, count: number, data = 0): Uint8Array =>
  bodyOf(RegionBody.data + data, (view) => {
    view.setBigUint64(RegionBody.offset, BigInt(offset), true)
    view.setUint32(RegionBody.region, region, true)
    view.setUint32(RegionBody.count, count, true)
  })

const wholeSpace = (): Uint8Array =>
  bodyOf(DmaMapBody.size, (view) => {
    view.setUint32(DmaMapBody.argsz, DmaMapBody.size, true)
    view.setUint32(DmaMapBody.flags, DmaFlag.read | DmaFlag.write, true)
    view.setBigUint64(DmaMapBody.length, BigInt(DMA_SPACE), true)
  })

// The peer's accesses

function serve(connection: Connection, { memory, onVector }: ClientOptions, { resets }: Gate, message: Message): void {
  const { command, body } = message
  if (command === Command.interrupt && body.byteLength === InterruptBody.size) {
    if (resets === 0) onVector(body.getUint32(InterruptBody.vector, true))
    return
  }
  const isWrite = command === Command.dmaWrite
  if ((command !== Command.dmaRead && !isWrite) || body.byteLength < DmaBody.data) return connection.refuse(message)
  const address = Number(body.getBigUint64(DmaBody.address, true))
  const count = Number(body.getBigUint64(DmaBody.count, true))
  if (resets > 0) return connection.refuse(message, Errno.EFAULT)
  if (count > MAX_TRANSFER || body.byteLength !== DmaBody.data + (isWrite ? count : 0))
    return connection.refuse(message)
  if (isWrite) {
    if (!memory.writeBytes(address, new Uint8Array(body.buffer, DmaBody.data)))
      return connection.refuse(message, Errno.EFAULT)
    return connection.reply(message, new Uint8Array(body.buffer, 0, DmaBody.data))
  }
  const reply = new Uint8Array(DmaBody.data + count)
  if (!memory.readBytes(address, reply.subarray(DmaBody.data))) return connection.refuse(message, Errno.EFAULT)
  reply.set(new Uint8Array(body.buffer))
  connection.reply(message, reply)
}

// What there is

/** Sends a command and resolves with its reply, whose body has `size` bytes, or more than that where it is negative. */
type Ask = (command: number, body: Uint8Array, size: number) => Promise<DataView<ArrayBuffer>>

const useless = (name: string, what: string, value?: unknown): NonrootError =>
  new NonrootError({
    code: 'device.create',
    message: `the device at ${name} cannot be used: ${what}`,
    thing: name,
    ...(value === undefined ? {} : { value }),
    remedy: 'see that a vfio-user server listens there, as nonroot device serve does, and has no other client',
  })

function asker(connection: Connection, name: string): Ask {
  return (command, request, size) =>
    new Promise((resolve, reject) => {
      connection.request(command, request, (reply) => {
        if (!reply) return reject(useless(name, connection.closed!))
        if (reply.error !== undefined)
          return reject(useless(name, `command ${command} failed with errno ${reply.error}`))
        const { byteLength } = reply.body
        if (size < 0 ? byteLength < -size : byteLength !== size)
          return reject(useless(name, `it answers command ${command} with ${byteLength} bytes`, byteLength))
        resolve(reply.body)
      })
    })
}

async function negotiate(ask: Ask): Promise<void> {
  const version = decodeVersion(await ask(Command.version, encodeVersion(OWN_VERSION), -4))
  if (version?.major !== MAJOR || version.minor > MINOR)
    throw new NonrootError({
      code: 'device.create',
      message: `the peer answers version ${MAJOR}.${MINOR} of vfio-user with ${version ? `${version.major}.${version.minor}` : 'what is none'}`,
      remedy: 'use a server of version 0',
    })
  if (version.capabilities.interrupt_messages !== true)
    throw new NonrootError({
      code: 'device.create',
      message:
        'the peer signals interrupts by file descriptors alone (it does not have interrupt_messages), which Node cannot receive',
      remedy: 'use a server that sends them as messages: nonroot device serve',
    })
}

async function describe(ask: Ask): Promise<RemoteDescription> {
  const query = (size: number, at = 0, index = 0): Uint8Array =>
    bodyOf(size, (view) => {
      view.setUint32(0, size, true)
      if (at > 0) view.setUint32(at, index, true)
    })
  const bad = (message: string): NonrootError =>
    new NonrootError({ code: 'device.create', message, remedy: 'use a server of a PCI function with MSI-X or MSI' })
  const info = await ask(Command.deviceInfo, query(DeviceInfoBody.size), DeviceInfoBody.size)
  const [flags, regions, irqs] = [DeviceInfoBody.flags, DeviceInfoBody.regions, DeviceInfoBody.irqs].map((at) =>
    info.getUint32(at, true),
  ) as [number, number, number]
  if (!(flags & DeviceFlag.pci) || !(flags & DeviceFlag.reset) || regions <= Region.configuration || irqs <= Irq.msix)
    throw bad(
      `the peer's device is no PCI function that can be reset (flags ${flags}, ${regions} regions, ${irqs} interrupt types)`,
    )
  const sizeOf = async (index: number): Promise<number> => {
    const request = query(RegionInfoBody.size, RegionInfoBody.index, index)
    const reply = await ask(Command.regionInfo, request, RegionInfoBody.size)
    return Number(reply.getBigUint64(RegionInfoBody.length, true))
  }
  const countOf = async (index: number): Promise<number> => {
    const reply = await ask(Command.irqInfo, query(IrqInfoBody.size, IrqInfoBody.index, index), IrqInfoBody.size)
    return reply.getUint32(IrqInfoBody.count, true)
  }
  if ((await sizeOf(Region.configuration)) < CONFIGURATION_SIZE)
    throw bad("the peer's function has no configuration space")
  const bars: number[] = []
  for (let index = 0; index < Region.bars; index++) bars.push(await sizeOf(index))
  const odd = bars.findIndex(
    (size) => size !== 0 && (size < 16 || size > LARGEST_BAR || !Number.isInteger(Math.log2(size))),
  )
  if (odd >= 0)
    throw bad(`BAR ${odd} of the peer's function has ${bars[odd]} bytes, which is no power of two from 16 to 2 GiB`)
  const [msi, msix] = [await countOf(Irq.msi), await countOf(Irq.msix)]
  if (msi + msix === 0) throw bad("the peer's function has neither MSI-X nor MSI")
  if (msi > 32 || msix > MOST_VECTORS) throw bad(`the peer's function has ${Math.max(msi, msix)} vectors`)
  const all = access(Region.configuration, 0, CONFIGURATION_SIZE)
  const bytes = await ask(Command.regionRead, all, RegionBody.data + CONFIGURATION_SIZE)
  return {
    configuration: new DataView(bytes.buffer, RegionBody.data, CONFIGURATION_SIZE),
    bars,
    msix: msix > 0,
    vectors: msix || msi,
  }
}
