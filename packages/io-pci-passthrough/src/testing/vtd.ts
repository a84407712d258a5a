/** A remapping unit over test memory, and software's side of it: tables, queue, registers. */

import type { IoModelContext, MessageInterrupts } from '@nonroot/contracts'
import { createDeviceBench, createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { Global, Register } from '../vtd/facts.ts'
import { createHostIommu, createIntelIommu } from '../vtd/model.ts'

/** Where software puts things, in memory of 1 MiB. */
export const Place = {
  root: 0x1000,
  contexts: 0x2000,
  tables: 0x10000,
  queue: 0x3000,
  status: 0x4000,
  remapping: 0x5000,
  posted: 0x6000,
} as const
export const R = 1
export const W = 2

export function benchVtd({ bypass = false } = {}) {
  const hostMemory = createTestHostMemory(600)
  const memory = createTestGuestMemory({ hostMemory, ram: 1 << 20 })
  const bench = createDeviceBench({ hostMemory, guestMemory: memory })
  const delivered: { address: number; data: number; destination?: number }[] = []
  const deliver = (address: number, data: number, destination?: number): void =>
    void delivered.push({ address, data, ...(destination === undefined ? {} : { destination }) })
  const messageInterrupts: MessageInterrupts = {
    send: (address, data, requester) => model.iommu!.interrupt!(requester, address, data, deliver),
  }
  const context = { ...bench.context, messageInterrupts } as unknown as IoModelContext
  const model = (bypass ? createIntelIommu : createHostIommu)({}, context)
  const base = bench.mmio[0]!.base
  const read = (register: number): number => bench.readMmio(base + register)
  const write = (register: number, value: number): void => bench.writeMmio(base + register, value >>> 0)
  let command = 0
  const enable = (bit: number): void => {
    write(Register.command, command + bit)
    if (bit !== Global.rootTable && bit !== Global.remappingTable) command += bit
  }
  const disable = (bit: number): void => write(Register.command, (command -= bit))
  let tail = 0
  let nextTable: number = Place.tables

  const invalidate = (low: number, second = 0, third = 0, fourth = 0): void => {
    const at = Place.queue + tail * 16
    ;[low, second, third, fourth].forEach((word, index) => memory.writeU32(at + 4 * index, word >>> 0))
    tail = (tail + 1) % 256
    write(Register.queueTail, tail << 4)
  }
  /** A root of second-level tables. */
  const table = (): number => (nextTable += 0x1000)
  return {
    ...{ bench, memory, model, read, write, enable, disable, invalidate, table, delivered },
    messages: messageInterrupts,
    device: (requesterId: number | undefined) =>
      model.iommu!.attach({ name: `device${requesterId}`, requesterId }, memory),
    /** A context entry with tables of these levels. */
    context(requester: number, root: number, { domain = 1, levels = 4, type = 0, quiet = 0 } = {}): void {
      memory.writeU64(Place.root + (requester >> 8) * 16, BigInt(Place.contexts) | 1n)
      memory.writeU64(
        Place.contexts + (requester & 0xff) * 16,
        BigInt(root) | 1n | BigInt(quiet << 1) | BigInt(type << 2),
      )
      memory.writeU64(Place.contexts + (requester & 0xff) * 16 + 8, BigInt(levels - 2) | BigInt(domain << 8))
    },
    /** Maps a page, or a larger one at `level`. */
    map(root: number, address: number, to: number, rights = R | W, { levels = 4, level = 1 } = {}): void {
      let at = root
      for (let depth = levels; depth > level; depth--) {
        const entry = at + (Math.floor(address / 2 ** (12 + 9 * (depth - 1))) % 512) * 8
        if (memory.readU64(entry) === 0n) memory.writeU64(entry, BigInt(table() | R | W))
        at = Number(memory.readU64(entry)! & ~0xfffn)
      }
      const entry = at + (Math.floor(address / 2 ** (12 + 9 * (level - 1))) % 512) * 8
      memory.writeU64(entry, BigInt(to) | BigInt(rights) | (level > 1 ? 0x80n : 0n))
    },
    start(): void {
      write(Register.rootTable, Place.root)
      write(Register.queueAddress, Place.queue)
      enable(Global.queue)
      enable(Global.rootTable)
      enable(Global.translation)
    },
    /** An entry of the remapping table. */
    entry(index: number, low: number, second: number, source: number, high = 0): void {
      ;[low, second, source, high].forEach((word, part) =>
        memory.writeU32(Place.remapping + 16 * index + 4 * part, word >>> 0),
      )
    },
    startInterrupts(size = 7): void {
      write(Register.remappingTable, Place.remapping | size)
      enable(Global.remappingTable)
      enable(Global.interruptRemapping)
    },
    /** The faults recorded: requester, page, reason, and whether it was a write. Clears them. */
    faults(): [requester: number, page: number, reason: number, write: boolean][] {
      const found: [number, number, number, boolean][] = []
      for (let index = 0; index < 8; index++) {
        const at = Register.faults + 16 * index
        const last = read(at + 12)
        if (last < 2 ** 31) continue
        found.push([read(at + 8) & 0xffff, read(at) + read(at + 4) * 2 ** 32, last & 0xff, (last & (2 ** 30)) === 0])
        write(at + 12, 2 ** 31)
      }
      return found
    },
  }
}
