/** A disk's half in domain 0: requests run side by side, straight between the guest's pages and a back end of the host. (Xen, "public/io/blkif.h") */

import { createDiskCounters, readScattered, writeGathered } from '@nonroot/contracts'
import type { BlockBackend, Device, DeviceContext, DiskCounters, DmaMemory, MemoryPiece } from '@nonroot/contracts'
import type { LocalPort } from '../event-channels.ts'
import {
  INDIRECT,
  LAST_SECTOR,
  MOST_INDIRECT,
  MOST_SEGMENTS,
  OPERATION,
  READ_ONLY,
  REQUEST,
  REQUEST_SIZE,
  RESPONSE,
  RESPONSE_SIZE,
  RESULT,
  SECTOR,
  SEGMENT_SIZE,
  SEGMENTS_A_PAGE,
} from './block-format.ts'
import { BackRing } from './ring.ts'
import type { FrontEnd, Nodes, SplitDriver } from './split-device.ts'

/** A ring of up to 16 pages. */
const MOST_RING_ORDER = 4
/** Requests at a time; more wait in the ring. */
const MOST_ACTIVE = 64
/** Bytes that are moved while the guest waits, for each time it notifies. */
const MOST_NOW = 1024 * 1024
const PAGE = 4096

interface Connection {
  readonly ring: BackRing
  readonly port: LocalPort
  readonly guest: FrontEnd
}

/** A request that was taken: the back end works on it, or will. */
interface Request {
  readonly connection: Connection
  readonly id: bigint
  /** Of an indirect one: what it does, which is what its response names. */
  readonly operation: number
  /** Grants in use, for writing or not, until it is answered. */
  readonly grants: number[]
  readonly writable: boolean
}

export class BlockBack implements SplitDriver, Device {
  readonly type = 'vbd'
  readonly handle: number
  readonly #disk: BlockBackend
  readonly #memory: DmaMemory
  readonly #log: DeviceContext['log']
  readonly #request = new Uint8Array(REQUEST_SIZE)
  readonly #view = new DataView(this.#request.buffer)
  readonly #response = new Uint8Array(RESPONSE_SIZE)
  readonly #responseView = new DataView(this.#response.buffer)
  readonly #list = new Uint8Array(MOST_INDIRECT * SEGMENT_SIZE)
  readonly #listView = new DataView(this.#list.buffer)
  readonly #active = new Set<Request>()
  readonly #unlisten: (() => void) | undefined
  readonly #counters: DiskCounters
  #connection: Connection | undefined
  #size: number
  #now = 0
  /** Who waits until nothing is under way. */
  #idle: (() => void)[] = []

  constructor(
    disk: BlockBackend,
    handle: number,
    { dma, log, metrics }: Pick<DeviceContext, 'dma' | 'log' | 'metrics'>,
    onResize: (nodes: Nodes) => void,
  ) {
    this.#disk = disk
    this.handle = handle
    this.#memory = dma
    this.#log = log
    this.#size = disk.size
    this.#unlisten = disk.onResize?.((size) => {
      this.#size = size
      onResize({ sectors: this.#sectors })
    })
    this.#counters = createDiskCounters(metrics, 'request')
  }

  get #sectors(): number {
    return Math.floor(this.#size / SECTOR)
  }

  // Halves

  get frontend(): Nodes {
    return { 'virtual-device': this.handle, 'device-type': 'disk' }
  }

  get backend(): Nodes {
    const { discard, readOnly, sectorSize } = this.#disk
    return {
      mode: readOnly ? 'r' : 'w',
      removable: 0,
      bootable: 1,
      'feature-flush-cache': 1,
      'feature-max-indirect-segments': MOST_INDIRECT,
      'max-ring-page-order': MOST_RING_ORDER,
      ...(discard && !readOnly
        ? { 'feature-discard': 1, 'discard-granularity': Math.max(PAGE, sectorSize), 'discard-alignment': 0 }
        : {}),
    }
  }

