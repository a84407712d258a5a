/** The PC's interrupt controller: local APICs, I/O APIC and 8259 pair as one. Independent of CPU modes and devices. @hot */

import { snapshotData, VcpuSignal } from '@nonroot/contracts'
import type {
  Counter,
  DeviceContext,
  EoiAssist,
  X86InterruptController,
  InterruptLine,
  InterruptSink,
  IoHandler,
  IoRegion,
  IoSize,
  MessageInterrupts,
  Snapshot,
  VcpuVectors,
} from '@nonroot/contracts'
import { PicPair } from '../pic8259.ts'
import { GsiInput, GsiLine } from './gsi-line.ts'
import { IO_APIC_PINS, IO_APIC_REQUESTER, IoApic } from './io-apic.ts'
import { LocalApic } from './local-apic.ts'
import type { ApicBus } from './local-apic.ts'
import { APIC_DEFAULT_BASE, ApicMsr, ApicRegister, BROADCAST, DeliveryMode, Icr, Shorthand } from './registers.ts'
import { X2APIC_READABLE, X2APIC_WRITABLE, x2apicRegister } from './x2apic.ts'

export interface PcInterruptControllerOptions {
  readonly vcpuCount: number
  /** Undefined: local APICs alone, without I/O APIC and 8259 pair. */
  readonly ioApicAddress: number | undefined
  /** Where the I/O APIC's messages go. Default: to the local APICs. */
  readonly ioApicMessages?: MessageInterrupts
}

const NO_SINK: InterruptSink = { wake: () => {} }
/** The timer (ISA IRQ 0) is wired to pin 2, the cascade's place. */
const TIMER_GSI = 2
const ISA_LINES = 16

const MOST_NMIS = 2

/** MSI address and data. (SDM Vol. 3A, "Message Signalled Interrupts") */
const Message = { base: 0xfee, logical: 0x4, level: 0x8000 } as const

const TYPE = 'pc-interrupts'

export class PcInterruptController implements X86InterruptController, ApicBus, VcpuVectors {
  readonly lines: number
  readonly messages: MessageInterrupts
  assist: EoiAssist | undefined
  readonly #apics: readonly LocalApic[]
  readonly #ioApic: IoApic | undefined
  readonly #pic: PicPair | undefined
  readonly #inputs: readonly GsiInput[]
  readonly #signals: Uint8Array
  /** NMIs behind the signal: one that is about to be taken, and one that a processor keeps meanwhile. Further ones merge with it. */
  readonly #nmis: Uint8Array
  readonly #startupVectors: Uint8Array
  readonly #awaitsStartup: Uint8Array
  /** Vectors that no local APIC knows of, 0 none. */
  readonly #external: Uint8Array
  readonly #page: IoRegion
  readonly #setGsi = (gsi: number, asserted: boolean): void => this.#set(gsi, asserted)
  #sink: InterruptSink = NO_SINK
  /** Whose local APIC answers at its page: the vCPU that runs, which is the one that last asked what is pending. */
  #running = 0
  /** Where the next search for a lowest-priority processor starts. */
  #turn = 0
  readonly #interprocessor: Counter
  readonly #delivered: Counter
  readonly #ignored: Counter

