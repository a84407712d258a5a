/** Random register states: numbers where things go wrong, and pointers that lead to the data of the world. */
import type { Core } from '../../src/state/core.ts'
import { BASE_RIP, type Instruction } from '../../src/decode/instruction.ts'
import { fpr, gpr, S, SEGMENT, xmm } from '../../src/state/layout.ts'
import { writeFlags } from '../../src/state/flags.ts'
import { f32, f64, f80, integer, type Random } from '../float/operands.ts'
import { COUNTERS, DATA, PLAIN_PAGES, STACK, type CodeSize } from './world.ts'

const RCX = 1, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7

/** A linear address for an access: mostly plain, at any alignment, across pages, now and then where it faults or is odd. */
export function place(random: Random): number {
  const kind = random.below(32)
  if (kind === 0) return DATA + random.below(16 << 12)
  if (kind === 1) return random.u32()
  if (kind < 5) return DATA + ((1 + random.below(PLAIN_PAGES)) << 12) - random.below(20) // across a page border
  const at = DATA + random.below((PLAIN_PAGES << 12) - 64)
  return random.below(3) ? at & ~15 : at
}

/** Where what may be done changes: page 11 is not there, 12 read only, 14 for data, 15 the system's, and around them all is nothing. (world.ts) */
const BORDERS = [0, 9, 11, 11, 12, 15, 16].map((page) => DATA + (page << 12))

/** Half the time a pointer leads to where an access crosses a border, or a later element of a string is the first to fault. */
export function aimAtBorders(random: Random, core: Core, codeSize: CodeSize): void {
  if (random.below(2)) return
  const register = random.pick([RSI, RDI, RDI, RBX, RBP])
  const linear = random.pick(BORDERS) + random.below(80) - 64
  core.set64(gpr(register), BigInt(codeSize === 16 ? (linear - DATA) & 0xffff : linear))
}

const MXCSR = [0x1f80, 0x1f80, 0x1fa0, 0x1fa0, 0x1fbf, 0x9f80, 0x7f80, 0x1f00]

/** General registers, flags, x87, SSE. */
export function randomState(random: Random, core: Core, codeSize: CodeSize, user: boolean): void {
  const long = codeSize === 64
  const u32 = new Uint32Array(core.memory.memory.buffer)
  const base = core.base >>> 2
  const offset = (linear: number) => (codeSize === 16 ? linear - DATA : linear)
  for (let n = 0; n < 16; n++) {
    if (n > 7 && !long) core.set64(gpr(n), 0n)
    else integer(random, u32, base + (gpr(n) >>> 2))
    // Outside 64-bit mode the upper halves are whatever they were; programs cannot tell, but must not be disturbed by them.
    if (!long) u32[base + (gpr(n) >>> 2) + 1] = 0
  }
  const pointer = (n: number, linear: number) => core.set64(gpr(n), BigInt(offset(linear) >>> 0))
  pointer(RSP, STACK - 8 * random.below(64) - (random.below(6) ? 0 : random.below(8)))
  for (const n of [RBX, RBP, RSI, RDI]) if (random.below(8)) pointer(n, place(random))
  if (random.below(3)) core.set64(gpr(RCX), BigInt(random.below(40)))
  const system = user ? 0x202 | (random.below(16) ? 0 : 0x4_0000) : 2 | (random.u32() & 0x200)
  writeFlags(core, system | (random.u32() & 0x8d5) | (random.below(6) ? 0 : 0x400))
  randomVectors(random, core, u32)
}

function randomVectors(random: Random, core: Core, u32: Uint32Array): void {
  const fill = random.pick([f32, f64, integer, f64])
  const step = fill === f32 ? 1 : 2
  const vectors = (core.base + xmm(0)) >>> 2
  for (let n = 0; n < 64; n += step) fill(random, u32, vectors + n)
  for (let n = 0; n < 8; n++) {
    const at = (core.base + fpr(n)) >>> 2
    f80(random, u32, at)
    u32[at + 2]! &= 0xffff
    u32[at + 3] = 0
  }
  core.set32(S.mxcsr, random.pick(MXCSR))
  const masks = random.below(8) ? 0x3f : random.below(64)
  core.set32(S.fpuControl, 0x40 | masks | (random.pick([3, 3, 3, 2, 0]) << 8) | (random.below(3) ? 0 : random.below(4) << 10))
  core.set32(S.fpuStatus, (random.below(8) << 11) | (random.u32() & 0x4700) | (random.below(4) ? 0 : random.u32() & 0x7f & masks))
  core.set32(S.fpuTag, random.below(3) ? 0xff : random.u32() & 0xff)
  core.set32(S.fpuOpcode, 0)
  core.set64(S.fpuIp, 0n)
  core.set64(S.fpuDp, 0n)
  core.set32(S.fpuSelectors, 0)
  core.set32(S.floatException, 0)
}

/** Makes the memory operand of an instruction at `rip` lead to a good place, by its base register; RIP-relative ones stay. */
export function aim(random: Random, core: Core, i: Instruction, codeSize: CodeSize): void {
  if (!i.isMemory || i.base < 0 || i.base === BASE_RIP || i.base === i.index) return
  const segment = i.segment
  const linear = BigInt(place(random)) - core.segmentBase(segment === SEGMENT.fs || segment === SEGMENT.gs || codeSize !== 64 ? segment : SEGMENT.ds)
  const index = i.index < 0 ? 0n : core.register(i.index) << BigInt(i.scale)
  const wanted = linear - index - BigInt(i.displacement)
  core.setRegister(i.base, i.addressSize === 64 ? wanted : i.addressSize === 32 ? BigInt.asUintN(32, wanted) : BigInt.asUintN(16, wanted))
}

/** A plain place for absolute displacements. */
export const plainPlace = (random: Random): number => {
  const at = place(random)
  return at >>> 12 === COUNTERS >>> 12 ? DATA : at
}
