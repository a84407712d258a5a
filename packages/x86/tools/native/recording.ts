/**
 * Recorded native answers: each instruction, the seed of its states, and what of the final states differs from the initial ones, compressed.
 * Initial states come from the seeds again. A hash tells where they are not what they were: those instructions are passed over, and counted.
 */
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { addressOf, STATE, type Batch } from './batch.ts'
import { decodeAgain } from './encode.ts'
import type { Oracle } from './oracle.ts'
import { whyNot } from './rules.ts'

interface Header {
  readonly codeSize: 32 | 64
  readonly seed: number
}

/** Bytes that describe one instruction: code, length, a fixed register (255 none) and its value, seed, hash. */
const ENTRY = 32
const AT = { length: 16, register: 17, value: 20, seed: 24, hash: 28 } as const

/** FNV-1a over the words of an instruction's initial states. */
function hashOf(batch: Batch, n: number): number {
  const from = batch.inputOf(n, 0) >>> 2
  const to = from + (batch.each * STATE.size) / 4
  let value = 0x811c9dc5
  for (let word = from; word < to; word++) value = Math.imul(value ^ batch.u32[word]!, 0x01000193)
  return value >>> 0
}

/** `words` of final states, taken as changes of the initial ones, or the other way round. */
function change(batch: Batch, words: Uint32Array): void {
  const from = batch.input >>> 2
  for (let n = 0; n < words.length; n++) words[n] = words[n]! ^ batch.u32[from + n]!
}

/** A file: a line of JSON, then the batches, each a length and that many bytes of entries and changes, deflated. */
export class Recording {
  readonly #parts: Uint8Array[]
  constructor(header: Header) {
    this.#parts = [Buffer.from(`${JSON.stringify(header)}\n`)]
  }
  add({ native, encoded, seeds }: Oracle): void {
    const entries = new Uint8Array(native.instructions * ENTRY)
    const view = new DataView(entries.buffer)
    encoded.forEach((one, n) => {
      const at = n * ENTRY
      const [register, value] = [...one!.fixed][0] ?? [255, 0]
      entries.set(one!.code, at)
      entries[at + AT.length] = one!.code.length
      entries[at + AT.register] = register
      view.setInt32(at + AT.value, value, true)
      view.setUint32(at + AT.seed, seeds[n]!, true)
      view.setUint32(at + AT.hash, hashOf(native, n), true)
    })
    const changes = native.u32.slice(native.output >>> 2)
    change(native, changes)
    const packed = deflateRawSync(Buffer.concat([entries, new Uint8Array(changes.buffer)]), { level: 9 })
    this.#parts.push(new Uint8Array(new Uint32Array([packed.length]).buffer), packed)
  }
  toBytes(): Uint8Array {
    return Buffer.concat(this.#parts)
  }
}

export class Replay {
  readonly header: Header
  /** Instructions whose states are not what they were. */
  stale = 0
  readonly #bytes: Uint8Array
  #at: number
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
    const end = bytes.indexOf(10)
    this.header = JSON.parse(Buffer.from(bytes.subarray(0, end)).toString()) as Header
    this.#at = end + 1
  }
  get done(): boolean {
    return this.#at >= this.#bytes.length
  }
  /** Makes the next recorded batch the oracle's, answers included. */
  next(oracle: Oracle): void {
    const { native } = oracle
    const length = new DataView(this.#bytes.buffer, this.#bytes.byteOffset + this.#at, 4).getUint32(0, true)
    const unpacked = inflateRawSync(this.#bytes.subarray(this.#at + 4, this.#at + 4 + length))
    this.#at += 4 + length
    const all = unpacked.buffer.slice(unpacked.byteOffset, unpacked.byteOffset + unpacked.length)
    const view = new DataView(all)
    for (let n = 0; n < native.instructions; n++) {
      const at = n * ENTRY
      const register = view.getUint8(at + AT.register)
      const fixed = new Map(register === 255 ? [] : [[register, view.getInt32(at + AT.value, true)] as const])
      const code = new Uint8Array(all, at, view.getUint8(at + AT.length)).slice()
      const one = decodeAgain(code, fixed, addressOf(n), this.header.codeSize)
      oracle.place(n, one && !whyNot(one.row, this.header.codeSize) ? one : undefined, view.getUint32(at + AT.seed, true))
      if (oracle.encoded[n] && hashOf(native, n) === view.getUint32(at + AT.hash, true)) continue
      oracle.encoded[n] = undefined
      this.stale++
    }
    const changes = new Uint32Array(all, native.instructions * ENTRY)
    change(native, changes)
    native.u32.set(changes, native.output >>> 2)
  }
}
