/** NVMe controller with one namespace, as a PCI function: registers and interrupts. Queues and commands are in `controller.ts`. (NVM Express Base Specification 1.4, "Controller Registers") */

import { snapshotData } from '@nonroot/contracts'
import type { BlockBackend, Device, DeviceContext, IoHandler, IoSize, PciFunction, Snapshot } from '@nonroot/contracts'
import { restoreState, saveState } from '../state.ts'
import { AdminCommands } from './admin.ts'
import { Controller } from './controller.ts'
import {
  BAR_SIZE,
  CAPABILITIES,
  Configuration,
  ControllerStatus,
  DOORBELLS,
  Event,
  MOST_PAGES_LOG2,
  PAGE,
  Register,
  VERSION,
} from './facts.ts'
import { Namespace } from './namespace.ts'
import type { CompletionQueue } from './queues.ts'

/** Of an Optane: drivers know it, and it needs no quirk. */
const ID = { vendorId: 0x8086, deviceId: 0x2700, classCode: 0x010802 } as const
/** I/O queue pairs. */
const QUEUES = 16
const TYPE = 'nvme'

const powerOn = () => ({
  configuration: 0,
  status: 0,
  attributes: 0,
  submission: 0,
  submissionHigh: 0,
  completion: 0,
  completionHigh: 0,
  /** Pin-based interrupts masked, by vector. */
  masked: 0,
})

export class Nvme implements Device, IoHandler {
  readonly #function: PciFunction
  readonly #backend: BlockBackend
  readonly #controller: Controller
  readonly #admin: AdminCommands
  readonly #state = powerOn()
  readonly #unlisten: (() => void) | undefined
  /** Enabled before what was in progress had ended: becomes ready then. */
  #starting = false

