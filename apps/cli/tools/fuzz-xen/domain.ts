/** A domain of two vCPUs whose kernel is the fuzzer: real ABI, tables, events and rings, and memory that it reaches through its own tables alone. */

import {
  FRAME_SIZE,
  type GuestAbiVcpu,
  type GuestFrames,
  type IoModelContext,
  type PvVcpu,
  type TableCalls,
  type VmContext,
  XenPlatform,
} from '@nonroot/contracts'
import { XenAbi } from '@nonroot/abi-xen'
import { createXenPlatform } from '@nonroot/io-xen'
import {
  createTestClock,
  createTestConsole,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { frameTableOf } from '../../../../packages/mmu/src/direct/frame-table.ts'
import { DirectTables } from '../../../../packages/mmu/src/direct/tables.ts'
import { countingFaults } from '../../../../packages/mmu/src/direct/testing/judge.ts'
import { Translations } from '../../../../packages/mmu/src/direct/testing/translations.ts'

export const FRAMES = 48
/** Frames of the domain by its own numbers: four tables, the rings, then ordinary memory, all mapped from linear address 0. */
export const TABLES = 4
export const [STORE, CONSOLE] = [4, 5]
/** The fuzzer's own structures: mapped, and never named in a call on purpose. */
export const ARGUMENTS = 40
const VCPUS = 2
export const FOREIGN = 8
const CANARY = 0x5a
const [P, RW, US] = [1, 2, 4]

const PART = 1 << 8
/** An entry of the grant table, of whichever version is in force. */
export interface WrittenGrant {
  readonly flags: number
  readonly domain: number
  readonly frame: number
  /** Start and length, where it is for a part of the page. */
  readonly part: readonly [start: number, length: number] | undefined
}

export class FuzzedDomain {
  readonly host = createTestHostMemory(512)
  readonly frames = frameTableOf(this.host)
  readonly metrics = createTestMetrics()
  readonly abi: XenAbi
  readonly tables: DirectTables
  /** Frames of the host without an owner: their content must not change, and no table may name them. */
  readonly foreign: readonly number[]
  machine: Readonly<Uint32Array> = new Uint32Array()
  /** The call that is being made is to be made again. */
  repeats = false
  crashed: string | undefined
  readonly vcpus: GuestAbiVcpu[]
  readonly #global: number[][] = [[], []]
  readonly #local: number[][] = [[], []]
  readonly #shared: number[] = []
  readonly #words = this.host.words
  readonly #translations: Translations
  /** Frames whose writes were made known since the last judgement, and what was in each then; those without an owner have no content. */
  readonly #noted = new Set<number>()
  readonly #content = new Map<number, Uint8Array>()
  /** Roots when they were last judged, and frames copied to since. */
  readonly #roots = new Set<number>()
  readonly #copied = new Set<number>()

  constructor() {
    const { host, metrics } = this
    const note = (address: number, length: number): void => this.#note(address, length)
    host.codeHolders.fill(1)
    host.watchWrites(note)
    const guestMemory = createTestGuestMemory({
      hostMemory: host,
      ram: FRAMES * FRAME_SIZE,
      paging: { onMemoryChange: () => {} },
    })
    const clock = createTestClock()
    const log = createTestLog()
    const guestFrames = guestMemory as unknown as GuestFrames
    const context: VmContext = { hostMemory: host, guestMemory, guestFrames, clock, metrics, log, vcpuCount: VCPUS }
    this.foreign = Array.from({ length: FOREIGN }, () => host.allocateFrame()! >>> 12)
    this.tables = new DirectTables(context)
    const translations = (this.#translations = new Translations(this.frames, this.#words, this.tables, VCPUS))
    for (let vcpu = 0; vcpu < VCPUS; vcpu++) {
      const setRoots = (kernel: number, user: number): void => translations.load(vcpu, [kernel, user])
      this.tables.addPort({ vcpu, flushAll: () => translations.flush(vcpu), flushAddress() {}, setRoots } as never)
    }
    const power = { powerOff() {}, reset() {}, crashed() {}, exit() {}, onPowerButton: () => () => {} }
    const model = createXenPlatform(undefined, {
      ...{
        vcpuCount: VCPUS,
        dma: guestMemory,
        memoryMap: guestMemory,
        console: createTestConsole(),
        metrics,
        log,
        power,
        clock,
      },
    } as unknown as IoModelContext)
    const platform = model.offers!.get(XenPlatform)!({} as never) as XenPlatform
    this.abi = new XenAbi(context)
    this.abi.attach({
      ...{ guestMemory, clock, power, vcpuCount: VCPUS, interrupts: model.interruptController },
      paging: { tableCalls: this.#observed() } as never,
      capability: () => platform as never,
    })
    this.vcpus = Array.from({ length: VCPUS }, (_, index) => this.#vcpu(index))
    for (const vcpu of this.vcpus) this.abi.addVcpu(vcpu)
  }

  /** The tables, with a book of which frames are descriptor tables and which are the hypervisor's own: the judge needs to know. */
  #observed(): TableCalls {
    const { tables } = this
    const observed = Object.create(tables) as TableCalls
    const own = Object.fromEntries(
      ['machineFrames', 'machineToPhysical', 'frameCount', 'mostFrames'].map((name) => [
        name,
        { get: () => tables[name as 'frameCount'] },
      ]),
    )
    Object.defineProperties(observed, own)
    for (const name of Object.getOwnPropertyNames(DirectTables.prototype) as (keyof TableCalls)[]) {
      if (name in own || typeof tables[name] !== 'function') continue
      ;(observed as unknown as Record<string, unknown>)[name] = (...args: unknown[]) =>
        (tables[name] as (...args: unknown[]) => unknown).apply(tables, args)
    }
    observed.shareFrame = (frame) => {
      this.#shared.push(frame >>> 12)
      return tables.shareFrame(frame)
    }
    observed.copyFrame = (to, from) => {
      this.#copied.add(to)
      return tables.copyFrame(to, from)
    }
    observed.setDescriptorFrames = (vcpu, frames, entries) => {
      const status = tables.setDescriptorFrames(vcpu, frames, entries)
      if (status === 'ok') this.#global[vcpu] = [...frames]
      return status
    }
    observed.setLocalDescriptors = (vcpu, address, entries) => {
      const pages = Array.from({ length: Math.ceil(entries / 512) }, (_, page) =>
        this.#walk(vcpu, address + BigInt(page * FRAME_SIZE), false),
      )
      const status = tables.setLocalDescriptors(vcpu, address, entries)
      if (status === 'ok') this.#local[vcpu] = pages.map((at) => at! >>> 12)
      return status
    }
    return observed
  }

  /** As for a new domain. */
  begin(): void {
    const memory = this.abi.paravirtual.begin()
    this.machine = memory.machineFrames
    for (const list of [...this.#global, ...this.#local]) list.length = 0
    for (const frame of this.foreign) this.host.bytes.fill(CANARY, frame * FRAME_SIZE, (frame + 1) * FRAME_SIZE)
    for (const frame of this.machine) this.#words.fill(0, frame << 10, (frame + 1) << 10)
    for (let level = 0; level < TABLES - 1; level++) this.#words[this.machine[level]! << 10] = this.#entry(level + 1)
    for (let frame = 0; frame < FRAMES; frame++)
      this.#words[(this.machine[TABLES - 1]! << 10) + frame * 2] = this.#entry(
        frame,
        frame < TABLES ? P | US : P | RW | US,
      )
    this.abi.paravirtual.start({ root: this.machine[0]!, store: this.machine[STORE]!, console: this.machine[CONSOLE]! })
    for (let vcpu = 0; vcpu < VCPUS; vcpu++) this.tables.setRoot(vcpu, 'kernel', this.machine[0]!)
    for (const book of [this.#content, this.#noted, this.#roots, this.#copied]) book.clear()
  }

  #note(address: number, length: number): void {
    for (let frame = address >>> 12; frame <= (address + length - 1) >>> 12; frame++) this.#noted.add(frame)
  }

  /** The hypervisor wrote where code may be, without a notification. Rings are written all the time, and contain no code. */
  #unnoted(held: readonly number[]): string[] {
    const found: string[] = []
    for (const frame of this.machine) {
      const now = this.host.bytes.subarray(frame * FRAME_SIZE, (frame + 1) * FRAME_SIZE)
      const before = this.#content.get(frame)
      const isOwned = this.frames.owner[frame] !== 0
      if (before && isOwned && !held.includes(frame) && !this.#noted.has(frame) && Buffer.compare(before, now) !== 0)
        found.push(`frame ${frame} was written without a notification`)
      if (isOwned) this.#content.set(frame, now.slice())
      else this.#content.delete(frame)
    }
    this.#noted.clear()
    return found
  }
  #entry(frame: number, flags = P | RW | US): number {
    return (this.machine[frame]! * FRAME_SIZE) | flags
  }

  /** Frames that vCPUs have as descriptor tables, once for each time. */
  get descriptorFrames(): readonly number[] {
    return [...this.#global, ...this.#local].flat()
  }

  /** The kernel writes an entry of its grant table, which it has mapped. */
  writeGrant(reference: number, { flags, domain, frame, part }: WrittenGrant): void {
    const { grants } = this.abi.domain
    const [first] = grants.setup(1)!
    const { view } = this.host
    const at = first! * FRAME_SIZE + reference * (grants.version === 1 ? 8 : 16)
    view.setUint16(at, part ? flags | PART : flags, true)
    view.setUint16(at + 2, domain, true)
    if (grants.version === 1) return view.setUint32(at + 4, frame, true)
    view.setUint16(at + 4, part?.[0] ?? 0, true)
    view.setUint16(at + 6, part?.[1] ?? 0, true)
    view.setBigUint64(at + 8, BigInt(frame), true)
  }

  /** What is left when the domain ends and has given everything back. */
  leaks(): string[] {
    this.abi.ended()
    const { value } = this.metrics.counter('leaks', '')
    return value === 0 ? [] : [`${value} frames or grants are left over at the end`]
  }

  /** Host address of a linear one by the vCPU's own tables. Undefined: the guest cannot reach it so. */
  #walk(vcpu: number, address: bigint, write: boolean): number | undefined {
    if (BigInt.asUintN(64, BigInt.asIntN(48, address)) !== address) return undefined
    let table = this.tables.root(vcpu, 'kernel')
    if ((address >> 47n) & 1n && ((address >> 39n) & 0x1ffn) < 272n) return undefined
    for (let level = 4; level > 0; level--) {
      const index = Number((address >> BigInt(3 + level * 9)) & 0x1ffn)
      const low = this.#words[(table << 10) + index * 2]!
      if (!(low & P) || (write && !(low & RW))) return undefined
      table = (low >>> 12) + (this.#words[(table << 10) + index * 2 + 1]! & 0xfffff) * 0x10_0000
    }
    return table * FRAME_SIZE + Number(address & 0xfffn)
  }

  copy(vcpu: number, address: bigint, bytes: Uint8Array, write: boolean): boolean {
    for (let done = 0; done < bytes.length; done++) {
      // Byte by byte only where a page begins: the rest of it follows.
      const at = this.#walk(vcpu, BigInt.asUintN(64, address + BigInt(done)), write)
      if (at === undefined) return false
      const end = Math.min(bytes.length, done + FRAME_SIZE - (at & 0xfff))
      if (write) {
        this.host.bytes.set(bytes.subarray(done, end), at)
        this.#note(at, end - done)
      } else bytes.set(this.host.bytes.subarray(at, at + end - done), done)
      done = end - 1
    }
    return true
  }

  #vcpu(index: number): GuestAbiVcpu {
    const nothing = (): void => {}
    let isUp = index === 0
    const pv: PvVcpu = {
      inKernel: true,
      ...{
        setTrap: nothing,
        clearTraps: nothing,
        setCallback: nothing,
        setKernelStack: nothing,
        returnFromTrap: nothing,
      },
      ...{ setSegmentBase: () => true, loadUserGs: () => true, descriptorsChanged: nothing, setTaskSwitched: nothing },
      ...{ setDebugRegister: () => true, debugRegister: () => 0n, setIoPrivilege: nothing, setIoBitmap: nothing },
      ...{ setInfo: nothing, sleep: nothing, yield: nothing, sendNmi: nothing, initialise: nothing },
      repeat: () => void (this.repeats = true),
      crash: (reason) => void (this.crashed = reason),
      get isUp() {
        return isUp
      },
      setUp: (up) => void (isUp = up),
      copyIn: (address, into) => this.copy(index, address, into, false),
      copyOut: (address, from) => this.copy(index, address, from, true),
    }
    const registers = { rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n, rsi: 0n, rdi: 0n, r8: 0n, r9: 0n, r10: 0n }
    return { index, registers, cpl: 3, longMode: true, translate: () => undefined, pv }
  }

  /** A frame was a root and is none: nothing of the hypervisor's is left in it. */
  #leftInRoots(): string[] {
    const { owner, use, uses } = this.frames
    const isRoot = (frame: number): boolean => owner[frame] !== 0 && use[frame] === 4 && uses[frame]! > 0
    const found: string[] = []
    for (const frame of this.#roots) {
      if (isRoot(frame)) continue
      this.#roots.delete(frame)
      const isLeft = Array.from({ length: 16 }, (_, n) => this.#words[(frame << 10) + (256 + n) * 2]).some((low) => low)
      if (owner[frame] !== 0 && isLeft && !this.#copied.has(frame)) found.push(`frame ${frame} has entries of a root`)
    }
    for (const frame of this.machine) if (isRoot(frame)) this.#roots.add(frame)
    this.#copied.clear()
    return found
  }

  /** All that is wrong. Empty: nothing. */
  faults(): string[] {
    const { domain } = this.abi
    const held = [this.machine[STORE]!, this.machine[CONSOLE]!, ...this.#shared]
    for (const { infoFrame } of domain.vcpus) if (infoFrame) held.push(infoFrame)
    const read: number[] = []
    for (const { frame, isWritable } of domain.mappings.all) (isWritable ? held : read).push(frame)
    const found = countingFaults({
      frames: this.frames,
      tables: this.tables,
      words: this.#words,
      vcpuCount: VCPUS,
      held,
      read,
      descriptors: this.descriptorFrames,
      some: this.machine,
    })
    found.push(...this.#translations.faults(), ...this.#unnoted(held), ...this.#leftInRoots())
    for (const frame of this.foreign)
      if (this.host.bytes.subarray(frame * FRAME_SIZE, (frame + 1) * FRAME_SIZE).some((byte) => byte !== CANARY))
        found.push(`frame ${frame} without an owner was written`)
    if (this.crashed !== undefined) found.push(`the guest was ended: ${this.crashed}`)
    return found
  }
}
