/** Traditional memory balloon: a guest returns frames, on request or because they are free. ("Traditional Memory Balloon Device") */

import { Balloon, FRAME_SIZE, FrameReturn, gpa } from '@nonroot/contracts'
import type {
  BalloonStatistics,
  Counter,
  DescriptorChain,
  DeviceContext,
  MemoryRange,
  Snapshot,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'

export const BalloonFeature = {
  statistics: 1,
  deflateOnOutOfMemory: 2,
  freePageHint: 3,
  pagePoison: 4,
  pageReporting: 5,
} as const

/** struct virtio_balloon_config */
const Config = { target: 0, actual: 4, hintCommand: 8, poison: 12, size: 16 } as const
/** free_page_hint_cmd_id: anything else is a round of hints. */
const Hint = { stop: 0, done: 1, first: 2 } as const
/** "Memory Statistics Tags", in order. */
const STATISTICS: readonly (keyof BalloonStatistics)[] = [
  'swappedInBytes',
  'swappedOutBytes',
  'majorFaults',
  'minorFaults',
  'freeBytes',
  'totalBytes',
  'availableBytes',
  'cacheBytes',
  'hugePagesAllocated',
  'hugePagesFailed',
]
const STATISTIC_SIZE = 10
const MOST_STATISTICS = 64
/** Page numbers read at once. */
const PIECE = 4096
const QUEUE_SIZE = 128

type Role = 'inflate' | 'deflate' | 'statistics' | 'hints' | 'reports'
const ROLES: readonly { role: Role; feature?: number }[] = [
  { role: 'inflate' },
  { role: 'deflate' },
  { role: 'statistics', feature: BalloonFeature.statistics },
  { role: 'hints', feature: BalloonFeature.freePageHint },
  { role: 'reports', feature: BalloonFeature.pageReporting },
]

interface Range {
  readonly address: number
  readonly length: number
}

export class VirtioBalloon implements VirtioDevice, Balloon {
  readonly deviceId = 5
  readonly untranslated = true
  readonly features: readonly number[]
  readonly queueSizes = ROLES.map(() => QUEUE_SIZE)
  readonly config = new Uint8Array(Config.size)
  readonly offers = new Map([[Balloon, this]])
  readonly #view = new DataView(this.config.buffer)
  readonly #port: VirtioPort
  readonly #frames: FrameReturn
  readonly #memorySize: number
  readonly #released: Counter
  readonly #reported: Counter
  readonly #listeners = new Set<(frames: number) => void>()
  #roles: readonly Role[] = []
  /** The statistics queue's one buffer, kept to ask for the next. */
  #kept: { queue: Virtqueue; chain: DescriptorChain } | undefined
  #askers: ((statistics: BalloonStatistics | undefined) => void)[] = []
  #command: number = Hint.first
  #hinting = false
  #hints: Range[] = []
  #hintedBytes = 0
  #hinted: ((ranges: Range[] | undefined) => void)[] = []
  readonly #piece = new DataView(new ArrayBuffer(PIECE))

  constructor(
    port: VirtioPort,
    context: Pick<DeviceContext, 'memoryMap' | 'metrics' | 'capability'>,
    options: { deflateOnOutOfMemory: boolean; freePageReporting: boolean },
  ) {
    this.#port = port
    this.#frames = context.capability(FrameReturn)
    this.#memorySize = context.memoryMap.size
    this.#released = context.metrics.counter('inflated', 'frames that the guest gave', 'frames')
    this.#reported = context.metrics.counter('reported', 'frames that the guest reported as free', 'frames')
    this.features = [
      BalloonFeature.statistics,
      ...(options.deflateOnOutOfMemory ? [BalloonFeature.deflateOnOutOfMemory] : []),
      BalloonFeature.freePageHint,
      BalloonFeature.pagePoison,
      ...(options.freePageReporting ? [BalloonFeature.pageReporting] : []),
    ]
  }

  // The driver's side

  start(): void {
    const present = ROLES.filter(({ feature }) => feature === undefined || this.#port.accepted(feature))
    // The specification numbers the queues once and for all; drivers exist that leave out the numbers of queues they do not use.
    const fixed = present.every(({ role }) => this.#port.queue(ROLES.findIndex((entry) => entry.role === role)))
    this.#roles = (fixed ? ROLES : present).map(({ role }) => role)
  }

  writeConfig(offset: number, size: number, value: number): void {
    if (size !== 4 || (offset !== Config.actual && offset !== Config.poison)) return
    this.#view.setUint32(offset, value, true)
    if (offset === Config.actual) for (const listener of this.#listeners) listener(value)
  }

  process(queue: Virtqueue): void {
    const role = this.#roles[queue.index]
    if (role === undefined) return
    if (role === 'statistics') return this.#takeStatistics(queue)
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      if (role === 'inflate') this.#inflate(chain)
      else if (role === 'hints') this.#hint(chain)
      else if (role === 'reports') this.#report(chain)
      queue.push(chain, 0)
    }
  }

  /** Page numbers, 32 bits each. Numbers of pages that do not exist release nothing. All pages of a buffer go at once, for one flush of the TLB. */
  #inflate(chain: DescriptorChain): void {
    const bytes = new Uint8Array(this.#piece.buffer)
    const pages: number[] = []
    // A list cannot have more entries than there are frames; its length comes from the guest.
    const end = Math.min(chain.readable - (chain.readable % 4), (this.#memorySize / FRAME_SIZE) * 4)
    for (let at = 0; at < end; at += PIECE) {
      const length = Math.min(PIECE, end - at)
      if (!chain.read(at, bytes.subarray(0, length))) break
      for (let offset = 0; offset < length; offset += 4) pages.push(this.#piece.getUint32(offset, true) * FRAME_SIZE)
    }
    this.#released.value += this.#frames.release(pages.map((page) => ({ address: gpa(page), length: FRAME_SIZE })))
  }

  /** Ranges of free memory. Whole frames of them go back to the host. */
  #report(chain: DescriptorChain): void {
    // "the device MUST NOT modify the content of a reported page to a value other than poison_val": what is released reads as zero.
    if (this.#port.accepted(BalloonFeature.pagePoison) && this.#view.getUint32(Config.poison, true) !== 0) return
    const ranges: MemoryRange[] = []
    for (let index = chain.readableElements; index < chain.elements; index++)
      ranges.push({ address: gpa(chain.elementAddress(index)), length: chain.elementLength(index) })
    this.#reported.value += this.#frames.release(ranges)
  }

  // Statistics: the device keeps the driver's one buffer, and gives it back to ask for a new one.

  #takeStatistics(queue: Virtqueue): void {
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      // "The driver MUST make at most one buffer available": of more, the last counts.
      if (this.#kept) queue.push(this.#kept.chain, 0)
      this.#kept = { queue, chain }
      const statistics = readStatistics(chain)
      // The first one is there before anybody asked.
      for (const resolve of this.#askers.splice(0)) resolve(statistics)
    }
  }

  statistics(): Promise<BalloonStatistics | undefined> {
    const kept = this.#kept
    if (!kept && this.#askers.length === 0) return Promise.resolve(undefined)
    return new Promise((resolve) => {
      this.#askers.push(resolve)
      if (!kept) return
      this.#kept = undefined
      kept.queue.push(kept.chain, 0)
      kept.queue.signal()
    })
  }

  // Free page hints

  #hint(chain: DescriptorChain): void {
    if (chain.readable > 0) {
      const command = new DataView(new ArrayBuffer(4))
      if (chain.readable !== 4 || !chain.read(0, new Uint8Array(command.buffer))) return
      const id = command.getUint32(0, true)
      // "MUST ignore pages that are provided with a command ID that does not match the current value"
      this.#hinting = id >= Hint.first && id === this.#view.getUint32(Config.hintCommand, true)
      if (id === Hint.stop) this.#endHints()
      return
    }
    if (!this.#hinting) return
    for (let index = 0; index < chain.elements; index++) {
      const length = chain.elementLength(index)
      // A guest that hints at less than a frame, or at more than it has, is not listened to: what we keep has a bound.
      if (length < FRAME_SIZE || this.#hintedBytes + length > this.#memorySize) continue
      this.#hintedBytes += length
      this.#hints.push({ address: chain.elementAddress(index), length })
    }
  }

  #endHints(): void {
    if (this.#hinted.length === 0) return
    const ranges = this.#forgetHints()
    this.#setCommand(Hint.done)
    for (const resolve of this.#hinted.splice(0)) resolve(ranges)
  }

  #forgetHints(): Range[] {
    const ranges = this.#hints
    this.#hints = []
    this.#hintedBytes = 0
    return ranges
  }

  #setCommand(command: number): void {
    this.#view.setUint32(Config.hintCommand, command, true)
    this.#port.configChanged()
  }

  freePages(): Promise<readonly Range[] | undefined> {
    if (!this.#roles.includes('hints') || !this.#port.accepted(BalloonFeature.freePageHint))
      return Promise.resolve(undefined)
    return new Promise((resolve) => {
      this.#hinted.push(resolve)
      if (this.#hinted.length > 1) return
      this.#forgetHints()
      this.#setCommand(this.#command)
      this.#command = this.#command === 0xffff_ffff ? Hint.first : this.#command + 1
    })
  }

  // The host's side

  get targetFrames(): number {
    return this.#view.getUint32(Config.target, true)
  }

  get actualFrames(): number {
    return this.#view.getUint32(Config.actual, true)
  }

  setTarget(frames: number): void {
    this.#view.setUint32(Config.target, Math.max(0, Math.min(Math.floor(frames), this.#memorySize / FRAME_SIZE)), true)
    this.#port.configChanged()
  }

  onChange(listener: (frames: number) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  // Life

  stop(): void {
    this.#kept = undefined
    this.#roles = []
    this.#hinting = false
    this.#forgetHints()
    for (const resolve of this.#askers.splice(0)) resolve(undefined)
    for (const resolve of this.#hinted.splice(0)) resolve(undefined)
    // A new driver starts with an empty balloon; what is wanted of it stays.
    this.#view.setUint32(Config.actual, 0, true)
    this.#view.setUint32(Config.hintCommand, Hint.stop, true)
    this.#view.setUint32(Config.poison, 0, true)
  }

  queueReset(index: number): void {
    if (this.#roles[index] !== 'statistics') return
    this.#kept = undefined
    for (const resolve of this.#askers.splice(0)) resolve(undefined)
  }

  /** The buffer that is held goes back to the ring, from which the restored device takes it. */
  async quiesce(): Promise<void> {
    this.#kept?.queue.unpop(this.#kept.chain)
    this.#kept = undefined
  }

  save(): Snapshot {
    // The rings were saved with the buffer in them; take it again to continue.
    const queue = this.#port.queue(this.#roles.indexOf('statistics'))
    if (queue && !this.#kept) this.#takeStatistics(queue)
    return { type: 'virtio-balloon', version: 1, data: { config: this.config.slice(), command: this.#command } }
  }

  restore(snapshot: Snapshot): void {
    this.config.set(snapshot.data['config'] as Uint8Array)
    this.#command = snapshot.data['command'] as number
    this.start()
    const queue = this.#port.queue(this.#roles.indexOf('statistics'))
    if (queue) this.#takeStatistics(queue)
  }
}

function readStatistics(chain: DescriptorChain): BalloonStatistics {
  const count = Math.min(Math.floor(chain.readable / STATISTIC_SIZE), MOST_STATISTICS)
  const bytes = new Uint8Array(count * STATISTIC_SIZE)
  chain.read(0, bytes)
  const view = new DataView(bytes.buffer)
  const found: { -readonly [K in keyof BalloonStatistics]: number } = {}
  for (let at = 0; at < bytes.length; at += STATISTIC_SIZE) {
    const name = STATISTICS[view.getUint16(at, true)]
    if (name) found[name] = view.getUint32(at + 2, true) + view.getUint32(at + 6, true) * 2 ** 32
  }
  return found
}
