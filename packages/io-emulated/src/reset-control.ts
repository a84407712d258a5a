/** Reset control register (0xCF9). (ICH9 datasheet, "RST_CNT") */

import type { PowerControl } from '@nonroot/contracts'

const SYSTEM_RESET = 0x02
const RESET_CPU = 0x04
const FULL_RESET = 0x08
/** What a system writes to reset the machine. */
export const RESET_VALUE = SYSTEM_RESET | RESET_CPU

export class ResetControl {
  value = 0
  readonly #power: PowerControl

  constructor(power: PowerControl) {
    this.#power = power
  }

  write(value: number): void {
    const rising = value & ~this.value & RESET_CPU
    this.value = value & (SYSTEM_RESET | RESET_CPU | FULL_RESET)
    if (rising) this.#power.reset()
  }
}
