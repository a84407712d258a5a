/** Random initial states that suit an instruction: its addresses hit the data, its numbers are those where things go wrong. */
import { BASE_RIP } from '../../src/decode/instruction.ts'
import type { Row } from '../../src/rows/index.ts'
import { f32, f64, f80, integer, near32, near64, near80, type Random } from '../float/operands.ts'
import { Batch, DATA, DATA_SIZE, FX, MIDDLE, MIDDLE_SIZE, NOWHERE, SLOT_LANDINGS, SLOT_START, STATE, TAIL, TAIL_SIZE, USES } from './batch.ts'
import { hasFreeBase, type Encoded } from './encode.ts'

const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7

const STACK = /^(push|pop|call|callIndirect|ret|enter|leave|pusha|popa|pushf|popf)/

/** What the harness has to carry around an instruction. */
export function usesOf(row: Row): number {
  const { unit } = row.attributes
  const vectors = unit === 'x87' || unit === 'wait' || unit === 'mmx' || unit === 'sse'
  const memory =
    row.operands.some(({ kind }) => 'EMOXYQW'.includes(kind)) || STACK.test(row.semantics) || /^(xlat|maskmov)/.test(row.semantics)
  return (vectors ? USES.vectors : 0) | (memory ? USES.memory : 0)
}

/** Bytes that an instruction may touch at its memory operand. */
function reach(row: Row): number {
  const size = row.operands.find(({ kind }) => 'EMQWO'.includes(kind))?.size
  return size === 'state' ? 108 : size === 'env' ? 28 : size === 'x' || size === 'fx' ? 16 : size === 'f80' || size === 'bcd' ? 10 : 8
}

/** 64 bits. */
interface Halves {
  readonly low: number
  readonly high: number
}

/** An address for an access of `bytes`: mostly within the data, at any alignment, on its borders, now and then off them. */
function place(random: Random, bytes: number, long: boolean): Halves {
  const kind = random.below(64)
  if (kind === 0) return { low: NOWHERE + random.below(0x1000_0000), high: 0 }
  if (kind === 1 && long) return { low: random.u32(), high: random.pick([0x8000, 0x7fff_ffff, 0xffff_0000, 0x8000_0000]) }
  if (kind === 2) return { low: DATA + DATA_SIZE - 1 - random.below(bytes + 8), high: 0 } // into the guard
  if (kind < 8) return { low: DATA + DATA_SIZE - bytes - random.below(16), high: 0 }
  if (kind < 16) return { low: MIDDLE + 128 - 1 - random.below(bytes), high: 0 } // across the page border
  const at = MIDDLE + random.below(MIDDLE_SIZE - bytes)
  return { low: random.below(4) ? Math.max(MIDDLE, at & ~15) : at, high: 0 }
}

type Fill = 'bytes' | 'f32' | 'f64' | 'f80' | 'integer'

/** How the row's operands are best filled. */
function fillOf(row: Row, random: Random): Fill {
  const { unit } = row.attributes
  const name = row.mnemonic
  if (unit === 'x87' || unit === 'wait') {
    const size = row.operands[0]?.size
    return size === 'f32' ? 'f32' : size === 'f64' ? 'f64' : size === 'f80' ? 'f80' : 'integer'
  }
  if (unit === 'sse' && random.below(8)) {
    if (/^(CVTDQ|CVTPI|CVTSI)/.test(name)) return 'integer'
    if (/^CVTT?[PS]S2|[PS]S$/.test(name)) return 'f32'
    if (/^CVTT?[PS]D2|[PS]D$/.test(name)) return 'f64'
  }
  return random.below(3) ? 'bytes' : 'integer'
}

const EDGES = [0, 1, 2, 0x7f, 0x80, 0x81, 0xfe, 0xff]

/** Fills words at `at` (index), `count` of them: a multiple of 4. */
function fill(random: Random, u32: Uint32Array, at: number, count: number, kind: Fill): void {
  const end = at + count
  switch (kind) {
    case 'f32':
      for (; at < end; at++) f32(random, u32, at)
      return
    case 'f64':
      for (; at < end; at += 2) f64(random, u32, at)
      return
    case 'f80':
      for (; at < end; at += 4) f80(random, u32, at)
      return
    case 'integer':
      for (; at < end; at += 2) integer(random, u32, at)
      return
    case 'bytes':
      if (random.below(3) === 0) {
        for (; at < end; at++) u32[at] = random.pick(EDGES) | (random.pick(EDGES) << 8) | (random.pick(EDGES) << 16) | (random.pick(EDGES) << 24)
      } else for (; at < end; at++) u32[at] = random.u32()
  }
}

const MXCSR_USUAL = [0x1f80, 0x1fa0, 0x1fa0, 0x1fa0, 0x1fbf]

