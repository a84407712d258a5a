/** A compiled region as bytes, with what it was compiled from and for, to be kept from run to run. The format is that of one build. */
import { Bytes, TYPE, type BranchHint, type ValueType } from '@nonroot/wasm-encoder'
import type { Call } from '../backend/lower.ts'
import type { RegionCode, RegionRequest } from './region-service.ts'

const TYPES = Object.keys(TYPE) as ValueType[]
const PAGE = 0x1000

/** What decides whether a record is of the code at hand. `bytes`: at `page` the page that it is on. */
export interface CodeAtHand extends Pick<RegionRequest, 'bytes' | 'entry' | 'mode' | 'trapped'> {
  readonly page: number
}

export function writeRecord({ bytes, entry, mode, trapped }: RegionRequest, { region, code }: RegionCode): Uint8Array {
  const out = new Bytes(code.code.length + 512)
  const list = <T>(items: readonly T[], write: (item: T) => void): void => {
    out.u32(items.length)
    items.forEach(write)
  }
  out.i32(mode)
  out.u32(entry)
  list(trapped, (row) => out.u32(row))
  list(region.extents, ({ start, end }) => {
    out.u32(start)
    out.u32(end)
    out.put(bytes.subarray(start, end))
  })
  list(region.exits, (exit) => out.i32(exit))
  out.byte(region.usesTargets ? 1 : 0)
  out.u32(region.instructions)
  list(code.locals, (type) => out.byte(TYPES.indexOf(type)))
  list(code.hints, ({ at, likely }) => {
    out.u32(at)
    out.byte(likely ? 1 : 0)
  })
  const callees = [...new Set(code.calls.map(({ callee }) => callee))]
  list(callees, (name) => out.name(name))
  list(code.calls, ({ at, callee }) => {
    out.u32(at)
    out.u32(callees.indexOf(callee))
  })
  out.u32(code.code.length)
  out.put(code.code)
  return out.toUint8Array()
}

/** Undefined: it is of other code, in another mode, or for other hooks. Throws RangeError where it is no record. */
export function readRecord(record: Uint8Array, { bytes, page, entry, mode, trapped }: CodeAtHand): RegionCode | undefined {
  const from = new Reader(record)
  if (from.i32() !== mode || from.u32() !== entry) return undefined
  const rows = from.list(() => from.u32())
  if (rows.length !== trapped.length || rows.some((row, n) => row !== trapped[n])) return undefined
  let isSame = true
  const extents = from.list(() => {
    const [start, end] = [from.u32(), from.u32()]
    if (start >= end || end > PAGE) throw new RangeError(`bytes ${start} to ${end} are on no page`)
    const was = from.bytes(end - start)
    for (let n = 0; n < was.length; n++) isSame &&= was[n] === bytes[page + start + n]
    return { start, end }
  })
  if (!isSame) return undefined
  const exits = from.list(() => from.i32())
  const usesTargets = from.byte() === 1
  const instructions = from.u32()
  const locals = from.list(() => TYPES[from.byte()]!)
  const hints = from.list((): BranchHint => ({ at: from.u32(), likely: from.byte() === 1 }))
  const callees = from.list(() => from.name())
  const calls = from.list((): Call => ({ at: from.u32(), callee: callees[from.u32()]! }))
  const code = from.bytes(from.u32())
  return { region: { extents, exits, usesTargets, instructions }, code: { code, locals, hints, calls } }
}

/** Reads what `Bytes` wrote. Throws RangeError behind the end. */
class Reader {
  readonly #from: Uint8Array
  #at = 0

  constructor(from: Uint8Array) {
    this.#from = from
  }

  byte(): number {
    if (this.#at >= this.#from.length) throw new RangeError('the record ends early')
    return this.#from[this.#at++]!
  }

  bytes(count: number): Uint8Array {
    if (count > this.#from.length - this.#at) throw new RangeError('the record ends early')
    return this.#from.subarray(this.#at, (this.#at += count))
  }

  u32(): number {
    return this.#leb(0) >>> 0
  }

  i32(): number {
    return this.#leb(-1)
  }

  name(): string {
    return String.fromCharCode(...this.bytes(this.u32()))
  }

  list<T>(read: () => T): T[] {
    return Array.from({ length: this.#count() }, read)
  }

  /** Of items, each of which is a byte at least. */
  #count(): number {
    const count = this.u32()
    if (count > this.#from.length - this.#at) throw new RangeError('the record ends early')
    return count
  }

  /** `sign`: what bits above the last become if its highest one is set. */
  #leb(sign: 0 | -1): number {
    let value = 0
    for (let shift = 0; shift < 35; shift += 7) {
      const byte = this.byte()
      value |= (byte & 0x7f) << shift
      if (byte & 0x80) continue
      return shift < 28 && byte & 0x40 ? value | (sign << (shift + 7)) : value
    }
    throw new RangeError('a number has more than 32 bits')
  }
}
