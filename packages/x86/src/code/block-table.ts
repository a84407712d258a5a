/** The hash table by which `dispatch` finds decoded blocks: TypeScript enters them, generated code looks them up. */
import type { IrBuilder } from '../ir/builder.ts'
import type { Value, Variable } from '../ir/nodes.ts'
import { S } from '../state/layout.ts'
import type { Block } from './block.ts'

/** Offsets in an entry, and its size. The first two words are the key: HPA of the first byte, and mode. `first`: address of the first record. */
export const ENTRY = { host: 0, mode: 4, first: 8, bytes: 16 } as const
/** Sets of two entries, the later published one first. With one entry a set, a fifth of some thousand blocks would displace each other. */
const SET_BYTES = 2 * ENTRY.bytes
export const BLOCK_TABLE_BITS = 15
export const BLOCK_TABLE_SIZE = SET_BYTES << BLOCK_TABLE_BITS
const BLOCK_HASH = 0x9e3779b1 // 2^32 / golden ratio

interface Arithmetic<T> {
  xor(a: T, b: T): T
  shl(a: T, by: number): T
  mul(a: T, b: number): T
  shrU(a: T, by: number): T
}
/** Number of the set for a block, in numbers or in IR. */
const blockHash = <T>(a: Arithmetic<T>, host: T, mode: T): T =>
  a.shrU(a.mul(a.xor(host, a.shl(mode, 20)), BLOCK_HASH | 0), 32 - BLOCK_TABLE_BITS)

const NUMBERS: Arithmetic<number> = {
  xor: (a, b) => a ^ b,
  shl: (a, by) => a << by,
  mul: Math.imul,
  shrU: (a, by) => a >>> by,
}

/** The address of a block's entry. Builds `missing`, which must leave, where the table has none. */
export function findEntry(b: IrBuilder, host: Value, mode: Value, missing: () => void): Variable {
  const set = b.add(b.slot(S.blockTable, 'i32'), b.shl(blockHash<Value>(b, host, mode), Math.log2(SET_BYTES)))
  const key = b.or(b.extendU(host), b.shl(b.extendU(mode), 32))
  const found = b.variable(set, 'found')
  b.if(b.ne(b.rawLoad('i64', set, 0, 64), key), () => {
    b.ifUnlikely(b.ne(b.rawLoad('i64', set, ENTRY.bytes, 64), key), missing)
    b.assign(found, b.add(set, ENTRY.bytes))
  })
  return found
}

const ENTRY_WORDS = ENTRY.bytes >> 2

export class BlockTable {
  readonly #i32: Int32Array
  /** Index of its first word. */
  readonly #start: number

  /** `address`: of BLOCK_TABLE_SIZE bytes. */
  constructor(i32: Int32Array, address: number) {
    this.#i32 = i32
    this.#start = address >>> 2
  }

  add({ host, mode, first }: Block): void {
    const set = this.#set(host, mode)
    const i32 = this.#i32
    if (i32[set + 2] === first && i32[set] !== -1) return
    for (let word = 0; word < 3; word++) i32[set + ENTRY_WORDS + word] = i32[set + word]!
    i32[set] = host
    i32[set + 1] = mode
    i32[set + 2] = first
  }
  remove({ host, mode, first }: Block): void {
    const set = this.#set(host, mode)
    const i32 = this.#i32
    for (const entry of [set, set + ENTRY_WORDS]) if (i32[entry + 2] === first) i32[entry] = i32[entry + 1] = -1
  }
  clear(): void {
    this.#i32.fill(-1, this.#start, this.#start + (BLOCK_TABLE_SIZE >>> 2))
  }

  /** Index of a set's first word. */
  #set(host: number, mode: number): number {
    return this.#start + blockHash(NUMBERS, host, mode) * 2 * ENTRY_WORDS
  }
}