  connect(guest: FrontEnd): Nodes | string {
    const protocol = guest.text('protocol') ?? 'x86_64-abi'
    if (protocol !== 'x86_64-abi') return `protocol ${JSON.stringify(protocol)}; x86_64-abi is the only one`
    const order = guest.text('ring-page-order') === undefined ? undefined : guest.number('ring-page-order')
    if (order !== undefined && order > MOST_RING_ORDER)
      return `a ring of 2^${order} pages; 2^${MOST_RING_ORDER} is the most`
    const names =
      order === undefined ? ['ring-ref'] : Array.from({ length: 1 << order }, (_, index) => `ring-ref${index}`)
    const references = names.map((name) => guest.number(name))
    const pages = references.includes(undefined) ? undefined : guest.pages(references as number[])
    if (!pages) return 'its ring is not granted'
    const port = guest.port(guest.number('event-channel') ?? 0, () => this.#process())
    if (!port) return 'its event channel does not wait for domain 0'
    this.#connection = { ring: new BackRing(this.#memory, pages, REQUEST_SIZE), port, guest }
    const { readOnly, sectorSize } = this.#disk
    return {
      sectors: this.#sectors,
      info: readOnly ? READ_ONLY : 0,
      'sector-size': sectorSize,
      'physical-sector-size': Math.max(PAGE, sectorSize),
    }
  }

  start(): void {
    this.#process()
  }

  disconnect(then: () => void): void {
    this.#connection = undefined
    if (this.#active.size === 0) then()
    else this.#idle.push(then)
  }

  abandon(): void {
    this.#connection = undefined
    for (const request of this.#active) this.#release(request)
  }

  // Requests

  #process(): void {
    const connection = this.#connection
    if (!connection) return
    const { ring, port, guest } = connection
    this.#now = MOST_NOW
    do {
      while (this.#active.size < MOST_ACTIVE && ring.take(this.#request)) this.#begin(connection)
      if (ring.broken) return guest.fail('its ring says that it holds more requests than it can')
    } while (this.#active.size < MOST_ACTIVE && ring.wait())
    if (ring.push()) port.notify()
  }

  #begin(connection: Connection): void {
    const view = this.#view
    const type = view.getUint8(REQUEST.operation)
    const isIndirect = type === OPERATION.indirect
    const operation = isIndirect ? view.getUint8(INDIRECT.operation) : type
    const id = view.getBigUint64(REQUEST.id, true)
    const request = { connection, id, operation, grants: [], writable: operation === OPERATION.read }
    const result = this.#execute(request, isIndirect)
    if (typeof result === 'number') return this.#answer(request, result)
    this.#active.add(request)
    void this.#await(request, result)
  }

  async #await(request: Request, pending: Promise<number>): Promise<void> {
    let status: number = RESULT.error
    try {
      status = await pending
    } catch (error) {
      this.#report(error)
    }
    this.#active.delete(request)
    this.#answer(request, status)
    if (this.#active.size === 0) for (const resolve of this.#idle.splice(0)) resolve()
    // Those that found no room, too.
    this.#process()
  }

  /** An error of the back end is an error of this request, and the guest's to handle. */
  #report(error: unknown): void {
    this.#log.debug(() => `I/O error: ${error instanceof Error ? error.message : String(error)}`)
  }

  #release({ connection, grants, writable }: Request): void {
    for (const reference of grants.splice(0)) connection.guest.grants.end(reference, writable)
  }

  #answer(request: Request, status: number): void {
    if (status !== RESULT.ok) this.#counters.errors.value++
    this.#release(request)
    // The guest has parted meanwhile, and the ring is its own again.
    if (request.connection !== this.#connection) return
    const view = this.#responseView
    view.setBigUint64(RESPONSE.id, request.id, true)
    view.setUint8(RESPONSE.operation, request.operation)
    view.setInt16(RESPONSE.status, status, true)
    request.connection.ring.respond(this.#response)
  }

  #execute(request: Request, isIndirect: boolean): number | Promise<number> {
    switch (request.operation) {
      case OPERATION.read:
      case OPERATION.write:
        return this.#move(request, isIndirect)
      case OPERATION.flush:
        // With data it would be a barrier, which is not offered.
        return isIndirect || this.#view.getUint8(REQUEST.segments) !== 0 ? RESULT.unsupported : this.#flush()
      case OPERATION.discard:
        return isIndirect || !this.#disk.discard ? RESULT.unsupported : this.#discard()
      default:
        return RESULT.unsupported
    }
  }

  /** Byte at which a request begins. A number that no disk has: it is beyond any. */
  get #offset(): number {
    return Number(this.#view.getBigUint64(REQUEST.sector, true)) * SECTOR
  }
  #fits(offset: number, length: number): boolean {
    const { sectorSize } = this.#disk
    return offset % sectorSize === 0 && length % sectorSize === 0 && offset + length <= this.#size
  }

