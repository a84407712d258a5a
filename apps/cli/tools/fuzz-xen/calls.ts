/** Hypercalls by chance: numbers, sub-operations and structures that are nearly right, and some that are nothing. */

import { ARGUMENTS, FOREIGN, FRAMES, TABLES, type FuzzedDomain } from './domain.ts'

const SELF = 0x7ff0
const SPACE = (FRAMES - ARGUMENTS) * 4096
/** What the domain's frames are mostly used for, so that calls fit together: tables by level, then ordinary memory. First frame and count. */
const POOLS = [
  [30, ARGUMENTS - 30],
  [6, 9],
  [15, 6],
  [21, 5],
  [26, 4],
] as const
/** Entries that are mostly written: few, so that one is written again. The fuzzer's own pages need others. */
const ENTRIES = { first: 1, count: 8 } as const
/** Bits that few entries may have: cache control, PSE, G, what software keeps, bit 62, NX. */
const ODD_BITS = [3n, 4n, 7n, 7n, 8n, 9n, 52n, 62n, 63n]
/** Level of the frame that an extended operation names. */
const LEVELS: Readonly<Record<number, number>> = { 0: 1, 1: 2, 2: 3, 3: 4, 5: 4, 15: 4, 16: 0, 17: 0 }
/** Entries of the grant table that are written and used. */
const GRANTS = 12
/** Requests beyond which a batch is continued. */
const LONG = 1024

/** xorshift: one seed, one sequence. */
export class Chance {
  #state: number
  constructor(seed: number) {
    this.#state = seed * 2654435761 || 1
    for (let n = 0; n < 8; n++) this.below(2)
  }
  below(limit: number): number {
    let x = this.#state
    x ^= x << 13
    x ^= x >>> 17
    x ^= x << 5
    this.#state = x
    return (x >>> 0) % limit
  }
  one<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }
  is(part: number): boolean {
    return this.below(1000) < part * 1000
  }
  wide(): bigint {
    const value = (BigInt(this.below(2 ** 32)) << 32n) | BigInt(this.below(2 ** 32))
    return this.is(0.5) ? value : value >> BigInt(this.below(64))
  }
}

export interface MadeCall {
  readonly number: number
  readonly args: readonly bigint[]
}

export class CallMaker {
  readonly #domain: FuzzedDomain
  readonly #chance: Chance
  readonly #bytes = new Uint8Array(SPACE)
  readonly #view = new DataView(this.#bytes.buffer)
  #used = 0

  constructor(domain: FuzzedDomain, chance: Chance) {
    this.#domain = domain
    this.#chance = chance
  }

  // Values

