/** 9P transport device: requests and replies in one queue, a mount tag. (Virtio, "9P Transport") */

import type { DescriptorChain, FolderBackend, Snapshot, VirtioDevice, VirtioPort, Virtqueue } from '@nonroot/contracts'
import { HEADER_SIZE } from './messages.ts'
import { MOST_MESSAGE, NinePServer } from './server.ts'

const MOUNT_TAG = 0
const QUEUE_SIZE = 128
/** Requests at a time: with the size of a message it bounds what a guest can make us hold. */
const MOST_ACTIVE = 32

export class NinePDevice implements VirtioDevice {
  readonly deviceId = 9
  readonly pciClass = 0x020000
  readonly features = [MOUNT_TAG]
  readonly queueSizes = [QUEUE_SIZE]
  readonly config: Uint8Array
  readonly #port: VirtioPort
  readonly #folder: FolderBackend
  #server: NinePServer
  #active = 0
  #idle: (() => void)[] = []

  constructor(port: VirtioPort, folder: FolderBackend, tag: string) {
    this.#port = port
    this.#folder = folder
    const text = new TextEncoder().encode(tag)
    this.config = new Uint8Array(2 + text.length)
    new DataView(this.config.buffer).setUint16(0, text.length, true)
    this.config.set(text, 2)
    this.#server = new NinePServer(folder)
  }

  process(queue: Virtqueue): void {
    while (this.#active < MOST_ACTIVE) {
      const chain = queue.pop()
      if (!chain) return
      if (chain.readable < HEADER_SIZE || chain.readable > MOST_MESSAGE || chain.writable < HEADER_SIZE) {
        this.#port.fail(`a request of ${chain.readable} bytes with room for ${chain.writable}`)
        return
      }
      this.#active++
      void this.#serve(queue, chain, this.#server)
    }
  }

  async #serve(queue: Virtqueue, chain: DescriptorChain, server: NinePServer): Promise<void> {
    const request = new Uint8Array(chain.readable)
    chain.read(0, request)
    const reply = await server.answer(request)
    if (reply.length > chain.writable) this.#port.fail(`a reply of ${reply.length} bytes for room of ${chain.writable}`)
    chain.write(0, reply)
    queue.push(chain, reply.length)
    queue.signal()
    this.#active--
    if (this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve()
    const next = this.#port.queue(0)
    if (next) this.process(next)
  }

  /** State of the previous client is dropped. */
  stop(): void {
    void this.#server.end()
    this.#server = new NinePServer(this.#folder)
  }

  async quiesce(): Promise<void> {
    // Whatever ends lets those begin that waited for room.
    while (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  save(): Snapshot {
    // Open files of the host are not in a snapshot: a guest that is restored gets EBADF for them and mounts again.
    return { type: 'virtio-9p', version: 1, data: {} }
  }

  restore(): void {}

  async dispose(): Promise<void> {
    await this.quiesce()
    await this.#server.end()
    await this.#folder.close()
  }
}
