/** A guest's half for tests of back ends: its rings, grants, ports and folder in the store. Not part of the package. */

import type { DeviceContext, GrantAccess, Gpa, Hpa } from '@nonroot/contracts'
import {
  createTestClock,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { PENDING } from '../io-xen.test.support.ts'
import { TwoLevelChannels } from '../event-channels.ts'
import { Store } from '../store/store.ts'
import { Backends } from './backends.ts'
import { ringEntries } from './ring.ts'
import type { Nodes, SplitDriver } from './split-device.ts'

const PAGE = 4096
const PAGES = 64
export const DOMAIN = 1
export const HANDLE = 3

/** Reference of the grant of a page: what it is matters to no one. */
const FIRST = 100

export type Context = Pick<DeviceContext, 'dma' | 'log' | 'metrics' | 'clock'>

export function splitBench<T extends SplitDriver>(
  type: SplitDriver['type'],
  make: (context: Context, handle: number, update: (nodes: Nodes) => void) => T,
) {
  const host = createTestHostMemory(PAGES + 16)
  const memory = createTestGuestMemory({ hostMemory: host, ram: PAGES * PAGE })
  const metrics = createTestMetrics()
  const log = createTestLog()
  const events = new TwoLevelChannels(1, metrics)
  const shared = host.allocateFrame()!
  events.attach({ view: host.view, sharedInfo: shared, vcpuInfo: () => shared })
  /** Pages that are granted, and for reading only. */
  const granted = new Map<number, { readOnly: boolean }>()
  /** Uses by reference: what is left at the end is a leak. */
  const uses = new Map<number, number>()
  const grants: GrantAccess = {
    begin(reference, writable) {
      const found = granted.get(reference)
      if (!found || (writable && found.readOnly)) return undefined
      uses.set(reference, (uses.get(reference) ?? 0) + 1)
      return ((reference - FIRST) * PAGE) as Gpa
    },
    end(reference) {
      const left = uses.get(reference)! - 1
      if (left === 0) uses.delete(reference)
      else uses.set(reference, left)
    },
  }
  const store = new Store()
  const backends = new Backends({ store, events, domain: DOMAIN })
  backends.connectGrants(grants)
  const context: Context = { dma: memory, log, metrics, clock: createTestClock() }
  const driver = backends.for(log).attach(type, [HANDLE], (handle, update) => make(context, handle, update))
  const folder = `/local/domain/${DOMAIN}/device/${type}/${HANDLE}`
  const backend = `/local/domain/0/backend/${type}/${DOMAIN}/${HANDLE}`
  /** What the guest's watch on the back end's state saw. */
  const states: string[] = []
  backends.begin()
  const read = (path: string): string | undefined => {
    const found = guest.read(path)
    return typeof found === 'string' ? undefined : found.value
  }
  const guest = store.connect(DOMAIN, () => void states.push(read(`${backend}/state`)!))
  guest.watch(`${backend}/state`, 't')
  let next = 1
  const at = (port: number): Hpa => (shared + PENDING + (port >>> 3)) as Hpa
  return {
    ...{ memory, events, metrics, log, store, guest, backends, driver, uses, states, folder, backend },
    /** A page with no other use yet, granted. */
    page({ readOnly = false } = {}): { address: number; reference: number } {
      const page = next++
      granted.set(FIRST + page, { readOnly })
      return { address: page * PAGE, reference: FIRST + page }
    },
    write: (nodes: Record<string, string | number>) => {
      for (const [name, value] of Object.entries(nodes)) guest.write(`${folder}/${name}`, String(value))
    },
    read: (name: string) => read(`${backend}/${name}`),
    port: () => events.allocateUnbound(0) as number,
    /** Whether the port's event is pending, which ends with this. */
    notified(port: number): boolean {
      const bit = 1 << (port & 7)
      const pending = (host.bytes[at(port)]! & bit) !== 0
      host.bytes[at(port)]! &= ~bit
      return pending
    },
    count: (name: string): number =>
      (metrics.samples().find((sample) => sample.name.endsWith(name)) as { value: number } | undefined)?.value ?? 0,
  }
}
export type SplitBench = ReturnType<typeof splitBench>

/** The guest's side of a ring. */
export class FrontRing {
  readonly entries: number
  readonly #bench: Pick<SplitBench, 'memory'>
  readonly #pages: readonly { readonly address: number }[]
  readonly #bytes: number
  #requests = 0
  #responses = 0

  constructor(bench: Pick<SplitBench, 'memory'>, pages: readonly { readonly address: number }[], bytes: number) {
    this.#bench = bench
    this.#pages = pages
    this.#bytes = bytes
    this.entries = ringEntries(pages.length, bytes)
    this.listen()
  }

  /** The guest is to be notified of so many responses, which are not there yet. */
  listen(count = 1): void {
    this.#bench.memory.writeU32(this.#pages[0]!.address + 12, this.#responses + count)
  }
  get wanted(): number {
    return this.#bench.memory.readU32(this.#pages[0]!.address + 4)!
  }
  /** Whatever the ring has room for. */
  say(requests: number): void {
    this.#bench.memory.writeU32(this.#pages[0]!.address, requests)
  }
  add(...entries: Uint8Array[]): void {
    for (const entry of entries)
      this.#each(this.#requests++, entry.length, (address, n) => this.#bench.memory.writeU8(address, entry[n]!))
    this.say(this.#requests)
  }
  take(): DataView[] {
    const end = this.#bench.memory.readU32(this.#pages[0]!.address + 8)!
    const found: DataView[] = []
    while (this.#responses < end) {
      const entry = new Uint8Array(this.#bytes)
      this.#each(this.#responses++, entry.length, (address, n) => (entry[n] = this.#bench.memory.readU8(address)!))
      found.push(new DataView(entry.buffer))
    }
    return found
  }
  #each(index: number, length: number, visit: (address: number, n: number) => void): void {
    const start = 64 + (index % this.entries) * this.#bytes
    for (let n = 0; n < length; n++) {
      const at = start + n
      visit(this.#pages[Math.floor(at / PAGE)]!.address + (at % PAGE), n)
    }
  }
}

/** Bytes of an entry: each value at its place, as long as `size` says. */
export function entry(
  length: number,
  ...values: (readonly [at: number, size: 1 | 2 | 4 | 8, value: number])[]
): Uint8Array {
  const view = new DataView(new ArrayBuffer(length))
  for (const [at, size, value] of values) {
    if (size === 1) view.setUint8(at, value)
    else if (size === 2) view.setUint16(at, value, true)
    else if (size === 4) view.setUint32(at, value, true)
    else view.setBigUint64(at, BigInt(value), true)
  }
  return new Uint8Array(view.buffer)
}
