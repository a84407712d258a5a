/**
 * The device by which a guest on a PC knows Xen's platform: it unplugs emulated hardware there, has addresses for grants, and a log.
 * (Xen, "HVM emulated device unplug protocol")
 */

import { PciUnplug, snapshotData, XenPlatform } from '@nonroot/contracts'
import type {
  Counter,
  Device,
  DeviceContext,
  InterruptLine,
  IoHandler,
  IoSize,
  Log,
  Snapshot,
  Unpluggable,
} from '@nonroot/contracts'

/** A mass storage controller of no known kind. */
const ID = { vendorId: 0x5853, deviceId: 0x0001, revision: 1, classCode: 0xff8000 } as const
const PORTS_SIZE = 256
/** Where the guest maps grants and other pages: 16 MiB without memory. */
const WINDOW_SIZE = 16 << 20

const UNPLUG_PORTS = { base: 0x10, length: 4 } as const
const MAGIC = 0x49d2
const PROTOCOL = 1
const LINE_LENGTH = 200
const MOST_LINES = 100
/** By bit. Bit 2 is for disks beside a machine's first IDE disk: no machine has one. */
const KINDS: readonly (readonly [mask: number, kind: Unpluggable])[] = [
  [1, 'disk'],
  [2, 'network'],
  [8, 'nvme'],
]

const TYPE = 'xen-platform'
const nothing: IoHandler = { read: () => 0, write: () => {} }

export class PlatformDevice implements Device {
  readonly #bus: PciUnplug
  readonly #log: Log
  readonly #unplugged: Counter
  #line = ''
  #lines = 0

  constructor(context: DeviceContext) {
    this.#bus = context.capability(PciUnplug)
    this.#log = context.log
    this.#unplugged = context.metrics.counter('unplugged', 'emulated devices that the guest unplugged')
    const own = context.pci({
      ...ID,
      interruptPin: 'A',
      bars: {
        0: { kind: 'io', size: PORTS_SIZE, handler: nothing },
        1: { kind: 'mmio32', size: WINDOW_SIZE, prefetchable: true, handler: nothing },
      },
    })
    const { requesterId, interrupt } = own
    const line = (gsi: number): InterruptLine => context.interrupt(gsi)
    context.capability(XenPlatform).connectDevice?.({ requesterId, interrupt, line })
    context.portIo(UNPLUG_PORTS.base, UNPLUG_PORTS.length, {
      read: (offset, size) => this.#read(offset, size),
      write: (offset, size, value) => this.#write(offset, size, value),
    })
  }

  #read(offset: number, size: IoSize): number {
    if (offset === 0 && size === 2) return MAGIC
    return offset === 2 && size === 1 ? PROTOCOL : { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff }[size]
  }

  /** Products and versions of drivers are all welcome: those at 2 with two bytes, at 0 with four. */
  #write(offset: number, size: IoSize, value: number): void {
    if (offset === 0 && size === 2) {
      for (const [mask, kind] of KINDS) if (value & mask) this.#unplugged.value += this.#bus.unplug(kind)
    } else if (offset === 2 && size === 1) this.#say(String.fromCharCode(value))
  }

  /** What drivers log, up to a number of lines: a guest has no claim on more. */
  #say(character: string): void {
    if (character !== '\n' && this.#line.length < LINE_LENGTH) {
      if (character >= ' ' && character <= '~') this.#line += character
      return
    }
    if (this.#lines++ < MOST_LINES) this.#log.info(this.#line)
    this.#line = ''
  }

  reset(): void {
    this.#line = ''
  }
  save(): Snapshot {
    return { type: TYPE, version: 1, data: { line: this.#line } }
  }
  restore(snapshot: Snapshot): void {
    this.#line = snapshotData(snapshot, TYPE, 1)['line'] as string
  }
}
