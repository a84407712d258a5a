/** Fills records with initial states: control and status words, stack tops and tags, masks and operands. */
import type { Instruction } from './instructions.ts'
import { bcd, f32, f64, f80, integer, near32, near64, near80, type Random } from './operands.ts'
import { type Batch, RECORD_BYTES, RECORD_WORDS, WORD } from './record.ts'

const ALL_MASKED = 0x3f

export function fillCase(random: Random, batch: Batch, index: number, instruction: Instruction): void {
  const { words, bytes } = batch
  const base = index * RECORD_WORDS
  bytes.set(instruction.code, index * RECORD_BYTES)
  bytes[index * RECORD_BYTES + 7] = instruction.code.length
  fillX87State(random, words, base, instruction)
  fillMxcsr(random, words, base)
  for (let register = 0; register < 8; register++) f80(random, words, base + WORD.st + register * 4)
  const source = instruction.source ?? 1
  if (source && random.below(2)) near80(random, words, base + WORD.st, base + WORD.st + source * 4)
  fillMemory(random, words, base, instruction)
}

function fillX87State(random: Random, words: Uint32Array, base: number, instruction: Instruction): void {
  const masks = random.below(3) ? ALL_MASKED : random.u32() & ALL_MASKED
  const precision = random.pick([0, 2, 3, 3, 3])
  const control = masks | 0x40 | (precision << 8) | (random.below(4) << 10)
  // No exception may be pending when the instruction starts.
  const sticky =
    instruction.name === 'fldcw' ? random.u32() & 0x7f : random.u32() & 0x7f & (masks | 0x40) & -(random.u32() & 1)
  const status =
    (random.u32() & 0x4700) | (random.below(8) << 11) | (sticky & (instruction.name === 'fldcw' ? masks | 0x40 : -1))
  words[base + WORD.control] = control | (status << 16)
  const top = (status >> 11) & 7
  const usual = 0x0f << top
  words[base + WORD.tag] = random.below(6)
    ? (usual | (usual >> 8)) & 0xff
    : random.below(2)
      ? random.u32() & 0xff
      : 0xff
}

function fillMxcsr(random: Random, words: Uint32Array, base: number): void {
  const masks = random.below(6) ? ALL_MASKED : random.u32() & ALL_MASKED
  const sticky = random.below(2) ? 0 : random.u32() & ALL_MASKED & masks
  const modes = random.below(3) ? 0 : random.u32() & 0x8040
  words[base + WORD.mxcsr] = (masks << 7) | sticky | modes | (random.below(4) << 13)
}

function fillMemory(random: Random, words: Uint32Array, base: number, { operands }: Instruction): void {
  const memory = base + WORD.memory
  const { xmm0, xmm1 } = WORD
  words[memory] = words[memory + 1] = words[memory + 2] = words[memory + 3] = 0xa5a5a5a5
  if (operands === 'f32') f32(random, words, memory)
  else if (operands === 'f64') f64(random, words, memory)
  else if (operands === 'f80') f80(random, words, memory)
  else if (operands === 'bcd') bcd(random, words, memory)
  else if (operands === 'integer') {
    integer(random, words, memory)
    integer(random, words, base + WORD.rcx)
  } else if (operands === 'f32x4') {
    for (let lane = 0; lane < 4; lane++) {
      f32(random, words, base + xmm0 + lane)
      f32(random, words, base + xmm1 + lane)
      if (random.below(2)) near32(random, words, base + xmm0 + lane, base + xmm1 + lane)
    }
  } else if (operands === 'f64x2') {
    for (let lane = 0; lane < 4; lane += 2) {
      f64(random, words, base + xmm0 + lane)
      f64(random, words, base + xmm1 + lane)
      if (random.below(2)) near64(random, words, base + xmm0 + lane, base + xmm1 + lane)
    }
  }
}