function fpu(random: Random, u32: Uint32Array, u16: Uint16Array, state: number, row: Row): void {
  const fx = state + STATE.fx
  const x87 = row.attributes.unit === 'x87' || row.attributes.unit === 'wait'
  const mmx = row.attributes.unit === 'mmx'
  u32.fill(0, fx >>> 2, (fx + 32) >>> 2)
  const masks = random.below(x87 ? 6 : 12) ? 0x3f : random.u32() & 0x3f
  const precision = random.below(3) ? 3 : random.pick([0, 2, 3, 1])
  const control = 0x40 | masks | (precision << 8) | (random.below(3) ? 0 : random.below(4) << 10)
  const flags = random.below(16) ? random.u32() & masks : random.u32() & 0x7f
  const pending = flags & ~masks & 0x3f ? 0x8080 : 0
  u16[(fx + FX.control) >>> 1] = control
  u16[(fx + FX.status) >>> 1] = (flags & 0x7f) | pending | (random.below(8) << 11) | (random.u32() & 0x4700)
  u16[(fx + FX.tag) >>> 1] = random.below(3) ? 0xff : random.below(4) ? (1 << random.below(8)) ^ 0xff : random.u32() & 0xff
  u32[(fx + FX.mxcsr) >>> 2] = random.below(5) < 3 ? random.pick(MXCSR_USUAL) : random.below(4) ? (random.u32() & 0xffff) | 0x1f80 : random.u32() & 0xffff
  const st = (fx + FX.st) >>> 2
  if (x87 || mmx) {
    for (let n = 0; n < 8; n++) f80(random, u32, st + 4 * n)
    if (random.below(3) === 0) near80(random, u32, st, st + 4)
    if (/^(FSIN|FCOS|FPTAN|FSINCOS|F2XM1|FPATAN|FYL2X)/.test(row.mnemonic) && random.below(2)) u32[st + 2] = 0x3fff - random.below(20)
  } else for (let n = 0; n < 32; n++) u32[st + n] = 0
}

/** Fills the initial state at byte `state` of the batch. */
export function fillState(random: Random, batch: Batch, encoded: Encoded, state: number): void {
  const { u32, u16, bytes } = batch
  const { row, instruction: i, fixed, address } = encoded
  const uses = usesOf(row)
  const long = i.codeSize === 64
  const registers = long ? 16 : 8
  const word = state >>> 2
  const set = (n: number, low: number, high = 0) => {
    u32[word + 2 * n] = low
    u32[word + 2 * n + 1] = long ? high : 0
  }
  for (let n = 0; n < 16; n++) {
    if (n >= registers) set(n, 0)
    else {
      integer(random, u32, word + 2 * n)
      if (random.below(4) === 0) set(n, random.pick(EDGES) << 24 >> 24, random.below(2) ? 0 : -1)
      if (!long) u32[word + 2 * n + 1] = 0
    }
  }
  u32[(state + STATE.rflags) >>> 2] = 0x202 | (random.u32() & 0x8d5) | (random.below(6) ? 0 : 0x400)
  u32[((state + STATE.rflags) >>> 2) + 1] = 0
  const kind = fillOf(row, random)
  if (uses & USES.memory) fill(random, u32, (state + STATE.memory) >>> 2, (MIDDLE_SIZE + TAIL_SIZE) >>> 2, kind)
  if (uses & USES.vectors) {
    fpu(random, u32, u16, state, row)
    const xmm = (state + STATE.fx + FX.xmm) >>> 2
    fill(random, u32, xmm, 64, kind)
    if (random.below(3) === 0 && !i.isMemory && i.hasModrm) nearVectors(random, u32, xmm + 4 * i.reg, xmm + 4 * (i.rm & 15), kind)
  }

  // Stack and string registers lead to the data whatever else they are.
  const stack = place(random, 16, long)
  if (usesStack(row)) set(RSP, stack.low & ~(random.below(4) ? 7 : 0), stack.high)
  if (/^(leave|enter)/.test(row.semantics)) {
    const frame = place(random, 16, long)
    set(RBP, frame.low, frame.high)
  }
  if (row.attributes.rep || row.operands.some(({ kind: k }) => k === 'X' || k === 'Y') || /^maskmov/.test(row.semantics)) {
    const from = place(random, 16, long), to = place(random, 16, long)
    set(RSI, from.low, from.high)
    set(RDI, to.low, to.high)
    if (i.rep || random.below(2)) set(RCX, random.below(8) ? random.below(24) : random.below(512), long && i.addressSize === 32 ? random.u32() : 0)
  }
  if (row.semantics === 'xlat') set(RBX, MIDDLE)
  if (/^div|^idiv/.test(row.semantics) && random.below(3)) {
    const negative = row.semantics === 'idiv' && (u32[word + 1]! | 0) < 0 ? -1 : 0
    set(RDX, random.below(2) ? negative : random.below(16), random.below(4) ? negative : 0)
    if (random.below(2)) u32[word] = (u32[word]! & ~0xff00) | (negative & 0xff00)
  }
  for (const [n, value] of fixed) set(n, value, value < 0 ? -1 : 0)
  if (/^(bt|bts|btr|btc)$/.test(row.semantics) && i.isMemory && i.reg !== i.base && i.reg !== i.index && row.operands[1]?.kind === 'G' && random.below(4)) {
    const bit = random.below(1024) - 512
    set(i.reg, i.operandSize === 16 ? (random.u32() & ~0xffff) | (bit & 0xffff) : bit, i.operandSize === 64 ? (bit < 0 ? -1 : 0) : random.u32())
  }
  if (hasFreeBase(i)) setBase(random, batch, encoded, state, set)
  const operand = operandAddress(batch, encoded, state)
  if (row.semantics.startsWith('cmpxchg') && random.below(2)) makeEqual(batch, encoded, state, operand)
  if (row.attributes.flow === 'indirectJump' || row.attributes.flow === 'indirectCall' || row.attributes.flow === 'return') {
    const target = branchTarget(random, address)
    if (row.attributes.flow === 'return') poke(bytes, state, u32[word + 2 * RSP]!, target)
    else if (i.isMemory) poke(bytes, state, operand, target)
    else if (i.rm !== RSP) set(i.rm, target.low, target.high)
  }
}

