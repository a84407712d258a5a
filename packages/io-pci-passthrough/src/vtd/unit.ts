/**
 * A remapping unit (DRHD): its registers, and what they switch. The parts behind them are translation, interrupt remapping, the invalidation queue and
 * the fault log. ("Register Descriptions")
 */

import { snapshotData } from '@nonroot/contracts'
import type {
  Device,
  DmaMemory,
  DmaRequester,
  Iommu,
  IoHandler,
  IoModelContext,
  IoSize,
  Snapshot,
} from '@nonroot/contracts'
import {
  CAPABILITY,
  EXTENDED_CAPABILITY,
  FAULT_RECORDS,
  FAULT_RECORD_SIZE,
  Global,
  Register,
  REGISTERS_SIZE,
  VERSION,
} from './facts.ts'
import { EventRegisters, FaultLog } from './faults.ts'
import { InterruptRemapping, type Deliver } from './interrupts.ts'
import { InvalidationQueue, invalidateContexts, invalidatePages } from './invalidation-queue.ts'
import { Leases } from './leases.ts'
import { TranslatedMemory } from './translated-memory.ts'
import { Translation } from './translation.ts'

const FAULTS_END = Register.faults + FAULT_RECORDS * FAULT_RECORD_SIZE
/** Bit 63 of the two invalidation commands, in their upper halves: in progress. */
const IN_PROGRESS = 2 ** 31
const EXTENDED_INTERRUPTS = 1 << 11
const TYPE = 'remapping-unit'
/** The unit's own messages are not remapped. */
const ITSELF = -1

export class RemappingUnit implements Device, Iommu, IoHandler {
  readonly #memory: DmaMemory
  readonly #translation: Translation
  readonly #interrupts: InterruptRemapping
  readonly #queue: InvalidationQueue
  readonly #faults: FaultLog
  readonly #completion: EventRegisters
  readonly #leases = new Leases()
  readonly #context: IoModelContext
  /** What software wrote and the unit has not acted on, by register. */
  readonly #written = new Uint32Array(REGISTERS_SIZE / 4)
  #latched = 0

  readonly #bypass: boolean

