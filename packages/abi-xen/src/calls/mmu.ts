/** Updates of page tables, in batches. The paging strategy validates them. (Xen, "public/xen.h", MMU calls) @hot */

import type { TableLevel } from '@nonroot/contracts'
import { statusCode, type Call, type Handler } from '../call.ts'
import { DOMAIN, DOMID_SELF, fail } from '../facts.ts'
import { toNumber } from '../numbers.ts'

/** Requests before the guest's own events get a chance. */
const PIECE = 1024
const REQUEST_BYTES = 16
const PREEMPTED = 0x8000_0000
const COMMAND = { normal: 0, machineToPhysical: 1, keepAccessed: 2 } as const
const KEEP = { keepAccessed: true } as const
const scratch = new Uint8Array(PIECE * 24)
const words = new DataView(scratch.buffer)

/** Owner of the frames in bits 15:0, of the tables above them plus 1. Only the domain itself. */
function foreign(domain: number): number {
  const [frames, tables] = [domain & 0xffff, domain >>> 16]
  const isSelf = frames === DOMID_SELF || frames === DOMAIN
  const isOwnTable = tables === 0 || tables - 1 === DOMID_SELF || tables - 1 === DOMAIN
  return isSelf && isOwnTable ? 0 : fail(isOwnTable ? 'ESRCH' : 'EPERM')
}

/** Requests done so far, over all pieces, into the guest's word. */
function report(call: Call, pointer: bigint, done: number): boolean {
  return pointer === 0n || call.writeU32(pointer, done)
}

interface Batch {
  /** Requests in this piece, and in all. */
  readonly count: number
  readonly left: number
  /** Done in earlier pieces. */
  readonly before: number
}

function batchOf(call: Call, bytes: number): Batch | number {
  const asked = call.u32(1)
  const left = (asked & ~PREEMPTED) >>> 0
  let before = 0
  if (asked & PREEMPTED && call.args[2] !== 0n) {
    const done = call.read(call.args[2]!, 4)
    if (!done) return fail('EFAULT')
    before = done.getUint32(0, true)
  }
  const refused = foreign(call.u32(3))
  if (refused) return refused
  const count = Math.min(left, PIECE)
  if (!call.pv.copyIn(call.args[0]!, scratch.subarray(0, count * bytes))) return fail('EFAULT')
  return { count, left, before }
}

function continued(call: Call, { count, left, before }: Batch, bytes: number): number {
  if (!report(call, call.args[2]!, before + count)) return fail('EFAULT')
  if (count === left) return 0
  return call.again(
    call.args[0]! + BigInt(count * bytes),
    BigInt(((left - count) | PREEMPTED) >>> 0),
    call.args[2]!,
    call.args[3]!,
  )
}

/** (requests, count, done, domain). */
export const mmuUpdate: Handler = (call) => {
  const batch = batchOf(call, REQUEST_BYTES)
  if (typeof batch === 'number') return batch
  for (let n = 0; n < batch.count; n++) {
    const at = n * REQUEST_BYTES
    const result = update(call, at)
    if (result === 0) continue
    return report(call, call.args[2]!, batch.before + n) ? result : fail('EFAULT')
  }
  return continued(call, batch, REQUEST_BYTES)
}

function update({ tables, vcpu }: Call, at: number): number {
  const pointer = words.getUint32(at, true)
  const pointerHigh = words.getUint32(at + 4, true)
  const low = words.getInt32(at + 8, true)
  const high = words.getInt32(at + 12, true)
  const machine =
    pointerHigh >= 0x20_0000 ? Number.MAX_SAFE_INTEGER - 7 : pointerHigh * 0x1_0000_0000 + ((pointer & ~3) >>> 0)
  switch (pointer & 3) {
    case COMMAND.normal:
      return statusCode(tables.writeEntry(vcpu.index, machine, low, high))
    case COMMAND.keepAccessed:
      return statusCode(tables.writeEntry(vcpu.index, machine, low, high, KEEP))
    case COMMAND.machineToPhysical:
      return statusCode(tables.setMachineToPhysical(Math.floor(machine / 4096), words.getBigUint64(at + 8, true)))
    default:
      return fail('ENOSYS')
  }
}

const FLUSH = { kind: 3n, all: 1n, page: 2n } as const
const EVERYBODY = 4n

