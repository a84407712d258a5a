/**
 * Random instruction sequences: short code up to UD2, one in each slot of the world's pages of code, all of a batch in the same mode. A number
 * says which sequence it is, whatever ran before.
 */
import { Random } from '../float/operands.ts'
import { chunk, layOut, Writer, type Item, type Program } from './program.ts'
import { CODE, PAGES } from './world.ts'

/** The longest sequence, and the room that it lies in, in bytes. */
const LONGEST = 256
const SLOT = 1024
const SLOTS_A_PAGE = 4096 / SLOT
/** The first page is shown among the data, and one of the others is not there. (world.ts) */
const CODE_PAGES = Array.from({ length: PAGES }, (_, page) => page).filter((page) => page !== 0 && page !== 9)
/** Sequences that share a mode, and a module of regions. With more of them the garbage collector has more to copy while they are made. */
export const BATCH = 50

const MOST_INSTRUCTIONS = 12

export interface Sequence extends Program {
  /** The item that a second region begins with; the one before jumps there. */
  readonly second?: number
}

/** All sequences of the batch that this one is of have the same. */
function circumstancesOf(number: number): Pick<Program, 'codeSize' | 'user' | 'alignment' | 'stack16'> {
  const random = new Random(Math.floor(number / BATCH) + 1)
  const codeSize = random.pick([64, 64, 64, 32, 32, 16] as const)
  const user = random.below(2) === 1
  return { codeSize, user, alignment: user && random.below(8) === 0, stack16: codeSize === 32 && random.below(6) === 0 }
}

/**
 * Half of them straight lines, the others with branches, and loops and calls in some. A third are in two regions, so that flags go from one to
 * the other uncomputed.
 */
export function randomSequence(number: number): Sequence {
  const circumstances = circumstancesOf(number)
  const random = new Random(number)
  const slot = number % BATCH
  const start = CODE + CODE_PAGES[Math.floor(slot / SLOTS_A_PAGE)]! * 0x1000 + (slot % SLOTS_A_PAGE) * SLOT
  for (;;) {
    const writer = new Writer(random, circumstances.codeSize, { odd: false })
    const { items } = writer
    const before = random.below(3) ? 0 : 1 + random.below(3)
    for (let left = before; left > 0; left--) writer.instruction()
    if (before) items.push(JUMP)
    const second = before ? items.length : undefined
    const count = 1 + random.below(1 + random.below(MOST_INSTRUCTIONS - before))
    if (random.below(2)) writer.straight(count)
    else chunk(writer, count, random.below(2))
    const sequence = { ...circumstances, seed: number, start, items, chunks: [0], ...(second !== undefined && { second }) }
    const { length } = layOut(sequence).bytes
    if (length <= LONGEST) return { ...sequence, start: start + random.below(SLOT - length + 1) }
  }
}

/** To what follows it. */
const JUMP: Item = { bytes: [0xeb, 0], fixups: [], repeats: false }
