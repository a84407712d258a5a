/**
 * Page sharing: a scan finds pages with the same content and gives them one frame, which is copied on the first write to it.
 *
 * ```
 *  a page is met ──► already shared? ──► content is other than at the last pass? ──► zeros? ──► a shared frame ──► another page
 *                        │ skip                 │ skip: volatile                     │ release   with it? share    with it? both share
 * ```
 * The technique holds a reference to each shared frame, so that the frame stays what it is as long as the table leads to it.
 */

import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import type { Counter, Gauge, HostMemory, Hpa, Metrics, ReclaimPressure } from '@nonroot/contracts'
import type { Member } from '../member.ts'
import type { Taken, Technique } from '../technique.ts'
import { hashOf, isSame, ZERO_HASH } from './hash.ts'
import { Candidates, SharedFrames } from './tables.ts'

export interface ShareOptions {
  /** Pages that the scan looks at in a second. */
  readonly pagesPerSecond: number
}

/** Pages that are scanned at once when frames are wanted, before others run. */
const SLICE = 512
/** After it has scanned ahead it rests for so many times as long, but for a vCPU that has nothing else to wait for: guests need the processor, too. */
const REST = 9
/** For each page that the scan may look at, it may pass over so many that it need not look at. */
const STEPS = 2
/** Of the shared frames, how many are checked at once for their users. */
const SWEEP = 512
/** A page by its VM and number. */
const PAGE_BITS = 22
const MOST_MEMBERS = 1023
/** In `Scanned.marks`: the page was released because it was zero. */
const RELEASED = 1

/** A VM in the scan. */
interface Scanned {
  readonly member: Member
  readonly number: number
  /** Pages are shared only among VMs of the same group. */
  readonly group: number
  /** Of each page, some bits of its hash at the last pass; 0: not seen yet. */
  readonly marks: Uint16Array
}

export class Sharing implements Technique {
  readonly name = 'share'
  readonly #host: HostMemory
  readonly #options: ShareOptions
  readonly #scanned: (Scanned | undefined)[] = []
  readonly #groups = new Map<string, number>()
  readonly #candidates = new Candidates()
  readonly #shared = new SharedFrames()
  /** For each host frame a bit: whether it is in `#shared`. */
  readonly #isShared: Uint8Array
  /** Where the scan and the sweep go on. */
  #vm = 0
  #page = 0
  #swept = 0
  /** Until when it does not scan ahead. By `performance.now`. */
  #restUntil = 0
  readonly #scans: Counter
  readonly #passes: Counter
  readonly #merged: Counter
  readonly #zeros: Counter
  readonly #volatile: Counter
  readonly #costNs: Counter
  readonly #frames: Gauge
  readonly #metadata: Gauge

  constructor(host: HostMemory, metrics: Metrics, options: ShareOptions) {
    this.#host = host
    this.#options = options
    this.#isShared = new Uint8Array(Math.ceil(host.totalFrames / 8))
    const own = metrics.scope('share')
    this.#scans = own.counter('scanned', 'pages that the scan looked at')
    this.#passes = own.counter('passes', 'times that the scan has seen all pages')
    this.#merged = own.counter('merged', 'pages that were given the frame of another page')
    this.#zeros = own.counter('zeros', 'pages of zeros that were released')
    this.#volatile = own.counter('volatile', 'pages left alone because their content had changed since the last pass')
    this.#costNs = own.counter('costNs', 'processor time of the scan', 'ns')
    this.#frames = own.gauge('frames', 'frames that several pages share', 'frames')
    this.#metadata = own.gauge('metadata', 'memory of the tables of the scan', 'bytes')
  }

