/** Console device: bidirectional byte ports, some of them terminals. ("Console Device") */

import type { ConsoleBackend, DescriptorChain, Snapshot, VirtioDevice, VirtioPort, Virtqueue } from '@nonroot/contracts'
import { ByteQueue } from './byte-queue.ts'

export const ConsoleFeature = { size: 0, multiport: 1, emergencyWrite: 2 } as const
/** struct virtio_console_config */
const Config = { columns: 0, rows: 2, mostPorts: 4, emergency: 8, size: 12 } as const
/** Events of struct virtio_console_control. */
export const ConsoleEvent = {
  deviceReady: 0,
  portAdd: 1,
  portRemove: 2,
  portReady: 3,
  consolePort: 4,
  resize: 5,
  portOpen: 6,
  portName: 7,
} as const
const CONTROL_SIZE = 8
const QUEUE_SIZE = 64
const CONTROL_RECEIVE = 2
const CONTROL_TRANSMIT = 3
/** Typed and not fetched. */
const MOST_INPUT = 1 << 20
/** Sent to a program and not fetched. */
const MOST_FOR_PROGRAM = 1 << 25
/** Control messages that wait, per port: a driver that never fetches any gets no more. */
const MOST_MESSAGES = 16
const PIECE = 4096
/** No driver sends more in one buffer; a chain that lies about its length stops here. */
const MOST_OUTPUT = 1 << 20

export interface ConsolePortOptions {
  readonly backend: ConsoleBackend
  /** /dev/virtio-ports/NAME in a Linux guest. */
  readonly name?: string
  /** hvcN rather than a port for programs. */
  readonly console: boolean
}

/** Receive queue of a port; the transmit queue follows it. Port 0's come before the control queues. */
const receiveQueue = (port: number): number => (port === 0 ? 0 : 2 * port + 2)

class Port {
  readonly number: number
  readonly options: ConsolePortOptions
  readonly input: ByteQueue
  /** The driver has made it, and a program in the guest has it open. */
  ready = false
  open = false

  constructor(number: number, options: ConsolePortOptions) {
    this.number = number
    this.options = options
    this.input = new ByteQueue(options.console ? MOST_INPUT : MOST_FOR_PROGRAM)
  }
}

export class VirtioConsole implements VirtioDevice {
  readonly deviceId = 3
  readonly pciClass = 0x078000
  readonly features: readonly number[]
  readonly queueSizes: readonly number[]
  readonly config = new Uint8Array(Config.size)
  readonly #view = new DataView(this.config.buffer)
  readonly #port: VirtioPort
  readonly #ports: readonly Port[]
  readonly #multiport: boolean
  readonly #messages: Uint8Array[] = []
  readonly #unlisten: (() => void)[] = []
  readonly #piece = new Uint8Array(PIECE)

  /** One port and no name: a plain console. Anything else is multiport. */
  constructor(port: VirtioPort, ports: readonly ConsolePortOptions[]) {
    this.#port = port
    this.#ports = ports.map((options, number) => new Port(number, options))
    const [first] = ports
    this.#multiport = ports.length > 1 || first?.name !== undefined || first?.console === false
    const queues = this.#multiport ? 2 * ports.length + 2 : 2
    this.queueSizes = new Array<number>(queues).fill(QUEUE_SIZE)
    this.features = [
      ...(first?.backend.size() ? [ConsoleFeature.size] : []),
      ...(this.#multiport ? [ConsoleFeature.multiport] : []),
      ConsoleFeature.emergencyWrite,
    ]
    this.#view.setUint32(Config.mostPorts, ports.length, true)
    this.#setSize(first?.backend.size())
    for (const each of this.#ports) {
      const { backend } = each.options
      this.#unlisten.push(backend.onInput((bytes) => this.#typed(each, bytes)))
      this.#unlisten.push(backend.onResize((size) => this.#resized(each, size)))
    }
  }

  #setSize(size: { columns: number; rows: number } | undefined): void {
    this.#view.setUint16(Config.columns, size?.columns ?? 0, true)
    this.#view.setUint16(Config.rows, size?.rows ?? 0, true)
  }

