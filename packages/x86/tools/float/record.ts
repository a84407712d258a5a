/** The record that native/float.c takes and gives: a processor state before or after one instruction. Word indices into 32-bit words. */
export const RECORD_WORDS = 52
export const RECORD_BYTES = RECORD_WORDS * 4

export const WORD = {
  /** Seven bytes of code, then the length; 0xff there in an answer: the instruction faulted. */
  code: 0,
  /** Control word, status word in the upper half. */
  control: 2,
  tag: 3,
  mxcsr: 4,
  eflags: 5,
  rcx: 6,
  memory: 8,
  xmm0: 12,
  xmm1: 16,
  st: 20,
} as const

/** A batch of records, seen in all the ways that are needed. */
export class Batch {
  readonly buffer: ArrayBuffer
  readonly words: Uint32Array
  readonly longs: BigInt64Array
  readonly bytes: Uint8Array
  readonly count: number

  constructor(buffer: ArrayBuffer) {
    this.buffer = buffer
    this.words = new Uint32Array(buffer)
    this.longs = new BigInt64Array(buffer)
    this.bytes = new Uint8Array(buffer)
    this.count = buffer.byteLength / RECORD_BYTES
  }

  static of(count: number): Batch {
    return new Batch(new ArrayBuffer(count * RECORD_BYTES))
  }
}
