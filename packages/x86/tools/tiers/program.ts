/**
 * Random programs: chunks of code with branches, counted loops, calls, indirect jumps, strings, stores into the code itself, and every
 * other instruction of the rows. A program is a list of items with symbolic targets, so that items can be dropped and it still hangs
 * together.
 */
import { families, rows, type Row } from '../../src/rows/index.ts'
import { semantics } from '../../src/semantics/index.ts'
import { Random } from '../float/operands.ts'
import { encode, type Addressing } from './encode.ts'
import { plainPlace } from './state.ts'
import { ALIAS, CODE, codeBase, COUNTERS, dataBase, type CodeSize } from './world.ts'

/** A number in an item's bytes that depends on where items come to lie. */
interface Fixup {
  readonly at: number
  readonly size: 1 | 2 | 4
  /** `relative`: to the end of the item. `ip`: what RIP is there. `linear`. `alias`: in the page that shows the first page of code. */
  readonly kind: 'relative' | 'ip' | 'linear' | 'alias'
  /** Index of an item (plus `delta` bytes), or a linear address of data. */
  readonly to: number | { readonly data: number }
  readonly delta: number
}
export interface Item {
  readonly bytes: readonly number[]
  readonly fixups: readonly Fixup[]
  /** A string instruction under REP. */
  readonly repeats: boolean
}

export interface Program {
  readonly seed: number
  readonly codeSize: CodeSize
  readonly user: boolean
  readonly alignment: boolean
  readonly stack16: boolean
  /** Linear address of the first byte. */
  readonly start: number
  /** Dropped items are undefined. */
  readonly items: readonly (Item | undefined)[]
  /** Indices of the items that the chunks begin with. */
  readonly chunks: readonly number[]
}

export interface Layout {
  readonly bytes: Uint8Array
  /** Linear address of each item; of a dropped one that of the next. */
  readonly addresses: readonly number[]
}

export function layOut(program: Program): Layout {
  const addresses: number[] = []
  let at = program.start
  for (const item of program.items) {
    addresses.push(at)
    at += item?.bytes.length ?? 0
  }
  addresses.push(at)
  const bytes = new Uint8Array(at - program.start)
  for (const [n, item] of program.items.entries()) {
    if (!item) continue
    const address = addresses[n]!
    const offset = address - program.start
    bytes.set(item.bytes, offset)
    for (const fixup of item.fixups) {
      const linear = typeof fixup.to === 'number' ? addresses[fixup.to]! + fixup.delta : fixup.to.data
      let value = valueOf(fixup.kind, linear, address + item.bytes.length, program.codeSize)
      if (fixup.size === 1 && value !== (value << 24) >> 24) value = 0
      for (let n = 0; n < fixup.size; n++) bytes[offset + fixup.at + n] = (value >> (8 * n)) & 0xff
    }
  }
  return { bytes, addresses }
}

function valueOf(kind: Fixup['kind'], linear: number, end: number, codeSize: CodeSize): number {
  switch (kind) {
    case 'relative':
      return linear - end
    case 'ip':
      return linear - codeBase(codeSize)
    case 'linear':
      return linear - dataBase(codeSize)
    case 'alias':
      return ALIAS + (linear & 0xfff) - dataBase(codeSize)
  }
}

// --- what programs are made of ---

const usable = (row: Row): boolean => semantics[row.semantics] !== undefined
const plain = (row: Row): boolean => usable(row) && (row.attributes.flow === undefined || row.attributes.flow === 'serialise') && row.attributes.cpl === undefined && !row.attributes.exit
const bySource = new Map<string, Row>(rows.map((row) => [`${row.mnemonic} ${row.operandText} ${row.encoding}`, row]))
const family = (...names: string[]): Row[] =>
  names.flatMap((name) => (families as Record<string, readonly { mnemonic: string; operands: string; encoding: string }[]>)[name] ?? [])
    .map((source) => bySource.get(`${source.mnemonic} ${source.operands} ${source.encoding}`)!)
    .filter(Boolean)
const INTEGER = family('integer', 'bit').filter(plain).filter((row) => !/^(popf|pushf)$/.test(row.semantics))
const STRING = family('string').filter(plain)
const FLOAT = family('x87').filter(plain)
const VECTOR = rows.filter((row) => plain(row) && ['sse', 'mmx'].includes(row.attributes.unit ?? ''))
const REST = rows.filter((row) => plain(row) && ![...INTEGER, ...STRING, ...FLOAT, ...VECTOR].includes(row))
/** Privileged, sensitive, far, trapping: now and then. */
const ODD = rows.filter((row) => usable(row) && !plain(row) && !['conditional', 'jump', 'call', 'return', 'indirectJump', 'indirectCall'].includes(row.attributes.flow ?? ''))

/** What sequences and chunks end with. */
export const UD2 = [0x0f, 0x0b]
const POINTERS = [3, 5, 6, 7]
const item = (bytes: number[], ...fixups: Fixup[]): Item => ({ bytes, fixups, repeats: false })
const little = (value: number, size: number): number[] => Array.from({ length: size }, (_, n) => (value >> (8 * n)) & 0xff)

