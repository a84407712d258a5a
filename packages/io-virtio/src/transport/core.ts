/**
 * What all transports share: status machine, features, queues, configuration space. Independent of registers and device types.
 *
 *   0 -> ACKNOWLEDGE -> DRIVER -> FEATURES_OK -> DRIVER_OK -> NEEDS_RESET
 *   ^----------------------------- 0 written ----------------------|
 */

import { NonrootError } from '@nonroot/contracts'
import type {
  Counter,
  Device,
  DeviceContext,
  Snapshot,
  SnapshotValue,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'
import { PackedQueue, refusePacked } from '../queue/packed.ts'
import type { QueueHost, QueuePosition, QueueSetup, RingQueue } from '../queue/ring-queue.ts'
import { refuseSplit, SplitQueue } from '../queue/split.ts'
import { Feature, FEATURE_WORDS, Status } from './facts.ts'

/** What a transport adds: how its driver is notified. */
export interface TransportLink {
  /** Used buffer notification of a queue. */
  signalQueue(index: number): void
  /** Device configuration change notification. */
  signalConfiguration(): void
  /** The driver reset the device: registers of the transport's own, and what is pending. */
  cleared(): void
  /** The machine was reset: further what a driver's reset leaves alone. Absent: nothing. */
  poweredUp?(): void
  save(): { readonly [key: string]: SnapshotValue }
  restore(data: Snapshot['data']): void
}

export interface RingOptions {
  readonly ring: 'split' | 'packed'
  readonly indirect: boolean
  readonly eventIndex: boolean
  readonly inOrder: boolean
  readonly notificationData: boolean
}

/** One queue as the driver sets it up. Addresses are low and high words until it is enabled. */
export interface QueueRegisters {
  readonly most: number
  size: number
  vector: number
  /** Low and high words of descriptor, driver and device area. */
  readonly areas: Uint32Array
  ring: RingQueue | undefined
  enabled: boolean
}

export const NO_VECTOR = 0xffff
const NOTHING: NonNullable<Device['offers']> = new Map()
const TYPE = 'virtio'
const VERSION = 1

export class VirtioCore implements VirtioPort, QueueHost, Device {
  readonly device: VirtioDevice
  readonly memory: DeviceContext['dma']
  readonly queues: readonly QueueRegisters[]
  readonly offered = new Uint32Array(FEATURE_WORDS)
  /** As the driver wrote them. */
  readonly driverFeatures = new Uint32Array(FEATURE_WORDS)
  readonly buffers: Counter
  readonly notifications: Counter
  readonly suppressed: Counter
  deviceFeatureSelect = 0
  driverFeatureSelect = 0
  queueSelect = 0
  #status = 0
  /** The driver wrote the configuration since the last reset. */
  #configWritten = false
  /** The status before the last reset. */
  #before = 0
  #generation = 0
  /** The driver read configuration since the generation was last new. */
  #generationSeen = false
  readonly #context: DeviceContext
  readonly #link: TransportLink
  readonly #kicks: Counter
  readonly #failures: Counter

  constructor(
    context: DeviceContext,
    create: (port: VirtioPort) => VirtioDevice,
    link: (core: VirtioCore) => TransportLink,
    options: RingOptions,
  ) {
    this.#context = context
    const { metrics } = context
    this.buffers = metrics.counter('buffers', 'buffers taken from virtqueues')
    this.notifications = metrics.counter('usedNotifications', 'used buffer notifications sent')
    this.suppressed = metrics.counter('usedSuppressed', 'used buffer notifications that the driver did not want')
    this.#kicks = metrics.counter('availableNotifications', 'available buffer notifications received')
    this.#failures = metrics.counter('failures', 'times that DEVICE_NEEDS_RESET was set')
    this.device = create(this)
    const behindIommu = context.dma.untranslated !== undefined && !this.device.untranslated
    this.memory = behindIommu ? context.dma : (context.dma.untranslated ?? context.dma)
    this.queues = this.device.queueSizes.map((most) => {
      if (most < 1 || most > 32768 || (most & (most - 1)) !== 0) throw badQueue(context.name, most)
      return { most, size: most, vector: NO_VECTOR, areas: new Uint32Array(6), ring: undefined, enabled: false }
    })
    for (const bit of [...(this.device.features ?? []), ...ringFeatures(options, behindIommu)])
      this.offered[bit >> 5]! |= 1 << (bit & 31)
    this.#link = link(this)
  }

  // Device status

  /** "The device MUST reset when 0 is written to device_status, and present a 0 in device_status once that is done." */
  get status(): number {
    return this.#status === 0 && !this.settled ? this.#before : this.#status
  }

  /** Does nothing of before a reset touch memory any more? */
  get settled(): boolean {
    return this.device.settled !== false
  }

  get running(): boolean {
    return (this.#status & (Status.driverOk | Status.needsReset)) === Status.driverOk
  }

  writeStatus(value: number): void {
    if (value === 0) return this.#clear()
    // "The driver MUST NOT clear a device status bit": one that does has not.
    let added = value & ~this.#status & 0xff & ~Status.needsReset
    if (added & Status.featuresOk && !this.#featuresFit()) added &= ~Status.featuresOk
    if (added & Status.driverOk && !((this.#status | added) & Status.featuresOk)) added &= ~Status.driverOk
    this.#status |= added
    if (added & Status.driverOk) this.#start()
  }

  #featuresFit(): boolean {
    if (this.driverFeatures.some((word, index) => (word & ~this.offered[index]!) !== 0)) return false
    if (!this.#wrote(Feature.version1)) return false
    // "A device MAY fail to operate further if VIRTIO_F_ACCESS_PLATFORM is not accepted": its addresses would be others.
    if (this.#offers(Feature.accessPlatform) && !this.#wrote(Feature.accessPlatform)) return false
    return this.device.accepts?.((bit) => this.#wrote(bit)) ?? true
  }

  #offers(bit: number): boolean {
    return (this.offered[bit >> 5]! & (1 << (bit & 31))) !== 0
  }

  #wrote(bit: number): boolean {
    return ((this.driverFeatures[bit >> 5] ?? 0) & (1 << (bit & 31))) !== 0
  }

  accepted(bit: number): boolean {
    return (this.#status & Status.featuresOk) !== 0 && this.#wrote(bit)
  }

  #start(): void {
    if (this.#status & Status.needsReset) return this.#link.signalConfiguration()
    this.device.start?.()
    // Buffers that were made available before DRIVER_OK.
    for (const { ring } of this.queues) if (ring && this.running) this.#process(ring)
  }

  /** "Device Reset", by the driver. */
  #clear(): void {
    const started = (this.#status & Status.driverOk) !== 0
    if (this.#status !== 0) this.#before = this.#status
    for (const queue of this.queues) {
      this.#dropRing(queue)
      queue.size = queue.most
      queue.vector = NO_VECTOR
      queue.areas.fill(0)
    }
    this.#status = 0
    this.driverFeatures.fill(0)
    this.deviceFeatureSelect = this.driverFeatureSelect = this.queueSelect = 0
    this.#link.cleared()
    // A driver writes the configuration before DRIVER_OK, too.
    if (started || this.#configWritten) this.device.stop?.()
    this.#configWritten = false
  }

  fail(reason: string): void {
    if (this.#status & Status.needsReset) return
    this.#failures.value++
    this.#context.log.warn(`${this.#context.name}: the device needs a reset: ${reason}`)
    for (const { ring } of this.queues) ring?.close()
    const started = (this.#status & Status.driverOk) !== 0
    this.#status |= Status.needsReset
    if (started) this.#link.signalConfiguration()
  }

  // Features

  get deviceFeatures(): number {
    return this.offered[this.deviceFeatureSelect] ?? 0
  }

  get selectedDriverFeatures(): number {
    return this.driverFeatures[this.driverFeatureSelect] ?? 0
  }

  writeDriverFeatures(value: number): void {
    if (this.#status & Status.featuresOk || this.driverFeatureSelect >= FEATURE_WORDS) return
    this.driverFeatures[this.driverFeatureSelect] = value
  }

  // Queues

  /** The selected one. Undefined: there is no such queue. */
  get selected(): QueueRegisters | undefined {
    return this.queues[this.queueSelect]
  }

  /** "a value of 0 or a power of 2", unless packed rings were negotiated; the driver may have written anything. */
  get queueSize(): number {
    const size = this.selected?.size ?? 0
    return this.#wrote(Feature.ringPacked) || (size & (size - 1)) === 0 ? size : 0
  }

  /** The driver chose a size. What is no size is refused when the queue is enabled. */
  writeQueueSize(size: number): void {
    const queue = this.selected
    if (queue && !queue.enabled && size <= queue.most) queue.size = size
  }

  /** `area`: 0 and 1 are the words of the descriptor area's address, and so on. Rings that are in use do not move. */
  writeQueueArea(area: number, value: number): void {
    const queue = this.selected
    if (queue && !queue.enabled) queue.areas[area] = value
  }

  enableQueue(): void {
    const queue = this.selected
    if (!queue || queue.enabled || !(this.#status & Status.featuresOk) || this.#status & Status.needsReset) return
    const setup = this.#setup(queue)
    const packed = this.#wrote(Feature.ringPacked)
    const wrong = (packed ? refusePacked : refuseSplit)(setup, this)
    if (wrong) return this.fail(`queue ${setup.index}: ${wrong}`)
    queue.ring = packed ? new PackedQueue(setup, this) : new SplitQueue(setup, this)
    queue.enabled = true
  }

  #setup(queue: QueueRegisters): QueueSetup {
    const { areas, size } = queue
    return {
      index: this.queues.indexOf(queue),
      size,
      descriptors: areas[1]! * 2 ** 32 + areas[0]!,
      driver: areas[3]! * 2 ** 32 + areas[2]!,
      device: areas[5]! * 2 ** 32 + areas[4]!,
      indirect: this.#wrote(Feature.indirectDescriptors),
      eventIndex: this.#wrote(Feature.eventIndex),
      inOrder: this.#wrote(Feature.inOrder),
    }
  }

  /** Stop using the selected queue (QueueReady = 0). */
  disableQueue(): void {
    const queue = this.selected
    if (!queue?.enabled) return
    this.#dropRing(queue)
    if (this.running) this.device.queueReset?.(this.queueSelect)
  }

  /** VIRTIO_F_RING_RESET: over when the device has settled. */
  resetQueue(): void {
    if (!this.accepted(Feature.ringReset) || !this.selected) return
    this.disableQueue()
    this.selected.size = this.selected.most
    this.selected.vector = NO_VECTOR
    this.selected.areas.fill(0)
  }

  /** The selected queue's reset is not over. */
  get resetting(): boolean {
    return this.selected?.enabled === false && !this.settled
  }

  #dropRing(queue: QueueRegisters): void {
    queue.ring?.close()
    queue.ring = undefined
    queue.enabled = false
  }

  queue(index: number): Virtqueue | undefined {
    return this.queues[index]?.ring
  }

  /** Available buffer notification. What it carries beyond the queue's index (VIRTIO_F_NOTIFICATION_DATA) is a hint that is not needed. */
  kick(value: number): void {
    this.#kicks.value++
    const ring = this.queues[value & 0xffff]?.ring
    if (ring?.open && this.running) this.#process(ring)
  }

  #process(ring: RingQueue): void {
    this.device.process(ring)
    ring.signal()
  }

  notify(index: number): void {
    if (this.running) this.#link.signalQueue(index)
  }

  broken(index: number, reason: string): void {
    this.fail(`queue ${index}: ${reason}`)
  }

  // Configuration space

  get generation(): number {
    return this.#generation
  }

  configChanged(): void {
    if (this.#generationSeen) this.#generation = (this.#generation + 1) & 0xff
    this.#generationSeen = false
    if (this.running) this.#link.signalConfiguration()
  }

  readConfig(offset: number, size: number): number {
    this.#generationSeen = true
    const config = this.device.config
    let value = 0
    for (let byte = 0; byte < size; byte++) value |= (config?.[offset + byte] ?? 0) << (8 * byte)
    return value >>> 0
  }

  writeConfig(offset: number, size: 1 | 2 | 4, value: number): void {
    if (offset + size > (this.device.config?.length ?? 0)) return
    this.#configWritten = true
    this.device.writeConfig?.(offset, size, value)
  }

  // As a device of the machine

  reset(): void {
    this.#clear()
    this.#generation = 0
    this.#generationSeen = false
    this.#link.poweredUp?.()
  }

  get offers(): NonNullable<Device['offers']> {
    return this.device.offers ?? NOTHING
  }

  save(): Snapshot {
    const queues = this.queues.map(({ size, vector, areas, enabled, ring }) => ({
      size,
      vector,
      areas: Array.from(areas),
      enabled,
      position: ring ? { ...ring.position() } : null,
    }))
    return {
      type: TYPE,
      version: VERSION,
      data: {
        deviceId: this.device.deviceId,
        status: this.#status,
        generation: this.#generation,
        generationSeen: this.#generationSeen,
        driverFeatures: Array.from(this.driverFeatures),
        selects: [this.deviceFeatureSelect, this.driverFeatureSelect, this.queueSelect],
        queues,
        transport: this.#link.save(),
        device: (this.device.save?.() as unknown as SnapshotValue) ?? null,
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const { data } = snapshot
    const queues = data['queues'] as
      { size: number; vector: number; areas: number[]; enabled: boolean; position: QueuePosition | null }[] | undefined
    if (
      snapshot.type !== TYPE ||
      snapshot.version !== VERSION ||
      data['deviceId'] !== this.device.deviceId ||
      queues?.length !== this.queues.length
    ) {
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: `${this.#context.name}: the snapshot is of another device or another version`,
        thing: this.#context.name,
        remedy: 'restore it with the stack and the version of nonroot that saved it',
      })
    }
    this.#clear()
    this.#status = data['status'] as number
    this.#generation = data['generation'] as number
    this.#generationSeen = data['generationSeen'] as boolean
    this.driverFeatures.set(data['driverFeatures'] as number[])
    ;[this.deviceFeatureSelect, this.driverFeatureSelect, this.queueSelect] = data['selects'] as [
      number,
      number,
      number,
    ]
    this.queues.forEach((queue, index) => {
      const saved = queues[index]!
      queue.size = saved.size
      queue.vector = saved.vector
      queue.areas.set(saved.areas)
      queue.enabled = saved.enabled
      if (!saved.position) return
      const setup = this.#setup(queue)
      queue.ring = this.#wrote(Feature.ringPacked) ? new PackedQueue(setup, this) : new SplitQueue(setup, this)
      queue.ring.resume(saved.position)
      if (this.#status & Status.needsReset) queue.ring.close()
    })
    this.#link.restore(data['transport'] as Snapshot['data'])
    if (data['device']) this.device.restore?.(data['device'] as unknown as Snapshot)
  }

  async quiesce(): Promise<void> {
    await this.device.quiesce?.()
  }

  async dispose(): Promise<void> {
    for (const { ring } of this.queues) ring?.close()
    await this.device.dispose?.()
  }
}

function ringFeatures(options: RingOptions, behindIommu: boolean): number[] {
  const features: number[] = [Feature.version1, Feature.ringReset]
  if (behindIommu) features.push(Feature.accessPlatform)
  if (options.ring === 'packed') features.push(Feature.ringPacked)
  if (options.indirect) features.push(Feature.indirectDescriptors)
  if (options.eventIndex) features.push(Feature.eventIndex)
  if (options.inOrder) features.push(Feature.inOrder)
  if (options.notificationData) features.push(Feature.notificationData)
  return features
}

const badQueue = (name: string, size: number): NonrootError =>
  new NonrootError({
    code: 'device.create',
    message: `${name}: queue size ${size} is not a power of two (1..32768)`,
    thing: name,
    value: size,
  })
