/** Calls of a guest that keeps its own tables: each is judged before anything changes. (Xen, "public/xen.h", MMU calls) @hot */

import { FRAME_SHIFT, FRAME_SIZE, FRAME_USE, gpa, hpa, NonrootError, PAGE_ENTRY } from '@nonroot/contracts'
import type {
  Counter,
  EntryOptions,
  GrantEntry,
  GrantPlace,
  Gpa,
  Gva,
  GuestFrames,
  MemoryMap,
  HostMemory,
  Hpa,
  PagingPort,
  TableCalls,
  TableLevel,
  TableStatus,
  VmContext,
} from '@nonroot/contracts'
import { checkedDescriptor } from './descriptors.ts'
import { FRAME_FLAG, frameTableOf, type FrameTable } from './frame-table.ts'
import { MACHINE_TO_PHYSICAL, OWN_DESCRIPTOR_PAGE, OwnTables, TABLE_PAGES } from './own-tables.ts'
import {
  FORBIDDEN_HIGH,
  FORBIDDEN_LOW,
  FREE_HIGH,
  FREE_LOW,
  HIGH,
  isOwnSlot,
  OWN_SLOTS,
  RULES,
  type Rule,
} from './rules.ts'
import { adjustedHigh, adjustedLow, frameOfEntry, FrameUses } from './uses.ts'

const MOST_ENTRIES = OWN_DESCRIPTOR_PAGE * 512
const AD = PAGE_ENTRY.accessed | PAGE_ENTRY.dirty

/** Roots and descriptor tables of a vCPU, by machine frame; 0 none. */
interface VcpuTables {
  kernel: number
  user: number
  descriptors: number[]
  local: number[]
}

export class DirectTables implements TableCalls {
  readonly machineFrames: number
  readonly machineToPhysical: TableCalls['machineToPhysical']
  /** A frame is being given back: the memory's notice of it is our own doing. */
  isFreeing = false

  readonly #host: HostMemory
  readonly #memory: GuestFrames
  readonly #words: Int32Array
  readonly #frames: FrameTable
  readonly #domain: number
  readonly #uses: FrameUses
  readonly #own: OwnTables
  readonly #ports: PagingPort[] = []
  readonly #vcpus: VcpuTables[]
  /** By the guest's own frame numbers at the start: machine frame, and its place in guest memory. */
  readonly #initial: Uint32Array
  readonly #places: Float64Array
  /** Places whose frames are pinned by this strategy. */
  readonly #pinned: Uint8Array
  /** Place of a machine frame, as an index of the above plus 1. */
  readonly #placeOf: Uint32Array
  readonly #free: number[] = []
  readonly #shared: number[] = []
  #count = 0

  readonly #refusals: Readonly<Record<Rule, Counter>>
  readonly #validations: readonly Counter[]
  readonly #updates: readonly Counter[]
  readonly #flushes: Counter
  readonly #useFlushes: Counter
  readonly #pins: Counter