export interface WriterOptions {
  /** Instructions that change the mode, stop or leave for elsewhere, and stores into the code, too. Default true. */
  readonly odd?: boolean
}

export class Writer {
  readonly items: Item[] = []
  readonly random: Random
  readonly codeSize: CodeSize
  readonly odd: boolean
  readonly #word: 2 | 4
  #counters = 0

  constructor(random: Random, codeSize: CodeSize, { odd = true }: WriterOptions = {}) {
    this.random = random
    this.odd = odd
    this.codeSize = codeSize
    this.#word = codeSize === 16 ? 2 : 4
  }

  /** ModRM and displacement of an absolute operand. */
  #absolute(reg: number, linear: number): number[] {
    const bits = reg << 3
    const value = linear - dataBase(this.codeSize)
    if (this.codeSize === 64) return [bits | 4, 0x25, ...little(value, 4)]
    return this.codeSize === 32 ? [bits | 5, ...little(value, 4)] : [bits | 6, ...little(value, 2)]
  }
  #push(bytes: number[], ...fixups: Fixup[]): void {
    this.items.push(item(bytes, ...fixups))
  }

  pointer(register: number): void {
    this.#push([0xb8 | register, ...little(plainPlace(this.random) - dataBase(this.codeSize), this.#word)])
  }

  /** An instruction of any kind that falls through. */
  instruction(): void {
    const { random, codeSize } = this
    const kind = random.below(100)
    const pool = kind < 52 ? INTEGER : kind < 60 ? STRING : kind < 70 ? FLOAT : kind < 90 ? VECTOR : kind < 97 || !this.odd ? REST : ODD
    for (;;) {
      const row = random.pick(pool)
      let wanted: Addressing | undefined
      const encoded = encode(random, row, {
        codeSize,
        register: (count) => this.#register(count),
        addressing: (size) => (wanted = this.#addressing(size)),
      })
      if (!encoded) continue
      if (wanted?.kind === 'base' && random.below(2) && wanted.base < 8) this.pointer(wanted.base)
      const fixups: Fixup[] = encoded.ripAt < 0 ? [] : [{ at: encoded.ripAt, size: 4, kind: 'relative', to: { data: plainPlace(random) }, delta: 0 }]
      const { rep } = encoded.instruction
      this.items.push({ bytes: [...encoded.code], fixups, repeats: rep !== 0 && row.attributes.rep !== undefined })
      return
    }
  }
  /** So many, up to UD2. */
  straight(count: number): void {
    for (let left = count; left > 0; left--) this.instruction()
    this.#push(UD2)
  }
  #register(count: number): number {
    const n = this.random.below(this.random.below(3) ? 8 : count)
    return n === 4 && this.random.below(16) ? 0 : n
  }
  #addressing(addressSize: 16 | 32 | 64): Addressing | undefined {
    const { random, codeSize } = this
    const kind = random.below(16)
    const linear = plainPlace(random) - dataBase(codeSize)
    if (kind < 6) return { kind: 'absolute', displacement: addressSize === 16 ? linear & 0xffff : linear }
    if (kind < 8 && codeSize === 64) return { kind: 'ripRelative' }
    if (kind === 15) return undefined
    const base = random.pick(POINTERS)
    if (addressSize === 16) return { kind: 'base', base, index: -1, scale: 0, displacement: random.below(256) - 128 }
    return { kind: 'base', base, index: random.below(6) ? -1 : random.pick([0, 1, 2]), scale: random.below(4), displacement: random.below(160) - 32 }
  }

  /** Jcc, LOOPcc or JrCXZ, over some items. Forward, so that programs end. */
  conditional(to: number): void {
    const { random } = this
    if (random.below(8) === 0) {
      const bytes = [...(random.below(4) ? [] : [0x67]), 0xe0 | random.below(4), 0]
      return this.#push(bytes, { at: bytes.length - 1, size: 1, kind: 'relative', to, delta: 0 })
    }
    if (random.below(2)) return this.#push([0x70 | random.below(16), 0], { at: 1, size: 1, kind: 'relative', to, delta: 0 })
    this.#push([0x0f, 0x80 | random.below(16), ...little(0, this.#word)], { at: 2, size: this.#word, kind: 'relative', to, delta: 0 })
  }
  jump(to: number): void {
    const { random } = this
    const kind = random.below(4)
    if (kind === 0) return this.#push([0xe9, ...little(0, this.#word)], { at: 1, size: this.#word, kind: 'relative', to, delta: 0 })
    if (kind === 1) return this.#push([0xeb, 0], { at: 1, size: 1, kind: 'relative', to, delta: 0 })
    this.#indirect(4, to)
  }
  call(to: number): void {
    if (this.random.below(3)) this.#push([0xe8, ...little(0, this.#word)], { at: 1, size: this.#word, kind: 'relative', to, delta: 0 })
    else this.#indirect(2, to)
  }
  return(): void {
    this.#push(this.random.below(4) ? [0xc3] : [0xc2, 8 * this.random.below(3), 0])
  }
  /** FF /2 or /4, through a register or memory. */
  #indirect(operation: number, to: number): void {
    const { random, codeSize } = this
    const word = this.#word
    if (random.below(2)) {
      const register = random.pick([0, 1, 2, 3])
      this.#push([0xb8 | register, ...little(0, word)], { at: 1, size: word, kind: 'ip', to, delta: 0 })
      return this.#push([0xff, 0xc0 | (operation << 3) | register])
    }
    const slot = COUNTERS + 0x800 + 8 * random.below(64)
    const bytes = [...(codeSize === 64 ? [0x48] : []), 0xc7, ...this.#absolute(0, slot), ...little(0, word)]
    this.#push(bytes, { at: bytes.length - word, size: word, kind: 'ip', to, delta: 0 })
    this.#push([0xff, ...this.#absolute(operation, slot)])
  }

  /** A loop around what `body` writes: counted in memory, where nothing else writes. */
  loop(rounds: number, body: () => void): void {
    const counter = COUNTERS + 8 * this.#counters++
    const word = this.#word
    this.#push([0xc7, ...this.#absolute(0, counter), ...little(rounds, word)])
    const head = this.items.length
    body()
    this.#push([0xff, ...this.#absolute(1, counter)])
    const kind = this.random.below(3)
    if (kind === 0) this.#push([0x75, 0], { at: 1, size: 1, kind: 'relative', to: head, delta: 0 })
    else this.#push([0x0f, kind === 1 ? 0x85 : 0x8f, ...little(0, word)], { at: 2, size: word, kind: 'relative', to: head, delta: 0 })
  }

  /** A store into the code: into the end of an item, which is its immediate if it has one. */
  modify(to: number, length: number): void {
    const { random, codeSize } = this
    const kind = codeSize === 16 || random.below(2) ? 'alias' : 'linear'
    const opcode = random.below(3) ? 0xc6 : 0x80 // MOV, or the arithmetic group
    const bytes = [opcode, ...this.#absolute(opcode === 0x80 ? random.below(7) : 0, CODE), random.below(256)]
    const size = this.#word
    this.#push(bytes, { at: bytes.length - 1 - size, size, kind, to, delta: length - 1 })
  }
}

