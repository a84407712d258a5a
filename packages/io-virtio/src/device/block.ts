/** Block device over a back end: requests run side by side, and complete as the back end does. ("Block Device") */

import { createDiskCounters, readScattered, writeGathered } from '@nonroot/contracts'
import type {
  BlockBackend,
  DescriptorChain,
  DeviceContext,
  DiskCounters,
  Histogram,
  Snapshot,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'
import {
  BlockConfig,
  BlockFeature,
  BlockStatus,
  BlockType,
  HEADER_SIZE,
  ID_SIZE,
  MOST_SEGMENTS,
  MOST_SEGMENT_SECTORS,
  SECTOR,
  SEGMENT_SIZE,
  UNMAP,
} from './block-format.ts'

/** Requests at a time; more wait in the rings. */
const MOST_ACTIVE = 64
/** Bytes that go between guest and back end at once: a guest's longest request may be gigabytes. */
const SLICE = 4 * 1024 * 1024
/** Bytes that are moved while the guest waits, for each time it speaks to us: a tenth of a millisecond or two. */
const MOST_NOW = 1024 * 1024
/** 4 KiB: what file systems and host files work in. */
const PHYSICAL_BLOCK = 4096

export interface BlockOptions {
  readonly serial: string
  readonly queues: number
  readonly queueSize: number
}

/** What a request came to: status, and how many bytes of data were written before it. */
interface Outcome {
  readonly status: number
  readonly data: number
}
const outcome = (status: number, data = 0): Outcome => ({ status, data })
const FAILED = outcome(BlockStatus.ioError)
const DONE = outcome(BlockStatus.ok)

export class Block implements VirtioDevice {
  readonly deviceId = 2
  readonly pciClass = 0x010000
  readonly features: readonly number[]
  readonly queueSizes: readonly number[]
  readonly config = new Uint8Array(BlockConfig.size)
  readonly #view = new DataView(this.config.buffer)
  readonly #port: VirtioPort
  readonly #backend: BlockBackend
  readonly #serial: Uint8Array
  readonly #log: DeviceContext['log']
  readonly #clock: DeviceContext['clock']
  readonly #durations: Histogram
  #size: number
  /** Requests that the back end works on; those from before a reset among them. */
  #active = 0
  #stale = 0
  #era = 0
  #idle: (() => void)[] = []
  /** Bytes that may still be moved while the guest waits. */
  #now = 0
  readonly #statusByte = new Uint8Array(1)
  readonly #header = new Uint8Array(HEADER_SIZE)
  readonly #headerView = new DataView(this.#header.buffer)
  readonly #unlisten: (() => void) | undefined
  readonly #counters: DiskCounters

  constructor(
    port: VirtioPort,
    backend: BlockBackend,
    options: BlockOptions,
    context: Pick<DeviceContext, 'metrics' | 'log' | 'clock'>,
  ) {
    this.#port = port
    this.#backend = backend
    this.#log = context.log
    this.#clock = context.clock
    this.#size = backend.size
    this.#serial = new TextEncoder().encode(options.serial).slice(0, ID_SIZE)
    this.queueSizes = new Array<number>(options.queues).fill(options.queueSize)
    const writable = !backend.readOnly
    this.features = [
      BlockFeature.segMax,
      BlockFeature.blockSize,
      BlockFeature.flush,
      BlockFeature.topology,
      BlockFeature.configWriteback,
      ...(options.queues > 1 ? [BlockFeature.multiQueue] : []),
      ...(writable ? [BlockFeature.writeZeroes] : [BlockFeature.readOnly]),
      ...(writable && backend.discard ? [BlockFeature.discard] : []),
    ]
    this.#fillConfig(options)
    this.#unlisten = backend.onResize?.((size) => this.#resize(size))
    const { metrics } = context
    this.#durations = metrics.histogram('requestNs', 'times of requests that the back end took to itself')
    this.#counters = createDiskCounters(metrics, 'request')
  }

  #fillConfig({ queues, queueSize }: BlockOptions): void {
    const view = this.#view
    const { sectorSize } = this.#backend
    this.#setCapacity()
    // Header and status take a descriptor each.
    view.setUint32(BlockConfig.segMax, Math.max(1, queueSize - 2), true)
    view.setUint32(BlockConfig.blockSize, sectorSize, true)
    const ratio = Math.max(1, PHYSICAL_BLOCK / sectorSize)
    view.setUint8(BlockConfig.physicalBlockExponent, Math.log2(ratio))
    view.setUint16(BlockConfig.minimumIo, ratio, true)
    view.setUint8(BlockConfig.writeback, 1)
    view.setUint16(BlockConfig.queues, queues, true)
    if (this.#backend.readOnly) return
    const alignment = Math.max(sectorSize, PHYSICAL_BLOCK) / SECTOR
    if (this.#backend.discard) {
      view.setUint32(BlockConfig.mostDiscardSectors, MOST_SEGMENT_SECTORS, true)
      view.setUint32(BlockConfig.mostDiscardSegments, MOST_SEGMENTS, true)
      view.setUint32(BlockConfig.discardAlignment, alignment, true)
    }
    view.setUint32(BlockConfig.mostZeroSectors, MOST_SEGMENT_SECTORS, true)
    view.setUint32(BlockConfig.mostZeroSegments, MOST_SEGMENTS, true)
    view.setUint8(BlockConfig.zeroesMayUnmap, this.#backend.writeZeroes ? 1 : 0)
  }

  #setCapacity(): void {
    const sectors = Math.floor(this.#size / SECTOR)
    this.#view.setUint32(BlockConfig.capacity, sectors >>> 0, true)
    this.#view.setUint32(BlockConfig.capacity + 4, Math.floor(sectors / 2 ** 32), true)
  }

  #resize(size: number): void {
    this.#size = size
    this.#setCapacity()
    this.#port.configChanged()
  }

  start(): void {
    // "If VIRTIO_BLK_F_CONFIG_WCE is negotiated but VIRTIO_BLK_F_FLUSH is not, the device MUST initialize writeback to 0."
    const both = this.#port.accepted(BlockFeature.configWriteback) && !this.#port.accepted(BlockFeature.flush)
    this.config[BlockConfig.writeback] = both ? 0 : 1
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (offset !== BlockConfig.writeback || size !== 1 || !this.#port.accepted(BlockFeature.configWriteback)) return
    this.config[BlockConfig.writeback] = value & 1
  }

  /** Does a write have to be durable when it completes? */
  get #writethrough(): boolean {
    if (this.#port.accepted(BlockFeature.configWriteback)) return this.config[BlockConfig.writeback] === 0
    return !this.#port.accepted(BlockFeature.flush)
  }

  // Requests

  process(queue: Virtqueue): void {
    this.#now = MOST_NOW
    // What was under way when the driver reset the device has to be over before anything else touches the disk.
    while (this.#stale === 0 && this.#active < MOST_ACTIVE) {
      const chain = queue.pop()
      if (!chain) return
      if (chain.writable === 0) {
        this.#port.fail('a request without room for its status')
        return
      }
      const result = this.#execute(chain)
      if (result instanceof Promise) {
        this.#active++
        void this.#await(queue, chain, result, this.#era)
      } else this.#complete(queue, chain, result)
    }
  }

  async #await(queue: Virtqueue, chain: DescriptorChain, pending: Promise<Outcome>, era: number): Promise<void> {
    const begun = this.#clock.nowNs()
    let result = FAILED
    try {
      result = await pending
    } catch (error) {
      this.#report(error)
    }
    this.#durations.observe(this.#clock.nowNs() - begun)
    this.#complete(queue, chain, result)
    queue.signal()
    this.#finished(era)
  }

  /** An error of the back end is an error of this request, and the guest's to handle. */
  #report(error: unknown): void {
    this.#log.debug(() => `I/O error: ${error instanceof Error ? error.message : String(error)}`)
  }

  #complete(queue: Virtqueue, chain: DescriptorChain, result: Outcome): void {
    if (result.status === BlockStatus.ioError) this.#counters.errors.value++
    this.#statusByte[0] = result.status
    chain.write(chain.writable - 1, this.#statusByte)
    // All writable bytes were written, or (data missing) only the last is sure to have been, which is not the first.
    queue.push(chain, result.data === chain.writable - 1 ? chain.writable : 0)
  }

  #finished(era: number): void {
    this.#active--
    if (era !== this.#era) this.#stale--
    if (this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve()
    // Requests that found no room, or that the driver had no reason to announce while others ran.
    for (let index = 0; index < this.queueSizes.length; index++) {
      const queue = this.#port.queue(index)
      if (!queue) continue
      this.process(queue)
      queue.signal()
    }
  }

  #execute(chain: DescriptorChain): Outcome | Promise<Outcome> {
    if (!chain.read(0, this.#header)) return FAILED
    const type = this.#headerView.getUint32(0, true)
    const offset = (this.#headerView.getUint32(8, true) + this.#headerView.getUint32(12, true) * 2 ** 32) * SECTOR
    switch (type) {
      case BlockType.read:
        return this.#move(chain, offset, 'write')
      case BlockType.write:
        return this.#move(chain, offset, 'read')
      case BlockType.flush:
        return this.#flush()
      case BlockType.getId:
        return this.#getId(chain)
      case BlockType.discard:
        return this.#backend.discard ? this.#ranges(chain, type) : outcome(BlockStatus.unsupported)
      case BlockType.writeZeroes:
        return this.#ranges(chain, type)
      default:
        return outcome(BlockStatus.unsupported)
    }
  }

  #fits(offset: number, length: number): boolean {
    const { sectorSize } = this.#backend
    return offset % sectorSize === 0 && length % sectorSize === 0 && offset + length <= this.#size
  }

  /** Reads (`write`: of the guest's memory) and writes: at once, if the back end can and the guest need not wait long. */
  #move(chain: DescriptorChain, offset: number, access: 'read' | 'write'): Outcome | Promise<Outcome> {
    const length = access === 'write' ? chain.writable - 1 : chain.readable - HEADER_SIZE
    if ((access === 'read' && this.#backend.readOnly) || !this.#fits(offset, length)) return FAILED
    if (length > this.#now) return this.#moveBeside(chain, offset, length, access)
    const lease = chain.lease(access === 'write' ? 0 : HEADER_SIZE, length, access)
    if (!lease) return FAILED
    let moved = false
    try {
      moved = this.#moveNow(offset, lease.views, access)
    } catch (error) {
      this.#report(error)
      return FAILED
    } finally {
      lease.end()
    }
    if (!moved) return this.#moveBeside(chain, offset, length, access)
    this.#now -= length
    return this.#moved(length, access)
  }

  #moveNow(offset: number, views: readonly Uint8Array[], access: 'read' | 'write'): boolean {
    const backend = this.#backend
    if (access === 'write') return backend.readNow?.(offset, views) ?? false
    return !this.#writethrough && (backend.writeNow?.(offset, views) ?? false)
  }

  /** Beside the guest, straight to or from its memory. */
  async #moveBeside(
    chain: DescriptorChain,
    offset: number,
    length: number,
    access: 'read' | 'write',
  ): Promise<Outcome> {
    const start = access === 'write' ? 0 : HEADER_SIZE
    const writethrough = this.#writethrough
    for (let done = 0; done < length; done += SLICE) {
      const lease = chain.lease(start + done, Math.min(SLICE, length - done), access)
      // The driver reset the device meanwhile, and the memory is its own again.
      if (!lease) return FAILED
      try {
        if (access === 'write') await readScattered(this.#backend, offset + done, lease.views)
        else await writeGathered(this.#backend, offset + done, lease.views)
      } finally {
        lease.end()
      }
    }
    if (access === 'read' && writethrough) await this.#backend.flush()
    return this.#moved(length, access)
  }

  #moved(length: number, access: 'read' | 'write'): Outcome {
    const counters = this.#counters
    if (access === 'write') {
      counters.reads.value++
      counters.bytesRead.value += length
      return outcome(BlockStatus.ok, length)
    }
    counters.writes.value++
    counters.bytesWritten.value += length
    return DONE
  }

  async #flush(): Promise<Outcome> {
    await this.#backend.flush()
    this.#counters.flushes.value++
    return outcome(BlockStatus.ok)
  }

  #getId(chain: DescriptorChain): Outcome {
    const room = Math.min(ID_SIZE, chain.writable - 1)
    const id = new Uint8Array(room)
    id.set(this.#serial.subarray(0, room))
    chain.write(0, id)
    return outcome(BlockStatus.ok, room)
  }

  async #ranges(chain: DescriptorChain, type: number): Promise<Outcome> {
    const length = chain.readable - HEADER_SIZE
    if (this.#backend.readOnly || length === 0 || length % SEGMENT_SIZE || length / SEGMENT_SIZE > MOST_SEGMENTS)
      return FAILED
    const bytes = new Uint8Array(length)
    chain.read(HEADER_SIZE, bytes)
    const view = new DataView(bytes.buffer)
    const ranges: { offset: number; length: number; unmap: boolean }[] = []
    for (let at = 0; at < length; at += SEGMENT_SIZE) {
      const sector = view.getUint32(at, true) + view.getUint32(at + 4, true) * 2 ** 32
      const sectors = view.getUint32(at + 8, true)
      const flags = view.getUint32(at + 12, true)
      // "MUST set the status byte to VIRTIO_BLK_S_UNSUPP [...] if any unknown flag is set", and for discards if unmap is.
      if (flags & ~UNMAP || (flags && type === BlockType.discard)) return outcome(BlockStatus.unsupported)
      if (sectors > MOST_SEGMENT_SECTORS || !this.#fits(sector * SECTOR, sectors * SECTOR)) return FAILED
      ranges.push({ offset: sector * SECTOR, length: sectors * SECTOR, unmap: (flags & UNMAP) !== 0 })
    }
    for (const range of ranges) {
      if (type === BlockType.discard) await this.#backend.discard!(range.offset, range.length)
      else await this.#zero(range.offset, range.length)
    }
    if (type === BlockType.writeZeroes && this.#writethrough) await this.#backend.flush()
    return outcome(BlockStatus.ok)
  }

  async #zero(offset: number, length: number): Promise<void> {
    if (this.#backend.writeZeroes) return this.#backend.writeZeroes(offset, length)
    const zeroes = new Uint8Array(Math.min(SLICE, length))
    for (let done = 0; done < length; done += SLICE)
      await this.#backend.write(offset + done, zeroes.subarray(0, Math.min(SLICE, length - done)))
  }

  // Life

  get settled(): boolean {
    return this.#stale === 0
  }

  queueReset(): void {
    this.#era++
    this.#stale = this.#active
  }

  stop(): void {
    this.queueReset()
    this.config[BlockConfig.writeback] = 1
  }

  save(): Snapshot {
    return { type: 'virtio-blk', version: 1, data: { writeback: this.config[BlockConfig.writeback]! } }
  }

  restore(snapshot: Snapshot): void {
    this.config[BlockConfig.writeback] = snapshot.data['writeback'] as number
  }

  async quiesce(): Promise<void> {
    // Whatever ends lets those begin that waited for room.
    while (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  async dispose(): Promise<void> {
    this.#unlisten?.()
    await this.quiesce()
    await this.#backend.close()
  }
}
