/** Random programs for a 64-bit kernel: ordinary instructions, sensitive ones, branches, faults, and stores over their own code. */

import { CODE, COUNTING_VECTOR, KERNEL, little, SELECTOR } from './machines.ts'

/** xorshift32: the same on every run. */
export function createRandom(seed: number): () => number {
  let state = seed | 1
  return () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }
}

const ABSOLUTE = 0x25
const dataAddress = (offset: number): number[] => little(BigInt.asUintN(32, KERNEL) + 0x28000n + BigInt(offset), 4)
const SELECTORS = [0, SELECTOR.data, SELECTOR.userData, SELECTOR.code, SELECTOR.userCode, SELECTOR.tss, SELECTOR.absent, SELECTOR.conforming, SELECTOR.local, 0x70]
const MSRS = [0xc000_0100, 0xc000_0101, 0xc000_0102, 0xc000_0082, 0x174, 0x1b, 0x277, 0x1234]
/** Flags that a program may set: no TF, which would step to its end one by one, and no NT. */
const FLAGS = [0x2, 0x202, 0x246, 0x4_0202, 0x602, 0x3202, 0x20_0202]

type Random = () => number
/** What comes next, given a source of random numbers and where in the program it stands. */
type Piece = (random: Random, at: number) => number[]
const pick = <T>(random: Random, of: readonly T[]): T => of[random() % of.length]!
/** One of RAX, RCX, RDX, RSI, RDI: RBX points to data, RSP to the stack. */
const register = (random: Random): number => pick(random, [0, 1, 2, 6, 7])
const imm32 = (random: Random): number[] => little(BigInt(random()), 4)

const PIECES: readonly Piece[] = [
  (r) => [0x48, pick(r, [0x01, 0x29, 0x31, 0x21, 0x09, 0x39, 0x89, 0x85]), 0xc0 | (register(r) << 3) | register(r)],
  (r) => [0x48, 0xc7, 0xc0 | register(r), ...imm32(r)],
  (r) => [0x48, 0x89, 0x43 | (register(r) << 3), (r() % 15) * 8],
  (r) => [0x48, 0x8b, 0x43 | (register(r) << 3), (r() % 15) * 8],
  (r) => [0x48, 0x8d, 0x05 | (register(r) << 3), ...little(BigInt(r() % 64), 4)],
  (r) => [0x48, 0x8b, 0x05 | (register(r) << 3), ...little(BigInt(r() % 64), 4)],
  (r) => [0x48, 0x8b, 0x04 | (register(r) << 3), ABSOLUTE, ...dataAddress((r() % 64) * 8)],
  (r) => [0x50 | register(r)],
  (r) => [0x58 | register(r)],
  () => [0x9c],
  () => [0x9d],
  (r) => [0x68, ...little(BigInt(pick(r, FLAGS)), 4), 0x9d],
  () => [0xfa],
  () => [0xfb],
  () => [0x0f, 0x01, 0xf8],
  () => [0x0f, 0x01, 0x43, 0x20],
  () => [0x0f, 0x01, 0x4b, 0x30],
  () => [0x0f, 0x00, 0xc0],
  () => [0x0f, 0x00, 0xc8],
  () => [0x0f, 0x01, 0xe0],
  (r) => [0xb8, ...little(BigInt(pick(r, SELECTORS)), 4), 0x0f, pick(r, [0x02, 0x03]), 0xd0],
  (r) => [0xb8, ...little(BigInt(pick(r, SELECTORS)), 4), 0x0f, 0x00, pick(r, [0xe0, 0xe8])],
  (r) => [0xb8, ...little(BigInt(pick(r, SELECTORS)), 4), 0x8e, pick(r, [0xc0, 0xd0, 0xd8, 0xe0, 0xe8])],
  (r) => [0x8c, 0xc0 | (r() % 6 << 3) | register(r)],
  () => [0x0f, 0xa0],
  () => [0xcd, COUNTING_VECTOR],
  (r) => [0xb9, ...little(BigInt(pick(r, MSRS)), 4), 0x0f, pick(r, [0x30, 0x32, 0x32])],
  (r) => [0x0f, 0x20, 0xc0 | (pick(r, [0, 2, 3, 4]) << 3) | register(r)],
  () => [0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8],
  () => [0x0f, 0x20, 0xe0, 0x48, 0x0f, 0xba, 0xf8, 0x07, 0x0f, 0x22, 0xe0],
  () => [0x0f, 0x01, 0x3b],
  () => [0x0f, 0x06],
  (r) => [0x70 | (r() % 16), r() % 12],
  (r) => [0xeb, r() % 8],
  // Over itself: calls what follows, which drops the return address or returns there.
  (r) => [0xe8, ...little(BigInt(r() % 6), 4)],
  () => [0xe8, 1, 0, 0, 0, 0x90, 0x48, 0x83, 0xc4, 0x08],
  // lea rax, [rip + 2]; jmp rax
  () => [0x48, 0x8d, 0x05, 2, 0, 0, 0, 0xff, 0xe0],
  // lea rax, [rip + 3]; push rax; ret
  () => [0x48, 0x8d, 0x05, 2, 0, 0, 0, 0x50, 0xc3],
  // A loop of three turns with what is in it.
  (r) => [0xb9, 3, 0, 0, 0, 0x48, 0xff, 0x43, (r() % 15) * 8, 0xe2, 0xfa],
  // A byte of the next instructions becomes another.
  (r, at) => [0xc6, 0x04, ABSOLUTE, ...little(BigInt.asUintN(32, KERNEL) + BigInt(CODE + at + 8 + (r() % 24)), 4), pick(r, [0x90, 0x9c, 0xfa, 0x50, 0xc3, r() & 0xff])],
  // mov edi, data; mov ecx, 4; four words stored by a string instruction
  () => [0x48, 0x89, 0xdf, 0xb9, 4, 0, 0, 0, 0xf3, 0x48, 0xab],
  () => [0x0f, 0x01, 0xcb],
  () => [0x0f, 0x01, 0xca],
  () => [0x0f, 0x0b],
  (r) => [r() & 0xff, r() & 0xff],
]

/** Where a program may begin: one of four crosses a page. */
export const randomStart = (random: Random): number => (random() % 4 ? 0 : 0x1000 - (random() % 64))

/** A program of `pieces` pieces, for a place `start` bytes behind CODE. */
export function randomProgram(random: Random, pieces: number, start = 0): number[] {
  const program: number[] = []
  for (let n = 0; n < pieces; n++) program.push(...pick(random, PIECES)(random, start + program.length))
  // Branches beyond the end stop.
  return [...program, ...Array.from({ length: 32 }, () => 0xf4)]
}
