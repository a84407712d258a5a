/** An Intel 82540EM ("e1000"), as a PCI function: registers, rings and interrupts between a driver and a cable. Independent of the network behind the cable. @hot */

import { createCardCounters, NetworkCable, NO_OFFLOADS, snapshotData } from '@nonroot/contracts'
import type {
  CableEnd,
  CardCounters,
  Device,
  DeviceContext,
  DmaMemory,
  FrameWork,
  IoHandler,
  IoSize,
  NetworkBackend,
  PciFunction,
  Snapshot,
} from '@nonroot/contracts'
import { Eeprom } from './eeprom.ts'
import {
  ADDRESS_VALID,
  Cause,
  Control,
  CRC,
  DESCRIPTOR,
  Eerd,
  Mdic,
  PHY,
  PHY_LINK_BITS,
  PHY_SPECIFIC_LINK,
  PHY_SPECIFIC_STATUS,
  PHY_STATUS,
  ReceiveControl,
  Reg,
  Rx,
  RxStatus,
  Status,
  TransmitControl,
} from './registers.ts'
import { Transmitter } from './transmit.ts'
import type { TransmitHost } from './transmit.ts'

const ID = {
  vendorId: 0x8086,
  deviceId: 0x100e,
  subsystemVendorId: 0x8086,
  subsystemId: 0x001e,
  revision: 3,
  classCode: 0x020000,
} as const
const MEMORY_SIZE = 0x20000
const IO_SIZE = 64
const RING_MASK = 0xfff80
const PACKET_BUFFER = 0x0030
const TYPE = 'e1000'
const PHY_ADDRESS = 1
/** Without LPE: 1522 bytes with the frame check sequence. */
const LONGEST_USUAL = 1518
const MOST_DESCRIPTORS = 256
/** Bits 47:36, 46:35, 45:34 and 43:32 of a multicast address, by RCTL.MO. */
const MULTICAST_SHIFTS = [4, 3, 2, 0] as const

export class E1000 implements Device, IoHandler, CableEnd, TransmitHost, NetworkCable {
  readonly offers: NonNullable<Device['offers']> = new Map([[NetworkCable, this]])
  /** Drivers get complete frames. */
  readonly offloads = NO_OFFLOADS
  readonly registers = new Uint32Array(Reg.end >> 2)
  readonly memory: DmaMemory
  readonly far: CableEnd
  readonly #network: NetworkBackend
  readonly #function: PciFunction
  readonly #eeprom: Eeprom
  readonly #phy = new Uint16Array(32)
  readonly #transmitter: Transmitter
  readonly #scratch = new Uint8Array(DESCRIPTOR)
  readonly #zeros = new Uint8Array(CRC)
  #ioAddress = 0
  #farOn = true
  #plugged = true
  /** A frame found no descriptors. */
  #receiveBlocked = false
  readonly #counters: CardCounters

