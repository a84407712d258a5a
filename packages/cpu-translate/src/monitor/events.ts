/** Events for the guest: queued ones, those of the interrupt controller, and one whose delivery was cut short. Delivered to the virtual CPU. */

import type { SnapshotValue, VcpuEvent, X86VcpuPorts } from '@nonroot/contracts'
import { deliver, EVENT, EXIT, FLAG, S, SHADOW } from '@nonroot/x86'
import type { Core, DeliveredEvent, Delivery } from '@nonroot/x86'

type Exception = Extract<VcpuEvent, { kind: 'exception' }>
type Interrupt = Extract<VcpuEvent, { kind: 'interrupt' }>

const NMI_VECTOR = 2
const BREAKPOINT = 3
const OVERFLOW = 4
/** (SDM Vol. 3A, "Exception and Interrupt Reference") */
const WITH_CODE = new Set([8, 10, 11, 12, 13, 14, 17, 21])

export class Events {
  /** Its delivery must be repeated before the next instruction. */
  interrupted: DeliveredEvent | undefined
  readonly #index: number
  readonly #core: Core
  readonly #ports: X86VcpuPorts
  #interrupt: Interrupt | undefined
  #exception: Exception | undefined
  #nmis = 0

  constructor(index: number, core: Core, ports: X86VcpuPorts) {
    this.#index = index
    this.#core = core
    this.#ports = ports
  }

  queue(event: VcpuEvent): void {
    if (event.kind === 'exception') this.#exception = event
    else if (event.kind === 'interrupt') this.#interrupt = event
    else this.queueNmi()
  }
  /** One waits behind the one that runs; a processor that runs none has two at most. (SDM Vol. 3A, "Handling Multiple NMIs") */
  queueNmi(): void {
    const most = this.#core.get32(S.nmiBlocked) === 0 ? 2 : 1
    if (this.#nmis < most) this.#nmis++
  }
  forget(): void {
    this.#interrupt = this.#exception = this.interrupted = undefined
    this.#nmis = 0
  }

  /** RFLAGS.IF, and nothing that comes first. */
  get isWindowOpen(): boolean {
    return (this.#core.get32(S.flags) & FLAG.IF) !== 0 && this.#isBetweenInstructions
  }
  get #isBetweenInstructions(): boolean {
    return this.#core.get32(S.shadow) === SHADOW.none && this.#core.pendingDebug === 0
  }

  /** Delivers what can be delivered now, one event at most. Undefined: nothing was. */
  next(): Delivery | undefined {
    const core = this.#core
    core.set32(S.attention, 0)
    const event = this.#take()
    if (!event) return undefined
    if (event.length === 0 || core.get32(S.shadow) !== SHADOW.movSs) core.pendingDebug = 0
    const delivery = deliver(core, event)
    core.set32(S.exit, EXIT.lookup)
    return delivery
  }

  #take(): DeliveredEvent | undefined {
    const { interrupted } = this
    if (interrupted) {
      this.interrupted = undefined
      return interrupted
    }
    if (this.#exception) {
      const { vector, errorCode, cr2 } = this.#exception
      this.#exception = undefined
      if (cr2 !== undefined) this.#core.set64(S.cr2, cr2)
      const hasErrorCode = errorCode !== undefined && WITH_CODE.has(vector)
      const kind = vector === BREAKPOINT || vector === OVERFLOW ? EVENT.softwareException : EVENT.exception
      return { kind, vector, errorCode: hasErrorCode ? errorCode : 0, hasErrorCode, length: 0 }
    }
    if (this.#nmis > 0 && this.#core.get32(S.nmiBlocked) === 0 && this.#isBetweenInstructions) {
      this.#nmis--
      return event(EVENT.nmi, NMI_VECTOR)
    }
    return this.#takeInterrupt()
  }

  #takeInterrupt(): DeliveredEvent | undefined {
    const { interrupts } = this.#ports
    const index = this.#index
    if (this.#interrupt === undefined && !interrupts.hasPending(index)) return undefined
    if (!this.isWindowOpen) {
      // The run ends when the window opens.
      this.#core.set32(S.attention, 1)
      return undefined
    }
    const vector = this.#interrupt ? this.#interrupt.vector : interrupts.acknowledge(index)
    this.#interrupt = undefined
    return vector < 0 ? undefined : event(EVENT.external, vector)
  }

  save(): SnapshotValue {
    const queued: VcpuEvent[] = []
    if (this.#interrupt) queued.push(this.#interrupt)
    for (let count = 0; count < this.#nmis; count++) queued.push({ kind: 'nmi' })
    if (this.#exception) queued.push(this.#exception)
    return {
      queued: queued.map((event) => ({ ...event }) as SnapshotValue),
      interrupted: this.interrupted ? ({ ...this.interrupted } as unknown as SnapshotValue) : null,
    }
  }
  restore(saved: SnapshotValue): void {
    const { queued, interrupted } = saved as unknown as { queued: VcpuEvent[]; interrupted: DeliveredEvent | null }
    this.forget()
    for (const event of queued) this.queue(event)
    this.interrupted = interrupted ?? undefined
  }
}

const event = (kind: DeliveredEvent['kind'], vector: number): DeliveredEvent => ({
  kind,
  vector,
  errorCode: 0,
  hasErrorCode: false,
  length: 0,
})