/** The program of a seed. */
export function randomProgram(seed: number): Program {
  const random = new Random(seed)
  const codeSize = random.pick([64, 64, 64, 32, 32, 16] as const)
  const writer = new Writer(random, codeSize)
  const chunks: number[] = []
  for (let n = 1 + random.below(3); n > 0; n--) {
    chunks.push(writer.items.length)
    chunk(writer)
  }
  const near = random.below(3) === 0
  const start = CODE + (near ? 0x1000 * (1 + random.below(2)) - 1 - random.below(60) : random.below(0xc00))
  const user = random.below(2) === 1
  return {
    seed, codeSize, user, start, chunks, items: writer.items,
    alignment: user && random.below(8) === 0,
    stack16: codeSize === 32 && random.below(6) === 0,
  }
}

/** Code up to UD2, and behind it what it calls. `count`, `depth`: of instructions, and of loops and calls within each other, at most. */
export function chunk(writer: Writer, count = 3 + writer.random.below(30), depth = 2): void {
  const { random } = writer
  /** Calls whose routine is not written yet: written as branches to the end for now. */
  const calls: number[] = []
  sequence(writer, count, depth, calls)
  writer.items.push(item(UD2))
  for (let left = calls.length ? 1 + random.below(2) : 0; left > 0; left--) {
    const start = writer.items.length
    for (const at of calls) if (left === 1 || random.below(2)) retarget(writer, at, start)
    sequence(writer, 1 + random.below(8), 0, [])
    writer.return()
  }
}

function retarget(writer: Writer, at: number, to: number): void {
  const old = writer.items[at]!
  writer.items[at] = { ...old, fixups: old.fixups.map((fixup) => ({ ...fixup, to })) }
}

function sequence(writer: Writer, count: number, depth: number, calls: number[]): void {
  const { random } = writer
  const first = writer.items.length
  const forward: { at: number; over: number }[] = []
  for (let left = count; left > 0; left--) {
    // Where there are few instructions, more of them branch.
    const kind = random.below(writer.odd ? 32 : 14)
    if (kind < 4) {
      forward.push({ at: writer.items.length, over: 1 + random.below(6) })
      if (kind) writer.conditional(0)
      else writer.jump(0)
    } else if (kind === 4 && depth) {
      const rounds = 2 + random.below(random.below(8) ? 6 : 60)
      writer.loop(rounds, () => sequence(writer, 1 + random.below(8), depth - 1, calls))
    } else if (kind === 5 && depth) {
      calls.push(writer.items.length)
      writer.call(0)
    } else if (kind === 6 && writer.odd && random.below(2)) {
      const to = first + random.below(writer.items.length - first + 3)
      writer.modify(to, writer.items[to]?.bytes.length ?? 3)
    } else if (kind === 7) writer.pointer(random.pick(POINTERS))
    else writer.instruction()
  }
  for (const { at, over } of forward) retarget(writer, at, Math.min(at + 1 + over, writer.items.length))
}