  constructor({ hostMemory, guestFrames, metrics, vcpuCount }: VmContext) {
    this.#host = hostMemory
    this.#memory = guestFrames
    this.#words = hostMemory.words
    this.#frames = frameTableOf(hostMemory)
    this.#domain = this.#frames.newDomain()
    this.machineFrames = this.#frames.length
    const refusals = metrics.scope('refused')
    this.#refusals = Object.fromEntries(
      Object.entries(RULES).map(([rule, help]) => [rule, refusals.counter(rule, `refused: ${help}`)]),
    ) as Record<Rule, Counter>
    const levels = [0, 1, 2, 3, 4]
    this.#validations = levels.map((level) =>
      metrics.scope('validated').counter(`level${level}`, `frames that became tables of level ${level}`),
    )
    this.#updates = levels.map((level) =>
      metrics
        .scope('updates')
        .counter(
          level ? `level${level}` : 'plain',
          level ? `entries of level ${level} written by call` : 'words of ordinary memory written by table call',
        ),
    )
    this.#flushes = metrics.counter('flushes', 'TLB flushes asked for by the guest')
    this.#useFlushes = metrics.counter(
      'useFlushes',
      'TLB flushes because a writable frame became a table or descriptors',
    )
    this.#pins = metrics.counter('pins', 'tables pinned')

    this.#own = new OwnTables(hostMemory, this.machineFrames, vcpuCount)
    this.machineToPhysical = {
      start: MACHINE_TO_PHYSICAL,
      end: MACHINE_TO_PHYSICAL + BigInt(this.#own.mapBytes),
      firstFrame: 0,
    }
    this.#uses = new FrameUses(this.#domain, this.#frames, hostMemory, {
      refuse: (rule) => void this.#refusals[rule].value++,
      flush: () => {
        this.#useFlushes.value++
        this.#flushAll()
      },
      own: (frame, on) => this.#fillOwnSlots(frame, on),
      free: (frame) => this.#freed(frame),
      validated: (level) => void this.#validations[level]!.value++,
    })
    this.#vcpus = Array.from({ length: vcpuCount }, () => ({ kernel: 0, user: 0, descriptors: [], local: [] }))
    this.#places = placesOf(guestFrames)
    this.#initial = new Uint32Array(this.#places.length)
    this.#pinned = new Uint8Array(this.#places.length)
    this.#placeOf = new Uint32Array(this.machineFrames)
  }

  addPort(port: PagingPort): void {
    this.#ports.push(port)
  }

  // The domain's frames

  get frameCount(): number {
    return this.#count
  }
  get mostFrames(): number {
    return this.#places.length
  }

  populate(): Readonly<Uint32Array> {
    this.#forgetUses()
    this.#free.length = 0
    this.#placeOf.fill(0)
    this.#count = 0
    for (let place = 0; place < this.#places.length; place++) {
      const frame = this.#fill(place)
      if (frame === undefined) throw noMemory(this.#places.length)
      this.#initial[place] = frame
    }
    for (const frame of this.#shared) this.#assignShared(frame)
    return this.#initial
  }

  /** Nothing of the domain is a table any more, whatever refers to it. */
  #forgetUses(): void {
    const frames = this.#frames
    for (let frame = 0; frame < frames.length; frame++) if (frames.owner[frame] === this.#domain) frames.forget(frame)
    this.#vcpus.forEach((vcpu, index) => {
      for (let page = 0; page < 2 * TABLE_PAGES; page++)
        if (page !== OWN_DESCRIPTOR_PAGE) this.#own.setDescriptorPage(index, page, 0)
      Object.assign(vcpu, { kernel: 0, user: 0, descriptors: [], local: [] })
    })
    this.#flushAll()
  }

  /** Undefined: the host has no frame left. */
  #fill(place: number): number | undefined {
    const address = this.#places[place]!
    const host = this.#pinned[place] ? this.#memory.peek(address) : this.#memory.pin(address)
    if (host === undefined || host === 'wait') return undefined
    this.#pinned[place] = 1
    const frame = host >>> FRAME_SHIFT
    this.#frames.assign(frame, this.#domain)
    this.#placeOf[frame] = place + 1
    this.#own.setPhysical(frame, place, 0)
    this.#count++
    return frame
  }

  takeFrame(): number | undefined {
    const place = this.#free.pop()
    if (place === undefined) return undefined
    const frame = this.#fill(place)
    if (frame === undefined) this.#free.push(place)
    else this.#own.setPhysical(frame, -1, -1)
    return frame
  }

  giveBack(frame: number): TableStatus {
    const { flags } = this.#frames
    if (!this.#frames.isOwned(frame, this.#domain) || !(flags[frame]! & FRAME_FLAG.allocated))
      return this.#refuse('range')
    flags[frame]! &= ~FRAME_FLAG.allocated
    this.#own.setPhysical(frame, -1, -1)
    this.#uses.dropReference(frame)
    return 'ok'
  }

  /** The last reference is gone. No translation may lead there when it is allocated again. */
  #freed(frame: number): void {
    const place = this.#placeOf[frame]!
    this.#frames.forget(frame)
    if (place === 0) return
    this.#flushAll()
    this.#placeOf[frame] = 0
    this.#count--
    this.isFreeing = true
    const address = gpa(this.#places[place - 1]!)
    this.#memory.unpin(address)
    this.#memory.release([{ address, length: FRAME_SIZE }])
    this.#pinned[place - 1] = 0
    this.isFreeing = false
    this.#free.push(place - 1)
  }

  shareFrame(frame: Hpa): number {
    const number = frame >>> FRAME_SHIFT
    this.#shared.push(number)
    this.#assignShared(number)
    return number
  }
  /** Writable for ever, so that it never becomes a table. */
  #assignShared(frame: number): void {
    this.#frames.assign(frame, this.#domain)
    this.#frames.flags[frame] = 0
    this.#frames.use[frame] = FRAME_USE.writable
    this.#frames.uses[frame] = 1
  }

  addressOf(frame: number): Gpa | undefined {
    const place = this.#placeOf[frame] ?? 0
    return place === 0 || !this.#frames.isOwned(frame, this.#domain) ? undefined : gpa(this.#places[place - 1]!)
  }

  hostAddress(machine: number): Hpa | undefined {
    return this.#frames.isOwned(Math.floor(machine / FRAME_SIZE), this.#domain) ? hpa(machine) : undefined
  }

  hold(frame: number, isWritable = true): TableStatus {
    return isWritable ? this.#uses.take(frame, FRAME_USE.writable) : this.#uses.takeReference(frame)
  }
  release(frame: number, isWritable = true): void {
    if (isWritable) this.#uses.drop(frame)
    else this.#uses.dropReference(frame)
  }

  settle(): number {
    const { owner, flags, references, uses, length } = this.#frames
    const isOwn = (frame: number): boolean => owner[frame] === this.#domain
    for (const vcpu of this.#vcpus) {
      const frames = [...vcpu.descriptors, ...vcpu.local, vcpu.kernel, vcpu.user]
      Object.assign(vcpu, { kernel: 0, user: 0, descriptors: [], local: [] })
      for (const frame of frames) if (frame !== 0) this.#uses.drop(frame)
    }
    for (let frame = 0; frame < length; frame++)
      if (isOwn(frame) && flags[frame]! & FRAME_FLAG.pinned) this.unpin(frame)
    let left = 0
    for (let frame = 0; frame < length; frame++) {
      if (!isOwn(frame)) continue
      // Frames of the hypervisor's are writable for ever.
      const [reference, use] = flags[frame]! & FRAME_FLAG.allocated ? [1, 0] : [1, 1]
      if (references[frame] !== reference || uses[frame] !== use) left++
    }
    return left
  }

  // Entries

  writeEntry(_vcpu: number, machine: number, low: number, high: number, options?: EntryOptions): TableStatus {
    const frame = Math.floor(machine / FRAME_SIZE)
    if (machine & 7 || !this.#frames.isOwned(frame, this.#domain)) return this.#refuse('range')
    const use = this.#frames.use[frame]!
    if (this.#frames.uses[frame]! > 0 && use <= FRAME_USE.level4) {
      return this.#change(
        use as TableLevel,
        machine >>> 2,
        (machine & 0xfff) >>> 3,
        low,
        high,
        options?.keepAccessed === true,
      )
    }
    // No table: it is written as if by the guest, which must then be allowed to.
    const status = this.#uses.take(frame, FRAME_USE.writable)
    if (status !== 'ok') return status
    this.#words[machine >>> 2] = low
    this.#words[(machine >>> 2) + 1] = high
    this.#host.noteWrite(hpa(machine), 8)
    this.#uses.drop(frame)
    this.#updates[0]!.value++
    return 'ok'
  }

  writeLinear(vcpu: number, address: bigint, low: number, high: number): TableStatus {
    const machine = this.#lastEntry(vcpu, address)
    if (machine < 0) return this.#refuse('walk')
    return this.#change(1, machine >>> 2, (machine & 0xfff) >>> 3, low, high, false)
  }

  /** One entry, by the index of its words. Old and new may both be absent. */
  #change(level: TableLevel, at: number, index: number, low: number, high: number, keepAccessed: boolean): TableStatus {
    const words = this.#words
    if (level === 4 && isOwnSlot(index)) {
      this.#refusals.slot.value++
      return 'denied'
    }
    const oldLow = words[at]!
    const oldHigh = words[at + 1]!
    if (oldHigh & HIGH.grant && oldLow & PAGE_ENTRY.present) return this.#refuse('grant')
    let newLow = low
    let newHigh = high
    if (low & PAGE_ENTRY.present) {
      if (low & FORBIDDEN_LOW[level]! || high & FORBIDDEN_HIGH) return this.#refuse('flags')
      newLow = adjustedLow(low)
      newHigh = adjustedHigh(level, low, high)
      if (keepAccessed) newLow |= oldLow & AD
      // Nothing but what leaves the counts alone.
      if (!((oldLow ^ newLow) & ~FREE_LOW[level]!) && !((oldHigh ^ newHigh) & ~FREE_HIGH)) {
        words[at] = newLow
        words[at + 1] = newHigh
        this.#host.noteWrite(hpa(at * 4), 8)
        this.#updates[level]!.value++
        if (level > 1) this.#flushAll()
        return 'ok'
      }
      const status = this.#uses.takeEntry(level, newLow, newHigh)
      if (status !== 'ok') return status
    }
    words[at] = newLow
    words[at + 1] = newHigh
    // A guest may run what it has for a table.
    this.#host.noteWrite(hpa(at * 4), 8)
    this.#updates[level]!.value++
    if (oldLow & PAGE_ENTRY.present) {
      // Paging-structure caches may know the old one.
      if (level > 1) this.#flushAll()
      this.#uses.dropEntry(level, oldLow, oldHigh)
    }
    return 'ok'
  }

  /** Machine address of the entry of the last level for a linear address, by the kernel root. -1: there is no such table. */
  #lastEntry(vcpu: number, address: bigint): number {
    const root = this.#vcpus[vcpu]!.kernel
    const wide = BigInt.asUintN(64, address)
    if (root === 0 || BigInt.asUintN(64, BigInt.asIntN(48, wide)) !== wide) return -1
    const low = Number(wide & 0xffff_ffffn)
    const high = Number((wide >> 32n) & 0xffffn)
    if (isOwnSlot((high >>> 7) & 0x1ff)) return -1
    let table = root
    for (let level = 4; level > 1; level--) {
      const index =
        level === 4 ? (high >>> 7) & 0x1ff : level === 3 ? ((high << 2) | (low >>> 30)) & 0x1ff : (low >>> 21) & 0x1ff
      const at = (table << 10) + index * 2
      const entry = this.#words[at]!
      if (!(entry & PAGE_ENTRY.present) || entry & PAGE_ENTRY.large) return -1
      table = frameOfEntry(entry, this.#words[at + 1]!)
    }
    if (!this.#frames.has(table, FRAME_USE.level1)) return -1
    return table * FRAME_SIZE + ((low >>> 12) & 0x1ff) * 8
  }

  tableEntryAt(vcpu: number, address: bigint): number | undefined {
    const at = this.#lastEntry(vcpu, address)
    if (at < 0) return undefined
    const low = this.#words[at >>> 2]!
    if (!(low & PAGE_ENTRY.present) || low & PAGE_ENTRY.writable) return undefined
    const frame = frameOfEntry(low, this.#words[(at >>> 2) + 1]!)
    if (!this.#frames.isOwned(frame, this.#domain) || !this.#frames.has(frame, FRAME_USE.level1)) return undefined
    return frame * FRAME_SIZE + Number(address & 0xff8n)
  }

  // Grants

  /** Index of the words of a mapping's entry. -1: there is no such entry, or none that a table has. (XSA-227) */
  #grantEntry(vcpu: number, place: GrantPlace): number {
    if ('linear' in place) return this.#lastEntry(vcpu, place.linear) / 4
    const frame = Math.floor(place.entry / FRAME_SIZE)
    const isTable = this.#frames.isOwned(frame, this.#domain) && this.#frames.has(frame, FRAME_USE.level1)
    return place.entry & 7 || !isTable ? -1 : place.entry / 4
  }

  mapGrant(vcpu: number, place: GrantPlace, frame: number, entry: GrantEntry): TableStatus {
    const words = this.#words
    const at = this.#grantEntry(vcpu, place)
    if (at < 0) return this.#refuse('walk')
    const [oldLow, oldHigh] = [words[at]!, words[at + 1]!]
    if (oldHigh & HIGH.grant && oldLow & PAGE_ENTRY.present) return this.#refuse('grant')
    const rights = entry.isWritable ? PAGE_ENTRY.writable | PAGE_ENTRY.dirty : 0
    const flags = PAGE_ENTRY.present | PAGE_ENTRY.user | PAGE_ENTRY.accessed | rights | (entry.available << 9)
    const low = (frame << FRAME_SHIFT) | flags
    const high = Math.floor(frame / 0x10_0000)
    const status = this.#uses.takeEntry(1, low, high)
    if (status !== 'ok') return status
    this.#put(at, low, high | HIGH.grant | (entry.isUser ? 0 : HIGH.kernelOnly))
    this.#uses.dropEntry(1, oldLow, oldHigh)
    return 'ok'
  }

  unmapGrant(vcpu: number, place: GrantPlace, frame: number, isWritable: boolean, replacement?: bigint): TableStatus {
    const words = this.#words
    const at = this.#grantEntry(vcpu, place)
    const from = replacement === undefined ? at : this.#lastEntry(vcpu, replacement) / 4
    if (at < 0 || from < 0) return this.#refuse('walk')
    const [oldLow, oldHigh] = [words[at]!, words[at + 1]!]
    // Present, of a grant, of that frame, and as it was made. (XSA-234)
    const isMapping = oldLow & PAGE_ENTRY.present && oldHigh & HIGH.grant && frameOfEntry(oldLow, oldHigh) === frame
    if (!isMapping || ((oldLow & PAGE_ENTRY.writable) !== 0) !== isWritable) return this.#refuse('grant')
    let [low, high] = [0, 0]
    if (from !== at) {
      ;[low, high] = [words[from]!, words[from + 1]!]
      if (high & HIGH.grant && low & PAGE_ENTRY.present) return this.#refuse('grant')
      // It keeps its references: only its place changes.
      this.#put(from, 0, 0)
    }
    this.#put(at, low, high)
    this.#uses.dropEntry(1, oldLow, oldHigh)
    this.#flushAll()
    return 'ok'
  }

  steal(frame: number): TableStatus {
    const { flags, references, use } = this.#frames
    if (!this.#frames.isOwned(frame, this.#domain) || !(flags[frame]! & FRAME_FLAG.allocated))
      return this.#refuse('range')
    if (references[frame] !== 1) return this.#refuse('use')
    // What it was used as, it is no more for whoever gets it. (XSA-214)
    use[frame] = FRAME_USE.none
    this.#flushAll()
    return 'ok'
  }

  /** An entry of a table, by the index of its words. */
  #put(at: number, low: number, high: number): void {
    this.#words[at] = low
    this.#words[at + 1] = high
    this.#host.noteWrite(hpa(at * 4), 8)
  }

  setMachineToPhysical(frame: number, physical: bigint): TableStatus {
    if (!this.#frames.isOwned(frame, this.#domain)) return this.#refuse('range')
    this.#own.setPhysical(frame, Number(physical & 0xffff_ffffn), Number((physical >> 32n) & 0xffff_ffffn))
    return 'ok'
  }

  // Tables as wholes

  pin(level: TableLevel, frame: number): TableStatus {
    const status = this.#uses.take(frame, level)
    if (status !== 'ok') return status
    if (this.#frames.flags[frame]! & FRAME_FLAG.pinned) {
      this.#uses.drop(frame)
      return this.#refuse('pin')
    }
    this.#frames.flags[frame]! |= FRAME_FLAG.pinned
    this.#pins.value++
    return 'ok'
  }

  unpin(frame: number): TableStatus {
    if (!this.#frames.isOwned(frame, this.#domain) || !(this.#frames.flags[frame]! & FRAME_FLAG.pinned))
      return this.#refuse('pin')
    this.#frames.flags[frame]! &= ~FRAME_FLAG.pinned
    this.#uses.drop(frame)
    return 'ok'
  }

  setRoot(vcpu: number, which: 'kernel' | 'user', frame: number): TableStatus {
    const tables = this.#vcpus[vcpu]!
    const old = tables[which]
    if (frame === old) return 'ok'
    if (frame === 0 && which === 'kernel') return this.#refuse('range')
    if (frame !== 0) {
      const status = this.#uses.take(frame, FRAME_USE.level4)
      if (status !== 'ok') return status
    }
    tables[which] = frame
    // The map is where a kernel runs: user programs have no use for it.
    if (frame !== 0) this.#showMap(frame, which === 'kernel')
    const isKernel = old !== 0 && this.#isRoot('kernel', old)
    if (old !== 0 && isKernel !== this.#isRoot('user', old)) this.#showMap(old, isKernel)
    this.#ports[vcpu]?.setRoots?.(tables.kernel * FRAME_SIZE, tables.user * FRAME_SIZE)
    if (old !== 0) this.#uses.drop(old)
    return 'ok'
  }
  #isRoot(which: 'kernel' | 'user', frame: number): boolean {
    for (const tables of this.#vcpus) if (tables[which] === frame) return true
    return false
  }
  #showMap(root: number, on: boolean): void {
    const at = (root << 10) + OWN_SLOTS.machineToPhysical * 2
    const entry = on ? this.#own.mapEntry | 0 : 0
    if (this.#words[at] !== entry) this.#put(at, entry, 0)
  }
  root(vcpu: number, which: 'kernel' | 'user'): number {
    return this.#vcpus[vcpu]![which]
  }

  #fillOwnSlots(frame: number, on: boolean): void {
    const start = frame << 10
    for (let slot: number = OWN_SLOTS.first; slot <= OWN_SLOTS.last; slot++) {
      this.#words[start + slot * 2] = on && slot === OWN_SLOTS.perDomain ? this.#own.domainEntry : 0
      this.#words[start + slot * 2 + 1] = 0
    }
    this.#host.noteWrite(hpa(frame * FRAME_SIZE), FRAME_SIZE)
  }

  // Descriptors

  descriptorTable(vcpu: number): bigint {
    return this.#own.descriptorTable(vcpu)
  }
  localDescriptorTable(vcpu: number): bigint {
    return this.#own.localDescriptorTable(vcpu)
  }

  setDescriptorFrames(vcpu: number, frames: readonly number[], entries: number): TableStatus {
    if (entries > MOST_ENTRIES || frames.length !== Math.ceil(entries / 512)) return this.#refuse('range')
    const tables = this.#vcpus[vcpu]!
    const status = this.#takeDescriptors(frames)
    if (status !== 'ok') return status
    for (let page = 0; page < OWN_DESCRIPTOR_PAGE; page++) this.#own.setDescriptorPage(vcpu, page, frames[page] ?? 0)
    this.#ports[vcpu]?.flushAll()
    for (const frame of tables.descriptors.splice(0)) this.#uses.drop(frame)
    tables.descriptors = [...frames]
    return 'ok'
  }
  /** All or none. */
  #takeDescriptors(frames: readonly number[]): TableStatus {
    for (const [index, frame] of frames.entries()) {
      const status = this.#uses.take(frame, FRAME_USE.descriptors)
      if (status === 'ok') continue
      for (const taken of frames.slice(0, index)) this.#uses.drop(taken)
      return status
    }
    return 'ok'
  }

  writeDescriptor(machine: number, low: number, high: number): TableStatus {
    const frame = Math.floor(machine / FRAME_SIZE)
    if (machine & 7 || !this.#frames.isOwned(frame, this.#domain)) return this.#refuse('range')
    const checked = checkedDescriptor(high)
    if (checked === undefined) return this.#refuse('descriptor')
    const use = this.#frames.uses[frame]! > 0 ? this.#frames.use[frame] : FRAME_USE.writable
    if (use !== FRAME_USE.descriptors && use !== FRAME_USE.writable) {
      this.#refusals.use.value++
      return 'invalid'
    }
    this.#words[machine >>> 2] = low
    this.#words[(machine >>> 2) + 1] = checked
    this.#host.noteWrite(hpa(machine), 8)
    return 'ok'
  }

  setLocalDescriptors(vcpu: number, address: bigint, entries: number): TableStatus {
    const pages = Math.ceil(entries / 512)
    if (entries > 8192 || address & 0xfffn) return this.#refuse('range')
    const frames: number[] = []
    for (let page = 0; page < pages; page++) {
      const at = this.#lastEntry(vcpu, address + BigInt(page * FRAME_SIZE))
      const low = at < 0 ? 0 : this.#words[at >>> 2]!
      if (!(low & PAGE_ENTRY.present)) return this.#refuse('walk')
      frames.push(frameOfEntry(low, this.#words[(at >>> 2) + 1]!))
    }
    const status = this.#takeDescriptors(frames)
    if (status !== 'ok') return status
    const tables = this.#vcpus[vcpu]!
    for (let page = 0; page < TABLE_PAGES; page++)
      this.#own.setDescriptorPage(vcpu, TABLE_PAGES + page, frames[page] ?? 0)
    this.#ports[vcpu]?.flushAll()
    for (const frame of tables.local.splice(0)) this.#uses.drop(frame)
    tables.local = frames
    return 'ok'
  }

  // Frames' content

  clearFrame(frame: number): TableStatus {
    const status = this.hold(frame)
    if (status !== 'ok') return status
    this.#words.fill(0, frame << 10, (frame + 1) << 10)
    this.#host.noteWrite(hpa(frame * FRAME_SIZE), FRAME_SIZE)
    this.release(frame)
    return 'ok'
  }
  copyFrame(to: number, from: number): TableStatus {
    if (!this.#frames.isOwned(from, this.#domain)) return this.#refuse('owner')
    const status = this.hold(to)
    if (status !== 'ok') return status
    this.#words.copyWithin(to << 10, from << 10, (from + 1) << 10)
    this.#host.noteWrite(hpa(to * FRAME_SIZE), FRAME_SIZE)
    this.release(to)
    return 'ok'
  }

  // Translations

  flush(vcpus: readonly number[] | 'all', address: bigint | undefined): void {
    this.#flushes.value++
    for (const port of this.#ports) {
      if (vcpus !== 'all' && !vcpus.includes(port.vcpu)) continue
      if (address === undefined) port.flushAll()
      else port.flushAddress(BigInt.asUintN(64, address) as Gva)
    }
  }
  #flushAll(): void {
    for (const port of this.#ports) port.flushAll()
  }

  #refuse(rule: Rule): TableStatus {
    this.#refusals[rule].value++
    return 'invalid'
  }

  dispose(): void {
    const frames = this.#frames
    for (let frame = 0; frame < frames.length; frame++) if (frames.owner[frame] === this.#domain) frames.forget(frame)
    this.#own.dispose()
  }
}

const noMemory = (frames: number): NonrootError =>
  new NonrootError({
    code: 'host.memory',
    message: `host memory cannot hold all ${frames} frames of the guest's memory: a paravirtual guest has them from the start`,
    thing: 'host.memory',
    remedy: 'make host.memory larger or machine.memory smaller',
  })

/** Every frame of RAM, in ascending order: the guest's frame numbers have no holes. */
function placesOf(memory: MemoryMap): Float64Array {
  const places: number[] = []
  for (const { start, length, kind } of memory.regions) {
    if (kind === 'ram') for (let at = 0; at < length; at += FRAME_SIZE) places.push(start + at)
  }
  return Float64Array.from(places)
}
