/** The card's EEPROM: 64 words, read by a register or bit by bit. ("EEPROM Interface"; the bits are Microwire's) */

import { Eecd } from './registers.ts'

const WORDS = 64
const CHECKSUM_WORD = 63
/** All words together. */
const CHECKSUM = 0xbaba
const READ = 6
const COMMAND_BITS = 9
/** Initialization control and IDs, as on a desktop adapter. */
const CONTENT: Readonly<Record<number, number>> = {
  4: 0x0020,
  10: 0x4408,
  11: 0x001e,
  12: 0x8086,
  13: 0x100e,
  14: 0x8086,
  15: 0x3040,
  0x21: 0x7061,
}

export class Eeprom {
  readonly words = new Uint16Array(WORDS)
  /** Bits of a read that is going on: command, how many of its bits came, next bit out (-1: the zero before the data). */
  #command = 0
  #bits = 0
  #out = -1
  #pins = 0

  constructor(mac: Uint8Array) {
    for (const [word, value] of Object.entries(CONTENT)) this.words[Number(word)] = value
    for (let word = 0; word < 3; word++) this.words[word] = mac[2 * word]! | (mac[2 * word + 1]! << 8)
    const sum = this.words.subarray(0, CHECKSUM_WORD).reduce((total, word) => total + word, 0)
    this.words[CHECKSUM_WORD] = CHECKSUM - sum
  }

  get pins(): number {
    const { words } = this
    const reading = this.#bits >= COMMAND_BITS && this.#command >> 6 === READ
    const word = ((this.#command & 63) + (this.#out >> 4)) & 63
    const bit = this.#out < 0 ? 0 : (words[word]! >> (15 - (this.#out & 15))) & 1
    return this.#pins | Eecd.granted | Eecd.present | (!reading || bit ? Eecd.out : 0)
  }

  set pins(value: number) {
    const before = this.#pins
    this.#pins = value & Eecd.kept
    if (!(value & Eecd.select)) return
    if (!(before & Eecd.select)) {
      this.#command = this.#bits = 0
      this.#out = -1
    }
    const edge = (value ^ before) & Eecd.clock
    if (!edge) return
    if (this.#bits < COMMAND_BITS) {
      if (!(value & Eecd.clock)) return
      const bit = value & Eecd.in ? 1 : 0
      // A command begins with a one.
      if (this.#bits === 0 && bit === 0) return
      this.#command = (this.#command << 1) | bit
      this.#bits++
    } else if (!(value & Eecd.clock)) this.#out++
  }

  reset(): void {
    this.#command = this.#bits = this.#pins = 0
    this.#out = -1
  }

  save(): number[] {
    return [this.#command, this.#bits, this.#out, this.#pins]
  }

  restore(saved: readonly number[]): void {
    ;[this.#command, this.#bits, this.#out, this.#pins] = saved as [number, number, number, number]
  }
}