/** (address, entry, flags): flush of nothing, of all or of the page; on this vCPU, on all, or on those of a bitmap. */
export const updateVaMapping: Handler = (call) => {
  const [address, value, flags] = call.args as [bigint, bigint, bigint]
  const status = call.tables.writeLinear(
    call.vcpu.index,
    address,
    Number(BigInt.asIntN(32, value)),
    Number(BigInt.asIntN(32, value >> 32n)),
  )
  // A failed update flushes nothing: the address is not to be trusted. (XSA-279)
  if (status !== 'ok') return statusCode(status)
  const kind = flags & FLUSH.kind
  if (kind === 0n) return 0
  if (kind === 3n) return fail('EINVAL')
  const whom = flags & ~FLUSH.kind
  const vcpus = whom === 0n ? [call.vcpu.index] : whom === EVERYBODY ? 'all' : vcpusOf(call, whom)
  if (vcpus === undefined) return fail('EFAULT')
  call.tables.flush(vcpus, kind === FLUSH.page ? address : undefined)
  return 0
}

function vcpusOf(call: Call, bitmap: bigint): number[] | undefined {
  const view = call.read(bitmap, 8)
  if (!view) return undefined
  const bits = view.getBigUint64(0, true)
  return call.domain.vcpus.map(({ index }) => index).filter((index) => (bits >> BigInt(index)) & 1n)
}

type Extended = (call: Call, first: bigint, second: bigint) => number

const pin =
  (level: TableLevel): Extended =>
  ({ tables }, frame) =>
    statusCode(tables.pin(level, toNumber(frame)))
const flushMulti =
  (isPage: boolean): Extended =>
  (call, address, bitmap) => {
    const vcpus = vcpusOf(call, bitmap)
    if (!vcpus) return fail('EFAULT')
    call.tables.flush(vcpus, isPage ? address : undefined)
    return 0
  }
const flush =
  (whom: 'self' | 'all', isPage: boolean): Extended =>
  ({ tables, vcpu }, address) => {
    tables.flush(whom === 'all' ? 'all' : [vcpu.index], isPage ? address : undefined)
    return 0
  }
const unsupported: Extended = () => fail('EOPNOTSUPP')

const EXTENDED: Readonly<Record<number, Extended>> = {
  0: pin(1),
  1: pin(2),
  2: pin(3),
  3: pin(4),
  4: ({ tables }, frame) => statusCode(tables.unpin(toNumber(frame))),
  5: ({ tables, vcpu }, frame) => statusCode(tables.setRoot(vcpu.index, 'kernel', toNumber(frame))),
  6: flush('self', false),
  7: flush('self', true),
  8: flushMulti(false),
  9: flushMulti(true),
  10: flush('all', false),
  11: flush('all', true),
  // The caches of this processor hide nothing.
  12: () => fail('EPERM'),
  13: (call, address, entries) => {
    const count = toNumber(entries & 0xffff_ffffn)
    const status = call.tables.setLocalDescriptors(call.vcpu.index, address, count)
    if (status === 'ok') call.pv.descriptorsChanged(count)
    return statusCode(status)
  },
  15: ({ tables, vcpu }, frame) => statusCode(tables.setRoot(vcpu.index, 'user', toNumber(frame))),
  16: ({ tables }, frame) => statusCode(tables.clearFrame(toNumber(frame))),
  17: ({ tables }, to, from) => statusCode(tables.copyFrame(toNumber(to), toNumber(from))),
  18: () => fail('EPERM'),
  19: unsupported,
  20: unsupported,
}
const EXTENDED_BYTES = 24

/** (operations, count, done, domain). */
export const mmuextOp: Handler = (call) => {
  const batch = batchOf(call, EXTENDED_BYTES)
  if (typeof batch === 'number') return batch
  for (let n = 0; n < batch.count; n++) {
    const at = n * EXTENDED_BYTES
    const number = words.getUint32(at, true)
    const operation = EXTENDED[number]
    call.note(number)
    const result = operation
      ? operation(call, words.getBigUint64(at + 8, true), words.getBigUint64(at + 16, true))
      : fail('ENOSYS')
    if (result === 0) continue
    return report(call, call.args[2]!, batch.before + n) ? result : fail('EFAULT')
  }
  return continued(call, batch, EXTENDED_BYTES)
}
