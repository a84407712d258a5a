/** The admin command set except queues: identify, features, logs, asynchronous events. Independent of registers. (Base Specification, "Admin Command Set") */

import type { DmaMemory, Snapshot } from '@nonroot/contracts'
import { refused, succeeded } from './command.ts'
import type { Command, Outcome } from './command.ts'
import { Event, Feature, FEATURE_DEFAULTS, Log, MOST_EVENTS, NAMESPACE_NOTICES, Status } from './facts.ts'
import { firmwareLog, healthLog, identify, NAMESPACE } from './identify.ts'
import type { IdentifyFacts } from './identify.ts'
import type { Namespace } from './namespace.ts'
import { prpPieces } from './prp.ts'

const ERROR_ENTRY = 64
const CHANGED_LIST = 4096
/** "Select" of Get Features. */
const Select = { current: 0, default: 1, saved: 2, supported: 3 } as const
/** Supported capabilities: the value can be changed. */
const CHANGEABLE = 1 << 2

export interface AdminOptions {
  readonly memory: DmaMemory
  readonly namespace: Namespace
  /** I/O queue pairs that may be created; each has a vector, after the admin queue's. */
  readonly queues: number
  readonly facts: () => IdentifyFacts
  readonly completeEvent: (id: number, outcome: Outcome) => void
}

export class AdminCommands {
  readonly #memory: DmaMemory
  readonly #namespace: Namespace
  readonly #facts: () => IdentifyFacts
  readonly #queues: number
  readonly features = new Map(FEATURE_DEFAULTS)
  /** Vectors whose interrupts must not be coalesced: kept for the driver to read. */
  readonly #uncoalesced = new Set<number>()
  #changed = false
  /** Event types reported and not acknowledged by reading their log. */
  readonly #masked = new Set<number>()
  #events: number[] = []
  /** Identifiers of Asynchronous Event Requests that wait. */
  #requests: number[] = []
  readonly #completeEvent: (id: number, outcome: Outcome) => void

  constructor(options: AdminOptions) {
    this.#memory = options.memory
    this.#namespace = options.namespace
    this.#queues = options.queues
    this.#facts = options.facts
    this.#completeEvent = options.completeEvent
  }

