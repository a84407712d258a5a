/** Interrupt remapping: a requester's message becomes the one that its table entry stands for, a bit of a posted descriptor, or nothing. ("Interrupt Remapping", "Interrupt Posting") */

import type { Counter, DmaMemory, Metrics } from '@nonroot/contracts'
import { Fault, Present, REMAPPABLE, SUBHANDLE_VALID } from './facts.ts'
import type { Report } from './translation.ts'

const ENTRY = 16
const POSTED = 1 << 15
const QUIET = 1 << 1
const URGENT = 1 << 14
const MESSAGE = 0xfee0_0000
/** "Source Validation Type". */
const Validate = { none: 0, requester: 1, buses: 2 } as const
/** Bits of the requester's function that each "Source-id Qualifier" leaves out. */
const QUALIFIERS = [0, 1 << 2, 3 << 1, 7] as const

/** A posted-interrupt descriptor. ("Posted Interrupt Descriptor (PID)") */
export const PostedDescriptor = {
  size: 64,
  control: 32,
  outstanding: 1,
  suppressed: 2,
  vector: 34,
  destination: 36,
} as const

/** `destination`: all bits of it, where the unit's table has 32. */
export type Deliver = (address: number, data: number, destination?: number) => void

export class InterruptRemapping {
  enabled = false
  /** GCMD.CFI: messages of the compatibility format pass. */
  compatibility = false
  /** Latched by GCMD.SIRTP. */
  table = 0
  entries = 0
  /** Destinations have 32 bits. */
  extended = false
  readonly #memory: DmaMemory
  readonly #report: Report
  readonly #remapped: Counter
  readonly #posted: Counter
  readonly #blocked: Counter

  constructor(memory: DmaMemory, report: Report, metrics: Metrics) {
    this.#memory = memory
    this.#report = report
    this.#remapped = metrics.counter('interruptsRemapped', 'messages remapped')
    this.#posted = metrics.counter('interruptsPosted', 'messages posted')
    this.#blocked = metrics.counter('interruptsBlocked', 'messages blocked')
  }

  message(requester: number, address: number, data: number, deliver: Deliver): void {
    if (!this.enabled) return deliver(address, data)
    if (!(address & REMAPPABLE)) {
      if (this.compatibility && !this.extended) deliver(address, data)
      else this.#block(requester, 0, Fault.compatibilityBlocked)
      return
    }
    const handle = ((address >>> 5) & 0x7fff) | ((address & 4) << 13)
    const index = handle + (address & SUBHANDLE_VALID ? data & 0xffff : 0)
    if (index >= this.entries) return this.#block(requester, index, Fault.indexTooLarge)
    const at = this.table + index * ENTRY
    const low = this.#memory.readU32(at)
    const second = this.#memory.readU32(at + 4)
    const source = this.#memory.readU32(at + 8)
    const high = this.#memory.readU32(at + 12)
    if (low === undefined || second === undefined || source === undefined || high === undefined)
      return this.#block(requester, index, Fault.remappingAccess)
    if (!(low & Present)) return low & QUIET ? undefined : this.#block(requester, index, Fault.remappingNotPresent)
    if (!isFrom(requester, source)) return this.#block(requester, index, Fault.sourceInvalid)
    if (low & POSTED) return this.#post(requester, index, low, descriptorAt(second, high), deliver)
    this.#remapped.value++
    this.#send(low, second, deliver)
  }

  #block(requester: number, index: number, reason: number): void {
    this.#blocked.value++
    // "The fault information field contains the interrupt index", in bits 63:48.
    this.#report(requester, index * 2 ** 48, true, reason)
  }

  #send(low: number, destination: number, deliver: Deliver): void {
    const mode = (low >> 2) & 1
    const redirection = (low >> 3) & 1
    const level = (low >> 4) & 1
    const data = ((low >>> 16) & 0xff) | (((low >> 5) & 7) << 8) | (level << 15) | (1 << 14)
    this.#deliverTo(destination, (redirection << 3) + (mode << 2), data, deliver)
  }

  #deliverTo(destination: number, bits: number, data: number, deliver: Deliver): void {
    const short = this.extended ? destination & 0xff : (destination >>> 8) & 0xff
    deliver(MESSAGE + short * 4096 + bits, data, this.extended ? destination : undefined)
  }

  #post(requester: number, index: number, low: number, at: number, deliver: Deliver): void {
    const vector = (low >>> 16) & 0xff
    const word = at + (vector >> 5) * 4
    const pending = this.#memory.readU32(word)
    const control = this.#memory.readU32(at + PostedDescriptor.control)
    const destination = this.#memory.readU32(at + PostedDescriptor.destination)
    if (pending === undefined || control === undefined || destination === undefined)
      return this.#block(requester, index, Fault.postedAccess)
    this.#posted.value++
    this.#memory.writeU32(word, (pending | (1 << (vector & 31))) >>> 0)
    if (control & PostedDescriptor.outstanding) return
    if (control & PostedDescriptor.suppressed && !(low & URGENT)) return
    this.#memory.writeU32(at + PostedDescriptor.control, (control | PostedDescriptor.outstanding) >>> 0)
    this.#deliverTo(destination, 0, (control >>> 16) & 0xff, deliver)
  }

  reset(): void {
    this.enabled = this.compatibility = this.extended = false
    this.table = this.entries = 0
  }
}

/** Bits 63:38 of the entry are bits 31:6 of the descriptor's address, bits 127:96 those above. */
const descriptorAt = (second: number, high: number): number =>
  second - (second % PostedDescriptor.size) + high * 2 ** 32

/** "Source validation": `source` is bits 95:64 of the entry. */
function isFrom(requester: number, source: number): boolean {
  const id = source & 0xffff
  const type = (source >>> 18) & 3
  if (type === Validate.none) return true
  if (type === Validate.requester) {
    const ignored = QUALIFIERS[(source >>> 16) & 3]!
    return (requester & ~ignored) === (id & ~ignored)
  }
  // The first and the last bus.
  if (type === Validate.buses) return requester >> 8 >= id >> 8 && requester >> 8 <= (id & 0xff)
  return false
}