  constructor(context: DeviceContext, backend: BlockBackend, options: { readonly serial: string }) {
    this.#backend = backend
    const memory = context.dma
    const namespace = new Namespace(backend, memory, PAGE << MOST_PAGES_LOG2, context)
    this.#admin = new AdminCommands({
      memory,
      namespace,
      queues: QUEUES,
      completeEvent: (id, outcome) => this.#controller.completeEvent(id, outcome),
      facts: () => ({
        serial: options.serial,
        vendorId: ID.vendorId,
        subsystemVendorId: ID.vendorId,
        sectors: namespace.sectors,
        sectorSize: backend.sectorSize,
        readOnly: backend.readOnly,
        discard: backend.discard !== undefined,
      }),
    })
    this.#controller = new Controller({
      memory,
      namespace,
      admin: this.#admin,
      queues: QUEUES,
      notify: (queue) => this.#notify(queue),
      fatal: () => void (this.#state.status |= ControllerStatus.fatal),
    })
    this.#function = context.pci({
      ...ID,
      unpluggable: 'nvme',
      bars: { 0: { kind: 'mmio64', size: BAR_SIZE, handler: this } },
      msixVectors: QUEUES + 1,
      interruptPin: 'A',
    })
    this.#unlisten = backend.onResize?.(() => this.#admin.report(Event.namespaceChanged))
  }

  // Interrupts

  #notify({ vector }: CompletionQueue): void {
    if (this.#function.msixEnabled) this.#function.signal(vector)
    else this.#updatePin()
  }

  /** Asserted while there is something to read in a queue that interrupts. */
  #updatePin(): void {
    let pending = false
    for (const { interrupts, unread, vector } of this.#controller.completion.values())
      pending ||= interrupts && unread && !(this.#state.masked & (1 << vector))
    if (pending && !this.#function.msixEnabled) this.#function.interrupt.raise()
    else this.#function.interrupt.lower()
  }

  // Registers

  read(offset: number, size: IoSize): number {
    const word = this.#readWord(offset & ~3)
    if (size === 4) return word >>> 0
    return (word >>> (8 * (offset & 3))) & (size === 1 ? 0xff : 0xffff)
  }

  #readWord(offset: number): number {
    const state = this.#state
    switch (offset) {
      case Register.capabilities:
        return CAPABILITIES.low
      case Register.capabilitiesHigh:
        return CAPABILITIES.high
      case Register.version:
        return VERSION
      case Register.interruptMaskSet:
      case Register.interruptMaskClear:
        return state.masked
      case Register.configuration:
        return state.configuration
      case Register.status:
        return this.#status()
      case Register.adminQueueAttributes:
        return state.attributes
      case Register.adminSubmission:
        return state.submission
      case Register.adminSubmission + 4:
        return state.submissionHigh
      case Register.adminCompletion:
        return state.completion
      case Register.adminCompletion + 4:
        return state.completionHigh
      default:
        // Reads of doorbells are undefined; of everything else there is nothing.
        return 0
    }
  }

  #status(): number {
    const state = this.#state
    if (this.#controller.settled) {
      if (this.#starting) this.#start()
      else if (!(state.configuration & Configuration.enable)) state.status &= ~ControllerStatus.ready
    }
    return state.status
  }

  /** Doublewords; smaller accesses have no effect. */
  write(offset: number, size: IoSize, value: number): void {
    if (size !== 4 || offset % 4 !== 0) return
    if (offset >= DOORBELLS) {
      this.#controller.ring((offset - DOORBELLS) >> 2, value & 0xffff)
      // The driver has read what there was.
      if (!this.#function.msixEnabled) this.#updatePin()
      return
    }
    const state = this.#state
    switch (offset) {
      case Register.interruptMaskSet:
        state.masked = (state.masked | value) >>> 0
        return this.#updatePin()
      case Register.interruptMaskClear:
        state.masked = (state.masked & ~value) >>> 0
        return this.#updatePin()
      case Register.configuration:
        return this.#configure(value)
      case Register.adminQueueAttributes:
        state.attributes = value & 0x0fff_0fff
        return
      case Register.adminSubmission:
        state.submission = (value & -PAGE) >>> 0
        return
      case Register.adminSubmission + 4:
        state.submissionHigh = value
        return
      case Register.adminCompletion:
        state.completion = (value & -PAGE) >>> 0
        return
      case Register.adminCompletion + 4:
        state.completionHigh = value
    }
  }

  #configure(value: number): void {
    const state = this.#state
    const before = state.configuration
    state.configuration = value >>> 0
    const enable = value & Configuration.enable
    if (enable && !(before & Configuration.enable)) this.#starting = true
    else if (!enable && before & Configuration.enable) this.#disable()
    if (value & Configuration.shutdown && !(before & Configuration.shutdown)) void this.#shutDown()
    this.#status()
  }

  #start(): void {
    const state = this.#state
    this.#starting = false
    const size = (value: number): number => (value & 0xfff) + 1
    const submission = { base: state.submission + state.submissionHigh * 2 ** 32, size: size(state.attributes) }
    const completion = { base: state.completion + state.completionHigh * 2 ** 32, size: size(state.attributes >>> 16) }
    const sizes = state.configuration & Configuration.entrySizes
    const supported =
      !(state.configuration & (Configuration.commandSet | Configuration.pageSize)) &&
      (sizes === Configuration.entrySizesWanted || sizes === 0) &&
      Math.min(submission.size, completion.size) > 1
    state.status = supported ? ControllerStatus.ready : ControllerStatus.fatal
    if (supported) this.#controller.start(submission, completion)
  }

  /** Controller reset. What is in progress keeps the controller ready until it has ended: then the guest has its memory back. */
  #disable(): void {
    this.#starting = false
    this.#controller.stop()
    this.#admin.reset()
    this.#state.status = ControllerStatus.ready
    this.#state.masked = 0
    this.#updatePin()
  }

  async #shutDown(): Promise<void> {
    const state = this.#state
    state.status = (state.status & ~ControllerStatus.shutdownDone) | ControllerStatus.shutdownBusy
    await this.#controller.quiesce()
    // A disk that cannot be flushed must not keep the guest from ending.
    if (!this.#backend.readOnly) await this.#backend.flush().catch(() => {})
    if ((state.status & ControllerStatus.shutdownBusy) === 0) return
    state.status = (state.status & ~ControllerStatus.shutdownBusy) | ControllerStatus.shutdownDone
  }

  // Life

  reset(): void {
    this.#disable()
    Object.assign(this.#state, powerOn())
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        registers: saveState(TYPE, 1, this.#state).data,
        starting: this.#starting,
        admin: this.#admin.save(),
        queues: this.#controller.save(),
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    restoreState({ type: TYPE, version: 1, data: data['registers'] as Snapshot['data'] }, TYPE, 1, this.#state)
    this.#starting = data['starting'] as boolean
    this.#controller.restore(data['queues'] as Snapshot['data'])
    this.#admin.restore(data['admin'] as Snapshot['data'])
    this.#updatePin()
  }

  quiesce(): Promise<void> {
    return this.#controller.quiesce()
  }

  async dispose(): Promise<void> {
    this.#unlisten?.()
    await this.#controller.quiesce()
    await this.#backend.close()
  }
}
