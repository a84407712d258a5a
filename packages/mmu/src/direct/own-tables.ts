/** What the hypervisor maps into every address space of a domain: the machine-to-physical map, and each vCPU's descriptor tables. */

import { FRAME_SHIFT, FRAME_SIZE, NonrootError, PAGE_ENTRY } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import { ENTRIES, OWN_SLOTS } from './rules.ts'

const slotStart = (slot: number): bigint => 0xffff_0000_0000_0000n | (BigInt(slot) << 39n)
export const MACHINE_TO_PHYSICAL = slotStart(OWN_SLOTS.machineToPhysical)
const PER_DOMAIN = slotStart(OWN_SLOTS.perDomain)

/** Pages of a descriptor table: 64 KiB, as far as a selector reaches. */
export const TABLE_PAGES = 16
/** The global table's page with the hypervisor's flat segments: selectors 0xe000 and up. (Xen, "public/arch-x86/xen-x86_64.h") */
export const OWN_DESCRIPTOR_PAGE = 14
const FLAT_SEGMENTS: readonly [selector: number, low: number, high: number][] = [
  [0xe020, 0x0000_ffff, 0x00cf_fb00],
  [0xe028, 0x0000_ffff, 0x00cf_f300],
  [0xe030, 0x0000_ffff, 0x00af_fb00],
]
const PAGES_OF_VCPU = 2 * TABLE_PAGES
const VCPUS_OF_TABLE = ENTRIES / PAGES_OF_VCPU

const LINK = PAGE_ENTRY.present | PAGE_ENTRY.writable | PAGE_ENTRY.user | PAGE_ENTRY.accessed | PAGE_ENTRY.dirty
const READ_ONLY = PAGE_ENTRY.present | PAGE_ENTRY.user | PAGE_ENTRY.accessed
const PRIVATE = PAGE_ENTRY.present | PAGE_ENTRY.accessed

export class OwnTables {
  /** Root entries for the two slots, low halves. */
  readonly mapEntry: number
  readonly domainEntry: number
  /** Bytes of the map. */
  readonly mapBytes: number
  readonly #host: HostMemory
  readonly #taken: Hpa[] = []
  readonly #map: Hpa
  readonly #mapFrames: number
  readonly #pages: Hpa[] = []

  constructor(host: HostMemory, frames: number, vcpuCount: number) {
    this.#host = host
    this.mapBytes = frames * 8
    this.#mapFrames = Math.ceil(this.mapBytes / FRAME_SIZE)
    const map = host.allocateFrames(this.#mapFrames)
    if (map === undefined) throw noMemory(`${this.mapBytes} bytes for the machine-to-physical map`)
    this.#map = map
    host.bytes.fill(0xff, map, map + this.mapBytes)
    this.mapEntry = this.#tree(Array.from({ length: this.#mapFrames }, (_, n) => (map + n * FRAME_SIZE) | READ_ONLY))
    const tables = Math.ceil(vcpuCount / VCPUS_OF_TABLE)
    this.domainEntry = this.#tree(new Array<number>(tables * ENTRIES).fill(0), this.#pages)
    const flat = this.#take()
    for (const [selector, low, high] of FLAT_SEGMENTS) {
      host.view.setUint32(flat + (selector & 0xfff), low, true)
      host.view.setUint32(flat + (selector & 0xfff) + 4, high, true)
    }
    for (let vcpu = 0; vcpu < vcpuCount; vcpu++) this.setDescriptorPage(vcpu, OWN_DESCRIPTOR_PAGE, flat >>> FRAME_SHIFT)
  }

  descriptorTable(vcpu: number): bigint {
    return PER_DOMAIN + BigInt(vcpu * PAGES_OF_VCPU * FRAME_SIZE)
  }
  localDescriptorTable(vcpu: number): bigint {
    return this.descriptorTable(vcpu) + BigInt(TABLE_PAGES * FRAME_SIZE)
  }
  /** `page` counts through the global table, then the local one. Frame 0: nothing is there. */
  setDescriptorPage(vcpu: number, page: number, frame: number): void {
    const index = vcpu * PAGES_OF_VCPU + page
    const at = this.#pages[Math.floor(index / ENTRIES)]! + (index % ENTRIES) * 8
    this.#host.view.setUint32(at, frame === 0 ? 0 : ((frame << FRAME_SHIFT) | PRIVATE) >>> 0, true)
    this.#host.view.setUint32(at + 4, 0, true)
  }

  setPhysical(frame: number, low: number, high: number): void {
    const { view } = this.#host
    view.setUint32(this.#map + frame * 8, low, true)
    view.setUint32(this.#map + frame * 8 + 4, high, true)
  }

  /** Tables of three levels over these last entries. Gives the root entry; `last` the tables of the last level. */
  #tree(entries: readonly number[], last: Hpa[] = []): number {
    let level = entries
    for (let depth = 1; depth <= 3; depth++) {
      const next: number[] = []
      for (let at = 0; at < level.length; at += ENTRIES) {
        const table = this.#take()
        for (let n = 0; n < ENTRIES && at + n < level.length; n++)
          this.#host.view.setUint32(table + n * 8, level[at + n]! >>> 0, true)
        if (depth === 1) last.push(table)
        next.push(table | LINK)
      }
      level = next
    }
    return level[0]! >>> 0
  }

  #take(): Hpa {
    const frame = this.#host.allocateFrame()
    if (frame === undefined) throw noMemory('a table of its own')
    this.#taken.push(frame)
    return frame
  }

  dispose(): void {
    for (const frame of this.#taken) this.#host.freeFrame(frame)
    for (let n = 0; n < this.#mapFrames; n++) this.#host.freeFrame((this.#map + n * FRAME_SIZE) as Hpa)
    this.#taken.length = 0
  }
}

const noMemory = (what: string): NonrootError =>
  new NonrootError({
    code: 'host.memory',
    message: `host memory has no room for ${what}`,
    thing: 'host.memory',
    remedy: 'make host.memory larger or machine.memory smaller',
  })