  constructor(context: DeviceContext, network: NetworkBackend) {
    this.memory = context.dma
    this.#network = network
    this.#eeprom = new Eeprom(network.macAddress)
    this.#counters = createCardCounters(
      context.metrics,
      'frames that were malformed, filtered out, or found the card stopped',
    )
    this.#function = context.pci({
      ...ID,
      unpluggable: 'network',
      bars: {
        0: { kind: 'mmio32', size: MEMORY_SIZE, handler: this },
        1: { kind: 'io', size: IO_SIZE, handler: this.#io },
      },
      interruptPin: 'A',
    })
    this.#transmitter = new Transmitter(this)
    this.far = network.connect(this, context)
    this.#initialise()
  }

  #initialise(): void {
    const { registers } = this
    registers.fill(0)
    const mac = this.#network.macAddress
    registers[Reg.receiveAddress >> 2] = (mac[0]! | (mac[1]! << 8) | (mac[2]! << 16) | (mac[3]! << 24)) >>> 0
    registers[(Reg.receiveAddress >> 2) + 1] = (mac[4]! | (mac[5]! << 8) | ADDRESS_VALID) >>> 0
    registers[Reg.packetBuffer >> 2] = PACKET_BUFFER
    for (const [register, value] of Object.entries(PHY)) this.#phy[Number(register)] = value
    this.#transmitter.reset()
    this.#eeprom.reset()
    this.#ioAddress = 0
    this.#function.interrupt.lower()
    // There will be no room for what waits: it comes now, and is dropped.
    this.#receiveReady()
  }

  // Registers

  read(offset: number, size: IoSize): number {
    const at = offset & ~3
    const word = this.#readWord(at)
    const shifted = word >>> (8 * (offset & 3))
    return size === 4 ? shifted : shifted & (size === 1 ? 0xff : 0xffff)
  }

  #readWord(at: number): number {
    const { registers } = this
    if (at >= Reg.end) return 0
    switch (at) {
      case Reg.status:
        return Status.fullDuplex | Status.speed1000 | (this.#linkUp ? Status.linkUp : 0)
      case Reg.eecd:
        return this.#eeprom.pins
      case Reg.icr: {
        const causes = registers[Reg.icr >> 2]!
        registers[Reg.icr >> 2] = 0
        this.#update()
        return causes
      }
      case Reg.ics:
      case Reg.imc:
        return 0
    }
    const value = registers[at >> 2]!
    if (at >= Reg.statistics && at < Reg.statisticsEnd) registers[at >> 2] = 0
    return value
  }

  write(offset: number, size: IoSize, value: number): void {
    if (size !== 4 || offset % 4 !== 0 || offset >= Reg.end) return
    const { registers } = this
    switch (offset) {
      case Reg.control:
        return this.#writeControl(value)
      case Reg.status:
        return
      case Reg.eecd:
        this.#eeprom.pins = value
        return
      case Reg.eerd:
        if (value & Eerd.start)
          registers[Reg.eerd >> 2] =
            ((this.#eeprom.words[(value >>> 8) & 63]! << 16) | (value & 0xff00) | Eerd.done) >>> 0
        return
      case Reg.mdic:
        registers[Reg.mdic >> 2] = this.#phyAccess(value)
        return
      case Reg.icr:
        registers[Reg.icr >> 2]! &= ~value
        return this.#update()
      case Reg.ics:
        return this.cause(value)
      case Reg.ims:
        registers[Reg.ims >> 2]! |= value
        return this.#update()
      case Reg.imc:
        registers[Reg.ims >> 2]! &= ~value
        return this.#update()
      case Reg.rdlen:
      case Reg.tdlen:
        registers[offset >> 2] = value & RING_MASK
        return
      case Reg.rdbal:
      case Reg.tdbal:
        registers[offset >> 2] = value & ~15
        return
      case Reg.rdh:
      case Reg.tdh:
        registers[offset >> 2] = value & 0xffff
        return
      case Reg.rdt:
      case Reg.receiveControl:
        registers[offset >> 2] = offset === Reg.rdt ? value & 0xffff : value
        return this.#receiveReady()
      case Reg.tdt:
      case Reg.transmitControl:
        registers[offset >> 2] = offset === Reg.tdt ? value & 0xffff : value
        return this.#transmit()
      default:
        if (offset < Reg.statistics || offset >= Reg.statisticsEnd) registers[offset >> 2] = value
    }
  }

  #writeControl(value: number): void {
    if (value & Control.reset) return this.#initialise()
    const before = this.registers[Reg.control >> 2]!
    this.registers[Reg.control >> 2] = value & ~Control.phyReset
    // The driver switched the link on: it is notified when it is up.
    if (value & ~before & Control.setLinkUp && this.#linkUp) this.cause(Cause.linkChanged)
  }

  /** BAR 1: an address and the register there. */
  readonly #io: IoHandler = {
    read: (offset, size) =>
      (offset < 4 ? this.#ioAddress : offset === 4 ? this.read(this.#ioAddress & 0x1ffff, size) : 0) >>> 0,
    write: (offset, size, value) => {
      if (size !== 4) return
      if (offset === 0) this.#ioAddress = value
      else if (offset === 4) this.write(this.#ioAddress & 0x1ffff, 4, value)
    },
  }

  #phyAccess(value: number): number {
    const register = (value >>> 16) & 31
    const answer = (value & ~(Mdic.error | 0xffff)) | Mdic.ready
    if (((value >>> 21) & 31) !== PHY_ADDRESS) return (value | Mdic.ready | Mdic.error) >>> 0
    if (value & Mdic.write) {
      // Those of status and identity are the PHY's own; a reset or a new negotiation is over at once.
      if (register === 0) this.#phy[0] = value & 0x7dff
      else if (PHY[register] === undefined || register === 4 || register === 9 || register === 16 || register === 20)
        this.#phy[register] = value
      return (answer | (value & 0xffff)) >>> 0
    }
    return (answer | this.#phyRegister(register)) >>> 0
  }

  #phyRegister(register: number): number {
    const value = this.#phy[register]!
    if (this.#linkUp) return value
    if (register === PHY_STATUS) return value & ~PHY_LINK_BITS
    return register === PHY_SPECIFIC_STATUS ? value & ~PHY_SPECIFIC_LINK : value
  }

  // Interrupts

  cause(bits: number): void {
    this.registers[Reg.icr >> 2]! |= bits
    this.#update()
  }

  #update(): void {
    const { registers } = this
    if (registers[Reg.icr >> 2]! & registers[Reg.ims >> 2]!) this.#function.interrupt.raise()
    else this.#function.interrupt.lower()
  }

  // From the driver

  #transmit(): void {
    if (!(this.registers[Reg.transmitControl >> 2]! & TransmitControl.enable) || this.#transmitter.blocked) return
    this.#transmitter.run()
    this.far.flush()
  }

  sent(bytes: number): void {
    this.#counters.sent.value++
    this.#counters.bytesSent.value += bytes
  }

  dropped(): void {
    this.#counters.dropped.value++
  }

  ready(): void {
    if (!this.#transmitter.blocked) return
    this.#transmitter.blocked = false
    this.#transmit()
  }

  // To the driver

  #receiveReady(): void {
    if (!this.#receiveBlocked) return
    this.#receiveBlocked = false
    this.far.ready()
  }

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    const { registers } = this
    const control = registers[Reg.receiveControl >> 2]!
    const long = frame.length > LONGEST_USUAL && !(control & ReceiveControl.longPackets)
    if (
      !(control & ReceiveControl.enable) ||
      !this.#linkUp ||
      work.checksumStart >= 0 ||
      long ||
      !this.#wants(frame, control)
    ) {
      this.dropped()
      return true
    }
    const size = bufferSize(control)
    const total = frame.length + (control & ReceiveControl.stripCrc ? 0 : CRC)
    const count = registers[Reg.rdlen >> 2]! / DESCRIPTOR
    const head = registers[Reg.rdh >> 2]!
    const tail = registers[Reg.rdt >> 2]!
    const needed = Math.ceil(total / size)
    if (head >= count || tail >= count || needed > MOST_DESCRIPTORS || needed >= count) {
      this.dropped()
      return true
    }
    if ((tail - head + count) % count < needed) {
      this.#receiveBlocked = true
      this.cause(Cause.overrun)
      return false
    }
    this.#spread(frame, total, size, head, count)
    this.#counters.received.value++
    this.#counters.bytesReceived.value += frame.length
    return true
  }

  #spread(frame: Uint8Array, total: number, size: number, head: number, count: number): void {
    const { registers, memory } = this
    const base = registers[Reg.rdbah >> 2]! * 2 ** 32 + registers[Reg.rdbal >> 2]!
    for (let done = 0; done < total; done += size) {
      const at = base + head * DESCRIPTOR
      const length = Math.min(size, total - done)
      // A descriptor, or a buffer, outside memory takes nothing; what follows is not held up.
      if (memory.readBytes(at, this.#scratch)) {
        const address = word(this.#scratch, 4) * 2 ** 32 + word(this.#scratch, 0)
        const bytes = Math.max(0, Math.min(length, frame.length - done))
        if (bytes > 0) memory.writeBytes(address, frame.subarray(done, done + bytes))
        if (bytes < length) memory.writeBytes(address + bytes, this.#zeros.subarray(0, length - bytes))
        memory.writeU16(at + Rx.length, length)
        const last = done + length >= total
        memory.writeU32(at + Rx.status, RxStatus.done | RxStatus.ignoreChecksum | (last ? RxStatus.end : 0))
      }
      head = head + 1 === count ? 0 : head + 1
    }
    registers[Reg.rdh >> 2] = head
  }

  #wants(frame: Uint8Array, control: number): boolean {
    const { registers } = this
    if (control & ReceiveControl.vlanFilter && frame[12] === 0x81 && frame[13] === 0) {
      const id = ((frame[14]! << 8) | frame[15]!) & 0xfff
      if (!(registers[(Reg.vlanTable >> 2) + (id >> 5)]! & (1 << (id & 31)))) return false
    }
    if (frame[0]! & 1) {
      if (frame.subarray(0, 6).every((byte) => byte === 0xff))
        return (control & (ReceiveControl.broadcast | ReceiveControl.multicastPromiscuous)) !== 0
      if (control & ReceiveControl.multicastPromiscuous) return true
      const hash = (((frame[5]! << 8) | frame[4]!) >> MULTICAST_SHIFTS[(control >> 12) & 3]!) & 0xfff
      if (registers[(Reg.multicastTable >> 2) + (hash >> 5)]! & (1 << (hash & 31))) return true
    } else if (control & ReceiveControl.unicastPromiscuous) return true
    const low = word(frame, 0)
    const high = frame[4]! | (frame[5]! << 8)
    for (let index = 0; index < 16; index++) {
      const at = (Reg.receiveAddress >> 2) + 2 * index
      if (registers[at] === low && registers[at + 1]! & ADDRESS_VALID && (registers[at + 1]! & 0xffff) === high)
        return true
    }
    return false
  }

  flush(): void {
    // Frames since the last: one interrupt for all of them.
    if (this.#counters.received.value === this.#told) return
    this.#told = this.#counters.received.value
    this.cause(Cause.received)
  }

  /** Frames that the driver was notified of. */
  #told = 0

  // The link

  get #linkUp(): boolean {
    return this.#farOn && this.#plugged
  }

  carrier(on: boolean): void {
    this.#farOn = on
    this.cause(Cause.linkChanged)
  }

  get plugged(): boolean {
    return this.#plugged
  }

  plug(on: boolean): void {
    if (this.#plugged === on) return
    this.#plugged = on
    this.far.carrier(on)
    this.cause(Cause.linkChanged)
  }

  // Life

  reset(): void {
    this.#initialise()
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        registers: Array.from(this.registers),
        phy: Array.from(this.#phy),
        eeprom: this.#eeprom.save(),
        context: this.#transmitter.context.slice(),
        ioAddress: this.#ioAddress,
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.#initialise()
    this.registers.set(data['registers'] as number[])
    this.#phy.set(data['phy'] as number[])
    this.#eeprom.restore(data['eeprom'] as number[])
    this.#transmitter.context.set(data['context'] as Uint8Array)
    this.#ioAddress = data['ioAddress'] as number
    this.#update()
  }

  async dispose(): Promise<void> {
    await this.#network.close()
  }
}

const word = (bytes: Uint8Array, at: number): number =>
  (bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24)) >>> 0

/** RCTL.BSIZE and BSEX. */
const bufferSize = (control: number): number => {
  const size = 2048 >> ((control >>> 16) & 3)
  return control & ReceiveControl.sizeExtension && size < 2048 ? size * 16 : size
}