/** Into the instruction's own slot, to nowhere, or to an address that is not canonical. */
function branchTarget(random: Random, address: number): Halves {
  const kind = random.below(16)
  if (kind === 0) return { low: random.u32(), high: 0x8000 + random.below(0x1_0000) }
  return { low: kind < 12 ? address - SLOT_START + random.pick(SLOT_LANDINGS) : NOWHERE + random.below(0x1000_0000), high: 0 }
}

const usesStack = (row: Row): boolean => STACK.test(row.semantics)

/** Makes base + index + displacement come to a good place. */
function setBase(random: Random, batch: Batch, { row, instruction: i }: Encoded, state: number, set: (n: number, low: number, high?: number) => void): void {
  const long = i.codeSize === 64
  const wanted = place(random, Math.min(reach(row), 128), long)
  const word = state >>> 2
  if (i.index >= 0 && i.index !== i.base) {
    // An index wild in all its bits is right as long as the sum is.
    if (i.index === RSP) return
    if (random.below(2)) set(i.index, random.below(64))
  }
  const u64 = (n: number) => BigInt(batch.u32[word + 2 * n]!) | (BigInt(batch.u32[word + 2 * n + 1]!) << 32n)
  const index = i.index >= 0 ? u64(i.index) << BigInt(i.scale) : 0n
  const target = BigInt(wanted.low >>> 0) | (BigInt(wanted.high >>> 0) << 32n)
  const base = BigInt.asUintN(64, target - index - BigInt(i.displacement))
  set(i.base, Number(base & 0xffff_ffffn), i.addressSize === 64 ? Number(base >> 32n) : random.u32())
}

/** Linear address of the memory operand, low half; 0 without one. */
export function operandAddress(batch: Batch, { instruction: i, address }: Encoded, state: number): number {
  if (!i.isMemory) return 0
  const register = (n: number) => (n < 0 ? 0 : batch.u32[(state >>> 2) + 2 * n]!)
  if (i.base === BASE_RIP) return (address + i.length + i.displacement) >>> 0
  return (register(i.base) + (register(i.index) << (i.index < 0 ? 0 : i.scale)) + i.displacement) >>> 0
}

/** Offset of a linear address in the state's copy of the data, or -1. */
export function dataOffset(linear: number, bytes: number): number {
  if (linear >= MIDDLE && linear + bytes <= MIDDLE + MIDDLE_SIZE) return STATE.memory + linear - MIDDLE
  if (linear >= TAIL && linear + bytes <= TAIL + TAIL_SIZE) return STATE.memory + MIDDLE_SIZE + linear - TAIL
  return -1
}

function poke(bytes: Uint8Array, state: number, linear: number, { low, high }: Halves): void {
  const at = dataOffset(linear, 8)
  if (at < 0) return
  for (let n = 0; n < 8; n++) bytes[state + at + n] = ((n < 4 ? low : high) >>> (8 * (n & 3))) & 0xff
}

/** The accumulator gets what the destination holds. */
function makeEqual({ bytes }: Batch, { row, instruction: i }: Encoded, state: number, operand: number): void {
  const copy = (from: number, to: number, count: number) => void bytes.copyWithin(state + to, state + from, state + from + count)
  if (!i.isMemory) return copy(8 * i.rm, 8 * RAX, 8)
  const pair = row.semantics !== 'cmpxchg'
  const half = pair ? (i.operandSize === 64 ? 8 : 4) : 8
  const at = dataOffset(operand, pair ? 2 * half : 8)
  if (at < 0) return
  if ([RAX, RDX].includes(i.base) || [RAX, RDX].includes(i.index)) return
  copy(at, 8 * RAX, half)
  if (pair) copy(at + half, 8 * RDX, half)
}

function nearVectors(random: Random, u32: Uint32Array, first: number, second: number, kind: Fill): void {
  if (kind === 'f64') for (let n = 0; n < 4; n += 2) near64(random, u32, first + n, second + n)
  else if (kind === 'f32') for (let n = 0; n < 4; n++) near32(random, u32, first + n, second + n)
  else for (let n = 0; n < 4; n++) if (random.below(2)) u32[second + n] = u32[first + n]!
}