  get #multi(): boolean {
    return this.#port.accepted(ConsoleFeature.multiport)
  }

  /** Emergency write: works before a driver has set up the device. */
  writeConfig(offset: number, _size: number, value: number): void {
    if (offset === Config.emergency) this.#ports[0]?.options.backend.write(Uint8Array.of(value & 0xff))
  }

  process(queue: Virtqueue): void {
    const { index } = queue
    if (index === CONTROL_RECEIVE) this.#sendMessages()
    else if (index === CONTROL_TRANSMIT) this.#takeMessages(queue)
    else {
      const port = this.#ports[index < 2 ? 0 : (index - 2) >> 1]
      if (!port) return
      if (index % 2 === 0) this.#deliver(port)
      else this.#transmit(port, queue)
    }
  }

  // Bytes

  #transmit({ options }: Port, queue: Virtqueue): void {
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      if (chain.readable > MOST_OUTPUT) return this.#port.fail(`${chain.readable} bytes of output in one buffer`)
      for (let at = 0; at < chain.readable; at += PIECE) {
        const piece = this.#piece.subarray(0, Math.min(PIECE, chain.readable - at))
        if (chain.read(at, piece)) options.backend.write(piece)
      }
      queue.push(chain, 0)
    }
  }

  #typed(port: Port, bytes: Uint8Array): void {
    // A part of a message would make nonsense of all that follow.
    if (!port.options.console && bytes.length > port.input.room) return
    port.input.add(bytes)
    this.#deliver(port)
  }

  /** Input into receive buffers, as far as there are any. */
  #deliver({ number, input }: Port): void {
    const queue = this.#port.queue(receiveQueue(number))
    if (!queue || input.length === 0) return
    for (let chain = queue.pop(); chain; chain = input.length > 0 ? queue.pop() : undefined)
      queue.push(chain, this.#fill(chain, input))
    queue.signal()
  }

  #fill(chain: DescriptorChain, input: ByteQueue): number {
    let filled = 0
    while (input.length > 0 && filled < chain.writable) {
      const piece = this.#piece.subarray(0, Math.min(PIECE, chain.writable - filled, input.length))
      input.take(piece)
      if (!chain.write(filled, piece)) break
      filled += piece.length
    }
    return filled
  }

  // Sizes

  #resized(port: Port, size: { columns: number; rows: number }): void {
    if (port.number === 0) {
      this.#setSize(size)
      this.#port.configChanged()
    }
    if (this.#multi && port.ready && port.options.console) this.#sendSize(port, size)
  }

  #sendSize({ number }: Port, { columns, rows }: { columns: number; rows: number }): void {
    const tail = new DataView(new ArrayBuffer(4))
    tail.setUint16(0, columns, true)
    tail.setUint16(2, rows, true)
    this.#send(number, ConsoleEvent.resize, 0, new Uint8Array(tail.buffer))
  }

  // Control messages

  #send(id: number, event: number, value: number, tail = new Uint8Array(0)): void {
    if (this.#messages.length >= MOST_MESSAGES * this.#ports.length) return
    const message = new Uint8Array(CONTROL_SIZE + tail.length)
    const view = new DataView(message.buffer)
    view.setUint32(0, id, true)
    view.setUint16(4, event, true)
    view.setUint16(6, value, true)
    message.set(tail, CONTROL_SIZE)
    this.#messages.push(message)
    this.#sendMessages()
  }

  #sendMessages(): void {
    const queue = this.#port.queue(CONTROL_RECEIVE)
    if (!queue || !this.#multi) return
    while (this.#messages.length > 0) {
      const chain = queue.pop()
      if (!chain) break
      const message = this.#messages.shift()!
      const part = message.subarray(0, chain.writable)
      chain.write(0, part)
      queue.push(chain, part.length)
    }
    queue.signal()
  }

  #takeMessages(queue: Virtqueue): void {
    const message = new DataView(new ArrayBuffer(CONTROL_SIZE))
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      const whole = chain.read(0, new Uint8Array(message.buffer))
      queue.push(chain, 0)
      if (whole && this.#multi)
        this.#obey(message.getUint32(0, true), message.getUint16(4, true), message.getUint16(6, true))
    }
  }

  #obey(id: number, event: number, value: number): void {
    if (event === ConsoleEvent.deviceReady) {
      // "MUST NOT specify a port which exists": those that the driver made already are not added again.
      if (value === 1)
        for (const { number, ready } of this.#ports) if (!ready) this.#send(number, ConsoleEvent.portAdd, 0)
      return
    }
    const port = this.#ports[id]
    if (!port) return
    if (event === ConsoleEvent.portReady && value === 1 && !port.ready) this.#announce(port)
    if (event === ConsoleEvent.portOpen) {
      port.open = value === 1
      if (port.open) this.#deliver(port)
    }
  }

  #announce(port: Port): void {
    const { name, console, backend } = port.options
    port.ready = true
    if (console) {
      this.#send(port.number, ConsoleEvent.consolePort, 1)
      const size = backend.size()
      if (size) this.#sendSize(port, size)
    }
    if (name !== undefined) this.#send(port.number, ConsoleEvent.portName, 1, new TextEncoder().encode(name))
    this.#send(port.number, ConsoleEvent.portOpen, 1)
  }

  // Life

  stop(): void {
    this.#messages.length = 0
    for (const port of this.#ports) {
      port.ready = port.open = false
      port.input.clear()
    }
  }

  save(): Snapshot {
    return {
      type: 'virtio-console',
      version: 1,
      data: {
        messages: this.#messages.map((message) => message.slice()),
        ports: this.#ports.map(({ input, ready, open }) => ({ input: input.peek(), ready, open })),
      },
    }
  }

  restore(snapshot: Snapshot): void {
    this.#messages.splice(0, Infinity, ...(snapshot.data['messages'] as Uint8Array[]))
    const saved = snapshot.data['ports'] as { input: Uint8Array; ready: boolean; open: boolean }[]
    this.#ports.forEach((port, index) => {
      port.input.clear()
      port.input.add(saved[index]?.input ?? new Uint8Array(0))
      port.ready = saved[index]?.ready ?? false
      port.open = saved[index]?.open ?? false
    })
  }

  dispose(): void {
    for (const unlisten of this.#unlisten) unlisten()
  }
}
