/** Memory device: a region of memory that the driver plugs and unplugs in blocks, as much of it as the device asks for. ("Memory Device") */

import { FRAME_SIZE, FrameReturn, gpa, NonrootError, PluggableMemory } from '@nonroot/contracts'
import type {
  Counter,
  DescriptorChain,
  DeviceContext,
  Snapshot,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'

/** VIRTIO_MEM_F_UNPLUGGED_INACCESSIBLE */
const UNPLUGGED_INACCESSIBLE = 1
/** struct virtio_mem_config */
const Config = {
  blockSize: 0,
  address: 16,
  regionSize: 24,
  usableSize: 32,
  plugged: 40,
  requested: 48,
  size: 56,
} as const
/** struct virtio_mem_req: type, address and number of blocks. */
const Request = { type: 0, address: 8, blocks: 16, size: 24 } as const
const RequestType = { plug: 0, unplug: 1, unplugAll: 2, state: 3 } as const
/** struct virtio_mem_resp: type, and the state where one was asked for. */
const Response = { type: 0, state: 8, size: 10 } as const
const Answer = { acknowledged: 0, refused: 1, error: 3 } as const
const BlockState = { plugged: 0, unplugged: 1, mixed: 2 } as const
const QUEUE_SIZE = 64

export interface MemoryDeviceOptions {
  /** Bytes, a power of two. */
  readonly blockSize: number
  /** Bytes that the guest should have at first. Default: the whole region. */
  readonly requested?: number | undefined
}

export class VirtioMemory implements VirtioDevice, PluggableMemory {
  readonly deviceId = 24
  readonly features = [UNPLUGGED_INACCESSIBLE]
  readonly queueSizes = [QUEUE_SIZE]
  readonly config = new Uint8Array(Config.size)
  readonly offers = new Map([[PluggableMemory, this]])
  readonly blockFrames: number
  readonly regionFrames: number
  readonly usualFrames: number
  readonly #view = new DataView(this.config.buffer)
  readonly #port: VirtioPort
  readonly #frames: FrameReturn
  readonly #start: number
  readonly #blockSize: number
  /** 1: plugged. */
  readonly #blocks: Uint8Array
  readonly #released: Counter
  readonly #refused: Counter

  constructor(
    port: VirtioPort,
    context: Pick<DeviceContext, 'name' | 'memoryMap' | 'metrics' | 'capability'>,
    { blockSize, requested }: MemoryDeviceOptions,
  ) {
    const region = context.memoryMap.regions.find(({ kind }) => kind === 'pluggable')
    if (!region || region.start % blockSize !== 0 || region.length % blockSize !== 0)
      throw unusable(context.name, region)
    this.#port = port
    this.#frames = context.capability(FrameReturn)
    this.#start = region.start
    this.#blockSize = blockSize
    this.#blocks = new Uint8Array(region.length / blockSize)
    this.blockFrames = blockSize / FRAME_SIZE
    this.regionFrames = region.length / FRAME_SIZE
    const usual = Math.min(requested ?? region.length, region.length)
    this.usualFrames = Math.floor(usual / blockSize) * this.blockFrames
    this.#released = context.metrics.counter(
      'released',
      'frames that came back because blocks were unplugged',
      'frames',
    )
    this.#refused = context.metrics.counter('refused', 'requests of the driver that were refused')
    this.#set(Config.blockSize, blockSize)
    this.#set(Config.address, region.start)
    this.#set(Config.regionSize, region.length)
    this.#set(Config.usableSize, region.length)
    this.#set(Config.requested, this.usualFrames * FRAME_SIZE)
  }

  #set(field: number, bytes: number): void {
    this.#view.setBigUint64(field, BigInt(bytes), true)
  }
  #get(field: number): number {
    return Number(this.#view.getBigUint64(field, true))
  }

  // The driver's side

  process(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain; chain = queue.pop()) queue.push(chain, this.#answer(chain))
  }

  /** Returns how many bytes of the answer were written. */
  #answer(chain: DescriptorChain): number {
    const request = new DataView(new ArrayBuffer(Request.size))
    if (chain.writable < Response.size || !chain.read(0, new Uint8Array(request.buffer))) return 0
    const response = new DataView(new ArrayBuffer(Response.size))
    const state = { value: 0 }
    const answer = this.#serve(request, state)
    if (answer !== Answer.acknowledged) this.#refused.value++
    response.setUint16(Response.type, answer, true)
    response.setUint16(Response.state, state.value, true)
    chain.write(0, new Uint8Array(response.buffer))
    return Response.size
  }

  #serve(request: DataView, state: { value: number }): number {
    const type = request.getUint16(Request.type, true)
    if (type === RequestType.unplugAll) return this.#unplug(0, this.#blocks.length)
    const first = (Number(request.getBigUint64(Request.address, true)) - this.#start) / this.#blockSize
    const count = request.getUint16(Request.blocks, true)
    if (!Number.isInteger(first) || first < 0 || count === 0 || first + count > this.#blocks.length) return Answer.error
    const plugged = this.#countPlugged(first, count)
    switch (type) {
      case RequestType.plug:
        return plugged > 0 ? Answer.error : this.#plug(first, count)
      case RequestType.unplug:
        return plugged < count ? Answer.error : this.#unplug(first, count)
      case RequestType.state:
        state.value = plugged === count ? BlockState.plugged : plugged === 0 ? BlockState.unplugged : BlockState.mixed
        return Answer.acknowledged
      default:
        return Answer.error
    }
  }

  /** Not beyond what was asked for. */
  #plug(first: number, count: number): number {
    if (this.#get(Config.plugged) + count * this.#blockSize > this.#get(Config.requested)) return Answer.refused
    this.#mark(first, count, 1)
    return Answer.acknowledged
  }

  /** Releases frames of blocks that were not plugged, too: a guest may have written to them. */
  #unplug(first: number, count: number): number {
    this.#released.value += this.#frames.release([
      { address: gpa(this.#start + first * this.#blockSize), length: count * this.#blockSize },
    ])
    this.#mark(first, count, 0)
    return Answer.acknowledged
  }

  #mark(first: number, count: number, isPlugged: 0 | 1): void {
    const before = this.#countPlugged(first, count)
    this.#blocks.fill(isPlugged, first, first + count)
    this.#set(Config.plugged, this.#get(Config.plugged) + (isPlugged * count - before) * this.#blockSize)
  }

  #countPlugged(first: number, count: number): number {
    return this.#blocks.subarray(first, first + count).reduce((sum, one) => sum + one, 0)
  }

  // The host's side

  get requestedFrames(): number {
    return this.#get(Config.requested) / FRAME_SIZE
  }
  get pluggedFrames(): number {
    return this.#get(Config.plugged) / FRAME_SIZE
  }

  request(frames: number): void {
    const blocks = Math.floor(Math.max(0, Math.min(frames, this.regionFrames)) / this.blockFrames)
    this.#set(Config.requested, blocks * this.#blockSize)
    this.#port.configChanged()
  }

  // Life. "The device MUST NOT change the state of memory blocks during device reset": there is no `stop`. A driver unplugs what it finds plugged.

  save(): Snapshot {
    return { type: 'virtio-mem', version: 1, data: { config: this.config.slice(), blocks: this.#blocks.slice() } }
  }
  restore(snapshot: Snapshot): void {
    this.config.set(snapshot.data['config'] as Uint8Array)
    this.#blocks.set(snapshot.data['blocks'] as Uint8Array)
  }
}

function unusable(name: string, region: { readonly length: number } | undefined): NonrootError {
  return new NonrootError({
    code: 'device.create',
    message: region
      ? `${name}: its blocks do not divide the machine's ${region.length} bytes of pluggable memory`
      : `${name}: this machine has no memory that can be plugged`,
    thing: name,
    remedy: 'set machine.pluggable to a multiple of 128 MiB: machine: { memory: 128 MiB, pluggable: 512 MiB }',
  })
}