  identify(command: Command): Outcome {
    const bytes = identify(command.words[0] & 0xff, command.namespace, this.#facts())
    return bytes ? this.#give(command, bytes) : refused(Status.invalidField)
  }

  #give(command: Command, bytes: Uint8Array): Outcome {
    const pieces = prpPieces(this.#memory, command.prp1, command.prp2, bytes.length)
    if (typeof pieces === 'number') return refused(pieces)
    let done = 0
    for (const { address, length } of pieces) {
      if (!this.#memory.writeBytes(address, bytes.subarray(done, done + length))) return refused(Status.dataTransfer)
      done += length
    }
    return succeeded()
  }

  // Features

  getFeatures({ words }: Command): Outcome {
    const id = words[0] & 0xff
    const select = (words[0] >> 8) & 7
    const fixed = id === Feature.queues || id === Feature.vector
    if (!this.features.has(id) && !fixed) return refused(Status.invalidField)
    if (select === Select.supported) return succeeded(CHANGEABLE)
    if (select > Select.supported) return refused(Status.invalidField)
    if (id === Feature.queues) return succeeded(((this.#queues - 1) << 16) | (this.#queues - 1))
    if (id === Feature.vector) {
      const vector = words[1] & 0xffff
      if (vector > this.#queues) return refused(Status.invalidField)
      return succeeded(vector | (this.#uncoalesced.has(vector) ? 1 << 16 : 0))
    }
    return succeeded((select === Select.current ? this.features : FEATURE_DEFAULTS).get(id)!)
  }

  setFeatures({ words }: Command): Outcome {
    const id = words[0] & 0xff
    if (words[0] >>> 31) return refused(Status.notSaveable)
    const value = words[1]
    if (id === Feature.queues) {
      const wanted = [value & 0xffff, value >>> 16]
      if (wanted.includes(0xffff)) return refused(Status.invalidField)
      const [submission, completion] = wanted.map((number) => Math.min(number, this.#queues - 1))
      return succeeded((completion! << 16) | submission!)
    }
    if (id === Feature.vector) {
      const vector = value & 0xffff
      if (vector > this.#queues) return refused(Status.invalidField)
      if (value & (1 << 16)) this.#uncoalesced.add(vector)
      else this.#uncoalesced.delete(vector)
      return succeeded()
    }
    if (!this.features.has(id)) return refused(Status.invalidField)
    // One power state.
    if (id === Feature.powerManagement && value & 0x1f) return refused(Status.invalidField)
    this.features.set(id, value)
    if (id === Feature.writeCache) this.#namespace.writeCache = (value & 1) !== 0
    return succeeded()
  }

  // Logs

  getLog(command: Command): Outcome {
    const { words } = command
    const id = words[0] & 0xff
    const length = 4 * (((words[0] >>> 16) | ((words[1] & 0xffff) << 16)) + 1)
    const offset = words[2] + words[3] * 2 ** 32
    const log = this.#log(id)
    if (!log) return refused(Status.invalidLogPage)
    if (offset % 4 !== 0 || offset > log.length) return refused(Status.invalidField)
    const retain = (words[0] & (1 << 15)) !== 0
    const outcome = this.#give(command, log.subarray(offset, offset + length))
    if (outcome.status !== Status.success || retain) return outcome
    if (id === Log.changedNamespaces) this.#changed = false
    this.#masked.delete(id)
    this.#deliver()
    return outcome
  }

  #log(id: number): Uint8Array | undefined {
    switch (id) {
      case Log.errors:
        return new Uint8Array(ERROR_ENTRY)
      case Log.health:
        return healthLog(this.#namespace.usage)
      case Log.firmware:
        return firmwareLog()
      case Log.changedNamespaces: {
        const list = new Uint8Array(CHANGED_LIST)
        if (this.#changed) list[0] = NAMESPACE
        return list
      }
      default:
        return undefined
    }
  }

  // Asynchronous events

  /** Undefined: the request waits for an event. */
  awaitEvent({ id }: Command): Outcome | undefined {
    if (this.#requests.length >= MOST_EVENTS) return refused(Status.tooManyEvents)
    this.#requests.push(id)
    this.#deliver()
    return undefined
  }

  /** Abort: only Asynchronous Event Requests wait long enough to be aborted. (Bit 0 of the result: not aborted.) */
  abort({ words }: Command): Outcome {
    const id = words[0] >>> 16
    const at = (words[0] & 0xffff) === 0 ? this.#requests.indexOf(id) : -1
    if (at < 0) return succeeded(1)
    this.#requests.splice(at, 1)
    this.#completeEvent(id, { status: Status.abortRequested, result: 0 })
    return succeeded()
  }

  report(event: number): void {
    if (event === Event.namespaceChanged) {
      this.#changed = true
      if (!(this.features.get(Feature.events)! & NAMESPACE_NOTICES)) return
    }
    if (!this.#events.includes(event)) this.#events.push(event)
    this.#deliver()
  }

  #deliver(): void {
    for (let index = 0; index < this.#events.length && this.#requests.length > 0;) {
      const event = this.#events[index]!
      if (this.#masked.has(event >> 16)) {
        index++
        continue
      }
      this.#events.splice(index, 1)
      this.#masked.add(event >> 16)
      this.#completeEvent(this.#requests.shift()!, succeeded(event))
    }
  }

  reset(): void {
    for (const [id, value] of FEATURE_DEFAULTS) this.features.set(id, value)
    this.#namespace.writeCache = true
    this.#uncoalesced.clear()
    this.#masked.clear()
    this.#events = []
    this.#requests = []
    this.#changed = false
  }

  save(): Snapshot['data'] {
    return {
      features: [...this.features].map(([id, value]) => [id, value]),
      uncoalesced: [...this.#uncoalesced],
      masked: [...this.#masked],
      events: this.#events,
      requests: this.#requests,
      changed: this.#changed,
    }
  }

  restore(data: Snapshot['data']): void {
    this.reset()
    for (const [id, value] of data['features'] as [number, number][]) this.features.set(id, value)
    this.#namespace.writeCache = (this.features.get(Feature.writeCache)! & 1) !== 0
    for (const vector of data['uncoalesced'] as number[]) this.#uncoalesced.add(vector)
    for (const log of data['masked'] as number[]) this.#masked.add(log)
    this.#events = [...(data['events'] as number[])]
    this.#requests = [...(data['requests'] as number[])]
    this.#changed = data['changed'] as boolean
  }
}
