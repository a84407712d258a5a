/** AHCI controller with one disk, as a PCI function. Registers and interrupts are here; commands are in port.ts. (Serial ATA AHCI 1.3.1) */

import { snapshotData } from '@nonroot/contracts'
import type { BlockBackend, Device, DeviceContext, IoHandler, IoSize, PciFunction, Snapshot } from '@nonroot/contracts'
import { AtaDisk } from '../ata/disk.ts'
import { AhciPort } from './port.ts'
import { CAPABILITIES, Control, Hba, PORT_BASE, PORT_LENGTH, SLOTS, VERSION } from './registers.ts'

/** The ICH9's, in AHCI mode: drivers know it, and it needs no quirk. */
const ID = { vendorId: 0x8086, deviceId: 0x2922, revision: 2, classCode: 0x010601 } as const
const ABAR = 5
const ABAR_SIZE = 0x1000
const PORT_BIT = 1

const TYPE = 'ahci'

export class Ahci implements Device, IoHandler {
  readonly #function: PciFunction
  readonly #port: AhciPort
  readonly #disk: AtaDisk
  #interruptEnable = false
  /** IS: the port had something enabled pending. */
  #interrupts = 0
  #resetting = false

  constructor(context: DeviceContext, backend: BlockBackend, options: { readonly serial: string }) {
    this.#disk = new AtaDisk(backend, { serial: options.serial, queueDepth: SLOTS }, context)
    this.#port = new AhciPort(this.#disk, context.dma, () => this.#signal())
    this.#function = context.pci({
      ...ID,
      unpluggable: 'disk',
      bars: { [ABAR]: { kind: 'mmio32', size: ABAR_SIZE, handler: this } },
      msiVectors: 1,
      interruptPin: 'A',
    })
  }

  /** The port has something new that is enabled. */
  #signal(): void {
    this.#interrupts |= PORT_BIT
    if (!this.#interruptEnable || !this.#function) return
    if (this.#function.msixEnabled) this.#function.signal(0)
    else this.#function.interrupt.raise()
  }

  /** The guest took something off, or enabled interrupts: what is still there counts as new. */
  #update(): void {
    if (this.#port.pending) this.#signal()
    if (!this.#interruptEnable || this.#interrupts === 0) this.#function.interrupt.lower()
  }

  read(offset: number, size: IoSize): number {
    const word = this.#readWord(offset & ~3)
    const shift = 8 * (offset & 3)
    if (size === 4 && shift === 0) return word
    return (word >>> shift) & (size === 1 ? 0xff : 0xffff)
  }

  #readWord(offset: number): number {
    if (offset >= PORT_BASE) return offset < PORT_BASE + PORT_LENGTH ? this.#port.read(offset - PORT_BASE) : 0
    switch (offset) {
      case Hba.capabilities:
        return CAPABILITIES
      case Hba.control:
        return this.#control()
      case Hba.interrupts:
        return this.#interrupts
      case Hba.ports:
        return PORT_BIT
      case Hba.version:
        return VERSION
      default:
        return 0
    }
  }

  #control(): number {
    // The reset is over when nothing of before it can touch memory any more.
    if (this.#resetting && this.#port.settled) this.#resetting = false
    const enabled = this.#interruptEnable ? Control.interruptEnable : 0
    return (Control.ahciEnable | enabled | (this.#resetting ? Control.reset : 0)) >>> 0
  }

  /** Doublewords; what is smaller has no effect. ("All registers [...] shall be accessed as doublewords") */
  write(offset: number, size: IoSize, value: number): void {
    if (size !== 4 || offset % 4 !== 0) return
    if (offset >= PORT_BASE) {
      if (offset < PORT_BASE + PORT_LENGTH) this.#port.write(offset - PORT_BASE, value)
      return
    } else if (offset === Hba.interrupts) this.#interrupts &= ~value
    else if (offset === Hba.control) {
      if (value & Control.reset) {
        this.#resetHba()
        this.#resetting = true
      } else this.#interruptEnable = (value & Control.interruptEnable) !== 0
    }
    this.#update()
  }

  #resetHba(): void {
    this.#interruptEnable = false
    this.#port.reset()
    this.#interrupts = 0
  }

  reset(): void {
    this.#resetHba()
    this.#resetting = false
    this.#function.interrupt.lower()
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        interruptEnable: this.#interruptEnable,
        interrupts: this.#interrupts,
        resetting: this.#resetting,
        port: this.#port.save().data,
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.#interruptEnable = data['interruptEnable'] as boolean
    this.#interrupts = data['interrupts'] as number
    this.#resetting = data['resetting'] as boolean
    this.#port.restore({ type: 'ahci-port', version: 1, data: data['port'] as Snapshot['data'] })
    // Messages were sent when they were due; a level is still there.
    const isRaised = this.#interruptEnable && this.#interrupts !== 0 && !this.#function.msixEnabled
    if (isRaised) this.#function.interrupt.raise()
    else this.#function.interrupt.lower()
  }

  quiesce(): Promise<void> {
    return this.#port.quiesce()
  }

  async dispose(): Promise<void> {
    await this.#port.quiesce()
    await this.#disk.close()
  }
}