  /** A frame that is mostly used at that level; 0: ordinary memory. */
  #frame(level = this.#chance.below(5)): number {
    const chance = this.#chance
    const { machine, foreign } = this.#domain
    const [first, count] = POOLS[level]!
    if (chance.is(0.9)) return machine[first + chance.below(count)]!
    if (chance.is(0.7)) return machine[chance.below(ARGUMENTS)]!
    return chance.one([foreign[chance.below(FOREIGN)]!, machine[chance.below(FRAMES)]!, 0, 511, 512, 2 ** 31, 2 ** 40])
  }
  #machineAddress(level?: number): bigint {
    const chance = this.#chance
    const frame = chance.is(0.1) ? this.#domain.machine[chance.below(TABLES)]! : this.#frame(level)
    const index = ENTRIES.first + chance.below(ENTRIES.count)
    const at = BigInt(frame) * 4096n + BigInt((chance.is(0.95) ? index : 256 + chance.below(256)) * 8)
    return chance.is(0.98) ? at : at + BigInt(chance.below(8))
  }
  /** An entry of a table of that level: mostly one that could be. */
  #entry(level = 1 + this.#chance.below(4)): bigint {
    const chance = this.#chance
    if (chance.is(0.2)) return 0n
    let flags = BigInt(chance.one([1, 5, 7, 7, 0x27, 0x67, 0x65, 3]))
    if (chance.is(0.08)) flags |= 1n << (chance.is(0.9) ? chance.one(ODD_BITS) : BigInt(chance.below(64)))
    return (BigInt(this.#frame(level - 1)) << 12n) | flags
  }
  #linear(): bigint {
    const chance = this.#chance
    const near = BigInt(chance.below(ARGUMENTS * 4096) & (chance.is(0.7) ? -4096 : -1))
    if (chance.is(0.92)) return near
    return chance.one([
      0xffff_8000_0000_0000n,
      0xffff_8200_0000_0000n,
      0x8000_0000_0000n,
      0xffff_ffff_ffff_fff8n,
      chance.wide(),
    ])
  }

  // Structures, in the fuzzer's own pages

  #place(bytes: number): { at: number; address: bigint } {
    if (this.#used + bytes > SPACE) this.#used = 0
    const at = this.#used
    this.#used += (bytes + 15) & ~15
    return { at, address: BigInt(ARGUMENTS * 4096 + at) }
  }
  #structure(values: readonly (readonly [at: number, bytes: 2 | 4 | 8, value: bigint | number])[], bytes = 64): bigint {
    const { at, address } = this.#place(bytes)
    this.#bytes.fill(0, at, at + bytes)
    for (const [offset, size, value] of values) {
      const wide = BigInt.asUintN(64, BigInt(value))
      if (size === 8) this.#view.setBigUint64(at + offset, wide, true)
      else if (size === 4) this.#view.setUint32(at + offset, Number(wide & 0xffff_ffffn), true)
      else this.#view.setUint16(at + offset, Number(wide & 0xffffn), true)
    }
    return this.#chance.is(0.97) ? address : this.#linear()
  }
  #list(count: number, value: () => bigint): bigint {
    const { at, address } = this.#place(count * 8)
    for (let n = 0; n < count; n++) this.#view.setBigUint64(at + n * 8, value(), true)
    return address
  }
  #self(): number {
    return this.#chance.is(0.95) ? SELF : this.#chance.one([0, 1, 2, SELF + 1, SELF + 2])
  }
  #foreign(): bigint {
    return BigInt(this.#self()) | (this.#chance.is(0.97) ? 0n : BigInt(this.#chance.below(4)) << 16n)
  }
  #done(): bigint {
    return this.#chance.is(0.6) ? 0n : this.#structure([])
  }

  // Calls

  readonly #makers: readonly (readonly [weight: number, make: () => MadeCall])[] = [
    [30, () => this.#mmuUpdate()],
    [
      15,
      () => ({
        number: 14,
        args: [this.#linear(), this.#entry(1), BigInt(this.#chance.one([0, 1, 2, 3, 4, 5, 6, 0x2000]))],
      }),
    ],
    [25, () => this.#mmuextOp()],
    [4, () => this.#setGdt()],
    [6, () => this.#updateDescriptor()],
    [8, () => this.#memoryOp()],
    [4, () => this.#vcpuOp()],
    [4, () => this.#eventOp()],
    [12, () => this.#grantOp()],
    [3, () => this.#anything()],
    [4, () => this.#multicall()],
  ]
  #total = this.#makers.reduce((sum, [weight]) => sum + weight, 0)

  /** Its structures go into the fuzzer's pages as they are now. False: the domain has lost those. */
  next(): MadeCall {
    let left = this.#chance.below(this.#total)
    const [, make] = this.#makers.find(([weight]) => (left -= weight) < 0)!
    return make()
  }
  /** The kernel writes entries into memory that is no table yet. */
  poke(vcpu: number): void {
    const chance = this.#chance
    const level = 1 + chance.below(4)
    const [first, count] = POOLS[level]!
    const page = BigInt((first + chance.below(count)) * 4096)
    const entry = new Uint8Array(8)
    for (let n = chance.below(3); n > 0; n--) {
      const flags = chance.one([1, 1, 1, 5, 2, 0, chance.below(32)])
      const part = chance.is(0.1) ? ([chance.one([0, 8, 4095]), chance.one([0, 8, 4096])] as const) : undefined
      this.#domain.writeGrant(chance.below(GRANTS), {
        flags,
        domain: chance.is(0.9) ? 1 : chance.below(4),
        frame: this.#frame(),
        part,
      })
    }
    for (let n = chance.below(6); n > 0; n--) {
      new DataView(entry.buffer).setBigUint64(0, this.#entry(level), true)
      this.#domain.copy(vcpu, page + BigInt((ENTRIES.first + chance.below(ENTRIES.count)) * 8), entry, true)
    }
  }
  write(vcpu: number): boolean {
    return this.#domain.copy(vcpu, BigInt(ARGUMENTS * 4096), this.#bytes, true)
  }

  #mmuUpdate(): MadeCall {
    const chance = this.#chance
    const long = chance.is(0.02)
    const count = long ? LONG + chance.below(LONG) : 1 + chance.below(6)
    const { at, address } = this.#place(count * 16)
    for (let n = 0; n < count; n++) {
      const command = BigInt(chance.is(0.9) ? 0 : chance.below(4))
      const level = 1 + chance.below(4)
      this.#view.setBigUint64(at + n * 16, this.#machineAddress(level) | command, true)
      // A long one is to get far: what it writes is next to nothing.
      this.#view.setBigUint64(at + n * 16 + 8, long && !chance.is(0.001) ? 0n : this.#entry(level), true)
    }
    const forged = chance.is(0.02) ? 0x8000_0000n : 0n
    return { number: 1, args: [address, BigInt(count) | forged, this.#done(), this.#foreign()] }
  }

  #mmuextOp(): MadeCall {
    const chance = this.#chance
    const count = chance.is(0.01) ? LONG + 200 : 1 + chance.below(3)
    const { at, address } = this.#place(count * 24)
    for (let n = 0; n < count; n++) {
      const operation =
        count > LONG
          ? chance.one([6, 7])
          : chance.one([0, 1, 2, 3, 3, 4, 4, chance.is(0.1) ? 5 : 3, 6, 7, 8, 13, 15, 16, 17, chance.below(24)])
      const first =
        operation === 13 || operation === 7
          ? this.#linear()
          : BigInt(operation === 15 && chance.is(0.3) ? 0 : this.#frame(LEVELS[operation]))
      this.#view.setUint32(at + n * 24, operation, true)
      this.#view.setBigUint64(at + n * 24 + 8, first, true)
      this.#view.setBigUint64(
        at + n * 24 + 16,
        operation === 17 ? BigInt(this.#frame()) : BigInt(chance.one([0, 1, 512, 600, 8192, 8193])),
        true,
      )
    }
    return { number: 26, args: [address, BigInt(count), this.#done(), this.#foreign()] }
  }

  #setGdt(): MadeCall {
    const entries = this.#chance.one([0, 1, 512, 513, 1024, 7168, 7169])
    return { number: 2, args: [this.#list(15, () => BigInt(this.#frame(0))), BigInt(entries)] }
  }

  /** Mostly in a table that a vCPU has, and mostly present. */
  #updateDescriptor(): MadeCall {
    const chance = this.#chance
    const frames = this.#domain.descriptorFrames
    const isThere = frames.length > 0 && chance.is(0.8)
    const at = isThere ? BigInt(chance.one(frames) * 4096 + chance.below(512) * 8) : this.#machineAddress()
    return { number: 10, args: [at, chance.wide() | (chance.is(0.8) ? 1n << 47n : 0n)] }
  }

  #memoryOp(): MadeCall {
    const chance = this.#chance
    const operation = chance.one([0, 1, 1, 6, 6, 6, 2, 3, 4, 12, 11, 7])
    const count = chance.is(0.05) ? LONG + 100 : chance.below(4)
    const list = this.#list(count, () => (chance.is(0.5) ? BigInt(this.#frame()) : BigInt(chance.below(FRAMES))))
    const start = chance.is(0.05) ? BigInt(chance.one([1, 5, 2 ** 20, 2 ** 40])) : 0n
    const argument = this.#structure([
      [0, 8, chance.is(0.1) ? 0n : list],
      [8, 8, chance.is(0.97) ? BigInt(count) : chance.wide()],
      [16, 4, chance.is(0.95) ? 0 : chance.below(64)],
      [24, 2, this.#self()],
    ])
    return { number: 12, args: [BigInt(operation) | (start << 6n), argument] }
  }

  #vcpuOp(): MadeCall {
    const chance = this.#chance
    const operation = chance.one([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 10, 13, chance.below(20)])
    const argument = this.#structure([
      [0, 8, operation === 10 ? BigInt(this.#frame(0)) : this.#linear()],
      [8, 4, chance.one([0, 64, 4032, 4033, 4096])],
    ])
    return { number: 24, args: [BigInt(operation), BigInt(chance.below(3)), argument] }
  }

  #eventOp(): MadeCall {
    const chance = this.#chance
    const words = [0, 4, 8, 12].map((at) => [at, 4, chance.one([0, 1, 2, 3, 4, 5, SELF, 4095, 4096])] as const)
    return { number: 32, args: [BigInt(chance.below(15)), this.#structure(words)] }
  }

  /** Structures of one operation, as they are in memory: which operation says what they mean. */
  #grantOp(): MadeCall {
    const chance = this.#chance
    const operation = chance.one([0, 0, 0, 1, 1, 1, 5, 5, 4, 7, 8, 11, chance.below(13)])
    const [bytes, write] = this.#grants[operation] ?? this.#grants[2]!
    const count = chance.is(0.02) ? 100 : 1 + chance.below(3)
    const { at, address } = this.#place(count * bytes)
    this.#bytes.fill(0, at, at + count * bytes)
    for (let n = 0; n < count; n++) write(at + n * bytes)
    return { number: 20, args: [BigInt(operation), address, BigInt(chance.is(0.95) ? count : chance.below(200))] }
  }
  #reference(): number {
    return this.#chance.is(0.97) ? this.#chance.below(GRANTS) : this.#chance.one([511, 512, 2 ** 31])
  }
  /** An address whose entry a grant takes, or that of an entry. */
  #grantPlace(isEntry: boolean): bigint {
    return isEntry ? this.#machineAddress(1) : this.#linear()
  }
  /** Who is meant: mostly the domain itself. */
  #whom(): number {
    return this.#chance.is(0.9) ? this.#chance.one([1, SELF]) : this.#self()
  }
  readonly #grants: Readonly<Record<number, readonly [bytes: number, write: (at: number) => void]>> = {
    0: [
      32,
      (at) => {
        const flags = this.#chance.one([2, 2, 2, 6, 18, 18, 22, 3, 1, 10, this.#chance.below(64)])
        this.#view.setBigUint64(at, BigInt.asUintN(64, this.#grantPlace((flags & 16) !== 0)), true)
        this.#view.setUint32(at + 8, flags, true)
        this.#view.setUint32(at + 12, this.#reference(), true)
        this.#view.setUint16(at + 16, this.#whom(), true)
      },
    ],
    1: [24, (at) => this.#unmap(at)],
    2: [
      24,
      (at) => {
        this.#view.setUint16(at, this.#self(), true)
        this.#view.setUint32(at + 4, this.#chance.one([0, 1, 2, 64, 65]), true)
        this.#view.setBigUint64(at + 16, BigInt.asUintN(64, this.#linear()), true)
      },
    ],
    4: [
      24,
      (at) => {
        this.#view.setBigUint64(at, BigInt(this.#frame(0)), true)
        this.#view.setUint16(at + 8, this.#whom(), true)
        this.#view.setUint32(at + 12, this.#reference(), true)
      },
    ],
    5: [
      40,
      (at) => {
        const flags = this.#chance.below(4)
        for (const [side, isGrant] of [
          [0, flags & 1],
          [16, flags & 2],
        ] as const) {
          this.#view.setBigUint64(at + side, BigInt(isGrant ? this.#reference() : this.#frame()), true)
          this.#view.setUint16(at + side + 8, this.#whom(), true)
          this.#view.setUint16(at + side + 10, this.#chance.one([0, 8, 4088, 4096]), true)
        }
        this.#view.setUint16(at + 32, this.#chance.one([0, 8, 64, 4088, 4096]), true)
        this.#view.setUint16(at + 34, flags, true)
      },
    ],
    7: [24, (at) => this.#unmap(at)],
    8: [4, (at) => this.#view.setUint32(at, this.#chance.one([1, 2, 2, 2, 3]), true)],
    9: [
      16,
      (at) => {
        this.#view.setUint32(at, this.#chance.one([0, 1, 2, 64, 2 ** 31]), true)
        this.#view.setUint16(at + 4, this.#whom(), true)
        this.#view.setBigUint64(at + 8, BigInt.asUintN(64, this.#linear()), true)
      },
    ],
    11: [
      12,
      (at) => {
        this.#view.setUint32(at, this.#reference(), true)
        this.#view.setUint32(at + 4, this.#reference(), true)
      },
    ],
  }
  /** Mostly of a mapping that is there, at its place. */
  #unmap(at: number): void {
    const chance = this.#chance
    const handle = chance.below(12)
    const place = chance.is(0.5) ? this.#machineAddress(1) : this.#linear()
    this.#view.setBigUint64(at, BigInt.asUintN(64, chance.is(0.9) ? place : 0n), true)
    const second = chance.one([0n, 0n, BigInt(this.#frame()) * 4096n, this.#linear()])
    this.#view.setBigUint64(at + 8, BigInt.asUintN(64, second), true)
    this.#view.setUint32(at + 16, handle, true)
  }

  #anything(): MadeCall {
    const chance = this.#chance
    // Those that end the domain or its console's reader have no counts to judge.
    const number = chance.one([
      0, 3, 4, 5, 7, 8, 9, 12, 13, 15, 17, 18, 20, 21, 24, 25, 26, 28, 30, 32, 33, 34, 35, 36, 40, 63,
    ])
    const value = (): bigint =>
      chance.one([BigInt(chance.below(64)), this.#linear(), this.#machineAddress(), chance.wide()])
    return { number, args: Array.from({ length: 5 }, value) }
  }

  #multicall(): MadeCall {
    const chance = this.#chance
    const count = 1 + chance.below(5)
    const calls = Array.from({ length: count }, () => {
      for (;;) {
        const call = this.next()
        if (call.number !== 13 || chance.is(0.1)) return call
      }
    })
    const { at, address } = this.#place(count * 64)
    calls.forEach(({ number, args }, n) => {
      this.#view.setBigUint64(at + n * 64, BigInt(number), true)
      for (let arg = 0; arg < 6; arg++)
        this.#view.setBigUint64(at + n * 64 + 16 + arg * 8, BigInt.asUintN(64, args[arg] ?? 0n), true)
    })
    return { number: 13, args: [address, BigInt(count)] }
  }
}