  constructor(context: DeviceContext, options: PcInterruptControllerOptions) {
    const { vcpuCount } = options
    this.#interprocessor = context.metrics.counter('interprocessor', 'interprocessor interrupts sent')
    this.#delivered = context.metrics.counter('delivered', 'vectors acknowledged by vCPUs')
    this.#ignored = context.metrics.counter('ignored', 'messages that reached no vCPU or mean nothing')
    this.#apics = Array.from({ length: vcpuCount }, (_, index) => new LocalApic(index, context.clock, this))
    this.#signals = new Uint8Array(vcpuCount)
    this.#nmis = new Uint8Array(vcpuCount)
    this.#startupVectors = new Uint8Array(vcpuCount)
    this.#external = new Uint8Array(vcpuCount)
    this.#awaitsStartup = Uint8Array.from({ length: vcpuCount }, (_, index) => (index === 0 ? 0 : 1))
    const { ioApicAddress } = options
    this.messages = {
      send: (address, data, _requester, destination) => this.#message(address, data, destination),
    }
    this.lines = ioApicAddress === undefined ? 0 : IO_APIC_PINS
    this.#inputs = Array.from({ length: this.lines }, (_, gsi) => new GsiInput(gsi))
    if (ioApicAddress !== undefined) {
      this.#ioApic = new IoApic(
        context,
        ioApicAddress,
        (address, data) => (options.ioApicMessages ?? this.messages).send(address, data, IO_APIC_REQUESTER),
        (pin) => this.#inputs[pin]!.end(),
      )
      this.#pic = new PicPair(context)
      this.#pic.onOutput = () => this.#wakeForPic()
    }
    const page: IoHandler = {
      read: (offset, size) => this.#readPage(offset, size),
      write: (offset, size, value) => this.#writePage(offset, size, value),
    }
    this.#page = context.mmio({ at: APIC_DEFAULT_BASE, length: 0x1000 }, page)
  }

  attach(sink: InterruptSink): void {
    this.#sink = sink
  }

  setEoiAssist(assist: EoiAssist): void {
    this.assist = assist
  }

  // Inputs

  line(gsi: number): InterruptLine | undefined {
    const input = this.#inputs[gsi]
    return input && new GsiLine(input, this.#setGsi)
  }

  #set(gsi: number, asserted: boolean): void {
    // GSI 0 is the I/O APIC's first pin and nothing else; the timer is GSI 2.
    if (gsi === TIMER_GSI) this.#pic?.setLine(0, asserted)
    else if (gsi > 0 && gsi < ISA_LINES) this.#pic?.setLine(gsi, asserted)
    this.#ioApic?.setPin(gsi, asserted)
  }

  #wakeForPic(): void {
    for (let index = 0; index < this.#apics.length; index++) if (this.#apics[index]!.acceptsExtInt()) this.wake(index)
  }

  #message(address: number, data: number, remapped: number | undefined): void {
    if (address >= 2 ** 32 || address >>> 20 !== Message.base) {
      this.#ignored.value++
      return
    }
    const short = (address >>> 12) & 0xff
    const logical = (address & Message.logical) !== 0
    this.#route(
      remapped ?? (short === 0xff ? BROADCAST : short),
      logical,
      (data >> 8) & 7,
      data & 0xff,
      (data & Message.level) !== 0,
    )
  }

  // Between local APICs

  #route(destination: number, logical: boolean, deliveryMode: number, vector: number, level: boolean): void {
    if (deliveryMode === DeliveryMode.lowestPriority) {
      const apic = this.#lowestPriority(destination, logical)
      if (apic) apic.accept(vector, level)
      else this.#ignored.value++
      return
    }
    let reached = false
    for (let index = 0; index < this.#apics.length; index++) {
      const apic = this.#apics[index]!
      if (destination !== BROADCAST && !apic.matches(destination, logical)) continue
      reached = true
      this.#deliver(apic, deliveryMode, vector, level)
    }
    if (!reached) this.#ignored.value++
  }

  #deliver(apic: LocalApic, deliveryMode: number, vector: number, level: boolean): void {
    if (deliveryMode <= DeliveryMode.lowestPriority) apic.accept(vector, level)
    else if (deliveryMode === DeliveryMode.startup) this.#startup(apic.index, vector)
    else this.signal(apic.index, deliveryMode)
  }

  /** The one that does the least important work; among equals they take turns. */
  #lowestPriority(destination: number, logical: boolean): LocalApic | undefined {
    const count = this.#apics.length
    let best: LocalApic | undefined
    for (let step = 0; step < count; step++) {
      const apic = this.#apics[(this.#turn + step) % count]!
      if (destination !== BROADCAST && !apic.matches(destination, logical)) continue
      if (!best || apic.processorPriority() < best.processorPriority()) best = apic
    }
    if (best) this.#turn = (best.index + 1) % count
    return best
  }

  send(sender: LocalApic, command: number, destination: number): void {
    this.#interprocessor.value++
    const deliveryMode = (command >> 8) & 7
    const vector = command & Icr.vector
    const level = (command & Icr.level) !== 0
    // INIT level de-assert only resynchronised arbitration IDs, which there are no more.
    if (deliveryMode === DeliveryMode.init && level && !(command & Icr.assert)) return
    if (deliveryMode <= DeliveryMode.lowestPriority && vector < 16) return sender.sendError()
    const shorthand = command & Icr.shorthand
    if (shorthand === Shorthand.none) {
      const everybody = destination === (sender.x2apic ? BROADCAST : 0xff)
      this.#route(everybody ? BROADCAST : destination, (command & Icr.logical) !== 0, deliveryMode, vector, false)
      return
    }
    for (let index = 0; index < this.#apics.length; index++) {
      const apic = this.#apics[index]!
      const self = apic === sender
      if (shorthand === Shorthand.all || self === (shorthand === Shorthand.self))
        this.#deliver(apic, deliveryMode, vector, false)
    }
  }

  endOfInterrupt(vector: number): void {
    this.#ioApic?.endOfInterrupt(vector)
  }

  wake(vcpu: number): void {
    this.#sink.wake(vcpu)
  }

  signal(vcpu: number, deliveryMode: number): void {
    if (deliveryMode === DeliveryMode.nmi) {
      this.#signals[vcpu]! |= VcpuSignal.nmi
      this.#nmis[vcpu] = Math.min(MOST_NMIS, this.#nmis[vcpu]! + 1)
    } else if (deliveryMode === DeliveryMode.smi) this.#signals[vcpu]! |= VcpuSignal.smi
    else if (deliveryMode === DeliveryMode.init)
      this.#signals[vcpu] = (this.#signals[vcpu]! & ~VcpuSignal.startup) | VcpuSignal.init
    else {
      this.#ignored.value++
      return
    }
    this.wake(vcpu)
  }

  /** Heard only by a processor that waits for it, or will once it has taken its INIT. */
  #startup(vcpu: number, vector: number): void {
    const willWait = (this.#signals[vcpu]! & VcpuSignal.init) !== 0 && vcpu !== 0
    if (!willWait && !this.#awaitsStartup[vcpu]) return
    this.#signals[vcpu]! |= VcpuSignal.startup
    this.#startupVectors[vcpu] = vector
    this.wake(vcpu)
  }

  /** By the hypervisor itself. */
  raise(vcpu: number, vector: number): void {
    this.#apics[vcpu]!.acceptOrKeep(vector)
  }

  raiseExternal(vcpu: number, vector: number): void {
    this.#external[vcpu] = vector
    this.wake(vcpu)
  }

  // The vCPU's side

  hasPending(vcpu: number): boolean {
    this.#running = vcpu
    const apic = this.#apics[vcpu]!
    return (
      this.#external[vcpu] !== 0 ||
      apic.pending() ||
      (this.#pic !== undefined && this.#pic.output && apic.acceptsExtInt())
    )
  }

  acknowledge(vcpu: number): number {
    const apic = this.#apics[vcpu]!
    const pic = this.#pic
    const external = this.#external[vcpu]!
    this.#external[vcpu] = 0
    const vector = external || (pic?.output && apic.acceptsExtInt() ? pic.acknowledge() : apic.acknowledge())
    if (vector >= 0) this.#delivered.value++
    return vector
  }

  signals(vcpu: number): number {
    return this.#signals[vcpu]!
  }

  takeSignal(vcpu: number, signal: number): number {
    if (!(this.#signals[vcpu]! & signal)) return 0
    if (signal === VcpuSignal.nmi && --this.#nmis[vcpu]! > 0) return 0
    this.#signals[vcpu]! &= ~signal
    if (signal === VcpuSignal.init) {
      this.#apics[vcpu]!.reset('init')
      // After INIT the bootstrap processor starts at the reset vector, the others wait.
      this.#awaitsStartup[vcpu] = vcpu === 0 ? 0 : 1
    }
    if (signal !== VcpuSignal.startup) return 0
    this.#awaitsStartup[vcpu] = 0
    return this.#startupVectors[vcpu]!
  }

  readTaskPriority(vcpu: number): number {
    return this.#apics[vcpu]!.taskPriority >> 4
  }

  writeTaskPriority(vcpu: number, priority: number): void {
    this.#apics[vcpu]!.taskPriority = (priority & 15) << 4
  }

  // Registers

  #readPage(offset: number, size: IoSize): number {
    const apic = this.#apics[this.#running]!
    if (!apic.enabled || apic.x2apic) return size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff
    const value = offset & 0xc ? 0 : apic.readRegister(offset & 0xff0)
    return size === 4 ? value : (value >>> (8 * (offset & 3))) & (size === 2 ? 0xffff : 0xff)
  }

  #writePage(offset: number, size: IoSize, value: number): void {
    const apic = this.#apics[this.#running]!
    // Registers are written whole. (SDM Vol. 3A, "The Local APIC Block Diagram")
    if (!apic.enabled || apic.x2apic || size !== 4 || offset & 0xf) return
    apic.writeRegister(offset, value)
  }

  readMsr(vcpu: number, index: number): bigint | undefined {
    const apic = this.#apics[vcpu]!
    if (index === ApicMsr.base) return BigInt(apic.base)
    if (index === ApicMsr.tscDeadline) return apic.timer.state.tscDeadline
    const register = x2apicRegister(index)
    if (register < 0 || !apic.x2apic || !X2APIC_READABLE.has(register)) return undefined
    if (register !== ApicRegister.interruptCommandLow) return BigInt(apic.readRegister(register))
    return (BigInt(apic.readRegister(ApicRegister.interruptCommandHigh)) << 32n) | BigInt(apic.readRegister(register))
  }

  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined {
    const apic = this.#apics[vcpu]!
    // First what comes with every interrupt, without arithmetic on BigInt.
    if (index === ApicMsr.endOfInterrupt && apic.x2apic && value === 0n) {
      apic.writeRegister(ApicRegister.endOfInterrupt, 0)
      return true
    }
    if (index === ApicMsr.base) return this.#writeBase(apic, value)
    if (index === ApicMsr.tscDeadline) {
      apic.timer.setTscDeadline(value)
      return true
    }
    const register = x2apicRegister(index)
    if (register < 0) return undefined
    const writable = X2APIC_WRITABLE.get(register)
    if (!apic.x2apic || writable === undefined || value & ~writable) return false
    if (register === ApicRegister.interruptCommandLow)
      apic.writeRegister(ApicRegister.interruptCommandHigh, Number(value >> 32n))
    apic.writeRegister(register, Number(value & 0xffff_ffffn))
    return true
  }

  #writeBase(apic: LocalApic, value: bigint): boolean {
    if (value >> PHYSICAL_ADDRESS_BITS || !apic.setBase(Number(value))) return false
    // One page for all: it is where the last one put it. Guests do not move them apart.
    const page = apic.base - (apic.base % 0x1000)
    if (page !== this.#page.base) this.#page.move(page)
    return true
  }

  // All of it

  reset(vcpu?: number): void {
    if (vcpu !== undefined) {
      this.#external[vcpu] = 0
      return this.#apics[vcpu]!.reset('init')
    }
    for (const apic of this.#apics) apic.reset('powerUp')
    this.#ioApic?.reset()
    this.#pic?.reset()
    this.#signals.fill(0)
    this.#nmis.fill(0)
    this.#startupVectors.fill(0)
    this.#external.fill(0)
    this.#awaitsStartup.fill(1)
    this.#awaitsStartup[0] = 0
    this.#running = this.#turn = 0
    if (this.#page.base !== APIC_DEFAULT_BASE) this.#page.move(APIC_DEFAULT_BASE)
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        apics: this.#apics.map((apic) => ({ ...apic.save().data })),
        ...(this.#ioApic ? { ioApic: this.#ioApic.save().data } : {}),
        ...(this.#pic ? { pic: this.#pic.save().data } : {}),
        signals: this.#signals.slice(),
        nmis: this.#nmis.slice(),
        startupVectors: this.#startupVectors.slice(),
        awaitsStartup: this.#awaitsStartup.slice(),
        external: this.#external.slice(),
        turn: this.#turn,
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    const apics = data['apics'] as Snapshot['data'][]
    this.#apics.forEach((apic, index) => apic.restore({ type: 'local-apic', version: 1, data: apics[index] ?? {} }))
    this.#ioApic?.restore({ type: 'io-apic', version: 1, data: data['ioApic'] as Snapshot['data'] })
    this.#pic?.restore({ type: 'pic8259', version: 1, data: data['pic'] as Snapshot['data'] })
    this.#signals.set(data['signals'] as Uint8Array)
    this.#nmis.set(data['nmis'] as Uint8Array)
    this.#startupVectors.set(data['startupVectors'] as Uint8Array)
    this.#awaitsStartup.set(data['awaitsStartup'] as Uint8Array)
    this.#external.set((data['external'] as Uint8Array | undefined) ?? new Uint8Array(this.#external.length))
    this.#turn = data['turn'] as number
    const page = this.#apics[0]!.base - (this.#apics[0]!.base % 0x1000)
    if (page !== this.#page.base) this.#page.move(page)
  }
}

const PHYSICAL_ADDRESS_BITS = 52n