  /** `bypass`: devices that are no PCI function are not behind it, and reach memory directly. */
  constructor(context: IoModelContext, bypass: boolean) {
    this.#bypass = bypass
    this.#context = context
    this.#memory = context.dma
    const { metrics } = context
    const send = (address: number, data: number): void => context.messageInterrupts.send(address, data, ITSELF)
    this.#faults = new FaultLog(new EventRegisters(send))
    this.#completion = new EventRegisters(send)
    const report = (requester: number, address: number, write: boolean, reason: number): void => {
      context.log.debug(() => `blocked ${requester.toString(16)} at 0x${address.toString(16)}: reason ${reason}`)
      this.#faults.record(requester & 0xffff, address, write, reason)
    }
    this.#translation = new Translation(this.#memory, report, metrics)
    this.#interrupts = new InterruptRemapping(this.#memory, report, metrics)
    this.#queue = new InvalidationQueue({
      ...{ memory: this.#memory, translation: this.#translation, leases: this.#leases, metrics },
      event: this.#completion,
      failed: () => this.#faults.queueError(),
    })
  }

  // For devices

  attach(requester: DmaRequester, memory: DmaMemory): DmaMemory {
    const message = (from: number, address: number, data: number): void =>
      this.#context.messageInterrupts.send(address, data, from)
    const [translation, leases, bypass] = [this.#translation, this.#leases, this.#bypass]
    return new TranslatedMemory({ requester, memory, translation, leases, message, bypass })
  }

  interrupt(requester: number | undefined, address: number, data: number, deliver: Deliver): void {
    if (requester === ITSELF) deliver(address, data)
    else this.#interrupts.message(requester ?? 0xffff, address, data, deliver)
  }

  // Registers

  read(offset: number, size: IoSize): number {
    const word = this.#readWord(offset & ~3) >>> 0
    return size === 4 ? word : (word >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff)
  }

  #readWord(offset: number): number {
    if (offset >= Register.faults && offset < FAULTS_END) return this.#faults.records[(offset - Register.faults) >> 2]!
    switch (offset) {
      case Register.version:
        return VERSION
      case Register.capability:
        return CAPABILITY.low
      case Register.capability + 4:
        return CAPABILITY.high
      case Register.extendedCapability:
        return EXTENDED_CAPABILITY.low
      case Register.extendedCapability + 4:
        return EXTENDED_CAPABILITY.high
      case Register.status:
        return this.#status()
      case Register.faultStatus:
        return this.#faults.statusRegister
      case Register.faultControl:
      case Register.faultData:
      case Register.faultAddress:
      case Register.faultUpperAddress:
        return this.#faults.event.words[(offset - Register.faultControl) >> 2]!
      case Register.completionStatus:
        return this.#queue.completed ? 1 : 0
      case Register.completionControl:
      case Register.completionData:
      case Register.completionAddress:
      case Register.completionUpperAddress:
        return this.#completion.words[(offset - Register.completionControl) >> 2]!
      case Register.queueHead:
        return this.#queue.head << 4
      case Register.queueTail:
        return this.#queue.tail << 4
      case Register.rootTable:
      case Register.rootTable + 4:
      case Register.contextCommand:
      case Register.contextCommand + 4:
      case Register.queueAddress:
      case Register.queueAddress + 4:
      case Register.remappingTable:
      case Register.remappingTable + 4:
      case Register.invalidateCommand:
      case Register.invalidateCommand + 4:
        return this.#written[offset >> 2]!
      default:
        return 0
    }
  }

  #status(): number {
    const { enabled } = this.#translation
    return (
      (enabled ? Global.translation : 0) +
      this.#latched +
      (this.#queue.enabled ? Global.queue : 0) +
      (this.#interrupts.enabled ? Global.interruptRemapping : 0) +
      (this.#interrupts.compatibility ? Global.compatibilityFormat : 0)
    )
  }

  /** Doublewords; smaller accesses have no effect. */
  write(offset: number, size: IoSize, value: number): void {
    if (size !== 4 || offset % 4 !== 0) return
    if (offset >= Register.faults && offset < FAULTS_END)
      return this.#faults.writeRecord((offset - Register.faults) >> 2, value)
    this.#written[offset >> 2] = value
    switch (offset) {
      case Register.command:
        return this.#command(value >>> 0)
      case Register.contextCommand + 4:
        return this.#contextCommand(value >>> 0)
      case Register.invalidateCommand + 4:
        return this.#invalidateCommand(value >>> 0)
      case Register.faultStatus:
        this.#faults.writeStatus(value)
        // The queue goes on when its error is cleared.
        if (value & (1 << 4)) {
          this.#queue.stopped = false
          this.#queue.run()
        }
        return
      case Register.faultControl:
      case Register.faultData:
      case Register.faultAddress:
      case Register.faultUpperAddress:
        return this.#faults.event.write((offset - Register.faultControl) >> 2, value >>> 0)
      case Register.completionStatus:
        if (value & 1) {
          this.#queue.completed = false
          this.#completion.settle()
        }
        return
      case Register.completionControl:
      case Register.completionData:
      case Register.completionAddress:
      case Register.completionUpperAddress:
        return this.#completion.write((offset - Register.completionControl) >> 2, value >>> 0)
      case Register.queueTail:
        this.#queue.tail = (value & 0x7_fff0) >> 4
        return this.#queue.run()
      case Register.queueAddress:
        this.#queue.order = value & 7
    }
  }

  #address(register: number): number {
    const low = this.#written[register >> 2]!
    return low - (low % 4096) + this.#written[(register >> 2) + 1]! * 2 ** 32
  }

  #command(value: number): void {
    const on = (bit: number): boolean => Math.floor(value / bit) % 2 === 1
    const { translation, interrupts, queue } = {
      translation: this.#translation,
      interrupts: this.#interrupts,
      queue: this.#queue,
    }
    if (on(Global.rootTable)) {
      translation.rootTable = this.#address(Register.rootTable)
      this.#latch(Global.rootTable)
    }
    if (on(Global.remappingTable)) {
      const low = this.#written[Register.remappingTable >> 2]!
      interrupts.table = this.#address(Register.remappingTable)
      interrupts.entries = 2 ** ((low & 0xf) + 1)
      interrupts.extended = (low & EXTENDED_INTERRUPTS) !== 0
      this.#latch(Global.remappingTable)
    }
    translation.enabled = on(Global.translation)
    interrupts.enabled = on(Global.interruptRemapping)
    interrupts.compatibility = on(Global.compatibilityFormat)
    if (queue.enabled && !on(Global.queue)) queue.head = 0
    queue.enabled = on(Global.queue)
    queue.address = this.#address(Register.queueAddress)
    queue.run()
  }

  #latch(bit: number): void {
    if (Math.floor(this.#latched / bit) % 2 === 0) this.#latched += bit
  }

  // Invalidation by registers

  #contextCommand(high: number): void {
    const granularity = (high >>> 29) & 3
    if (high < IN_PROGRESS || granularity === 0) return
    const low = this.#written[Register.contextCommand >> 2]!
    invalidateContexts(this.#translation, granularity, low & 0xffff, low >>> 16, high & 3)
    // Done; the actual granularity is the requested one.
    this.#written[(Register.contextCommand + 4) >> 2] = (high % 2 ** 27) + granularity * 2 ** 27 + granularity * 2 ** 29
  }

  #invalidateCommand(high: number): void {
    const granularity = (high >>> 28) & 3
    if (high < IN_PROGRESS || granularity === 0) return
    const low = this.#written[Register.invalidateAddress >> 2]!
    const page = (low >>> 12) + this.#written[(Register.invalidateAddress + 4) >> 2]! * 2 ** 20
    invalidatePages(this.#translation, this.#leases, granularity, high & 0xffff, page, low & 0x3f)
    this.#written[(Register.invalidateCommand + 4) >> 2] =
      (high % 2 ** 25) + granularity * 2 ** 25 + granularity * 2 ** 28
  }

  // Life

  /** Without the caches: hardware may drop them at any time. Transfers in progress have ended (`quiesce` of the devices). */
  save(): Snapshot {
    const { enabled, rootTable } = this.#translation
    const { compatibility, table, entries, extended } = this.#interrupts
    const { address, order, head, tail, completed, stopped } = this.#queue
    return {
      type: TYPE,
      version: 1,
      data: {
        written: Array.from(this.#written),
        latched: this.#latched,
        translation: { enabled, rootTable },
        interrupts: { enabled: this.#interrupts.enabled, compatibility, table, entries, extended },
        queue: { enabled: this.#queue.enabled, address, order, head, tail, completed, stopped },
        completion: Array.from(this.#completion.words),
        faults: this.#faults.save(),
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.reset()
    this.#written.set(data['written'] as number[])
    this.#latched = data['latched'] as number
    Object.assign(this.#translation, data['translation'])
    Object.assign(this.#interrupts, data['interrupts'])
    Object.assign(this.#queue, data['queue'])
    this.#completion.words.set(data['completion'] as number[])
    this.#faults.restore(data['faults'] as Snapshot['data'])
  }

  reset(): void {
    this.#written.fill(0)
    this.#latched = 0
    this.#translation.reset()
    this.#interrupts.reset()
    this.#queue.reset()
    this.#faults.reset()
    this.#completion.reset()
  }
}
