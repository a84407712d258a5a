/** FISes that a device sends, as the port leaves them in guest memory. Independent of the register of the port. (Serial ATA, "Frame Information Structure") */

import type { DmaMemory } from '@nonroot/contracts'
import { putLba } from '../ata/disk.ts'
import type { Outcome } from '../ata/disk.ts'
import { LBA_MODE } from '../ata/facts.ts'
import { FIS_INTERRUPT, FIS_TO_HOST, FisType, Received } from './registers.ts'

/** Where the guest wants them; undefined: it does not. False of a method: that is no RAM. */
export class FisReceiver {
  readonly #memory: DmaMemory
  readonly #bytes = new Uint8Array(20)
  base: number | undefined

  constructor(memory: DmaMemory) {
    this.#memory = memory
  }

  #post(at: number, length: number): boolean {
    if (this.base === undefined) return true
    return this.#memory.writeBytes(this.base + at, this.#bytes.subarray(0, length))
  }

  #registers(type: number, flags: number, { status, error, lba, count }: Outcome): Uint8Array {
    const bytes = this.#bytes.fill(0)
    bytes[0] = type
    bytes[1] = flags
    bytes[2] = status
    bytes[3] = error
    putLba(bytes, 4, lba)
    bytes[7] = LBA_MODE
    bytes[12] = count & 0xff
    bytes[13] = (count >> 8) & 0xff
    return bytes
  }

  registers(outcome: Outcome, interrupt: boolean): boolean {
    this.#registers(FisType.deviceToHost, interrupt ? FIS_INTERRUPT : 0, outcome)
    return this.#post(Received.deviceToHost, 20)
  }

  /** The last of a command that reads by PIO: what the status is when the data is over. */
  pioSetup(outcome: Outcome): boolean {
    const bytes = this.#registers(FisType.pioSetup, FIS_INTERRUPT | FIS_TO_HOST, outcome)
    bytes[15] = outcome.status
    bytes[16] = outcome.bytes & 0xff
    bytes[17] = (outcome.bytes >> 8) & 0xff
    return this.#post(Received.pioSetup, 20)
  }

  /** Queued commands that are over, a bit each. */
  setDeviceBits(status: number, error: number, over: number): boolean {
    const bytes = this.#bytes.fill(0)
    bytes[0] = FisType.setDeviceBits
    bytes[1] = FIS_INTERRUPT
    // Bits 3 and 7 are no part of it.
    bytes[2] = status & 0x77
    bytes[3] = error
    new DataView(bytes.buffer).setUint32(4, over, true)
    return this.#post(Received.setDeviceBits, 8)
  }
}