  add(member: Member): void {
    const free = this.#scanned.indexOf(undefined)
    const number = free < 0 ? this.#scanned.length : free
    // Without a group it shares with itself.
    const name = member.subject.group === undefined ? ` ${number}` : `group ${member.subject.group}`
    if (!this.#groups.has(name)) this.#groups.set(name, this.#groups.size + 1)
    const marks = new Uint16Array(member.pages.count)
    if (number < MOST_MEMBERS && marks.length < 2 ** PAGE_BITS)
      this.#scanned[number] = { member, number, group: this.#groups.get(name)!, marks }
  }

  remove(member: Member): void {
    const at = this.#scanned.findIndex((scanned) => scanned?.member === member)
    if (at < 0) return
    this.#scanned[at] = undefined
    this.#candidates.clear(this.#expected)
    // Frames that only it used are freed by the sweep: it still holds its references now.
    if (this.#scanned.every((scanned) => scanned === undefined)) this.#giveUp()
  }

  /** No VM is left: nothing will ask for the frames any more. */
  #giveUp(): void {
    for (const { hash, frame } of [...this.#shared.all()]) this.#unshare(hash, frame)
    this.#scanned.length = 0
    this.#groups.clear()
  }

  dispose(): void {
    this.#giveUp()
  }

  sample(_pressure: ReclaimPressure, sinceMs: number): void {
    this.#sweep(SWEEP)
    this.#scan(Math.ceil((this.#options.pagesPerSecond * sinceMs) / 1000))
  }

  /** Scans ahead until so many frames came back, or all pages were seen twice. What it finds may be another VM's. */
  async take(member: Member, wanted: number, isLastResort: boolean): Promise<Taken> {
    let frames = this.#sweep(this.#isShared.length)
    if (!isLastResort && performance.now() < this.#restUntil)
      return { frames, reason: `${member.name} is being scanned` }
    const before = this.#costNs.value
    let left = 2 * this.#resident
    while (frames < wanted && left > 0) {
      frames += this.#scan(SLICE)
      left -= SLICE
      await new Promise((resolve) => void setTimeout(resolve, 0))
    }
    this.#restUntil = performance.now() + ((this.#costNs.value - before) / 1e6) * REST
    return frames < wanted ? { frames, reason: `${member.name} has no more pages that are alike` } : { frames }
  }

  get #resident(): number {
    return this.#scanned.reduce((sum, scanned) => sum + (scanned?.member.frames.residentFrames ?? 0), 0)
  }
  /** Pages that a pass may enter. */
  get #expected(): number {
    return Math.max(0, this.#resident - this.#shared.count)
  }

  /** Looks at so many resident pages. Returns how many frames came back. */
  #scan(pages: number): number {
    const started = performance.now()
    const before = this.#merged.value + this.#zeros.value
    // Most pages may have no frame or a shared one: finding the others has a bound, too.
    let steps = pages * STEPS
    for (let left = pages; left > 0 && steps > 0; steps--) {
      const scanned = this.#scanned[this.#vm]
      if (!scanned || this.#page >= scanned.marks.length) {
        if (!this.#nextVm()) break
        continue
      }
      if (this.#look(scanned, this.#page++)) left--
    }
    this.#costNs.value += Math.floor((performance.now() - started) * 1e6)
    this.#frames.value = this.#shared.count
    this.#metadata.value = this.#metadataBytes()
    return this.#merged.value + this.#zeros.value - before
  }

  /** False: that was the end of a pass. */
  #nextVm(): boolean {
    this.#page = 0
    if (++this.#vm < this.#scanned.length) return true
    this.#vm = 0
    this.#passes.value++
    this.#candidates.clear(this.#expected)
    return false
  }

  /** False: there was nothing to look at. */
  #look(scanned: Scanned, page: number): boolean {
    const { member, marks } = scanned
    const address = member.pages.addressOf(page)
    const frame = member.frames.peek(address)
    if (frame === undefined) return false
    // It is shared already, or an owner outside this VM uses it.
    if (this.#host.references(frame) > 1) return false
    this.#scans.value++
    const hash = hashOf(this.#host.words, frame)
    // 0 and 1 have a meaning.
    const mark = (hash >>> 16) | 2
    if (marks[page] !== mark) {
      if (marks[page]! > RELEASED) this.#volatile.value++
      marks[page] = mark
    } else if (hash === ZERO_HASH && isSame(this.#host.words, frame, this.#host.zeroFrame)) this.#release(scanned, page)
    else this.#merge(scanned, page, frame, (hash ^ Math.imul(scanned.group, 0x85eb_ca6b)) | 0)
    return true
  }

  /** A page of zeros needs no frame. */
  #release({ member, marks }: Scanned, page: number): void {
    const address = member.pages.addressOf(page)
    // Refused if the page is pinned or a transfer may write it.
    const frame = member.frames.expose(address)
    if (typeof frame !== 'number') return
    if (member.frames.release([{ address, length: FRAME_SIZE }]) > 0) {
      marks[page] = RELEASED
      this.#zeros.value++
    }
    this.#host.freeFrame(frame)
  }

  #merge(scanned: Scanned, page: number, frame: Hpa, key: number): void {
    const { words } = this.#host
    const same = (other: number): boolean => isSame(words, frame, other)
    const shared = this.#shared.find(key, same)
    if (shared !== 0) return void this.#share(scanned, page, hpa(shared))
    const found = this.#candidates.find(key, (value) => this.#isTwin(scanned, value, same))
    if (found === 0) return this.#candidates.insert(key, this.#valueOf(scanned.number, page))
    const [other, at] = this.#pageOf(found)
    const exposed = other.member.frames.expose(other.member.pages.addressOf(at))
    // It is pinned, or a transfer writes it. Others may have this page as their twin.
    if (typeof exposed !== 'number') return this.#candidates.replace(key, found, this.#valueOf(scanned.number, page))
    if (!this.#share(scanned, page, exposed)) return this.#host.freeFrame(exposed)
    // The reference that `expose` gave is ours.
    this.#mark(exposed, true)
    this.#shared.insert(key, exposed)
  }

  /** Whether it is a page of the same group that has the same content and that is not shared yet. */
  #isTwin(scanned: Scanned, value: number, same: (frame: number) => boolean): boolean {
    const [other, page] = this.#pageOf(value)
    if (other.group !== scanned.group) return false
    const frame = other.member.frames.peek(other.member.pages.addressOf(page))
    return frame !== undefined && this.#host.references(frame) === 1 && same(frame)
  }

  #share({ member }: Scanned, page: number, frame: Hpa): boolean {
    this.#host.shareFrame(frame)
    const done = member.frames.share(member.pages.addressOf(page), frame) === 'done'
    if (done) this.#merged.value++
    else this.#host.freeFrame(frame)
    return done
  }

  #valueOf(number: number, page: number): number {
    return ((number + 1) << PAGE_BITS) | page
  }
  #pageOf(value: number): [Scanned, number] {
    return [this.#scanned[(value >>> PAGE_BITS) - 1]!, value & (2 ** PAGE_BITS - 1)]
  }

  /** Frees shared frames that no page uses any more. Looks at the marks of eight times so many. Returns how many it freed. */
  #sweep(count: number): number {
    const before = this.#shared.count
    const marks = this.#isShared
    for (let left = Math.min(count, marks.length); left > 0; left--) {
      const at = this.#swept++
      if (this.#swept >= marks.length) this.#swept = 0
      for (let bit = 0; bit < 8 && marks[at] !== 0; bit++) {
        const frame = (at * 8 + bit) * FRAME_SIZE
        if (!this.#isMarked(frame) || this.#host.references(hpa(frame)) > 1) continue
        for (const key of this.#keysOf(frame)) this.#unshare(key, frame)
      }
    }
    return before - this.#shared.count
  }

  #isMarked(frame: number): boolean {
    return (this.#isShared[frame >>> 15]! & (1 << ((frame >>> 12) & 7))) !== 0
  }
  #mark(frame: number, isShared: boolean): void {
    const bit = 1 << ((frame >>> 12) & 7)
    if (isShared) this.#isShared[frame >>> 15]! |= bit
    else this.#isShared[frame >>> 15]! &= ~bit
  }

  /** The content of a shared frame never changes: it still has its hash, with that of one of the groups. */
  #keysOf(frame: number): number[] {
    const hash = hashOf(this.#host.words, frame)
    return [...this.#groups.values()]
      .map((group) => (hash ^ Math.imul(group, 0x85eb_ca6b)) | 0)
      .filter((key) => this.#shared.find(key, (other) => other === frame) !== 0)
  }

  #unshare(hash: number, frame: number): void {
    if (!this.#shared.remove(hash, frame)) return
    this.#mark(frame, false)
    this.#host.freeFrame(hpa(frame))
  }

  /** Pages that would have a frame of their own: each user of a shared frame saves its part of all frames but one. */
  heldFrames(member: Member): number {
    const scanned = this.#scanned.find((one) => one?.member === member)
    if (!scanned) return 0
    let saved = 0
    for (let page = 0; page < scanned.marks.length; page++) {
      const frame = member.frames.peek(member.pages.addressOf(page))
      if (frame === undefined) {
        if (scanned.marks[page] === RELEASED) saved++
      } else if (this.#isMarked(frame)) {
        const users = this.#host.references(frame) - 1
        saved += (users - 1) / users
      }
    }
    return Math.round(saved)
  }

  #metadataBytes(): number {
    const marks = this.#scanned.reduce((sum, scanned) => sum + (scanned?.marks.byteLength ?? 0), 0)
    return marks + this.#candidates.bytes + this.#shared.bytes + this.#isShared.length
  }
}
