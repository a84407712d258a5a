/** The driver's side of an AHCI port, after the specification's "System Software Specific Details": just what tests need. */

import type { BlockBackend } from '@nonroot/contracts'
import { benchDevice } from '@nonroot/testkit'
import plugin from '../index.ts'
import { HostFis } from './registers.ts'

export const Place = { list: 0x10000, fis: 0x11000, tables: 0x20000, data: 0x40000 } as const
const PORT = 0x100

export interface Issue {
  readonly command: number
  readonly lba?: number
  readonly count?: number
  readonly features?: number
  readonly device?: number
  readonly write?: boolean
  /** Bytes of each region; the data lies at `Place.data`, or where `at` says. */
  readonly regions?: readonly number[]
  readonly at?: number
  /** In place of the frame's first bytes. */
  readonly raw?: Readonly<Record<number, number>>
  readonly dwords?: number
}

export async function benchAhci(disk: BlockBackend, options: object = {}) {
  const ahci = plugin.devices!.find(({ kind }) => kind === 'ahci')!
  const { device, bench } = await benchDevice(ahci, { image: 'disk', ...options }, { backends: { block: disk } })
  const base = bench.mmio[0]!.base
  const memory = bench.guestMemory
  const read = (at: number): number => bench.readMmio(base + at)
  const write = (at: number, value: number): void => bench.writeMmio(base + at, value >>> 0)
  const port = {
    read: (at: number) => read(PORT + at),
    write: (at: number, value: number) => write(PORT + at, value),
  }

  /** Command list and FIS area set up, everything enabled, running. */
  function start(): void {
    write(0x04, 0x8000_0002)
    port.write(0x00, Place.list)
    port.write(0x08, Place.fis)
    port.write(0x30, 0xffff_ffff)
    port.write(0x10, 0xffff_ffff)
    port.write(0x14, 0x7dc0_007f)
    port.write(0x18, port.read(0x18) | 0x10)
    port.write(0x18, port.read(0x18) | 0x01)
  }

  function prepare(slot: number, issue: Issue): void {
    const { lba = 0, count = 0, features = 0, regions = [], at = Place.data } = issue
    const table = Place.tables + slot * 0x1000
    const header = Place.list + slot * 32
    memory.writeU32(header, (issue.dwords ?? 5) | (issue.write ? 0x40 : 0) | (regions.length << 16))
    memory.writeU32(header + 4, 0)
    memory.writeU32(header + 8, table)
    memory.writeU32(header + 12, 0)
    const fis = new Uint8Array(HostFis.size)
    fis[0] = 0x27
    fis[1] = 0x80
    fis[2] = issue.command
    fis[3] = features & 0xff
    fis[11] = features >> 8
    for (let byte = 0; byte < 6; byte++) fis[4 + byte + (byte > 2 ? 1 : 0)] = Math.floor(lba / 2 ** (8 * byte)) & 0xff
    fis[7] = issue.device ?? 0x40
    fis[12] = count & 0xff
    fis[13] = count >> 8
    for (const [index, value] of Object.entries(issue.raw ?? {})) fis[Number(index)] = value
    memory.writeBytes(table, fis)
    let address = at
    regions.forEach((length, index) => {
      const entry = table + 0x80 + 16 * index
      memory.writeU64(entry, BigInt(address))
      memory.writeU32(entry + 8, 0)
      memory.writeU32(entry + 12, length - 1)
      address += length
    })
  }

  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  }

  return {
    device,
    bench,
    memory,
    read,
    write,
    port,
    start,
    prepare,
    settle,
    /** One command by itself: how it ended, and its data. */
    async run(issue: Issue, slot = 0) {
      prepare(slot, issue)
      port.write(0x38, 1 << slot)
      await settle()
      const taskFile = port.read(0x20)
      const length = (issue.regions ?? []).reduce((sum, size) => sum + size, 0)
      const data = new Uint8Array(length)
      memory.readBytes(issue.at ?? Place.data, data)
      const interrupts = port.read(0x10)
      port.write(0x10, interrupts)
      write(0x08, 1)
      return {
        status: taskFile & 0xff,
        error: taskFile >> 8,
        interrupts,
        data,
        transferred: memory.readU32(Place.list + slot * 32 + 4)!,
      }
    },
    /** Queued reads or writes in these slots, all issued at once. */
    queue(issues: Readonly<Record<number, Issue>>): void {
      let slots = 0
      for (const [slot, issue] of Object.entries(issues)) {
        prepare(Number(slot), { ...issue, features: issue.count ?? 1, count: Number(slot) << 3 })
        slots |= 1 << Number(slot)
      }
      port.write(0x34, slots)
      port.write(0x38, slots)
    },
    recover(): void {
      port.write(0x18, port.read(0x18) & ~1)
      port.write(0x10, 0xffff_ffff)
      port.write(0x18, port.read(0x18) | 1)
    },
    fis: (at: number, length: number): number[] => {
      const bytes = new Uint8Array(length)
      memory.readBytes(Place.fis + at, bytes)
      return [...bytes]
    },
  }
}

export interface TestDisk extends BlockBackend {
  bytes: Uint8Array
  readonly calls: string[]
  /** Requests wait until `go`. */
  hold: boolean
  failing: boolean
  go(): void
}

/** No two sectors are alike. */
const CONTENT = new Uint8Array(1 << 20).map((_, index) => (index >> 9) + index)

export function testDisk(size = 1 << 20, readOnly = false): TestDisk {
  const waiting: (() => void)[] = []
  const pass = async (call: string): Promise<void> => {
    disk.calls.push(call)
    if (disk.hold) await new Promise<void>((resolve) => waiting.push(resolve))
    if (disk.failing) throw new Error('the disk is on fire')
  }
  const disk: TestDisk = {
    bytes: CONTENT.slice(0, size),
    size,
    sectorSize: 512,
    readOnly,
    calls: [],
    hold: false,
    failing: false,
    go() {
      disk.hold = false
      for (const resolve of waiting.splice(0)) resolve()
    },
    async read(offset, into) {
      await pass(`read ${offset}+${into.length}`)
      into.set(disk.bytes.subarray(offset, offset + into.length))
    },
    async write(offset, from) {
      await pass(`write ${offset}+${from.length}`)
      disk.bytes.set(from, offset)
    },
    flush: () => pass('flush'),
    discard: (offset, length) => pass(`discard ${offset}+${length}`),
    close: async () => {},
  }
  return disk
}
