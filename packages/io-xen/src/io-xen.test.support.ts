/** A domain's shared page and rings for tests of its back ends. Not part of the package. */

import { gpa, XenPlatform, type Hpa } from '@nonroot/contracts'
import type { GuestMemory, IoModelContext } from '@nonroot/contracts'
import {
  createTestConsole,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { ConsoleRing } from './console-ring.ts'
import { createXenHvmPlatform } from './platform.ts'
import { TwoLevelChannels } from './event-channels.ts'
import { StoreRing } from './store/ring.ts'
import { Store } from './store/store.ts'

export const PENDING = 0x800
export const MASK = 0xa00

export function bench(vcpuCount = 2) {
  const host = createTestHostMemory(64)
  const memory: GuestMemory = createTestGuestMemory({ hostMemory: host, ram: 8 * 4096 })
  const shared = host.allocateFrame()!
  const metrics = createTestMetrics()
  const events = new TwoLevelChannels(vcpuCount, metrics)
  const woken: number[] = []
  events.attach({ wake: (vcpu) => void woken.push(vcpu) })
  events.attach({ view: host.view, sharedInfo: shared, vcpuInfo: (vcpu) => (shared + vcpu * 64) as Hpa })
  const bit = (table: number, port: number): number => (host.bytes[shared + table + (port >>> 3)]! >>> (port & 7)) & 1
  return {
    host,
    memory,
    events,
    woken,
    metrics,
    bit,
    setMask: (port: number) => void (host.bytes[shared + MASK + (port >>> 3)]! |= 1 << (port & 7)),
    /** The guest has taken its upcall. */
    take: (vcpu = 0) => void host.bytes.fill(0, shared + vcpu * 64, shared + vcpu * 64 + 16),
    upcall: (vcpu = 0) => [host.bytes[shared + vcpu * 64]!, host.view.getBigUint64(shared + vcpu * 64 + 8, true)],
  }
}

/** The model for guests with local APICs, and the vectors that it raises there. */
export function hvmBench(vcpuCount = 2) {
  const host = createTestHostMemory(64)
  const memory: GuestMemory = createTestGuestMemory({ hostMemory: host, ram: 8 * 4096 })
  const vectors: [vcpu: number, vector: number][] = []
  const external: [vcpu: number, vector: number][] = []
  const raise = (vcpu: number, vector: number): void => void vectors.push([vcpu, vector])
  const raiseExternal = (vcpu: number, vector: number): void => void external.push([vcpu, vector])
  const model = createXenHvmPlatform(undefined, {
    vcpuCount,
    dma: memory,
    memoryMap: memory,
    console: createTestConsole(),
    metrics: createTestMetrics(),
    log: createTestLog(),
    power: { onPowerButton: () => () => {} },
    capability: () => ({ raise, raiseExternal }),
  } as unknown as IoModelContext)
  const platform = model.offers!.get(XenPlatform)!({} as never) as XenPlatform
  const shared = host.allocateFrame()!
  platform.events.attach({ view: host.view, sharedInfo: shared, vcpuInfo: (vcpu) => (shared + vcpu * 64) as Hpa })
  platform.begin()
  const take = (vcpu: number): void => void host.bytes.fill(0, shared + vcpu * 64, shared + vcpu * 64 + 16)
  return { model, platform, events: platform.events, vectors, external, take }
}

export function consoleBench() {
  const all = bench()
  const console = createTestConsole()
  const ring = new ConsoleRing(all.memory, all.events, console)
  ring.reset()
  ring.connect(gpa(4096))
  return { ...all, console, ring }
}

export function storeBench() {
  const all = bench()
  const store = new Store()
  const log = createTestLog()
  const ring = new StoreRing(all.memory, all.events, store, { domain: 1, log })
  ring.reset()
  ring.connect(gpa(4096))
  let [request, read] = [0, 0]
  const put = (bytes: Uint8Array): void => {
    for (let at = 0; at < bytes.length; at += 1024) {
      for (const byte of bytes.subarray(at, at + 1024)) all.memory.writeU8(4096 + (request++ & 1023), byte)
      all.memory.writeU32(4096 + 2052, request)
      all.events.send(ring.port)
    }
  }
  const header = (type: number, id: number, transaction: number, length: number): Uint8Array =>
    new Uint8Array(Uint32Array.of(type, id, transaction, length).buffer)
  return {
    ...all,
    store,
    log,
    ring,
    put,
    header,
    send(type: number, text: string, id = 7, transaction = 0): void {
      const body = Uint8Array.from(text, (character) => character.charCodeAt(0))
      const message = new Uint8Array(16 + body.length)
      message.set(header(type, id, transaction, body.length))
      message.set(body, 16)
      put(message)
    },
    /** Messages that the ring holds for the guest. */
    receive(): { type: number; id: number; transaction: number; text: string }[] {
      const bytes: number[] = []
      // What does not fit comes when there is room again.
      for (let end = -1; end !== all.memory.readU32(4096 + 2060)!;) {
        end = all.memory.readU32(4096 + 2060)!
        while (read !== end) bytes.push(all.memory.readU8(4096 + 1024 + (read++ & 1023))!)
        all.memory.writeU32(4096 + 2056, read)
        all.events.send(ring.port)
      }
      const found = []
      for (let at = 0; at < bytes.length;) {
        const [type, id, transaction, length] = new Uint32Array(Uint8Array.from(bytes.slice(at, at + 16)).buffer)
        found.push({
          type: type!,
          id: id!,
          transaction: transaction!,
          text: String.fromCharCode(...bytes.slice(at + 16, at + 16 + length!)),
        })
        at += 16 + length!
      }
      return found
    },
  }
}
