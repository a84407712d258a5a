/**
 * One thread of the fuzzer: a VM's memory, and frames of its own beside it. `Ledger` knows who owns what, for all threads; what a page must hold
 * is known here.
 */

import { parentPort, workerData } from 'node:worker_threads'
import { FRAME_SIZE, gpa, hpa } from '@nonroot/contracts'
import type { HostMemory, Hpa, MemoryLease } from '@nonroot/contracts'
import { DemandGuestMemory, openHostMemory } from '../../src/memory/index.ts'

export interface FramesJob {
  readonly memory: WebAssembly.Memory
  /** By frame: the thread that owns it alone (+ 1), or 0. */
  readonly owners: Int32Array
  /** Shared frames in transit: the first worker that fetches one has it. */
  readonly mailbox: Int32Array
  readonly thread: number
  readonly seed: number
  readonly steps: number
}
export interface FramesResult {
  readonly counters: readonly number[]
  readonly bug?: string
}
export const COUNTERS = [
  'taken',
  'given',
  'touched',
  'copied',
  'shared',
  'mapped',
  'parked',
  'leases',
  'runs',
  'refused',
] as const
type CounterName = (typeof COUNTERS)[number]

const PAGES = 160
const pageRange = (page: number) => ({ address: gpa(page * FRAME_SIZE), length: FRAME_SIZE })
const MOST_OWN = 120
const MOST_HELD = 24

class Fuzzer {
  readonly counters = COUNTERS.map(() => 0)
  readonly #job: FramesJob
  readonly #me: number
  #host: HostMemory
  readonly #memory: DemandGuestMemory
  #state: number
  #serial = 0
  /** Frames taken without a guest, with the word that fills them. */
  readonly #own: [Hpa, number][] = []
  /** What each page of the guest is filled with. Absent: zero. */
  readonly #pages = new Map<number, number>()
  /** Frames that others share with us, with what they are filled with. */
  readonly #held: [Hpa, number][] = []
  #lease: { page: number; frame: Hpa; lease: MemoryLease } | undefined

