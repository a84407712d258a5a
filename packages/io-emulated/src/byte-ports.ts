/** Eight-bit registers behind ports that a guest may access wider. Independent of devices. @hot */

import type { IoHandler, IoSize } from '@nonroot/contracts'

/** Registers of one byte each; `offset` is inside the claimed range. */
export interface ByteRegisters {
  readByte(offset: number): number
  writeByte(offset: number, value: number): void
}

/** A wide access becomes one of each byte, low first, as the ISA bus does for an 8-bit device. Behind the end there are ones. */
export class BytePorts implements IoHandler {
  readonly #registers: ByteRegisters
  readonly #length: number

  constructor(registers: ByteRegisters, length: number) {
    this.#registers = registers
    this.#length = length
  }

  read(offset: number, size: IoSize): number {
    if (size === 1) return this.#registers.readByte(offset)
    let value = 0
    for (let byte = 0; byte < size; byte++) {
      value |= (offset + byte < this.#length ? this.#registers.readByte(offset + byte) : 0xff) << (8 * byte)
    }
    return value >>> 0
  }

  write(offset: number, size: IoSize, value: number): void {
    for (let byte = 0; byte < size && offset + byte < this.#length; byte++) {
      this.#registers.writeByte(offset + byte, (value >>> (8 * byte)) & 0xff)
    }
  }
}
