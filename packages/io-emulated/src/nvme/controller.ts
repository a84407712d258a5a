/**
 * The controller's queues: creation, fetching of commands, completion. Independent of registers and of how interrupts are delivered.
 * (Base Specification, "Queue Management"; "Command Submission and Completion Mechanism")
 */

import type { DmaMemory, Snapshot } from '@nonroot/contracts'
import type { AdminCommands } from './admin.ts'
import { refused, succeeded } from './command.ts'
import type { Command, Outcome } from './command.ts'
import { Admin, Event, MOST_ENTRIES, PAGE, Status } from './facts.ts'
import type { Namespace } from './namespace.ts'
import { CompletionQueue, SubmissionQueue } from './queues.ts'

/** Commands at a time; more wait in the rings. */
const MOST_ACTIVE = 256
const CONTIGUOUS = 1
const INTERRUPTS = 2

export interface ControllerOptions {
  readonly memory: DmaMemory
  readonly admin: AdminCommands
  readonly namespace: Namespace
  readonly queues: number
  /** Completions were posted to a queue that interrupts. */
  readonly notify: (queue: CompletionQueue) => void
  /** A queue is not in RAM: nothing more will be done until a reset. */
  readonly fatal: () => void
}

export class Controller {
  readonly #options: ControllerOptions
  readonly submission = new Map<number, SubmissionQueue>()
  readonly completion = new Map<number, CompletionQueue>()
  /** Commands that the back end works on; those from before a reset among them. */
  #active = 0
  #stale = 0
  #era = 0
  #running = false
  #idle: (() => void)[] = []
  /** Posted to while a doorbell is served: each interrupts once. */
  readonly #posted = new Set<CompletionQueue>()
  /** Queues to be deleted as soon as their commands have completed. */
  readonly #deleting = new Map<SubmissionQueue, () => void>()

  constructor(options: ControllerOptions) {
    this.#options = options
  }

  /** Whether nothing from before a reset is in progress. */
  get settled(): boolean {
    return this.#stale === 0
  }

  start(submission: { base: number; size: number }, completion: { base: number; size: number }): void {
    const queue = new CompletionQueue({ id: 0, ...completion }, 0, true)
    this.completion.set(0, queue)
    this.submission.set(0, new SubmissionQueue({ id: 0, ...submission }, queue))
    this.#running = true
  }

  /** All queues are deleted; what is in progress ends unreported. */
  stop(): void {
    this.#running = false
    this.#era++
    this.#stale = this.#active
    this.submission.clear()
    this.completion.clear()
    this.#deleting.clear()
    this.#posted.clear()
  }