  constructor(job: FramesJob) {
    this.#job = job
    this.#me = job.thread + 1
    this.#state = (job.seed * 2654435761 + job.thread * 40503 + 1) | 0 || 1
    this.#host = openHostMemory(job.memory)
    this.#memory = new DemandGuestMemory({
      hostMemory: this.#host,
      regions: [{ start: gpa(0), length: PAGES * FRAME_SIZE, kind: 'ram' }],
      largeRuns: false,
    })
  }

  run(): void {
    for (let step = 0; step < this.#job.steps; step++) this.#steps[this.#random(this.#steps.length)]!()
    if (this.#lease) this.#endLease()
    for (const [frame, word] of this.#own.splice(0)) this.#give(frame, word)
    for (const [frame, word] of this.#held.splice(0)) this.#dropHeld(frame, word)
    for (let page = 0; page < PAGES; page++) this.#release(page)
    this.#memory.dispose()
    this.#host.close()
  }

  readonly #steps: (() => void)[] = [
    () => this.#take(),
    () => this.#take(),
    () => this.#giveOne(),
    () => this.#giveOne(),
    () => this.#takeRun(),
    () => this.#write(this.#random(PAGES)),
    () => this.#write(this.#random(PAGES)),
    () => this.#checkPage(this.#random(PAGES)),
    () => this.#release(this.#random(PAGES)),
    () => this.#offer(this.#random(PAGES)),
    () => this.#fetch(),
    () => this.#dropOneHeld(),
    () => (this.#lease ? this.#endLease() : this.#beginLease(this.#random(PAGES))),
    () => this.#random(500) === 0 && this.#reopen(),
    () => this.#park(this.#random(PAGES)),
  ]

  #random(below: number): number {
    this.#state ^= this.#state << 13
    this.#state ^= this.#state >>> 17
    this.#state ^= this.#state << 5
    return (this.#state >>> 0) % below
  }
  #count(name: CounterName): void {
    this.counters[COUNTERS.indexOf(name)]!++
  }
  /** A word that no other thread writes. */
  #stamp(): number {
    return (this.#me << 24) | (++this.#serial & 0xffffff)
  }

  // Who owns what

  #claim(frame: number): void {
    const other = Atomics.compareExchange(this.#job.owners, frame >>> 12, 0, this.#me)
    if (other !== 0) throw new Error(`frame ${frame >>> 12} was given to thread ${this.#me} while ${other} owns it`)
  }
  #disclaim(frame: number): void {
    const owner = Atomics.compareExchange(this.#job.owners, frame >>> 12, this.#me, 0)
    if (owner !== this.#me) throw new Error(`frame ${frame >>> 12} of thread ${this.#me} has the owner ${owner}`)
  }
  #fill(frame: number, word: number): void {
    this.#host.words.fill(word, frame >>> 2, (frame + FRAME_SIZE) >>> 2)
  }
  #expectFilled(frame: number, word: number, what: string): void {
    const { words } = this.#host
    for (let at = frame >>> 2; at < (frame + FRAME_SIZE) >>> 2; at++) {
      if (words[at] !== word)
        throw new Error(
          `${what}: frame ${frame >>> 12} has ${words[at]!.toString(16)} at ${(at * 4) & 0xfff}, not ${word.toString(16)}`,
        )
    }
  }

  // Frames without a guest

  #take(): void {
    if (this.#own.length >= MOST_OWN) return
    const frame = this.#host.allocateFrame()
    if (frame === undefined) return this.#count('refused')
    this.#count('taken')
    this.#claim(frame)
    this.#expectFilled(frame, 0, 'taken')
    const word = this.#stamp()
    this.#fill(frame, word)
    this.#own.push([frame, word])
  }
  #takeRun(): void {
    if (this.#own.length >= MOST_OWN || this.#random(8) > 0) return
    const length = 1 + this.#random(8)
    const align = 1 << this.#random(4)
    const first = this.#host.allocateFrames(length, align)
    if (first === undefined) return this.#count('refused')
    this.#count('runs')
    if (first % (align * FRAME_SIZE) !== 0) throw new Error(`a run at ${first} is not aligned to ${align} frames`)
    for (let index = 0; index < length; index++) {
      const frame = hpa(first + index * FRAME_SIZE)
      this.#claim(frame)
      this.#expectFilled(frame, 0, 'taken in a run')
      const word = this.#stamp()
      this.#fill(frame, word)
      this.#own.push([frame, word])
    }
  }
  #giveOne(): void {
    if (this.#own.length > 0) this.#give(...this.#own.splice(this.#random(this.#own.length), 1)[0]!)
  }
  #give(frame: Hpa, word: number): void {
    this.#expectFilled(frame, word, 'given back')
    this.#disclaim(frame)
    this.#count('given')
    this.#host.freeFrame(frame)
  }

  // The guest's pages

  /** Whether it may be brought into being: the pool may be empty. */
  #hasRoom(page: number): boolean {
    // Another thread may take the last one meanwhile: then the touch itself says so.
    if (this.#memory.peek(page * FRAME_SIZE) !== undefined || this.#host.freeFrames > 4) return true
    this.#count('refused')
    return false
  }
  #write(page: number): void {
    if (this.#lease?.page === page || !this.#hasRoom(page)) return
    const address = page * FRAME_SIZE
    const before = this.#memory.peek(address)
    const isShared = before !== undefined && this.#host.references(before) > 1
    const word = this.#stamp()
    const bytes = new Uint8Array(Int32Array.from({ length: FRAME_SIZE / 4 }, () => word).buffer)
    if (!this.#memory.writeBytes(address, bytes)) return this.#count('refused')
    const frame = this.#memory.peek(address)!
    this.#count(isShared ? 'copied' : 'touched')
    if (frame !== before || !this.#isMine(frame)) this.#claim(frame)
    this.#pages.set(page, word)
  }
  #isMine(frame: number): boolean {
    return Atomics.load(this.#job.owners, frame >>> 12) === this.#me
  }
  #checkPage(page: number): void {
    if (this.#lease?.page === page) return
    const address = page * FRAME_SIZE
    const isParked = this.#memory.state(address)!.kind === 'parked'
    if (isParked && this.#memory.readU32(address + 4 * this.#random(FRAME_SIZE / 4)) === undefined)
      return this.#count('refused')
    const frame = this.#memory.peek(address)
    if (frame === undefined) return
    if (isParked) this.#claim(frame)
    this.#expectFilled(frame, this.#pages.get(page) ?? 0, `page ${page}`)
  }
  #release(page: number): void {
    if (this.#lease?.page === page) return
    const frame = this.#memory.peek(page * FRAME_SIZE)
    if (frame === undefined) return
    this.#checkPage(page)
    if (this.#isMine(frame)) this.#disclaim(frame)
    if (this.#memory.release([pageRange(page)]) !== 1) throw new Error(`page ${page} is not released`)
    this.#pages.delete(page)
  }

  #park(page: number): void {
    if (this.#lease?.page === page) return
    const frame = this.#memory.peek(page * FRAME_SIZE)
    if (frame === undefined) return
    const word = this.#pages.get(page) ?? 0
    const parked = this.#memory.park(page * FRAME_SIZE, {
      keep: () => {
        this.#checkPage(page)
        if (this.#isMine(frame)) this.#disclaim(frame)
        return true
      },
      fillNow: (_, into) => new Int32Array(into.buffer, into.byteOffset, FRAME_SIZE / 4).fill(word),
    })
    if (parked !== 'done') throw new Error(`page ${page} is not parked: ${parked}`)
    this.#count('parked')
  }

  // Shared frames: as they are until the last of their owners lets go.

  #offer(page: number): void {
    const frame = this.#memory.peek(page * FRAME_SIZE)
    const word = this.#pages.get(page)
    if (frame === undefined || word === undefined || this.#lease?.page === page) return
    const slot = this.#random(this.#job.mailbox.length)
    if (this.#isMine(frame)) this.#disclaim(frame)
    if (this.#memory.expose(page * FRAME_SIZE) !== frame) throw new Error(`page ${page} is not exposed`)
    if (Atomics.compareExchange(this.#job.mailbox, slot, 0, frame | 0) === 0) return this.#count('shared')
    this.#host.freeFrame(frame)
  }
  #fetch(): void {
    if (this.#held.length >= MOST_HELD) return
    const frame = hpa(Atomics.exchange(this.#job.mailbox, this.#random(this.#job.mailbox.length), 0) >>> 0)
    if (frame === 0) return
    if (this.#host.references(frame) < 1) throw new Error(`frame ${frame >>> 12} came in the mail and is free`)
    const word = this.#host.words[frame >>> 2]!
    this.#expectFilled(frame, word, 'fetched')
    if (this.#random(2) === 0 && this.#map(this.#random(PAGES), frame, word)) return
    this.#held.push([frame, word])
  }
  /** The frame of another thread in place of a page that holds the same. */
  #map(page: number, frame: Hpa, word: number): boolean {
    const address = page * FRAME_SIZE
    const before = this.#memory.peek(address)
    if (before === undefined || this.#lease?.page === page) return false
    const same = this.#pages.get(page) === word
    if (same && this.#isMine(before)) this.#disclaim(before)
    if (this.#memory.share(address, frame) !== (same ? 'done' : 'different'))
      throw new Error(`page ${page} is shared although it differs, or the other way round`)
    if (this.#memory.peek(address) === frame) return true
    if (this.#isMine(before)) this.#disclaim(before)
    if (this.#memory.replace(address, frame) !== 'done') throw new Error(`page ${page} is not replaced`)
    this.#pages.set(page, word)
    this.#count('mapped')
    return true
  }
  #dropOneHeld(): void {
    if (this.#held.length > 0) this.#dropHeld(...this.#held.splice(this.#random(this.#held.length), 1)[0]!)
  }
  #dropHeld(frame: Hpa, word: number): void {
    this.#expectFilled(frame, word, 'held')
    this.#host.freeFrame(frame)
  }

  // A transfer in progress keeps its frame until it ends, even if the guest releases the page.

  #beginLease(page: number): void {
    const frame = this.#memory.peek(page * FRAME_SIZE)
    if (frame === undefined || !this.#isMine(frame) || this.#host.references(frame) > 1) return
    const lease = this.#memory.lease([{ address: page * FRAME_SIZE, length: FRAME_SIZE }], 'write')!
    this.#lease = { page, frame, lease }
    this.#count('leases')
    if (this.#random(2) === 0) {
      this.#memory.release([pageRange(page)])
      this.#pages.delete(page)
    }
  }
  #endLease(): void {
    const { page, frame, lease } = this.#lease!
    const word = this.#stamp()
    new Int32Array(lease.views[0]!.buffer, lease.views[0]!.byteOffset, FRAME_SIZE / 4).fill(word)
    this.#expectFilled(frame, word, 'lent')
    this.#lease = undefined
    if (this.#memory.peek(page * FRAME_SIZE) === frame) this.#pages.set(page, word)
    else this.#disclaim(frame)
    lease.end()
  }

  /** As a thread that ends and another that begins. */
  #reopen(): void {
    this.#host.close()
    this.#host = openHostMemory(this.#job.memory)
  }
}

if (parentPort) {
  const fuzzer = new Fuzzer(workerData as FramesJob)
  let bug: string | undefined
  try {
    fuzzer.run()
  } catch (error) {
    bug = (error as Error).stack ?? String(error)
  }
  parentPort.postMessage({ counters: fuzzer.counters, ...(bug === undefined ? {} : { bug }) } satisfies FramesResult)
}
