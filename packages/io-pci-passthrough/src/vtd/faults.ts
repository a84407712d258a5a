/** Fault recording: what was blocked, of whom and why, until software has read it. ("Primary Fault Logging") */

import type { Snapshot } from '@nonroot/contracts'
import { EventControl, FAULT_RECORDS, FAULT_RECORD_SIZE, FaultStatus } from './facts.ts'

const RECORD_WORDS = FAULT_RECORD_SIZE / 4
const RECORDED = 2 ** 31
const READ = 2 ** 30

/** An event's registers: control, data, address. Messages are those of the unit itself. */
export class EventRegisters {
  readonly words = new Uint32Array([EventControl.mask, 0, 0, 0])
  readonly #send: (address: number, data: number) => void

  constructor(send: (address: number, data: number) => void) {
    this.#send = send
  }

  raise(): void {
    const [control, data, address, upper] = this.words as unknown as [number, number, number, number]
    if (control >= EventControl.mask) this.words[0] = EventControl.mask + EventControl.pending
    else this.#send(address + upper * 2 ** 32, data)
  }

  /** Software read what the event was for. */
  settle(): void {
    this.words[0] = this.words[0]! & EventControl.mask
  }

  write(word: number, value: number): void {
    if (word > 0) {
      this.words[word] = value
      return
    }
    const pending = (this.words[0]! & EventControl.pending) !== 0
    const masked = value >= EventControl.mask
    this.words[0] = (masked ? EventControl.mask : 0) + (pending && masked ? EventControl.pending : 0)
    if (pending && !masked) this.raise()
  }

  reset(): void {
    this.words.fill(0)
    this.words[0] = EventControl.mask
  }
}

export class FaultLog {
  readonly records = new Uint32Array(FAULT_RECORDS * RECORD_WORDS)
  readonly event: EventRegisters
  /** Bits of the fault status register beside `pending` and the index. */
  status = 0
  #next = 0

  constructor(event: EventRegisters) {
    this.event = event
  }

  get statusRegister(): number {
    let pending = 0
    let first = 0
    for (let index = FAULT_RECORDS - 1; index >= 0; index--) {
      if (!this.#isRecorded(index)) continue
      pending = FaultStatus.pending
      first = index
    }
    return this.status | pending | (first << 8)
  }

  #isRecorded(index: number): boolean {
    return this.records[index * RECORD_WORDS + 3]! >= RECORDED
  }

  record(requester: number, address: number, write: boolean, reason: number): void {
    // "Hardware does not record new faults" while the overflow is not cleared.
    if (this.status & FaultStatus.overflow) return
    if (this.#isRecorded(this.#next)) {
      this.status |= FaultStatus.overflow
      return
    }
    const first = (this.statusRegister & (FaultStatus.pending | FaultStatus.queueError)) === 0
    const at = this.#next * RECORD_WORDS
    const page = Math.floor(address / 4096) * 4096
    this.records[at] = page % 2 ** 32
    this.records[at + 1] = Math.floor(page / 2 ** 32)
    this.records[at + 2] = requester
    this.records[at + 3] = RECORDED + (write ? 0 : READ) + reason
    this.#next = (this.#next + 1) % FAULT_RECORDS
    if (first) this.event.raise()
  }

  /** The invalidation queue cannot go on. */
  queueError(): void {
    const first = (this.statusRegister & (FaultStatus.pending | FaultStatus.queueError)) === 0
    this.status |= FaultStatus.queueError
    if (first) this.event.raise()
  }

  writeStatus(value: number): void {
    this.status &= ~(value & FaultStatus.clearable)
    this.#settle()
  }

  /** Bit 127 of a record is cleared by writing it. */
  writeRecord(word: number, value: number): void {
    if (word % RECORD_WORDS === 3 && value >= RECORDED) this.records[word] = this.records[word]! % RECORDED
    this.#settle()
  }

  #settle(): void {
    if ((this.statusRegister & (FaultStatus.pending | FaultStatus.queueError | FaultStatus.overflow)) === 0)
      this.event.settle()
  }

  save(): Snapshot['data'] {
    const { records, status, event } = this
    return { status, records: Array.from(records), event: Array.from(event.words), next: this.#next }
  }

  restore(saved: Snapshot['data']): void {
    this.status = saved['status'] as number
    this.records.set(saved['records'] as number[])
    this.event.words.set(saved['event'] as number[])
    this.#next = saved['next'] as number
  }

  reset(): void {
    this.records.fill(0)
    this.status = 0
    this.#next = 0
    this.event.reset()
  }
}