  /** Copies the list of segments out of the guest's reach. How many; undefined: too many, or none, or pages that are not granted. */
  #segments({ connection }: Request, isIndirect: boolean): number | undefined {
    const view = this.#view
    const count = isIndirect ? view.getUint16(INDIRECT.segments, true) : view.getUint8(REQUEST.segments)
    if (count === 0 || count > (isIndirect ? MOST_INDIRECT : MOST_SEGMENTS)) return undefined
    if (!isIndirect) {
      this.#list.set(this.#request.subarray(REQUEST.list, REQUEST.list + count * SEGMENT_SIZE))
      return count
    }
    const { grants } = connection.guest
    for (let first = 0; first < count; first += SEGMENTS_A_PAGE) {
      const reference = view.getUint32(INDIRECT.pages + (first / SEGMENTS_A_PAGE) * 4, true)
      const page = grants.begin(reference, false)
      if (page === undefined) return undefined
      const end = Math.min(count, first + SEGMENTS_A_PAGE)
      this.#memory.readBytes(page, this.#list.subarray(first * SEGMENT_SIZE, end * SEGMENT_SIZE))
      grants.end(reference, false)
    }
    return count
  }

  /** The pieces of memory that a request names. Undefined: it names what it may not. */
  #pieces(request: Request, isIndirect: boolean): MemoryPiece[] | undefined {
    const count = this.#segments(request, isIndirect)
    if (count === undefined) return undefined
    const { connection, grants, writable } = request
    const pieces: MemoryPiece[] = []
    for (let n = 0; n < count; n++) {
      const at = n * SEGMENT_SIZE
      const [first, last] = [this.#list[at + 4]!, this.#list[at + 5]!]
      if (first > last || last > LAST_SECTOR) return undefined
      const reference = this.#listView.getUint32(at, true)
      const page = connection.guest.grants.begin(reference, writable)
      if (page === undefined) return undefined
      grants.push(reference)
      pieces.push({ address: page + first * SECTOR, length: (last - first + 1) * SECTOR })
    }
    return pieces
  }

  /** Reads and writes: at once, if the back end can and the guest need not wait long. */
  #move(request: Request, isIndirect: boolean): number | Promise<number> {
    const { writable } = request
    if (!writable && this.#disk.readOnly) return RESULT.error
    const offset = this.#offset
    const pieces = this.#pieces(request, isIndirect)
    const length = pieces?.reduce((sum, piece) => sum + piece.length, 0) ?? 0
    if (!pieces || !this.#fits(offset, length)) return RESULT.error
    const lease = this.#memory.lease(pieces, writable ? 'write' : 'read')
    if (!lease) return RESULT.error
    let isBeside = false
    try {
      if (length <= this.#now && this.#moveNow(offset, lease.views, writable)) {
        this.#now -= length
        return this.#moved(length, writable)
      }
      isBeside = true
    } catch (error) {
      this.#report(error)
      return RESULT.error
    } finally {
      if (!isBeside) lease.end()
    }
    const moving = writable
      ? readScattered(this.#disk, offset, lease.views)
      : writeGathered(this.#disk, offset, lease.views)
    return moving.finally(() => lease.end()).then(() => this.#moved(length, writable))
  }

  #moveNow(offset: number, views: readonly Uint8Array[], isRead: boolean): boolean {
    const disk = this.#disk
    return (isRead ? disk.readNow?.(offset, views) : disk.writeNow?.(offset, views)) ?? false
  }

  #moved(length: number, isRead: boolean): number {
    const counters = this.#counters
    counters[isRead ? 'reads' : 'writes'].value++
    counters[isRead ? 'bytesRead' : 'bytesWritten'].value += length
    return RESULT.ok
  }

  async #flush(): Promise<number> {
    await this.#disk.flush()
    this.#counters.flushes.value++
    return RESULT.ok
  }

  async #discard(): Promise<number> {
    const length = Number(this.#view.getBigUint64(REQUEST.discardSectors, true)) * SECTOR
    const offset = this.#offset
    // What its flags ask for is not offered.
    if (this.#view.getUint8(REQUEST.segments) !== 0) return RESULT.unsupported
    if (this.#disk.readOnly || length === 0 || !this.#fits(offset, length)) return RESULT.error
    await this.#disk.discard!(offset, length)
    return RESULT.ok
  }

  // Life

  async quiesce(): Promise<void> {
    while (this.#active.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  async dispose(): Promise<void> {
    this.#unlisten?.()
    await this.quiesce()
    await this.#disk.close()
  }
}
