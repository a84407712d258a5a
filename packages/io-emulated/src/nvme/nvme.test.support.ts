/** The driver's side of an NVMe controller: just what tests need. */

import type { BlockBackend } from '@nonroot/contracts'
import { benchDevice } from '@nonroot/testkit'
import plugin from '../index.ts'

export const Place = {
  adminSubmission: 0x10000,
  adminCompletion: 0x11000,
  submission: 0x12000,
  completion: 0x13000,
  data: 0x40000,
} as const
export const ENTRIES = 8

export interface Issue {
  readonly opcode: number
  readonly id?: number
  readonly namespace?: number
  readonly prp1?: number
  readonly prp2?: number
  readonly flags?: number
  readonly words?: readonly number[]
}

export interface Completion {
  readonly id: number
  readonly queue: number
  /** Code and type. */
  readonly status: number
  readonly result: number
}

/** One queue pair as the driver keeps it. */
function pair(
  bench: Awaited<ReturnType<typeof benchDevice>>['bench'],
  id: number,
  submission: number,
  completion: number,
) {
  const base = bench.mmio[0]!.base
  const memory = bench.guestMemory
  let tail = 0
  let head = 0
  let phase = 1
  return {
    put(issue: Issue): void {
      const at = submission + tail * 64
      memory.fill(at, 64, 0)
      memory.writeU32(at, issue.opcode | ((issue.flags ?? 0) << 8) | ((issue.id ?? 0) << 16))
      memory.writeU32(at + 4, issue.namespace ?? 0)
      memory.writeU64(at + 24, BigInt(issue.prp1 ?? Place.data))
      memory.writeU64(at + 32, BigInt(issue.prp2 ?? 0))
      issue.words?.forEach((word, index) => memory.writeU32(at + 40 + 4 * index, word >>> 0))
      tail = (tail + 1) % ENTRIES
    },
    ring: () => bench.writeMmio(base + 0x1000 + 8 * id, tail),
    consume: () => bench.writeMmio(base + 0x1004 + 8 * id, head),
    /** Completions that have come, without telling the controller. */
    take(): Completion[] {
      const taken: Completion[] = []
      for (;;) {
        const at = completion + head * 16
        const last = memory.readU32(at + 12)!
        if (((last >>> 16) & 1) !== phase) return taken
        taken.push({
          id: last & 0xffff,
          queue: memory.readU32(at + 8)! >>> 16,
          status: (last >>> 17) & 0x7ff,
          result: memory.readU32(at)!,
        })
        head = (head + 1) % ENTRIES
        if (head === 0) phase ^= 1
      }
    },
  }
}

export async function benchNvme(disk: BlockBackend, options: object = {}) {
  const nvme = plugin.devices!.find(({ kind }) => kind === 'nvme')!
  const { device, bench } = await benchDevice(nvme, { image: 'disk', ...options }, { backends: { block: disk } })
  const base = bench.mmio[0]!.base
  const memory = bench.guestMemory
  const read = (at: number): number => bench.readMmio(base + at)
  const write = (at: number, value: number): void => bench.writeMmio(base + at, value >>> 0)
  const settle = async (): Promise<void> => {
    for (let turn = 0; turn < 20; turn++) await Promise.resolve()
  }
  const queues = {
    admin: pair(bench, 0, Place.adminSubmission, Place.adminCompletion),
    io: pair(bench, 1, Place.submission, Place.completion),
  }
  const run = async (queue: 'admin' | 'io', issue: Issue): Promise<Completion> => {
    queues[queue].put(issue)
    queues[queue].ring()
    await settle()
    const [completion] = queues[queue].take()
    if (!completion) throw new Error(`command 0x${issue.opcode.toString(16)} did not complete`)
    queues[queue].consume()
    return completion
  }
  const enable = (): void => {
    memory.fill(Place.adminSubmission, 0x4000, 0)
    queues.admin = pair(bench, 0, Place.adminSubmission, Place.adminCompletion)
    queues.io = pair(bench, 1, Place.submission, Place.completion)
    write(0x24, ((ENTRIES - 1) << 16) | (ENTRIES - 1))
    write(0x28, Place.adminSubmission)
    write(0x2c, 0)
    write(0x30, Place.adminCompletion)
    write(0x34, 0)
    write(0x14, (6 << 16) | (4 << 20) | 1)
  }
  return {
    ...{ device, bench, memory, read, write, settle, queues, enable },
    admin: (issue: Issue) => run('admin', issue),
    io: (issue: Issue) => run('io', { namespace: 1, ...issue }),
    /** Admin queue, and one I/O queue pair with vector 1. */
    async start(): Promise<void> {
      enable()
      await run('admin', { opcode: 0x05, prp1: Place.completion, words: [((ENTRIES - 1) << 16) | 1, (1 << 16) | 3] })
      await run('admin', { opcode: 0x01, prp1: Place.submission, words: [((ENTRIES - 1) << 16) | 1, (1 << 16) | 1] })
      bench.functions[0]!.signals.length = 0
    },
    bytes(at: number, length: number): Uint8Array {
      const bytes = new Uint8Array(length)
      memory.readBytes(at, bytes)
      return bytes
    },
  }
}