  #fail(): void {
    this.#running = false
    this.#options.fatal()
  }

  // Doorbells

  ring(index: number, value: number): void {
    if (!this.#running) return
    const id = index >> 1
    const isCompletion = (index & 1) !== 0
    const queue = isCompletion ? this.completion.get(id) : this.submission.get(id)
    if (!queue) return this.#options.admin.report(Event.unknownDoorbell)
    if (value >= queue.size) return this.#options.admin.report(Event.badDoorbellValue)
    if (queue instanceof CompletionQueue) this.#consumed(queue, value)
    else {
      queue.tail = value
      this.#options.namespace.begin()
      this.#run(queue)
      this.#notify()
    }
  }

  #consumed(queue: CompletionQueue, head: number): void {
    queue.head = head
    if (queue.waiting.length > 0) {
      if (!queue.release(this.#options.memory)) return this.#fail()
      this.#posted.add(queue)
    }
    this.#notify()
  }

  #notify(): void {
    for (const queue of this.#posted) if (queue.interrupts) this.#options.notify(queue)
    this.#posted.clear()
  }

  #run(queue: SubmissionQueue): void {
    while (this.#running && !queue.empty && this.#active < MOST_ACTIVE && !this.#deleting.has(queue)) {
      const command = queue.fetch(this.#options.memory)
      if (!command) return this.#fail()
      const outcome = queue.id === 0 ? this.#administer(queue, command) : this.#options.namespace.execute(command)
      if (outcome instanceof Promise) void this.#await(queue, command, outcome)
      else if (outcome) this.#complete(queue, command.id, outcome)
    }
  }

  async #await(queue: SubmissionQueue, command: Command, pending: Promise<Outcome>): Promise<void> {
    const era = this.#era
    this.#active++
    queue.active++
    let outcome: Outcome
    try {
      outcome = await pending
    } catch (error) {
      outcome = this.#options.namespace.failed(command, error)
    }
    this.#active--
    queue.active--
    if (era === this.#era) this.#complete(queue, command.id, outcome)
    else this.#stale--
    if (queue.active === 0) this.#deleting.get(queue)?.()
    if (this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve()
    // Commands that found no room before.
    this.#options.namespace.begin()
    for (const other of this.submission.values()) this.#run(other)
    this.#notify()
  }

  #complete(queue: SubmissionQueue, id: number, outcome: Outcome): void {
    if (!this.#running) return
    if (!queue.completion.post(this.#options.memory, queue, id, outcome)) return this.#fail()
    this.#posted.add(queue.completion)
  }

  /** Completes an Asynchronous Event Request. */
  completeEvent(id: number, outcome: Outcome): void {
    const queue = this.submission.get(0)
    if (!queue) return
    this.#complete(queue, id, outcome)
    this.#notify()
  }

  // Admin commands

  /** Undefined: it completes with an event. */
  #administer(queue: SubmissionQueue, command: Command): Outcome | Promise<Outcome> | undefined {
    const { admin } = this.#options
    switch (command.opcode) {
      case Admin.identify:
        return admin.identify(command)
      case Admin.getLog:
        return admin.getLog(command)
      case Admin.getFeatures:
        return admin.getFeatures(command)
      case Admin.setFeatures:
        // The number of queues is agreed before there are any.
        if ((command.words[0] & 0xff) === 0x07 && this.submission.size + this.completion.size > 2)
          return refused(Status.invalidField)
        return admin.setFeatures(command)
      case Admin.createCompletion:
        return this.#createCompletion(command)
      case Admin.createSubmission:
        return this.#createSubmission(command)
      case Admin.deleteSubmission:
        return this.#deleteSubmission(command)
      case Admin.deleteCompletion:
        return this.#deleteCompletion(command)
      case Admin.abort:
        return admin.abort(command)
      case Admin.asyncEvent:
        return admin.awaitEvent(command)
      default:
        return refused(Status.invalidOpcode)
    }
  }

  /** What both kinds of queues must have; or the status that refuses it. */
  #ring(
    { words, prp1 }: Command,
    existing: ReadonlyMap<number, unknown>,
  ): { id: number; base: number; size: number } | number {
    const id = words[0] & 0xffff
    const size = (words[0] >>> 16) + 1
    if (id === 0 || id > this.#options.queues || existing.has(id)) return Status.invalidQueue
    if (size < 2 || size > MOST_ENTRIES) return Status.invalidQueueSize
    if (!(words[1] & CONTIGUOUS)) return Status.invalidField
    if (prp1 % PAGE !== 0) return Status.invalidPrpOffset
    return { id, base: prp1, size }
  }

  #createCompletion(command: Command): Outcome {
    const ring = this.#ring(command, this.completion)
    if (typeof ring === 'number') return refused(ring)
    const vector = command.words[1] >>> 16
    if (vector > this.#options.queues) return refused(Status.invalidVector)
    this.completion.set(ring.id, new CompletionQueue(ring, vector, (command.words[1] & INTERRUPTS) !== 0))
    return succeeded()
  }

  #createSubmission(command: Command): Outcome {
    const ring = this.#ring(command, this.submission)
    if (typeof ring === 'number') return refused(ring)
    const completion = command.words[1] >>> 16
    const queue = completion === 0 ? undefined : this.completion.get(completion)
    if (!queue) return refused(Status.completionQueueInvalid)
    this.submission.set(ring.id, new SubmissionQueue(ring, queue))
    return succeeded()
  }

  #deleteSubmission({ words }: Command): Outcome | Promise<Outcome> {
    const id = words[0] & 0xffff
    const queue = id === 0 ? undefined : this.submission.get(id)
    if (!queue || this.#deleting.has(queue)) return refused(Status.invalidQueue)
    if (queue.active === 0) {
      this.submission.delete(id)
      return succeeded()
    }
    return new Promise((resolve) => {
      this.#deleting.set(queue, () => {
        this.#deleting.delete(queue)
        this.submission.delete(id)
        resolve(succeeded())
      })
    })
  }

  #deleteCompletion({ words }: Command): Outcome {
    const id = words[0] & 0xffff
    const queue = id === 0 ? undefined : this.completion.get(id)
    if (!queue) return refused(Status.invalidQueue)
    for (const { completion } of this.submission.values())
      if (completion === queue) return refused(Status.queueDeletion)
    this.completion.delete(id)
    return succeeded()
  }

  // Life

  async quiesce(): Promise<void> {
    while (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  save(): Snapshot['data'] {
    return {
      completion: [...this.completion.values()].map(
        ({ id, base, size, vector, interrupts, head, tail, phase, waiting }) => ({
          ...{ id, base, size, vector, interrupts, head, tail, phase },
          waiting: waiting.map(({ queue, id: command, outcome }) => [
            queue.id,
            command,
            outcome.status,
            outcome.result,
          ]),
        }),
      ),
      submission: [...this.submission.values()].map(({ id, base, size, head, tail, completion }) => ({
        ...{ id, base, size, head, tail },
        completion: completion.id,
      })),
      running: this.#running,
    }
  }

  restore(data: Snapshot['data']): void {
    this.stop()
    const completions = data['completion'] as unknown as SavedCompletion[]
    for (const saved of completions) {
      const queue = new CompletionQueue(saved, saved.vector, saved.interrupts)
      Object.assign(queue, { head: saved.head, tail: saved.tail, phase: saved.phase })
      this.completion.set(saved.id, queue)
    }
    for (const saved of data['submission'] as unknown as SavedSubmission[]) {
      const queue = new SubmissionQueue(saved, this.completion.get(saved.completion)!)
      Object.assign(queue, { head: saved.head, tail: saved.tail })
      this.submission.set(saved.id, queue)
    }
    for (const { id, waiting } of completions)
      for (const [queue, command, status, result] of waiting)
        this.completion
          .get(id)!
          .waiting.push({ queue: this.submission.get(queue)!, id: command, outcome: { status, result } })
    this.#running = data['running'] as boolean
  }
}

interface SavedQueue {
  readonly id: number
  readonly base: number
  readonly size: number
  readonly head: number
  readonly tail: number
}
interface SavedSubmission extends SavedQueue {
  readonly completion: number
}
interface SavedCompletion extends SavedQueue {
  readonly vector: number
  readonly interrupts: boolean
  readonly phase: number
  readonly waiting: readonly (readonly [number, number, number, number])[]
}
