/** The file of cases that native/harness.c runs, as typed views. Facts of the layout only; harness.c knows them too. */

/** Farther from the data and from NOWHERE than 32-bit bit offsets reach. */
export const CODE = 0x4800_0000
export const CODE_PAGES = 9
export const SLOT = 64
/** An instruction stands in the middle of its slot; the rest is INT3, and the way back behind it. */
export const SLOT_START = 32
/** Where a branch may land inside the slot: before the instruction, and behind the longest with its way back. */
export const SLOT_LANDINGS = [...Array(SLOT_START).keys(), ...Array.from({ length: 8 }, (_, n) => 56 + n)]
export const DATA = 0x2000_0000
export const DATA_SIZE = 0x2000
/** The two pieces of data that are given and taken. */
export const MIDDLE = DATA + 0x1000 - 128
export const MIDDLE_SIZE = 256
export const TAIL = DATA + DATA_SIZE - 64
export const TAIL_SIZE = 64
/** A place that nothing is mapped at. */
export const NOWHERE = 0x6000_0000

export const USES = { vectors: 1, memory: 2 } as const

/** Byte offsets in a state. */
export const STATE = { gpr: 0, rflags: 128, vector: 136, error: 140, cr2: 144, rip: 152, memory: 160, fx: 480, size: 1024 } as const
/** Byte offsets in the FXSAVE image. */
export const FX = { control: 0, status: 2, tag: 4, opcode: 6, ip: 8, dp: 16, mxcsr: 24, st: 32, xmm: 160 } as const

const HEADER = 16
const INSTRUCTION = 32
const MAGIC = 0x656e6f4e

export class Batch {
  readonly bytes: Uint8Array
  readonly u32: Uint32Array
  readonly u16: Uint16Array
  readonly instructions: number
  readonly each: number
  /** Byte offset of the first initial and the first final state. */
  readonly input: number
  readonly output: number

  constructor(instructions: number, each: number, codeSize: 32 | 64) {
    this.instructions = instructions
    this.each = each
    this.input = Math.ceil((HEADER + instructions * INSTRUCTION) / 1024) * 1024
    this.output = this.input + instructions * each * STATE.size
    this.bytes = new Uint8Array(this.output + instructions * each * STATE.size)
    this.u32 = new Uint32Array(this.bytes.buffer)
    this.u16 = new Uint16Array(this.bytes.buffer)
    this.u32.set([MAGIC, instructions, each, codeSize])
  }

  setInstruction(n: number, code: Uint8Array, flags: number, slot = n): void {
    const at = HEADER + n * INSTRUCTION
    this.bytes.fill(0, at, at + INSTRUCTION)
    this.bytes.set(code, at)
    this.bytes[at + 16] = code.length
    this.bytes[at + 17] = flags
    this.u16[(at + 18) >>> 1] = slot
  }
  codeOf(n: number): Uint8Array {
    const at = HEADER + n * INSTRUCTION
    return this.bytes.subarray(at, at + this.bytes[at + 16]!)
  }
  flagsOf(n: number): number {
    return this.bytes[HEADER + n * INSTRUCTION + 17]!
  }
  /** Zeroes an instruction's states, so that what is not used compresses. */
  clear(n: number): void {
    const size = this.each * STATE.size
    this.bytes.fill(0, this.inputOf(n, 0), this.inputOf(n, 0) + size)
    this.bytes.fill(0, this.outputOf(n, 0), this.outputOf(n, 0) + size)
  }
  inputOf(n: number, m: number): number {
    return this.input + (n * this.each + m) * STATE.size
  }
  outputOf(n: number, m: number): number {
    return this.output + (n * this.each + m) * STATE.size
  }
}

export const addressOf = (n: number): number => CODE + n * SLOT + SLOT_START
